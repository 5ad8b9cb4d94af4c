"""A host as a real process, with this test in the places of daemon and gateway."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from pie_engine.ipc.child import DAEMON_BOOT, EXIT_PARENT_GONE
from pie_engine.ipc.link import Hub
from pie_engine.protocol.program import Bundle, Manifest
from pie_engine.protocol.to_daemon import Birth, DaemonMessage, Member, Ready, Shutdown, Topology
from pie_engine.protocol.to_gateway import Event, GatewayMessage, HostReport, HostStats, Registered
from pie_engine.protocol.to_host import Deliver, EventsStored, Launch

CACHE = Path(__file__).parents[2] / "build" / "test-cache"
TIMEOUT_S = 60
WAITER = Bundle(
    Manifest(name="waiter"),
    files={"main.py": "from inferlet import session\nasync def main() -> str:\n    return await session.receive()\n"},
)


class Surroundings:
    """Everything around one host process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context: zmq.Context[Any] = zmq.Context()
        self.daemon: Hub[DaemonMessage] = Hub(self.context, self.address("daemon"), DAEMON_BOOT, DaemonMessage)
        self.gateways: dict[str, Hub[GatewayMessage]] = {}
        self.said: list[DaemonMessage] = []
        self.reports: dict[str, list[HostReport]] = {}
        self.process = subprocess.Popen([sys.executable, "-m", "pie_engine.host"], stdin=subprocess.PIPE)
        config = {"home": str(folder), "cache": str(CACHE), "host": {"warm_instances": 1}}
        birth = Birth("host", "host-0", "host-1", self.address("host"), self.address("daemon"), config)
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(birth) + b"\n")
        self.process.stdin.flush()

    def address(self, name: str) -> str:
        return f"ipc://{self.folder}/{name}.sock"

    def add_gateway(self, boot_id: str) -> None:
        """The only one there is from now on."""
        address = self.address(boot_id)
        self.gateways[boot_id] = Hub(self.context, address, boot_id, GatewayMessage)
        self.reports[boot_id] = []
        self.tell(Topology([Member("gateway", "gateway", boot_id, address, True, 0)]))

    def tell(self, message: Any) -> None:
        self.daemon.send("host-1", [message])

    def order(self, *orders: Any) -> None:
        newest = list(self.gateways)[-1]
        self.gateways[newest].send("host-1", orders)

    def until(self, condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            self.said += [message for _, messages in self.daemon.receive() for message in messages]
            for boot_id, hub in self.gateways.items():
                for _, messages in hub.receive():
                    self.reports[boot_id] += messages  # type: ignore[arg-type]
            if result := condition():
                return result
            time.sleep(0.005)
        raise AssertionError("not in time")

    def heard(self, boot_id: str, kind: type) -> list[Any]:
        return [report for report in self.reports[boot_id] if isinstance(report, kind)]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        for hub in (self.daemon, *self.gateways.values()):
            hub.close()
        self.context.term()


@pytest.fixture
def around() -> Iterator[Surroundings]:
    with tempfile.TemporaryDirectory(prefix="pie-h-") as name:
        around = Surroundings(Path(name))
        around.until(lambda: any(isinstance(message, Ready) for message in around.said))
        around.add_gateway("gateway-1")
        around.until(lambda: around.heard("gateway-1", Registered))
        yield around
        around.close()


def launch(pid: str) -> Launch:
    return Launch(pid, "ann", WAITER.digest, WAITER, "{}")


def test_a_program_runs_and_numbers_come(around):
    assert around.heard("gateway-1", Registered) == [Registered([])]
    around.order(launch("p1"), Deliver("p1", 1, '"hello"'))
    around.until(lambda: len(around.heard("gateway-1", Event)) == 2)
    started, returned = around.heard("gateway-1", Event)
    assert (started.kind, returned.kind, returned.data) == ("started", "return", '"hello"')
    around.until(lambda: around.heard("gateway-1", HostStats))
    assert around.heard("gateway-1", HostStats)[-1].rss_bytes > 10_000_000


def test_a_new_gateway_gets_what_the_old_one_did_not_store(around):
    around.order(launch("p1"), launch("p2"))
    around.until(lambda: len(around.heard("gateway-1", Event)) == 2)
    around.order(EventsStored("p1", 1))
    around.order(Deliver("p2", 1, '"done"'))
    around.until(lambda: len(around.heard("gateway-1", Event)) == 3)
    around.add_gateway("gateway-2")
    around.until(lambda: around.heard("gateway-2", Registered))
    around.until(lambda: len(around.heard("gateway-2", Event)) == 2)
    assert set(around.heard("gateway-2", Registered)[0].pids) == {"p1", "p2"}
    assert [(event.pid, event.seq) for event in around.heard("gateway-2", Event)] == [("p2", 1), ("p2", 2)]
    around.order(Deliver("p1", 1, '"on"'))
    around.until(lambda: len(around.heard("gateway-2", Event)) == 3)
    assert around.heard("gateway-2", Event)[-1].data == '"on"'


def test_told_to_end_it_ends_its_programs_and_exits(around):
    around.order(launch("p1"))
    around.until(lambda: around.heard("gateway-1", Event))
    around.tell(Shutdown(1.0))
    around.until(lambda: any(event.is_terminal for event in around.heard("gateway-1", Event)))
    assert around.process.wait(TIMEOUT_S) == 0
    assert json.loads(around.heard("gateway-1", Event)[-1].data)["code"] == "daemon_stopped"


def test_it_dies_with_its_daemon(around):
    around.process.stdin.close()
    assert around.process.wait(TIMEOUT_S) == EXIT_PARENT_GONE
