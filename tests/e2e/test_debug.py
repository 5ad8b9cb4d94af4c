"""`pie debug` and `pie repl` at a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.dap import Ide
from tests.e2e.terminal import OnTerminal

PROGRAM = """
from inferlet import Context, session

async def main(prompt: str, waits: bool = False) -> str:
    ctx = Context()
    ctx.user(prompt)
    print("prompted")
    if waits:
        await session.receive()
    breakpoint()
    text = await ctx.generate(max_tokens=8)
    return text
"""


WAITS = """
import asyncio

from inferlet import Context

ticks = []


async def tick() -> None:
    await asyncio.sleep(0.001)
    ticks.append(1)


async def waits(gate: asyncio.Event) -> None:
    here = 1
    print("waiting")
    await gate.wait()
    return


async def main() -> str:
    ctx = Context()
    ctx.user("Hello")
    ticking, gate = asyncio.create_task(tick()), asyncio.Event()
    timer = asyncio.get_running_loop().call_later(600, gate.set)  # or nothing could end the wait
    breakpoint()
    await ticking
    await waits(gate)
    timer.cancel()
    return "it waited"
"""


@pytest.fixture
def program(tmp_path) -> Path:
    path = tmp_path / "ask.py"
    path.write_text(PROGRAM)
    return path


def test_pdb_steps_through_a_program_with_the_live_context(daemon, program):
    sandboxed = program.with_name("plain.py")
    sandboxed.write_text(PROGRAM.replace("    breakpoint()\n", ""))
    wanted = daemon.pie("run", str(sandboxed), "Hello").stdout.removeprefix("prompted\n").strip()
    with OnTerminal(daemon, "debug", str(program), "Hello") as shell:
        stop = shell.until("(Pdb) ")
        if "-> breakpoint()" in stop:  # pdb stands there from Python 3.13 on, and behind it before
            shell.press("n\n")
            stop += shell.until("(Pdb) ")
        assert stop.index("prompted") < stop.index(f"{program}(11)main()")
        shell.press("p ctx.length > 3\n")
        assert "True" in shell.until("(Pdb) ")
        shell.press("n\n")
        assert "-> return text" in shell.until("(Pdb) ")
        shell.press("p 'it said', text\n")
        assert f"('it said', {wanted!r})" in shell.until("(Pdb) ")
        shell.press("c\n")
        assert (shell.end(), wanted in shell.rest) == (0, True)


def test_await_works_at_the_prompt_and_other_tasks_go_on_meanwhile(daemon, tmp_path):
    (tmp_path / "waits.py").write_text(WAITS)
    with OnTerminal(daemon, "debug", str(tmp_path / "waits.py")) as shell:
        shell.until("(Pdb) ")

        def said_to(typed: str) -> str:
            shell.press(f"{typed}\n")
            return shell.until("(Pdb) ").removeprefix(f"{typed}\n").removesuffix("\n(Pdb) ")

        said_to("text = await ctx.fork().generate(max_tokens=4)")
        assert said_to("text == await ctx.fork().generate(max_tokens=4) != ''") == "True"
        assert said_to("p await asyncio.sleep(0.01, 'slept'), len(ticks) > 0") == "('slept', True)"
        assert said_to("await nowhere()") == "*** NameError: name 'nowhere' is not defined"
        assert said_to("await Context('nowhere')").startswith("*** NotFound: no model is called 'nowhere'")
        shell.press("print('be' + 'gins'); await asyncio.sleep(600)\n")
        shell.until("begins\n")
        shell.press("\x03")
        assert "*** KeyboardInterrupt" in shell.until("(Pdb) ")
        assert said_to("p text != ''") == "True"
        shell.press("q\n")
        assert shell.end() == 1


def test_ctrl_c_opens_the_prompt_where_the_program_waits(daemon, tmp_path):
    (tmp_path / "waits.py").write_text(WAITS)
    with OnTerminal(daemon, "debug", str(tmp_path / "waits.py")) as shell:
        shell.until("(Pdb) ")
        shell.press("c\n")
        shell.until("waiting\n")
        shell.press("\x03")
        stop = shell.until("(Pdb) ")
        assert "Program interrupted" in stop
        assert "-> await gate.wait()" in stop
        shell.press("p here, await asyncio.sleep(0.01, 'slept')\n")
        assert "(1, 'slept')" in shell.until("(Pdb) ")
        shell.press("w\n")
        assert "-> await waits(gate)" in shell.until("(Pdb) ")
        shell.press("gate.set()\n")
        shell.until("(Pdb) ")
        shell.press("n\n")
        assert "-> return" in shell.until("(Pdb) ")
        shell.press("p here\n")
        assert "1" in shell.until("(Pdb) ")
        shell.press("c\n")
        assert shell.end() == 0
        assert "it waited" in shell.rest


def test_a_program_is_left_from_the_prompt_that_ctrl_c_has_opened(daemon, tmp_path):
    (tmp_path / "waits.py").write_text(WAITS)
    with OnTerminal(daemon, "debug", str(tmp_path / "waits.py")) as shell:
        shell.until("(Pdb) ")
        shell.press("c\n")
        shell.until("waiting\n")
        shell.press("\x03")
        shell.until("(Pdb) ")
        shell.press("q\n")
        assert shell.end() == 1
    assert "waits" not in daemon.pie("ps").stdout


@pytest.mark.slow
def test_an_ide_attaches_stops_at_its_breakpoints_and_steps_with_the_live_context(daemon, program):
    program.write_text(PROGRAM.replace("    breakpoint()\n", ""))
    wanted = daemon.pie("run", str(program), "Hello").stdout.removeprefix("prompted\n").strip()
    with OnTerminal(daemon, "debug", "--listen", "127.0.0.1:0", "--wait", str(program), "Hello") as shell:
        shell.until("waiting for a debugger at 127.0.0.1:")
        port = int(shell.until("\n"))
        with Ide(port, str(program), [10]) as ide:
            assert [(each["verified"], each["line"]) for each in ide.breakpoints] == [(True, 10)]
            thread, frame = ide.stopped()
            assert (frame["name"], frame["line"], frame["source"]["path"]) == ("main", 10, str(program))
            assert int(ide.value(frame, "ctx.length")) > 3
            ide.ask("next", threadId=thread)
            thread, frame = ide.stopped()
            assert (frame["line"], ide.value(frame, "text")) == (11, repr(wanted))
            ide.ask("continue", threadId=thread)
            ide.event("terminated")
        assert (shell.end(), wanted in shell.rest) == (0, True)


@pytest.mark.slow
def test_a_prompt_has_a_live_context(daemon):
    with OnTerminal(daemon, "repl") as shell:
        assert "pie-tiny: " in shell.until(">>> ")
        shell.press("ctx.user('Hello')\n")
        shell.until(">>> ")
        shell.press("top(3)\n")
        assert len(shell.until("\n>>> ").strip().splitlines()) == 6
        shell.press("len(await ctx.fork().generate(max_tokens=4)) > 0\n")
        assert "True" in shell.until(">>> ")
        shell.press("ctx.generate(ignore_eos=True)\n")
        shell.until("\n")
        shell.press("\x03")
        assert "KeyboardInterrupt" in shell.until(">>> ")
        shell.press("1 / 0\n")
        assert "ZeroDivisionError" in shell.until(">>> ")
        shell.press("\x04")
        assert shell.end() == 0
    assert "repl" not in daemon.pie("ps").stdout


def test_ctrl_c_at_a_prompt_interrupts_what_was_typed_at_once_and_only_that(daemon):
    with OnTerminal(daemon, "repl") as shell:
        shell.until(">>> ")
        for line in ("import time", "print('be' + 'gins'); time.sleep(600)"):
            shell.press(f"{line}\n")
        for _ in range(2):
            shell.until("begins\n")
            shell.press("\x03")
            assert "KeyboardInterrupt" in shell.until(">>> ")
            shell.press("print('be' + 'gins'); await asyncio.sleep(600)\n")
        shell.until("begins\n")
        shell.press("\x03")
        shell.until(">>> ")
        shell.press("'it is', len(await ctx.user('Hello').generate(max_tokens=4)) > 0\n")
        assert "('it is', True)" in shell.until("\n>>> ")
        shell.press("\x04")
        assert shell.end() == 0


def test_an_error_at_a_prompt_shows_what_was_typed_and_no_code_of_the_sdk(daemon):
    with OnTerminal(daemon, "repl") as shell:
        shell.until(">>> ")
        shell.press("Context('nope')\n")
        said = shell.until("\n>>> ")
        assert "NotFound: no model is called 'nope'" in said
        assert 'File "<console>"' in said
        shell.press("top('x')\n")
        said += shell.until("\n>>> ")
        assert "InvalidInput: top_k has to be" in said
        assert "inferlet/" not in said


def test_a_prompt_on_a_model_that_is_not_there_is_refused(daemon):
    done = daemon.pie("repl", "--model", "nope")
    assert done.returncode == 4
    assert "error: no model is called `nope`\nhint: models here: pie-tiny\n" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_ctrl_c_and_kill_end_a_program_under_the_debugger(daemon, program):
    with OnTerminal(daemon, "debug", str(program), "Hello", "--waits") as shell:
        shell.until("prompted")
        shell.press("\x03")
        assert shell.end() == 130
    with OnTerminal(daemon, "debug", str(program), "Hello") as shell:
        shell.until("(Pdb) ")
        listed = daemon.pie("ps").stdout
        pid = next(line.split()[0] for line in listed.splitlines() if " ask " in line)
        assert daemon.pie("kill", pid).returncode == 0
        assert shell.end() == 1
        assert "terminated" in shell.rest


@pytest.mark.slow
def test_its_credits_are_those_it_was_launched_with(daemon, tmp_path):
    file = tmp_path / "rich.py"
    file.write_text(
        "from inferlet import scheduling\n\nasync def main() -> float:\n    return (await scheduling()).endowment\n"
    )
    assert daemon.pie("debug", str(file), "--endowment", "50.5").stdout == "50.5\n"
    refused = daemon.pie("debug", "--endowment", "-1", str(file))
    assert (refused.returncode, "from 0 to 1000000; got -1" in refused.stderr) == (2, True)


@pytest.mark.slow
def test_what_cannot_be_debugged_is_said(daemon, program):
    cases = [
        (["debug"], "TARGET is missing"),
        (["debug", "nothing"], "a program is debugged in its own files"),
        (["debug", str(program), "--wait", "Hi"], "`--wait` is for `--listen`"),
        (["debug", str(program), "--listen", "here", "Hi"], "`--listen` needs HOST:PORT"),
        (["debug", str(program), "--python", "nothing", "Hi"], "there is no Python `nothing`"),
        (["debug", str(program)], "`--prompt` is missing"),
    ]
    for words, message in cases:
        done = daemon.pie(*words)
        assert message in done.stderr, words
        assert done.returncode in (2, 4), words
    assert "pie debug" in daemon.pie("debug", "--help").stdout
    assert "--prompt" in daemon.pie("debug", str(program), "--help").stdout
