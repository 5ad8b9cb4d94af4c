"""The gateway's parts without processes: contexts, group commit, hosts, health, locks and sockets."""

from __future__ import annotations

import asyncio
import sqlite3
from types import SimpleNamespace

import msgspec
import pytest

from pie_engine.config import EngineConfig, ModelSection
from pie_engine.errors import (
    Busy,
    InvalidConfig,
    InvalidProgram,
    LimitExceeded,
    Lost,
    NotFound,
    PieError,
    ProtocolMismatch,
)
from pie_engine.gateway import single as single_module
from pie_engine.gateway import turn as turn_module
from pie_engine.gateway.contexts import ContextShelf
from pie_engine.gateway.hosts import HostPool, lane_of
from pie_engine.gateway.numbers import CoreNumbers
from pie_engine.gateway.problems import Conflict, TooLarge, status_of, translated
from pie_engine.gateway.process import Process
from pie_engine.gateway.sockets import ApiSocket, tcp_socket
from pie_engine.gateway.turn import Turn
from pie_engine.gateway.views import status_of as health_of
from pie_engine.protocol.program import Manifest
from pie_engine.protocol.stats import Batches
from pie_engine.protocol.to_daemon import Member
from pie_engine.protocol.to_gateway import CoreStats, Event, ProcessUsage
from pie_engine.store.contexts import SavedContexts
from tests.unit.test_store import record


def test_files_are_taken_in_for_models_that_are_loaded(tmp_path):
    config = EngineConfig(models=[ModelSection(name="tiny"), ModelSection(name="slow")], home=str(tmp_path))
    ready = Member("core", "tiny", "b", "a", is_ready=True, os_pid=1, detail={"model_id": "id", "page_size": 16})
    loading = Member("core", "slow", "b", "a", is_ready=False, os_pid=2)
    shelf = ContextShelf(config, SimpleNamespace(members=[loading, ready]))
    shelf.receive("ann", "")
    with pytest.raises(Busy, match="model slow is not loaded"):
        shelf.receive("ann", "slow")
    with pytest.raises(NotFound, match=r"no model is called `huge`"):
        shelf.receive("ann", "huge")


def test_contexts_are_usable_with_the_weights_and_the_adapter_that_they_were_saved_with(tmp_path):
    config = EngineConfig(models=[ModelSection(name="tiny")], home=str(tmp_path))
    adapters = [{"name": "tone", "adapter_id": "1", "folder": "/tone"}, {"name": "gone", "failed": {"code": "x"}}]
    detail = {"model_id": "id", "page_size": 16, "adapters": adapters, "driver": "fake"}
    exchange = SimpleNamespace(members=[Member("core", "tiny", "b", "a", is_ready=True, os_pid=1, detail=detail)])
    shelf = ContextShelf(config, exchange)
    for name, model_id, adapter, adapter_id in (
        ("plain", "id", "", ""),
        ("with", "id", "tone", "1"),
        ("changed", "id", "tone", "2"),
        ("failed", "id", "gone", "1"),
        ("other", "id-2", "tone", "1"),
    ):
        SavedContexts(config.paths.saved_contexts).write(
            "ann", "tiny", name, b"kv", model_id=model_id, page_size=16, tokens=[1], meta="", adapter=adapter,
            adapter_id=adapter_id, quota_bytes=1 << 20,
        )  # fmt: skip
    (config.paths.saved_contexts / "uann" / "mtiny" / "a%20b.json").write_text('{"format": 1}')
    listed = {view.name: view for view in shelf.list("ann", "")}
    usable = {"plain": True, "with": True, "changed": False, "failed": False, "other": False, "a b": None}
    assert {name: view.fits for name, view in listed.items()} == usable
    assert [listed["with"].adapter, listed["plain"].adapter] == ["tone", ""]
    assert "has format 1" in listed["a b"].failed.message
    exchange.members.clear()
    assert shelf.find("ann", "", "plain").fits is None


class Sent:
    """What a turn said to hosts and told of stored events, in order."""

    def __init__(self, store):
        self.said = []
        self.turn = Turn(store, lambda boot, orders: self.said.append((boot, list(orders))), self.stored)

    def stored(self, events):
        self.said.append(("stored", [event.seq for _, event in events]))


# Group commit.


async def test_a_turn_is_one_transaction_and_speaks_after_it(store):
    sent, order = Sent(store), []
    process = Process(record(1))
    done = sent.turn.write(lambda store: store.add_process(process.record), lambda: order.append(len(store.alive())))
    sent.turn.append(process, Event("p1", 1, "started", "{}", 1.0))
    sent.turn.say("host", "hello")
    assert sent.said == []
    assert store.alive() == []
    await done
    assert order == [1]
    assert sent.said == [("stored", [1]), ("host", ["hello"])]


async def test_a_refused_turn_fails_its_writes_and_keeps_its_events(store, monkeypatch):
    monkeypatch.setattr(turn_module, "RETRY_S", 0.01)
    sent, is_broken = Sent(store), True
    process = Process(record(1))

    def change(_):
        if is_broken:
            raise sqlite3.OperationalError("database or disk is full")

    done = sent.turn.write(change)
    sent.turn.insist(lambda store: store.add_process(process.record))
    sent.turn.append(process, Event("p1", 1, "return", "null", 1.0))
    with pytest.raises(PieError, match="disk is full"):
        await done
    assert sent.said == []
    while not sent.said:
        await asyncio.sleep(0.005)
    assert sent.said == [("stored", [1])]
    assert store.process("p1").outcome == "return"


