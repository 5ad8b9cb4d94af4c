"""The loop of who writes a program, through a real daemon: run --watch on a terminal, dev, attach and send."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

from tests.e2e.terminal import OnTerminal

GENERATING = """
from inferlet import Context, session


async def main(prompt: str) -> str:
    ctx = Context()
    ctx.system("You are a patient teacher who answers each question in one short sentence, and never in two.")
    ctx.user(prompt)
    await ctx.generate(max_tokens=4)
    return "{said}"
"""
STAYING = """
from inferlet import session


async def main() -> str:
    session.send("{said}\\n")
    return await session.receive()
"""


async def test_saves_run_it_again_in_the_sandbox_and_nothing_stays(daemon: Any, client: Any, tmp_path: Path) -> None:
    main = tmp_path / "lesson" / "main.py"
    main.parent.mkdir()
    main.write_text(GENERATING.format(said="first"))
    shell = OnTerminal(daemon, "run", "--watch", str(main.parent), "What is a page?")
    shell.until("first\n")
    shell.until(" s\n")
    main.write_text(GENERATING.format(said="second"))
    assert shell.until("second\n").endswith("main.py changed\nsecond\n")
    found = re.search(r"after (\d+), (\d+) of them cached", shell.until(" s\n"))
    assert found, "the prompt has not changed"
    assert int(found[2]) >= int(found[1]) - 16
    main.write_text("async def main(:\n")
    assert "    async def main(:\n                   ^\n" in shell.until("SyntaxError in main.py, line 1")
    main.write_text(STAYING.replace("main()", "main(prompt: str)").format(said="third"))
    shell.until("third\n")
    (tmp_path / "lesson" / "notes.txt").write_text("data")
    assert "notes.txt changed\n" in shell.until("third\n")
    shell.press("r")
    shell.until("third\n")
    mine = [view for view in await client.list_processes() if view["program"] == "lesson"]
    assert len(mine) == 1, "each run ends the one before it"
    shell.press("\x03")
    assert shell.end() == 130
    assert [view for view in await client.list_processes() if view["program"] == "lesson"] == []


async def test_dev_swaps_versions_under_running_processes(daemon: Any, client: Any, tmp_path: Path) -> None:
    file = tmp_path / "held.py"
    file.write_text(STAYING.format(said="first"))
    shell = OnTerminal(daemon, "dev", str(file), "--name", "held-by-test")
    shell.until("serving held-by-test@")
    first = await client.launch_process("held-by-test")
    shell.until(f"{first.pid} began")
    file.write_text(STAYING.format(said="second"))
    assert shell.until("1 on ").endswith("those that run finish on their version: 1 on ")
    file.write_text("async def main(:\n")
    shell.until("goes on being served\n")
    second = await client.launch_process("held-by-test")
    shell.until(f"{second.pid} began")
    for process, said in ((first, "first\n"), (second, "second\n")):
        sent = daemon.pie("send", process.pid, "bye")
        assert (sent.returncode, sent.stderr) == (0, "")
        assert [value async for value in process.messages()] == [said]
        assert await process.result() == "bye"
        shell.until(f"{process.pid} ended: return")
    shell.press("q")
    shell.until("stays uploaded\n")
    assert shell.end() == 0


async def test_attach_talks_to_what_runs_and_leaves_it_alone(daemon: Any, client: Any, tmp_path: Path) -> None:
    file = tmp_path / "stays.py"
    file.write_text(STAYING.format(said="ready"))
    process = await client.launch_process(file, on_disconnect="detach")
    first = OnTerminal(daemon, "attach", process.pid)
    first.until("ready\n")
    first.press("\x03")
    first.until(f"detached; `pie attach {process.pid}` comes back")
    assert first.end() == 130
    again = daemon.pie("attach", process.pid, input_text="hello\n")
    assert (again.returncode, again.stdout, again.stderr) == (0, "ready\nhello\n", "")


def test_a_terminal_that_goes_away_ends_it(daemon: Any, tmp_path: Path) -> None:
    file = tmp_path / "stays.py"
    file.write_text(STAYING.format(said="ready"))
    shell = OnTerminal(daemon, "run", "--watch", str(file))
    shell.until("ready\n")
    shell.process.send_signal(signal.SIGHUP)
    assert shell.end() == -signal.SIGHUP
