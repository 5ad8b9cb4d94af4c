"""Credits of processes: what users may have, and what changes while they run."""

from __future__ import annotations

import asyncio
import math

import msgspec
import pytest

from pie_engine.config import EngineConfig, SchedulingSection, UserSection
from pie_engine.errors import InvalidInput, LimitExceeded, PieError
from pie_engine.gateway.hosts import HostPool
from pie_engine.gateway.problems import Conflict
from pie_engine.gateway.programs import Programs
from pie_engine.gateway.secret_shelf import SecretShelf
from pie_engine.gateway.table import ProcessTable
from pie_engine.gateway.turn import Turn
from pie_engine.protocol.credits import CREDIT
from pie_engine.protocol.http import LaunchRequest
from pie_engine.protocol.program import Bundle, Manifest
from pie_engine.protocol.to_gateway import Event, Registered
from pie_engine.protocol.to_host import BidForProcess, EndowProcess, Launch
from pie_engine.store.store import Store

BUNDLE = Bundle(Manifest(name="a", version="1"), {"main.py": ""})


def endowed(credits):
    return Bundle(Manifest(name="a", version="1", endowment=credits), {"main.py": ""})


SCHEDULING = SchedulingSection(
    endowment=100,
    max_endowment=500,
    users={
        "ann": UserSection(endowment=700, max_endowment=900, priority=3),
        "bob": UserSection(max_processes=2),
        "joe": UserSection(credits_per_hour=250),
    },
)


class Gateway:
    """A process table with a store, and a host that only listens."""

    def __init__(self, path, *, has_host=True):
        self.store = Store(path)
        self.orders = []
        self.turn = Turn(
            self.store, lambda _boot, orders: self.orders.extend(orders), lambda events: self.table.stored(events)
        )
        hosts = HostPool(8)
        if has_host:
            hosts.add("boot", "host-1")
        programs = Programs(self.store, self.turn, hosts)
        config = EngineConfig(scheduling=SCHEDULING)
        self.table = ProcessTable(self.store, self.turn, hosts, programs, SecretShelf(self.store, self.turn), config)
        self.hosts = hosts

    async def launch(self, user="eve", endowment=None, bundle=BUNDLE):
        return await self.table.launch(user, LaunchRequest(bundle=bundle, endowment=endowment))

    def said(self, kind):
        self.turn.end()
        return [order for order in self.orders if isinstance(order, kind)]


@pytest.fixture
async def gateway(tmp_path):
    made = Gateway(tmp_path / "pie.sqlite")
    yield made
    made.store.close()


@pytest.mark.parametrize(
    ("user", "wish", "micro", "priority"),
    [
        ("eve", None, 100, 0),
        ("eve", 500, 500, 0),
        ("eve", 0, 0, 0),
        ("ann", None, 700, 3),
        ("ann", 900, 900, 3),
        ("bob", 0.5, 0.5, 0),
    ],
)
async def test_a_launch_gets_what_it_asks_for_or_what_all_get(gateway, user, wish, micro, priority):
    process = await gateway.launch(user, wish)
    (launch,) = gateway.said(Launch)
    assert (launch.endowment, launch.priority, launch.bid) == (micro * CREDIT, priority, None)
    assert gateway.store.process(process.pid).endowment == micro * CREDIT


@pytest.mark.parametrize(("wish", "credits"), [(None, 20), (30, 30), (0, 0)])
async def test_a_program_may_name_what_its_launches_get(gateway, wish, credits):
    process = await gateway.launch(endowment=wish, bundle=endowed(20))
    assert gateway.store.process(process.pid).endowment == credits * CREDIT


async def test_a_program_may_not_name_more_than_its_user_has(gateway):
    with pytest.raises(InvalidInput, match="an endowment of 501 credits is more than the 500"):
        await gateway.launch(bundle=endowed(501))


