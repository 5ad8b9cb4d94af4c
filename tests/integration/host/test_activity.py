"""What a host says that its programs do."""

from __future__ import annotations

import time

import pytest

from pie_engine.host.activity import ALL_AGAIN_S, Activities
from pie_engine.protocol.to_core import Generate
from pie_engine.protocol.to_gateway import Activity
from pie_engine.protocol.to_host import Chunk, Deliver
from tests.integration.host.inline_host import BUSY, SLEEPER, WAITER

DRAINING = "from inferlet import session\nasync def main():\n    session.send('x')\n    await session.drain()\n"
IMPATIENT = """
import asyncio
from inferlet import session
async def main():
    async with asyncio.timeout(300):
        await session.receive()
"""
SLEEPING = "import asyncio\nasync def main():\n    await asyncio.sleep(3600)\n"
READER = """
import asyncio
from inferlet import Context, session
async def main():
    ctx = Context()
    ctx.append([300])
    async for chunk in ctx.generate(max_tokens=9):
        await session.receive()
        await asyncio.sleep(3600)
"""


def until_said(inline, pid: str, state: str) -> Activity:
    """The newest, as soon as it is that."""
    said: dict[str, Activity] = {}

    def is_said() -> bool:
        said.update(inline.host.take_activities())
        return pid in said and said[pid].state == state

    inline.until(is_said)
    return said[pid]


@pytest.mark.parametrize(
    ("source", "state", "why", "seconds"),
    [
        (WAITER, "waiting: client", "to send a message", None),
        (DRAINING, "waiting: client", "to read what was sent", None),
        (IMPATIENT, "waiting: client", "to send a message", 300),
        (SLEEPING, "waiting: timer", "", 3600),
        (BUSY, "computing", "", None),
    ],
    ids=["receive", "drain", "timeout", "sleep", "busy"],
)
def test_what_a_program_waits_for(inline, source, state, why, seconds):
    pid = inline.launch(source)
    said = until_said(inline, pid, state)
    assert (said.state, said.why) == (state, why)
    if seconds is None:
        assert said.until is None
    else:
        assert said.until == pytest.approx(time.time() + seconds, abs=60)


def test_it_is_said_once_and_again_when_it_has_changed(inline):
    pid = inline.launch(WAITER)
    assert inline.host.take_activities() == {pid: Activity("starting")}
    until_said(inline, pid, "waiting: client")
    until_said(inline, inline.launch(SLEEPING), "waiting: timer")
    assert inline.host.take_activities() == {}
    inline.host.receive_order(Deliver(pid, 1, '"go on"'))
    assert inline.host.take_activities() == {pid: Activity("computing")}, "its turn comes"
    inline.until(lambda: pid not in inline.host.processes)
    assert inline.host.take_activities() == {}, "of the dead nothing"


def test_short_waits_between_two_reports_are_said_to_nobody(inline):
    pid = inline.launch(SLEEPER, turns=20)
    inline.run_to_end()
    assert inline.ending(pid) == ("return", 20)
    assert inline.host.take_activities() == {}


def test_who_waits_for_a_core_leaves_it_to_that_and_who_does_not_read_says_why(inline):
    inline.add_core()
    pid = inline.launch(READER)
    inline.until(lambda: any(isinstance(each, Generate) for each in inline.asked))
    inline.until(lambda: inline.host.processes[pid].is_waiting)
    assert inline.host.take_activities() == {}, "its core knows"
    generate = next(each for each in inline.asked if isinstance(each, Generate))
    inline.answer(Chunk(generate.op, 0, [301], "a", 0))
    assert until_said(inline, pid, "").state == "", "it is at the core again, beside its wait for the client"
    inline.answer(Chunk(generate.op, 0, [302], "b", 1))
    assert until_said(inline, pid, "waiting: client").why == "to send a message"
    inline.host.receive_order(Deliver(pid, 1, '"go on"'))
    assert until_said(inline, pid, "waiting: timer").until is not None


def test_everything_is_said_again_now_and_then(inline):
    now = [0.0]
    activities = Activities(lambda: now[0])
    pid = inline.launch(WAITER)
    until_said(inline, pid, "waiting: client")
    said = {pid: Activity("waiting: client", "to send a message")}
    assert activities.news(inline.host.processes) == said
    now[0] = ALL_AGAIN_S - 1
    assert activities.news(inline.host.processes) == {}
    now[0] = ALL_AGAIN_S
    assert activities.news(inline.host.processes) == said
    assert activities.news(inline.host.processes) == {}
