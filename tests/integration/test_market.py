"""Two programs at one small model: who bids more is served first, and pays for it what the ledger says."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import pytest

from pie_engine.config import HostSection, ModelSection, SchedulingSection, UserSection
from pie_engine.driver.fake_script import FakeScript
from pie_engine.embedded import Embedded, EmbeddedProcess
from pie_engine.protocol.credits import CREDIT
from pie_engine.protocol.program import Bundle, Manifest

NUM_PAGES = 24
MODEL = ModelSection(driver="fake", name="fake", num_pages=NUM_PAGES, offload_memory_mb=1, prefix_cache="off")
SOURCE = """
import asyncio
from inferlet import Context, scheduling

async def main(start: int, bid: float | None = None, num_tokens: int = 100) -> dict:
    with Context() as ctx:
        ctx.bid(bid)
        ctx.append([start + i for i in range(150)])
        await ctx.generate(max_tokens=num_tokens, ignore_eos=True)
        market = await scheduling()
    return {name: getattr(market, name) for name in ("balance", "endowment", "rent", "dividends", "num_made", "spent")}
"""
"""Has 16 of the 24 pages at its end."""
IDLER = """
import asyncio
from inferlet import Context, scheduling, session

async def main() -> int:
    with Context().bid(1) as ctx:
        ctx.append([7 + i for i in range(150)])
        await ctx.flush()
        with ctx.idle():
            session.send((await scheduling()).num_pages)
            await session.receive()
            return (await scheduling()).num_pages
"""


def bundle(source: str) -> Bundle:
    return Bundle(Manifest(name="p", version="1"), {"main.py": textwrap.dedent(source)})


def engine_of(policy: str) -> Embedded:
    users = {"user-1": UserSection(priority=1)}
    scheduling = SchedulingSection(policy=policy, users=users)  # type: ignore[arg-type]
    engine = Embedded(HostSection(warm_instances=0), scheduling=scheduling)
    engine.load(MODEL, FakeScript())
    return engine


@pytest.fixture(scope="module")
def market() -> Iterator[Embedded]:
    with engine_of("market") as engine:
        yield engine


def together(engine: Embedded, *arguments: dict[str, object]) -> list[tuple[int, EmbeddedProcess]]:
    """The programs with these arguments, each launched when the one before runs, in the order in which they end."""
    program, core, alive = bundle(SOURCE), engine.model("fake"), {}
    for i, each in enumerate(arguments):
        alive[i] = engine.launch(program, each, user=f"user-{i}")
        num_steps = core.num_steps
        while core.num_steps == num_steps:
            engine.turn()
    ended: list[tuple[int, EmbeddedProcess]] = []
    while alive:
        engine.turn()
        ended += [(i, process) for i, process in alive.items() if process.has_ended]
        alive = {i: process for i, process in alive.items() if not process.has_ended}
    return ended


@pytest.mark.parametrize("high", [0, 1])
def test_the_higher_bid_is_served_first_and_pays(market, high):
    bids = {high: 1.0, 1 - high: 0.25}
    (first, winner), (_, loser) = together(market, *({"start": 1000 + 500 * i, "bid": bids[i]} for i in range(2)))
    assert first == high
    for process in (winner, loser):
        seen = process.value
        assert seen["endowment"] == 1000
        assert seen["num_made"] == 15, "pages that are full; made once each, however often they came and went"
        spent = seen["num_made"] + seen["rent"] - seen["dividends"]
        assert seen["spent"] == pytest.approx(spent, abs=1e-9)
        assert seen["balance"] == pytest.approx(1000 - spent, abs=1e-9)
        assert process.usage.spent == round(seen["spent"] * CREDIT), "what the host knows at the end"
    assert winner.value["rent"] > loser.value["rent"]
    assert market.model("fake").check_integrity() == [], "every credit is somewhere"


def test_who_has_all_for_itself_pays_for_its_pages_alone(market):
    ((_, process),) = together(market, {"start": 500, "bid": 5.0})
    assert process.value == {
        "balance": 985.0, "endowment": 1000.0, "rent": 0.0, "dividends": 0.0, "num_made": 15, "spent": 15.0
    }  # fmt: skip


def test_who_is_away_gives_its_pages_up_first(market):
    idler = market.launch(bundle(IDLER), {}, user="idler")
    while not any(event.kind == "message" for event in idler.events):
        market.turn()
    together(market, {"start": 300, "bid": 0.01})
    idler.send("go on")
    idler.wait(30)
    assert idler.value < 10


@pytest.mark.parametrize(("policy", "wanted"), [("fcfs", 0), ("priority", 1)])
def test_other_policies_leave_bids_alone(policy, wanted):
    with engine_of(policy) as engine:
        bids = {wanted: 0.25, 1 - wanted: 1.0}
        ended = together(engine, *({"start": 1000 + 500 * i, "bid": bids[i]} for i in range(2)))
    assert ended[0][0] == wanted
    assert [process.value["rent"] for _, process in ended] == [0, 0]
