"""A core without a model: says that it is ready, sends numbers to the gateway, ends when told."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from pie_engine.errors import ModelError, NotFound
from pie_engine.ipc.child import EXIT_START_FAILED, be_born
from pie_engine.ipc.link import Hub, Link
from pie_engine.protocol.stats import Batches, ContextState
from pie_engine.protocol.to_core import CoreMessage, CoreOrder, ListContexts, LoadAdapter, ReportEvery
from pie_engine.protocol.to_daemon import Shutdown, StartFailed, Topology
from pie_engine.protocol.to_gateway import AdapterAnswer, ContextList, CoreStats

NUM_PAGES = 64
CONTEXT = ContextState(1, None, "tiny", "idle", 20, 2, 0, 0, 0)


def stats(model: str, peak_sequences: int = 0) -> CoreStats:
    return CoreStats(model, NUM_PAGES, NUM_PAGES, 0, Batches(peak_sequences=peak_sequences))


def main() -> None:
    child = be_born()
    birth = child.birth
    if birth.name == "broken":
        child.fail_start(ModelError("broken: no such model", hint="name another"))
    if birth.name == "lingering":
        child.say(StartFailed(ModelError("lingering: no such model").info))
        time.sleep(1.0)
        child.close()
        sys.exit(EXIT_START_FAILED)
    if birth.name == "dying":
        print("famous last words", file=sys.stderr, flush=True)
        os._exit(3)
    Hub(child.context, birth.address, birth.boot_id, CoreMessage)
    child.progress("loading", 0.5)
    if birth.name == "slow":
        _wait_for(Path(child.config.home) / "go")
    detail = {
        "driver": "fake",
        "max_context_tokens": 2048,
        "num_pages": NUM_PAGES,
        "model_id": "fake-1",
        "page_size": 16,
    }
    child.ready(**detail)
    adapters: dict[str, dict[str, object]] = {}
    links: dict[str, Link] = {}
    while True:
        child.home.socket.poll(20)
        for link in links.values():
            for order in link.receive():
                if isinstance(order, ReportEvery):
                    # Says how often it is asked to report, and reports once.
                    link.send([stats(birth.name, peak_sequences=round(order.interval_s * 1000))])
                    continue
                if isinstance(order, ListContexts):
                    link.send([ContextList(order.request, [CONTEXT])])
                    continue
                if order.name == "dying":
                    os._exit(3)
                error = None
                if order.name == "broken":
                    error = ModelError("the adapter is broken").info
                elif isinstance(order, LoadAdapter):
                    adapters[order.name] = {"name": order.name, "adapter_id": "id", "folder": order.folder, "rank": 4}
                elif adapters.pop(order.name, None) is None:
                    error = NotFound(f"{birth.name} has no adapter called `{order.name}`").info
                child.ready(**detail, adapters=list(adapters.values()))
                link.send([AdapterAnswer(order.request, error)])
        for message in child.home.receive():
            if isinstance(message, Shutdown):
                child.close()
                return
            if isinstance(message, Topology):
                for member in message.members:
                    if member.role == "gateway" and member.is_ready and member.boot_id not in links:
                        link = Link(child.context, member.address, birth.boot_id, member.boot_id, CoreOrder)
                        links[member.boot_id] = link
                        link.send([stats(birth.name)])


def _wait_for(file: Path) -> None:
    """The test makes it."""
    end = time.monotonic() + 60
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.02)


if __name__ == "__main__":
    main()
