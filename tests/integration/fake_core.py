"""A core without a model: says that it is ready, sends numbers to the gateway, ends when told."""

from __future__ import annotations

import os
import sys
import time

from pie_engine.errors import ModelError
from pie_engine.ipc.child import EXIT_START_FAILED, be_born
from pie_engine.ipc.link import Hub, Link
from pie_engine.protocol.to_core import CoreMessage
from pie_engine.protocol.to_daemon import Shutdown, StartFailed, Topology
from pie_engine.protocol.to_gateway import CoreStats
from pie_engine.protocol.to_host import GatewayOrder

NUM_PAGES = 64


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
    time.sleep(1.0 if birth.name == "slow" else 0.0)
    child.ready(driver="fake", max_context_tokens=2048, num_pages=NUM_PAGES, model_id="fake-1", page_size=16)
    links: dict[str, Link] = {}
    while True:
        child.home.socket.poll(500)
        for message in child.home.receive():
            if isinstance(message, Shutdown):
                child.close()
                return
            if isinstance(message, Topology):
                for member in message.members:
                    if member.role == "gateway" and member.is_ready and member.boot_id not in links:
                        link = Link(child.context, member.address, birth.boot_id, member.boot_id, GatewayOrder)
                        links[member.boot_id] = link
                        link.send([CoreStats(birth.name, NUM_PAGES, NUM_PAGES, 0, 0, 0, 0)])


if __name__ == "__main__":
    main()