@pytest.mark.parametrize(
    ("user", "wish", "message"),
    [
        ("eve", 500.5, "an endowment of 500.5 credits is more than the 500 that a process of `eve` may have"),
        ("ann", 901, "an endowment of 901 credits is more than the 900 that a process of `ann` may have"),
        ("eve", -1, "an endowment is a number of credits from 0 to 1000000; got -1"),
        ("eve", math.nan, "an endowment is a number of credits from 0 to 1000000; got nan"),
        ("eve", 1e300, "an endowment is a number of credits from 0 to 1000000; got 1e+300"),
    ],
)
async def test_more_than_the_quota_is_refused_with_the_numbers(gateway, user, wish, message):
    with pytest.raises(InvalidInput) as caught:
        await gateway.launch(user, wish)
    assert caught.value.message == message
    assert gateway.table.is_empty


async def test_a_user_has_so_many_processes_at_once(gateway):
    first, _ = await gateway.launch("bob"), await gateway.launch("bob")
    await gateway.launch("eve")
    with pytest.raises(LimitExceeded, match="2 processes of `bob` are running or queued, and 2 is the most") as caught:
        await gateway.launch("bob")
    assert caught.value.code == "queue_limit"
    gateway.table.take_event("boot", Event(first.pid, 1, "return", "null", 1.0))
    gateway.turn.end()
    await gateway.launch("bob")


async def test_a_running_process_is_given_more(gateway):
    process = await gateway.launch("eve")
    await gateway.table.orders.endow(process, 50 * CREDIT)
    await gateway.table.orders.endow(process, 350 * CREDIT)
    given = [order.endowment for order in gateway.said(EndowProcess)]
    assert given == [150 * CREDIT, 500 * CREDIT]
    assert gateway.store.process(process.pid).endowment == process.endowment == 500 * CREDIT
    with pytest.raises(InvalidInput, match=r"an endowment of 500\.000001 credits is more than the 500"):
        await gateway.table.orders.endow(process, 1)
    with pytest.raises(InvalidInput, match="credits can be given, not taken: -1 is less than 0"):
        await gateway.table.orders.endow(process, -CREDIT)


async def test_an_owner_bids_for_a_running_process(gateway):
    process = await gateway.launch()
    await gateway.table.orders.bid(process, 2500)
    await gateway.table.orders.bid(process, None)
    assert gateway.said(BidForProcess) == [BidForProcess(process.pid, 2500), BidForProcess(process.pid, None)]
    assert gateway.store.process(process.pid).bid is None


async def test_what_is_said_of_a_queued_process_goes_along_with_its_launch(tmp_path):
    gateway = Gateway(tmp_path / "pie.sqlite", has_host=False)
    process = await gateway.launch()
    await gateway.table.orders.bid(process, 2500)
    await gateway.table.orders.endow(process, CREDIT)
    gateway.hosts.add("boot", "host-1")
    gateway.table.call_hosts()
    gateway.turn.end()
    (launch,) = gateway.said(Launch)
    assert (launch.endowment, launch.bid) == (101 * CREDIT, 2500)
    assert not gateway.said(EndowProcess | BidForProcess)
    gateway.store.close()


async def test_what_has_ended_is_left_alone(gateway):
    process = await gateway.launch()
    gateway.table.take_event("boot", Event(process.pid, 1, "return", "null", 1.0))
    with pytest.raises(Conflict, match="has ended"):
        await gateway.table.orders.bid(process, 1)
    with pytest.raises(Conflict, match="has ended"):
        await gateway.table.orders.endow(process, 1)


async def test_what_the_store_refuses_has_not_happened(gateway, monkeypatch):
    process = await gateway.launch()

    def full(*_credits):
        raise OSError("the disk is full")

    monkeypatch.setattr(gateway.store, "set_credits", full)
    with pytest.raises(PieError):
        await gateway.table.orders.bid(process, 1)
    assert (process.bid, process.endowment) == (None, 100 * CREDIT)
    assert gateway.said(BidForProcess) == []


