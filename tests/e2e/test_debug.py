"""`pie debug` and `pie repl` at a terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TIMEOUT_S = 60
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


class AtTerminal:
    """A command of `pie` with a terminal for its streams."""

    def __init__(self, daemon, *words: str) -> None:
        ours, theirs = pty.openpty()
        self._terminal = ours
        self._command = subprocess.Popen(
            [sys.executable, "-m", "pie_cli", *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**daemon.env, "TERM": "dumb", "NO_COLOR": "1"},
            start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # which makes it the controlling terminal
        )
        os.close(theirs)
        self._rest = ""

    def until(self, text: str) -> str:
        """All that is shown up to `text`."""
        end = time.monotonic() + TIMEOUT_S
        while text not in self._rest:
            assert time.monotonic() < end, self._rest
            if select.select([self._terminal], [], [], 1.0)[0]:
                piece = self._read()
                assert piece, f"it has ended: {self._rest}"
                self._rest += piece
        seen, self._rest = self._rest.split(text, 1)
        return seen

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def finish(self) -> tuple[int, str]:
        """The exit code, and the rest of what is shown."""
        while piece := self._read():
            self._rest += piece
        return self._command.wait(TIMEOUT_S), self._rest

    def close(self) -> None:
        self._command.kill()
        self._command.wait()
        os.close(self._terminal)

    def _read(self) -> str:
        try:
            return os.read(self._terminal, 65536).decode().replace("\r\n", "\n")
        except OSError:  # nobody has the other end any more
            return ""


Terminal = Callable[..., AtTerminal]


@pytest.fixture
def terminal(daemon) -> Iterator[Terminal]:
    opened = []

    def start(*words: str) -> AtTerminal:
        opened.append(AtTerminal(daemon, *words))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


@pytest.fixture
def program(tmp_path) -> Path:
    path = tmp_path / "ask.py"
    path.write_text(PROGRAM)
    return path


def test_pdb_steps_through_a_program_with_the_live_context(daemon, terminal, program):
    sandboxed = program.with_name("plain.py")
    sandboxed.write_text(PROGRAM.replace("    breakpoint()\n", ""))
    wanted = daemon.pie("run", str(sandboxed), "Hello").stdout.removeprefix("prompted\n").strip()
    at = terminal("debug", str(program), "Hello")
    stop = at.until("(Pdb) ")
    assert stop.index("prompted") < stop.index(f"{program}(11)main()")
    at.type("p ctx.length > 3\n")
    assert "True" in at.until("(Pdb) ")
    at.type("n\n")
    assert "-> return text" in at.until("(Pdb) ")
    at.type("p 'it said', text\n")
    assert f"('it said', {wanted!r})" in at.until("(Pdb) ")
    at.type("c\n")
    code, rest = at.finish()
    assert (code, wanted in rest) == (0, True)


@pytest.mark.slow
def test_a_prompt_has_a_live_context(daemon, terminal):
    at = terminal("repl")
    assert "pie-tiny: " in at.until(">>> ")
    at.type("ctx.user('Hello')\n")
    at.until(">>> ")
    at.type("top(3)\n")
    assert len(at.until(">>> ").strip().splitlines()) == 5
    at.type("len(await ctx.fork().generate(max_tokens=4)) > 0\n")
    assert "True" in at.until(">>> ")
    at.type("ctx.generate(ignore_eos=True)\n")
    at.until("\n")
    at.type("\x03")
    assert "KeyboardInterrupt" in at.until(">>> ")
    at.type("1 / 0\n")
    assert "ZeroDivisionError" in at.until(">>> ")
    at.type("\x04")
    assert at.finish()[0] == 0
    assert "repl" not in daemon.pie("ps").stdout


@pytest.mark.slow
def test_ctrl_c_and_kill_end_a_program_under_the_debugger(daemon, terminal, program):
    at = terminal("debug", str(program), "Hello", "--waits")
    at.until("prompted")
    at.type("\x03")
    assert at.finish()[0] == 130
    at = terminal("debug", str(program), "Hello")
    at.until("(Pdb) ")
    listed = daemon.pie("ps").stdout
    pid = next(line.split()[0] for line in listed.splitlines() if " ask " in line)
    assert daemon.pie("kill", pid).returncode == 0
    code, rest = at.finish()
    assert code == 1
    assert "terminated" in rest


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
