"""What the gateway answers hosts whose programs ask for children."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import msgspec
import pytest

from pie_engine.errors import Busy, NotFound
from pie_engine.gateway.children import Children
from pie_engine.gateway.hosts import HostPool
from pie_engine.protocol.program import Bundle, Manifest
from pie_engine.protocol.to_gateway import LaunchChild
from pie_engine.protocol.to_host import ChildRefused

PROGRAMS = {
    "boss": Bundle(Manifest("boss", "1.0"), {"main.py": ""}),
    "worker": Bundle(Manifest("worker"), {"main.py": ""}),
    "built": Bundle(Manifest("built", runtime="component"), blobs={"program.wasm": b""}),
}


class Programs:
    def resolve(self, user: str, reference: str) -> str:
        if reference not in PROGRAMS or user != "ann":
            raise NotFound(f"no program `{reference}`")
        return reference

    def bundle(self, digest: str) -> Bundle:
        return PROGRAMS[digest]


class Table:
    """With one parent, `p1`, of `ann` on the host `h`."""

    def __init__(self) -> None:
        record = SimpleNamespace(user="ann", digest="boss", program="boss")
        self.parent = SimpleNamespace(pid="p1", host_boot="h", record=record)
        self.known: dict[str, object] = {}
        self.entered: list[object] = []
        self.refusal: Exception | None = None

    def living(self, pid):
        return self.parent if pid == "p1" else None

    def launched_before(self, user, key):
        return self.known.get(key)

    def check_room(self, user, manifest, endowment):
        assert endowment == 0, "a child brings no new credits"

    def new_id(self):
        return 7

    async def enter(self, record, bundle, host):
        if self.refusal is not None:
            raise self.refusal
        self.entered.append((record, host.name))


class Rig:
    def __init__(self, max_processes: int = 4) -> None:
        self.table, self.said = Table(), []
        pool = HostPool(max_processes)
        self.host = pool.add("h", "host-1")
        turn = SimpleNamespace(say=lambda boot, order: self.said.append((boot, order)))
        self.children = Children(self.table, Programs(), pool, turn, max_input_bytes=100)  # type: ignore[arg-type]

    async def ask(self, program: str = "worker", *, parent: str = "p1", input: str = "{}", boot: str = "h") -> None:
        self.children.asked(boot, LaunchChild(parent, 3, program, input, 50))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    @property
    def refused(self) -> ChildRefused:
        ((boot, order),) = self.said
        assert (boot, order.parent, order.request) == ("h", "p1", 3)
        return order.error


@pytest.fixture
async def rig():
    return Rig()


async def test_a_child_is_a_process_of_its_user_in_the_host_of_its_parent(rig):
    await rig.ask()
    ((record, host),) = rig.table.entered
    assert (host, record.user, record.program, record.input) == ("host-1", "ann", "worker", "{}")
    assert (record.parent, record.request, record.inherits, record.endowment) == ("p1", 3, 50, 0)
    assert rig.said == []


@pytest.mark.parametrize("name", ["boss", "boss@1.0"])
async def test_its_own_name_is_the_program_that_runs(rig, name):
    await rig.ask(name)
    assert rig.table.entered[0][0].digest == "boss"


async def test_what_is_not_there_is_refused(rig):
    await rig.ask("nobody")
    assert (rig.refused.code, rig.refused.message) == ("not_found", "no program `nobody`")


async def test_components_and_source_do_not_share_a_host(rig):
    await rig.ask("built")
    assert rig.refused.message.startswith("`built` is a standalone component, and its parent `boss` is a program in so")
    assert "both in source" in rig.refused.hint


async def test_a_full_host_refuses_instead_of_letting_parent_and_child_wait_for_each_other():
    rig = Rig(max_processes=1)
    rig.host.pids.add("p1")
    await rig.ask()
    assert (rig.refused.code, rig.refused.message) == (
        "queue_limit",
        "the host of `boss` runs 1 processes, and that is the most",
    )
    assert "host.max_processes" in rig.refused.hint


async def test_the_size_of_the_input_is_bounded(rig):
    await rig.ask(input='{"a": "%s"}' % ("x" * 100))
    assert rig.refused.message == "the input of a child is 109 characters, and 100 are the most"
    assert "gateway.max_body_mb" in rig.refused.hint


async def test_input_that_is_no_object_is_refused(rig):
    await rig.ask(input="[1]")
    assert rig.refused.message == "`input` is not a JSON object"


async def test_what_the_database_refuses_is_refused(rig):
    rig.table.refusal = Busy("the disk is full")
    await rig.ask()
    assert (rig.refused.code, rig.refused.retry) == ("busy", True)


async def test_nobody_is_told_where_the_parent_is_gone_or_elsewhere(rig):
    await rig.ask(parent="p2")
    await rig.ask(boot="other")
    assert rig.said == rig.table.entered == []


async def test_asked_again_it_is_the_same_child(rig):
    rig.table.known["child 3 of p1"] = SimpleNamespace(has_terminal=False, pid="p9")
    await rig.ask()
    assert rig.said == rig.table.entered == []


async def test_one_that_has_ended_unheard_is_lost(rig):
    rig.table.known["child 3 of p1"] = SimpleNamespace(has_terminal=True, pid="p9")
    await rig.ask()
    assert (rig.refused.code, "p9" in rig.refused.message) == ("lost", True)


def test_messages_survive_the_wire():
    for message in (LaunchChild("p", 1, "w", "{}", None), ChildRefused("p", 1, NotFound("no").info)):
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=type(message)) == message