async def test_of_several_at_once_that_are_refused_nothing_stays(gateway, monkeypatch):
    process = await gateway.launch("joe")
    with monkeypatch.context() as patch:
        patch.setattr(gateway.store, "set_credits", lambda *_credits: 1 / 0)
        wishes = (gateway.table.orders.endow(process, CREDIT) for _ in range(3))
        outcomes = await asyncio.gather(*wishes, return_exceptions=True)
    assert all(isinstance(outcome, PieError) for outcome in outcomes), outcomes
    assert process.endowment == 100 * CREDIT
    together = (gateway.table.orders.endow(process, 60 * CREDIT) for _ in range(3))
    assert [type(each) for each in await asyncio.gather(*together, return_exceptions=True)] == [
        type(None), type(None), LimitExceeded,
    ]  # fmt: skip
    assert gateway.store.process(process.pid).endowment == process.endowment == 220 * CREDIT


@pytest.mark.parametrize("num_turns", range(5))
async def test_one_that_is_cut_off_takes_nothing_from_the_next(gateway, num_turns):
    """Its client may go at any moment; before it is committed, after it, and in the very turn."""
    process = await gateway.launch("joe")
    first, second = (asyncio.create_task(gateway.table.orders.endow(process, each * CREDIT)) for each in (30, 60))
    for _ in range(num_turns):
        await asyncio.sleep(0)
    first.cancel()
    await second
    told = gateway.said(EndowProcess)
    wanted = [160 * CREDIT] if not num_turns else [130 * CREDIT, 190 * CREDIT]
    assert [order.endowment for order in told] == wanted
    assert gateway.store.process(process.pid).endowment == process.endowment == wanted[-1]
    with pytest.raises(LimitExceeded, match=f"were given {wanted[-1] // CREDIT} credits within the last hour"):
        await gateway.table.orders.endow(process, 250 * CREDIT)


def test_the_launch_request_has_credits():
    request = msgspec.json.decode(b'{"program": "a", "endowment": 2.5}', type=LaunchRequest)
    assert request.endowment == 2.5


async def test_a_host_hears_again_what_it_may_have_missed(gateway):
    process = await gateway.launch()
    await gateway.table.orders.bid(process, 7)
    gateway.said(Launch)
    gateway.orders.clear()
    gateway.table.host_registered(gateway.hosts.get("boot"), Registered([process.pid]))
    gateway.turn.end()
    assert gateway.orders == [EndowProcess(process.pid, 100 * CREDIT), BidForProcess(process.pid, 7)]


async def test_a_user_is_given_so_many_credits_an_hour(tmp_path, monkeypatch):
    now = 10_000.0
    monkeypatch.setattr("time.time", lambda: now)
    gateway = Gateway(tmp_path / "pie.sqlite")
    process = await gateway.launch("joe")
    now += 600
    await gateway.launch("joe", 120)
    with pytest.raises(LimitExceeded) as caught:
        await gateway.launch("joe", 31)
    message = "processes of `joe` were given 220 credits within the last hour, and 31 more would be above 250"
    assert caught.value.message == message
    hint = "30 are left: ask for less, try again in 50 min, or raise `scheduling.users.joe.credits_per_hour`"
    assert caught.value.hint == hint
    assert caught.value.code == "queue_limit"
    with pytest.raises(LimitExceeded) as caught:
        await gateway.launch("joe", 251)
    never = "30 are left: ask for less, or raise `scheduling.users.joe.credits_per_hour`"
    assert caught.value.hint == never, "more than there is in an hour, whenever"
    await gateway.launch("joe", 30)
    with pytest.raises(LimitExceeded):
        await gateway.table.orders.endow(process, 1)
    await gateway.launch("eve", 500)
    now += 3001
    await gateway.table.orders.endow(process, 50 * CREDIT)
    gateway.store.close()


async def test_what_was_given_is_known_after_a_restart(tmp_path):
    gateway = Gateway(tmp_path / "pie.sqlite")
    await gateway.launch("joe", 200)
    gateway.store.close()
    again = Gateway(tmp_path / "pie.sqlite")
    with pytest.raises(LimitExceeded, match="were given 200 credits within the last hour, and 100 more"):
        await again.launch("joe")
    await again.launch("joe", 50)
    again.store.close()
