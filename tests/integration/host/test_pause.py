"""Programs that are paused and go on."""

from __future__ import annotations

import time

import pytest

from pie_engine.protocol.to_core import PauseProcess, ResumeProcess
from pie_engine.protocol.to_gateway import Registered
from pie_engine.protocol.to_host import Deliver, Pause, Resume, Terminate
from tests.integration.host.inline_host import SLEEPER, WAITER, bundle


def turns(inline, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        inline.turn()
        time.sleep(0.002)


def test_a_paused_program_stands_still_and_its_wall_limit_too(inline):
    pid = inline.launch(bundle(SLEEPER, wall_s=0.6), turns=10)
    neighbour = inline.launch(SLEEPER, turns=3)
    turns(inline, 0.05)
    inline.host.receive_order(Pause(pid))
    turns(inline, 0.9)
    assert inline.ending(neighbour) == ("return", 3)
    assert pid in inline.host.processes
    [registered, *_] = inline.host.gain_gateway()
    assert isinstance(registered, Registered)
    assert registered.paused == [pid], "a new gateway hears of it"
    assert not inline.host.has_ready
    inline.host.receive_order(Resume(pid))
    inline.run_to_end()
    logs = [data["message"] for kind, data in inline.events(pid) if kind == "log"]
    assert logs == ["paused", "resumed"]
    assert inline.ending(pid) == ("return", 10)


def test_the_wall_limit_goes_on_after_a_pause(inline):
    pid = inline.launch(bundle(WAITER, wall_s=0.2))
    turns(inline, 0.05)
    inline.host.receive_order(Pause(pid))
    turns(inline, 0.3)
    inline.host.receive_order(Resume(pid))
    assert pid in inline.host.processes
    inline.run_to_end()
    assert inline.ending(pid)[1]["code"] == "wall_limit"


def test_what_comes_for_a_paused_program_waits_and_its_cores_hear_of_the_pause(inline):
    inline.add_core()
    source = """
    from inferlet import Context, session
    async def main() -> str:
        ctx = Context()
        session.send("here")
        return await session.receive()
    """
    pid = inline.launch(source)
    inline.until(lambda: ("message", "here") in inline.events(pid))
    for order in (Pause(pid), Pause(pid), Deliver(pid, 1, '"late"')):
        inline.host.receive_order(order)
    turns(inline, 0.05)
    assert pid in inline.host.processes
    inline.host.receive_order(Resume(pid))
    inline.run_to_end()
    assert inline.ending(pid) == ("return", "late")
    told = [message for message in inline.asked if isinstance(message, PauseProcess | ResumeProcess)]
    assert told == [PauseProcess(pid), ResumeProcess(pid)]


@pytest.mark.parametrize("is_started", [True, False])
def test_a_paused_program_can_be_ended(inline, is_started):
    pid = inline.launch(WAITER)
    if is_started:
        turns(inline, 0.05)
    inline.host.receive_order(Pause(pid))
    inline.host.receive_order(Terminate(pid))
    inline.host.receive_order(Pause(pid))
    inline.run_to_end()
    assert inline.ending(pid)[1]["code"] == "cancelled"
