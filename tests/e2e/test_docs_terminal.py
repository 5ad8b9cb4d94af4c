"""What the pages show of a terminal is what stands there: the loop, the debugger and the prompt."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pie_cli.templates import create_program
from tests.e2e.terminal import OnTerminal
from tests.pages import ROOT, blocks_of, checked_by

_ID = re.compile(r"\b[0-9a-f]{8,32}\b")
_CACHED = re.compile(r"tokens \(after .*")
_NUMBER = re.compile(r"\d+(?:\.\d+)*")


def shown(page: str, begins: str) -> list[str]:
    """The lines of the block of a page that begins so."""
    (text,) = [block.text for block in checked_by(__file__, page) if block.text.startswith(begins)]
    return text.splitlines()


def shapes(text: str) -> list[str]:
    """Its lines as they are everywhere: without numbers, digests and columns, and what depends on the prefix cache."""
    lines = (
        re.sub(r"\s+", " ", _NUMBER.sub("N", _ID.sub("ID", _CACHED.sub("tokens", line)))).strip()
        for line in text.splitlines()
    )
    return [line for line in lines if line]


def made(tmp_path: Path, name: str, monkeypatch: Any) -> Path:
    """A program of `pie new`, in the working folder."""
    monkeypatch.chdir(tmp_path)
    create_program(tmp_path / name, "chat")
    return tmp_path / name / "main.py"


def test_a_save_runs_it_again(daemon: Any, tmp_path: Path, monkeypatch: Any) -> None:
    main = made(tmp_path, "hello", monkeypatch)
    command, *lines = shown("docs/developing.md", "$ pie run")
    assert command == '$ pie run --watch hello "What is a page?" --temperature 0'
    with OnTerminal(daemon, "run", "--watch", "hello", "What is a page?", "--temperature", "0", columns=120) as shell:
        said = shell.until(" s\n")
        main.write_text(main.read_text().replace("max_tokens: int = 256", "max_tokens: int = 3"))
        said += shell.until(" s\n")
        assert shapes(said) == shapes("\n".join(lines))
        shell.press("q")
        assert shell.end() == 0


async def test_a_save_is_a_version_for_clients(daemon: Any, client: Any, tmp_path: Path, monkeypatch: Any) -> None:
    main = made(tmp_path, "chat", monkeypatch)
    command, *lines = shown("docs/developing.md", "$ pie dev")
    assert command == "$ pie dev chat"
    with OnTerminal(daemon, "dev", "chat", columns=120) as shell:
        said = shell.until("serving chat@") + shell.until("\n")
        process = await client.launch_process("chat")
        said += shell.until("began, on ") + shell.until("\n")
        main.write_text(main.read_text() + "\n# edited\n")
        said += shell.until("1 on ") + shell.until("\n")
        main.write_text("async def main(:\n")
        said += shell.until("goes on being served\n")
        await process.send(None)
        said += shell.until("ended: return") + shell.until("\n")
        assert shapes("\n".join(line for line in said.splitlines() if "`q`" not in line)) == shapes("\n".join(lines))
        shell.press("q")
        assert shell.end() == 0


def test_pdb_is_at_the_breakpoint_with_the_live_context(daemon: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (program,) = [block.text for block in blocks_of(ROOT / "docs" / "debugging.md") if block.kind == "program"]
    (tmp_path / "ask.py").write_text(program)
    command, *lines = shown("docs/debugging.md", "$ pie debug")
    assert command == '$ pie debug ask.py "What is a page?"'
    typed = [line.removeprefix("(Pdb) ") for line in lines if line.startswith("(Pdb) ")]
    with OnTerminal(daemon, "debug", "ask.py", "What is a page?", columns=120) as shell:
        said = shell.until("(Pdb) ")
        for line in typed:
            shell.press(f"{line}\n")
            said += shell.until("(Pdb) ")
        there = shapes(said.replace(f"{os.getcwd()}/", ""))
    # A Python older than the sandbox's has a note of it.
    assert [line for line in there if not line.startswith("note: ")] == [*shapes("\n".join(lines)), "(Pdb)"]


def test_a_prompt_shows_what_is_likely_and_replies(daemon: Any) -> None:
    lines = shown("docs/debugging.md", ">>> ")
    typed = [line.removeprefix(">>> ") for line in lines if line.startswith(">>> ")]
    with OnTerminal(daemon, "repl", columns=120) as shell:
        shell.until(">>> ")
        said = ">>> "
        for line in typed:
            shell.press(f"{line}\n")
            said += shell.until(">>> ")
        assert shapes(said) == [*shapes("\n".join(lines)), ">>>"]
        shell.press("\x04")
        assert shell.end() == 0
