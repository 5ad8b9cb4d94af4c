"""A core as a real process, with this test in the places of daemon, gateway and host."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import zmq

from pie_engine.config import ModelSection, Paths
from pie_engine.ipc.child import DAEMON_BOOT, EXIT_PARENT_GONE, EXIT_START_FAILED
from pie_engine.ipc.link import Hub, Link
from pie_engine.protocol.plan import Plan
from pie_engine.protocol.to_core import (
    Append,
    CoreOrder,
    CreateContext,
    Delivered,
    Flush,
    Generate,
    LoadAdapter,
    OpenProcess,
    UnloadAdapter,
)
from pie_engine.protocol.to_daemon import Birth, DaemonMessage, Member, Ready, Shutdown, StartFailed, Topology
from pie_engine.protocol.to_gateway import AdapterAnswer, CoreStats, GatewayMessage
from pie_engine.protocol.to_host import Chunk, CoreResult, Failed, Flushed
from tests.adapter_files import write_small
from tests.unit.core_rig import byte_tokenizer

TIMEOUT_S = 20


class Surroundings:
    """Everything around one core process."""

    def __init__(self, folder: Path, section: ModelSection) -> None:
        self.folder = folder
        self.context: zmq.Context[Any] = zmq.Context()
        self.daemon: Hub[DaemonMessage] = Hub(self.context, self.address("daemon"), DAEMON_BOOT, DaemonMessage)
        self.gateway: Hub[GatewayMessage] = Hub(self.context, self.address("gateway"), "gateway-1", GatewayMessage)
        self.said: list[DaemonMessage] = []
        self.stats: list[CoreStats] = []
        self.answers: list[AdapterAnswer] = []
        self.links: list[Link[CoreResult]] = []
        self.process = subprocess.Popen([sys.executable, "-m", "pie_engine.core"], stdin=subprocess.PIPE)
        config = {"home": str(folder), "models": [msgspec.to_builtins(section)]}
        birth = Birth("core", section.label, "core-1", self.address("core"), self.address("daemon"), config)
        self.write(msgspec.json.encode(birth) + b"\n")

    def address(self, name: str) -> str:
        return f"ipc://{self.folder}/{name}.sock"

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def member(self, role: Any, boot_id: str) -> Member:
        return Member(role, role, boot_id, self.address(role), True, 0)

    def tell_topology(self, *hosts: str) -> None:
        members = [self.member("gateway", "gateway-1"), *(self.member("host", boot_id) for boot_id in hosts)]
        self.daemon.send("core-1", [Topology(members)])

    def host(self, boot_id: str) -> Link[CoreResult]:
        link: Link[CoreResult] = Link(self.context, self.address("core"), boot_id, "core-1", CoreResult)
        self.links.append(link)
        return link

    def until(self, condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            self.said += [message for _, messages in self.daemon.receive() for message in messages]
            for _, messages in self.gateway.receive():
                self.stats += [message for message in messages if isinstance(message, CoreStats)]
                self.answers += [message for message in messages if isinstance(message, AdapterAnswer)]
            if result := condition():
                return result
            time.sleep(0.005)
        raise AssertionError("not in time")

    def until_ready(self) -> Ready:
        ready = self.until(lambda: [message for message in self.said if isinstance(message, Ready)])
        assert isinstance(ready[0], Ready)
        return ready[0]

    def until_exit(self) -> int:
        return self.process.wait(TIMEOUT_S)

    def results(self, link: Link[CoreResult], count: int) -> list[CoreResult]:
        arrived: list[CoreResult] = []

        def are_there() -> bool:
            arrived.extend(link.receive())
            return len(arrived) >= count

        self.until(are_there)
        return arrived

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        for link in self.links:
            link.close()
        self.daemon.close()
        self.gateway.close()
        self.context.term()


@pytest.fixture
def start() -> Iterator[Callable[..., Surroundings]]:
    started: list[Surroundings] = []
    with tempfile.TemporaryDirectory(prefix="pie-c-") as name:
        folder = Path(name)
        (folder / "run").mkdir()
        tokenizer = byte_tokenizer()
        tokenizer._load().save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))

        def begin(script: dict[str, object] | None = None, **fields: object) -> Surroundings:
            script_file = folder / "script.json"
            script_file.write_text(json.dumps(script or {}))
            values = {
                "path": str(folder),
                "name": "test",
                "driver": "fake",
                "script": str(script_file),
                "num_pages": 64,
            }
            started.append(Surroundings(folder, ModelSection(**(values | fields))))  # type: ignore[arg-type]
            return started[-1]

        yield begin
        for surroundings in started:
            surroundings.close()


def generate(link: Link[CoreResult], pid: str = "p1", **fields: Any) -> None:
    plan = Plan(**fields)
    link.send([OpenProcess(pid, "test"), CreateContext(1, pid, 7), Append(1, [1, 2, 3]), Generate(1, 1, plan)])


def test_it_serves_a_host_reports_and_ends(start: Callable[..., Surroundings]) -> None:
    around = start()
    ready = around.until_ready()
    assert (ready.detail["model"], ready.detail["driver"], ready.detail["num_pages"]) == ("test", "fake", 64)
    # What the API shows has no addresses in it; who may look into the process finds them in the home.
    assert "kv_regions" not in ready.detail
    regions = Paths(around.folder, around.folder).kv_regions(around.process.pid)
    assert all(size > 0 for _, size in json.loads(regions.read_text()))
    around.tell_topology("host-1")
    link = around.host("host-1")
    generate(link, max_tokens=1)
    (chunk,) = around.results(link, 1)
    assert isinstance(chunk, Chunk)
    assert (len(chunk.ids), chunk.finish) == (1, "length")
    around.until(lambda: any(usage.pid == "p1" for stats in around.stats for usage in stats.processes))
    around.daemon.send("core-1", [Shutdown(1.0)])
    assert around.until_exit() == 0
    assert not regions.exists()


def test_a_parked_plan_sends_its_chunk_in_time_and_goes_on_when_read(start: Callable[..., Surroundings]) -> None:
    around = start()
    around.until_ready()
    link = around.host("host-1")
    generate(link, max_tokens=100)
    chunks: list[Any] = []

    def num_tokens() -> int:
        chunks.extend(each for each in link.receive() if isinstance(each, Chunk))
        return sum(len(chunk.ids) for chunk in chunks)

    around.until(lambda: num_tokens() == 64)
    time.sleep(0.05)
    assert num_tokens() == 64
    link.send([Delivered(1, 0, 64)])
    around.until(lambda: num_tokens() == 100)
    assert chunks[-1].finish == "length"


def test_the_death_of_a_host_frees_what_it_had(start: Callable[..., Surroundings]) -> None:
    around = start()
    around.until_ready()
    around.tell_topology("host-1", "host-2")
    first, second = around.host("host-1"), around.host("host-2")
    generate(first, "p1", max_tokens=40)
    generate(second, "p2", max_tokens=1000)
    around.until(lambda: around.stats and len(around.stats[-1].processes) == 2)
    around.tell_topology("host-1")
    around.until(lambda: [usage.pid for usage in around.stats[-1].processes] == ["p1"])
    # What the dead still says is not heard.
    generate(second, "p3")
    first.send([Flush(9, 1)])
    around.until(lambda: any(isinstance(result, Flushed) for result in first.receive()))
    around.tell_topology()
    around.until(lambda: around.stats[-1].num_free_pages == 64)
    assert around.stats[-1].num_violations == 0


def test_adapters_come_and_go_by_order_and_stay_over_a_restart(
    start: Callable[..., Surroundings], tmp_path: Path
) -> None:
    folders = {name: str(write_small(tmp_path / name, value)) for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0))}
    adapters = {"fixed": folders["a"]}
    around = start(adapters=adapters)
    assert [entry["name"] for entry in adapters_of(around.until_ready())] == ["fixed"]
    around.tell_topology()
    around.until(lambda: around.stats)

    def order(message: CoreOrder) -> AdapterAnswer:
        around.gateway.send("core-1", [message])
        answers = around.until(lambda: [answer for answer in around.answers if answer.request == message.request])
        assert isinstance(answers[0], AdapterAnswer)
        return answers[0]

    for request, name in enumerate("bc", 1):
        assert order(LoadAdapter(request, name, folders[name])).error is None
    assert order(UnloadAdapter(3, "c")).error is None
    refused = [
        order(UnloadAdapter(4, "fixed")),
        order(LoadAdapter(5, "b", "somewhere")),
        order(LoadAdapter(6, "x", str(tmp_path / "nowhere"))),
        order(UnloadAdapter(7, "c")),
    ]
    codes = [answer.error.code for answer in refused if answer.error is not None]
    assert codes == ["invalid_input", "invalid_input", "not_found", "not_found"]
    said = adapters_of(around.said[-1])
    assert [(entry["name"], entry["rank"], entry["configured"]) for entry in said] == [
        ("fixed", 2, True),
        ("b", 2, False),
    ]
    around.daemon.send("core-1", [Shutdown(1.0)])
    around.until_exit()
    around.close()

    shutil.rmtree(folders["b"])
    again = adapters_of(start(adapters=adapters).until_ready())
    assert [(entry["name"], "failed" in entry) for entry in again] == [("fixed", False), ("b", True)]


def adapters_of(ready: DaemonMessage) -> list[dict[str, Any]]:
    assert isinstance(ready, Ready)
    return cast("list[dict[str, Any]]", ready.detail["adapters"])


def test_a_device_failure_is_told_and_ends_the_process(start: Callable[..., Surroundings]) -> None:
    around = start({"faults": [{"step": 3, "message": "out of luck"}]})
    around.until_ready()
    link = around.host("host-1")
    generate(link, max_tokens=50)
    *_, last = around.results(link, 2)
    assert isinstance(last, Failed)
    assert last.error.code == "core_lost"
    assert "out of luck" in last.error.message
    assert around.until_exit() not in (0, EXIT_START_FAILED)


def test_a_model_that_cannot_be_loaded_is_told_to_the_daemon(start: Callable[..., Surroundings]) -> None:
    around = start(path="/no/such/model", script="")
    failed = around.until(lambda: [message for message in around.said if isinstance(message, StartFailed)])
    assert "/no/such/model" in failed[0].error.message
    assert around.until_exit() == EXIT_START_FAILED


def test_it_dies_with_its_parent(start: Callable[..., Surroundings]) -> None:
    around = start()
    around.until_ready()
    assert around.process.stdin is not None
    around.process.stdin.close()
    assert around.until_exit() == EXIT_PARENT_GONE
