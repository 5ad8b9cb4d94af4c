"""Bids and credits on a real daemon with few pages: from the command line to the ledger of the core, and back."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from pie_client import Event, PieClient
from pie_engine.protocol.credits import CREDIT
from pie_engine.protocol.program import Bundle, Manifest

SOURCE = """
from inferlet import Context, scheduling, session

async def main(first: int, bid: float | None = None, num_tokens: int = 150, waits: bool = False) -> dict:
    with Context() as ctx:
        ctx.bid(bid)
        if waits:
            await session.receive()
        ctx.append([first + i for i in range(150)])
        await ctx.generate(max_tokens=num_tokens, ignore_eos=True)
        market = await scheduling()
    return {name: getattr(market, name) for name in ("endowment", "balance", "rent", "dividends", "num_made", "spent")}
"""
"""Has 19 of the 24 pages at its end."""
BUNDLE = Bundle(Manifest(name="bidder"), files={"main.py": SOURCE})


@pytest.fixture
async def client(crowded):
    async with PieClient(home=crowded.home) as connected:
        yield connected


async def ended(process) -> tuple[str, dict]:
    last = [pair async for pair in process][-1]
    assert last[0] is Event.Return, last
    return process.pid, last[1]


async def usage_of(client, pid):
    return (await client.inspect(pid))["usage"]


async def bidder(client, pid):
    """Its usage, once it has bid."""
    usage = await usage_of(client, pid)
    return usage if usage and usage["bid"] else None


async def test_the_higher_bid_ends_first_and_the_balance_sinks_by_what_the_ledger_says(client, eventually):
    low = await client.launch_process(BUNDLE, {"first": 300, "bid": 0.01, "waits": True}, endowment=900)
    high = await client.launch_process(BUNDLE, {"first": 600, "bid": 0.5, "waits": True}, endowment=1800)
    running = {process.pid: asyncio.create_task(ended(process)) for process in (low, high)}
    usage = await eventually(lambda: bidder(client, low.pid), timeout_s=20.0)
    await eventually(lambda: bidder(client, high.pid), timeout_s=20.0)
    for process in (low, high):
        await process.send("go")
    assert (usage["bid"], usage["endowment"]) == (CREDIT // 100, 900 * CREDIT)
    first, _ = await asyncio.wait(running.values(), return_when=asyncio.FIRST_COMPLETED)
    assert [task.result()[0] for task in first] == [high.pid]
    for pid, endowment in ((high.pid, 1800), (low.pid, 900)):
        _, seen = await running[pid]
        spent = seen["num_made"] + seen["rent"] - seen["dividends"]
        assert (seen["endowment"], seen["num_made"]) == (endowment, 18)
        assert seen["spent"] == pytest.approx(spent, abs=1e-9)
        assert seen["balance"] == pytest.approx(endowment - spent, abs=1e-9)
        usage = await usage_of(client, pid)
        assert usage["balance"] == usage["endowment"] - usage["spent"]
        # What rents and dividends fell due after it had looked is in it, too.
        assert usage["spent"] == pytest.approx(seen["spent"] * CREDIT, abs=2 * CREDIT)


def test_a_run_has_the_credits_that_it_asks_for_and_says_what_it_spent(crowded, tmp_path):
    program = tmp_path / "bidder.py"
    program.write_text(SOURCE)
    run = crowded.pie("run", str(program), "--endowment", "50", "--first", "900", "--num-tokens", "20", "--summary")
    assert json.loads(run.stdout) == {
        "endowment": 50.0, "balance": 40.0, "rent": 0.0, "dividends": 0.0, "num_made": 10, "spent": 10.0
    }  # fmt: skip
    assert re.search(r" tokens/s, 10 credits, [\d.]+ s\n", run.stderr)
    refused = crowded.pie("run", str(program), "--endowment", "100001", "--first", "900")
    assert refused.returncode == 2
    assert (
        "error: an endowment of 100001 credits is more than the 100000 that a process of `local` may" in refused.stderr
    )