async def test_a_follow_up_that_fails_does_not_keep_others_from_theirs(store, caplog):
    sent, followed = Sent(store), []
    first = sent.turn.write(lambda store: None, lambda: 1 / 0)
    second = sent.turn.write(lambda store: None, lambda: followed.append(2))
    await asyncio.gather(first, second)
    assert followed == [2]
    assert "ZeroDivisionError" in caplog.text


async def test_what_a_commit_sets_off_is_written_in_the_next_turn(store):
    sent = Sent(store)
    later = asyncio.get_running_loop().create_future()

    def then():
        sent.turn.insist(lambda store: store.set_meta("k", "v"), lambda: later.set_result(store.meta("k")))

    await sent.turn.write(lambda store: None, then)
    assert await later == "v"


# Hosts.


def test_components_of_a_user_go_to_hosts_of_their_own():
    pool, asked = HostPool(max_processes_per_host=1), []
    pool.need = asked.append
    pool.add("a", "host-0")
    assert (pool.pick("ann"), asked) == (None, ["ann"])
    own = pool.add("b", "components-ann", "ann")
    assert pool.pick("ann") is own
    own.pids.add("p1")
    assert (pool.pick("ann"), asked) == (None, ["ann"]), "one is there already"
    assert pool.pick().boot_id == "a"
    assert lane_of(Manifest(name="x"), "ann") == ""
    assert lane_of(Manifest(name="x", runtime="component"), "ann") == "ann"


def test_the_least_loaded_host_with_room_is_next():
    pool = HostPool(max_processes_per_host=2)
    assert pool.pick() is None
    first, second = pool.add("b1", "host-0"), pool.add("b2", "host-1")
    for number in range(4):
        pool.pick().pids.add(f"p{number}")
    assert (len(first.pids), len(second.pids)) == (2, 2)
    assert pool.pick() is None
    pool.release("b2", next(iter(second.pids)))
    assert pool.pick() is second
    pool.release("gone", "p")
    pool.remove("b2")
    assert pool.pick() is None


# Errors and health.


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidConfig("x"), 400),
        (InvalidProgram("x"), 422),
        (NotFound("x"), 404),
        (Conflict("x"), 409),
        (TooLarge("x"), 413),
        (ProtocolMismatch("x"), 426),
        (LimitExceeded.of("queue_limit", "x"), 429),
        (Lost.of("host_lost", "x"), 503),
        (PieError("x"), 500),
        (translated(KeyError("x")), 500),
        (translated(sqlite3.OperationalError("disk is full")), 503),
    ],
)
def test_each_error_has_its_status(error, status):
    assert status_of(error) == status


def seat(role, *, ready=True, **detail):
    return Member(role, role, "b", "a", ready, 1, detail)


@pytest.mark.parametrize(
    ("members", "incidents", "has_host", "status"),
    [
        ([], [], False, "starting"),
        ([seat("host"), seat("core", ready=False)], [], True, "starting"),
        ([seat("host"), seat("core")], [], False, "starting"),
        ([seat("host"), seat("core")], ["12:00 …"], True, "ok"),
        ([seat("host"), seat("core", ready=False)], ["12:00 …"], True, "degraded"),
        ([seat("host"), seat("core", ready=False, failed={})], [], True, "degraded"),
    ],
)
def test_health(members, incidents, has_host, status):
    assert health_of(members, incidents, has_host) == status


# Locks and sockets.


def test_there_is_one_gateway_of_a_home(tmp_path, monkeypatch):
    monkeypatch.setattr(single_module, "PATIENCE_S", 0.05)
    first = single_module.SingleGateway(tmp_path / "gateway.lock")
    with pytest.raises(Busy, match="another gateway"):
        single_module.SingleGateway(tmp_path / "gateway.lock")
    first.release()
    single_module.SingleGateway(tmp_path / "gateway.lock").release()


def test_the_api_socket_replaces_what_is_there_and_is_private(tmp_path):
    path = tmp_path / "api.sock"
    path.write_text("left behind")
    first = ApiSocket(path)
    assert path.is_socket()
    assert path.stat().st_mode & 0o777 == 0o600
    second = ApiSocket(path)
    first.remove()
    assert path.is_socket()
    second.remove()
    assert not path.exists()
    assert list(tmp_path.iterdir()) == []
    first.socket.close()
    second.socket.close()


@pytest.mark.parametrize("listen", ["0.0.0.0:80", "example.com:80", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:99999"])
def test_tcp_is_refused_for_anything_but_a_loopback_port(listen):
    with pytest.raises(InvalidConfig):
        tcp_socket(listen)


def test_programs_are_parts_of_what_had_run_when_they_were_looked_at():
    numbers = CoreNumbers()
    report = CoreStats("tiny", 4, 4, 0, Batches(num_prefill_tokens=5, num_decode_tokens=3, num_draft_tokens=2))
    assert numbers.looked_tokens("a") == 0
    numbers.take("a", msgspec.structs.replace(report, processes=[ProcessUsage("p", 1, 1, 3, "running")]), 0.0)
    numbers.take("a", msgspec.structs.replace(report, batches=Batches(num_decode_tokens=90), processes=None), 1.0)
    assert numbers.looked_tokens("a") == 10
    numbers.forget("a")
    assert numbers.looked_tokens("a") == 0
