"""Ends that the program does not choose."""

from __future__ import annotations

import pytest

from pie_engine.errors import ErrorInfo
from pie_engine.protocol.to_core import CloseProcess, Save
from pie_engine.protocol.to_gateway import Event, Settled
from pie_engine.protocol.to_host import (
    Charged,
    Deliver,
    Saved,
    SaveFailed,
    Terminate,
)
from tests.integration.host.inline_host import BUSY, SLEEPER, WAITER, bundle
from tests.memory import private_kb


def test_a_terminated_program_may_clean_up(inline):
    source = """
    import asyncio
    async def main() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            print("tidy")
    """
    pid = inline.launch(source)
    inline.until(lambda: not inline.host.has_ready and inline.host.processes[pid].is_waiting)
    for _ in range(2):
        inline.host.receive_order(Terminate(pid))
    inline.run_to_end()
    kind, data = inline.ending(pid)
    assert ("stdout", "tidy\n") in inline.events(pid)
    assert (kind, data["code"]) == ("error", "cancelled")


@pytest.mark.parametrize(
    "source",
    [
        BUSY,
        """
        import asyncio
        async def main() -> None:
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    pass
        """,
    ],
    ids=["busy", "stubborn"],
)
def test_one_that_does_not_end_is_killed_after_the_grace(inline, source):
    pid = inline.launch(source)
    for _ in range(20):
        inline.turn()
    inline.host.receive_order(Terminate(pid))
    inline.run_to_end()
    kind, data = inline.ending(pid)
    assert (kind, data["code"]) == ("error", "cancelled")
    assert inline.run("async def main() -> int:\n    return 1\n") == ("return", 1)


def test_one_that_has_not_begun_is_not_begun(inline):
    pid = inline.launch("async def main() -> None:\n    print('ran')\n")
    inline.host.receive_order(Terminate(pid))
    inline.run_to_end()
    assert [kind for kind, _ in inline.events(pid)] == ["started", "error"]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("os.abort()", "unreachable"),
        ("os._exit(0)", "exit status 0"),
        ("os._exit(3)", "exit status other than 0"),
    ],
)
def test_a_trap_ends_its_own_program_only(inline, how, words):
    neighbour = inline.launch(SLEEPER)
    error = inline.error(f"import os\nasync def main() -> None:\n    {how}\n")
    assert error.code == "exception"
    assert "broke off" in error.message
    assert words in error.message
    assert inline.ending(neighbour) == ("return", 20)


@pytest.mark.parametrize("how", ["session.send('a\\ud801')", "return 'a\\ud801'", "raise ValueError('a\\ud801')"])
def test_half_a_character_is_named_whichever_way_it_leaves(inline, how):
    error = inline.error(f"from inferlet import session\nasync def main() -> str:\n    {how}\n    return ''\n")
    assert "\\ud801" in error.message or error.message == "ValueError: a?"
    assert "truncated" not in error.message


def test_endless_recursion_is_an_exception(inline):
    error = inline.error("def f() -> int:\n    return f() + 1\nasync def main() -> int:\n    return f()\n")
    assert "RecursionError" in error.message


def test_guests_come_and_go_without_a_trace(inline):
    program = bundle("async def main() -> None:\n    pass\n")
    for _ in range(20):
        inline.run(program)
    before = private_kb()
    for _ in range(60):
        inline.run(program)
    assert private_kb() - before < 6000


def test_the_memory_of_a_crowd_goes_back(inline):
    inline.run("async def main() -> None:\n    pass\n")
    before = private_kb()
    for _ in range(60):
        inline.launch(WAITER)
    inline.until(lambda: not inline.host.has_ready)
    most = private_kb() - before
    inline.host.end_all(ErrorInfo("lost", "all at once"))
    inline.turn()
    inline.host.tidy_up()
    assert private_kb() - before < most / 10


def test_programs_in_every_state_can_be_dropped_at_once(inline):
    for source in (SLEEPER, WAITER, BUSY, SLEEPER, WAITER, BUSY):
        inline.launch(source)
    for _ in range(20):
        inline.turn()
    inline.launch(WAITER)
    inline.host.end_all(ErrorInfo("lost", "all at once"))
    inline.turn()
    endings = [report for report in inline.reports if isinstance(report, Event) and report.is_terminal]
    assert len(endings) == 7
    assert not inline.host.processes


def test_a_save_that_failed_behind_its_answer_is_logged(inline):
    inline.add_core()
    source = """
    from inferlet import Context, session
    async def main() -> None:
        ctx = Context()
        ctx.append([1])
        await ctx.save("tale", durable=False)
        await session.receive()
    """
    pid = inline.launch(source)
    inline.until(lambda: any(isinstance(message, Save) for message in inline.asked))
    save = next(message for message in inline.asked if isinstance(message, Save))
    assert not save.durable
    full = ErrorInfo("disk_limit", "the disk is full")
    inline.answer(Saved(save.op), SaveFailed(save.op, pid, "tale", full), SaveFailed(9, "p-ended", "tale", full))
    inline.host.receive_order(Deliver(pid, 1, "1"))
    inline.run_to_end()
    logged = {"level": "error", "message": "context `tale` could not be saved: the disk is full"}
    assert inline.events(pid)[1:] == [("log", logged), ("return", None)]


def test_what_was_paid_after_the_end_is_told_when_the_core_says_it(inline):
    inline.add_core()
    source = """
    from inferlet import Context
    async def main() -> None:
        Context().append([1])
    """
    pid = inline.launch(source)
    inline.run_to_end()
    assert inline.asked[-1] == CloseProcess(pid)
    inline.answer(Charged(pid, 3, 10), Charged(pid, 4, 10, is_final=True), Charged(pid, 5, 10, is_final=True))
    inline.turn()
    assert inline.reports[-1] == Settled(pid, 4, 10)
    assert isinstance(inline.reports[-2], Event), "nothing is told before the last word"
    assert inline.reports[-2].is_terminal
