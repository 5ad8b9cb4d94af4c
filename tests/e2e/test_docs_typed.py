"""The shell blocks of the pages, typed in the order in which a reader comes to them, say what the pages show.

`pie test` of templates, and what is not `pie`, is typed by test_templates.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pie_cli.templates import create_program
from pie_engine.hub.places import PIE_TINY, resolve
from tests.adapter_files import tensors_of, write_files
from tests.pages import ROOT, blocks_of, checked_by

PAGES = sorted({block.page for block in checked_by(__file__)})
NOT_TYPED = ("pie serve", "pie attach", "pie test", "python", "curl")
"""Those that stay, and what is typed elsewhere."""
HIDDEN = 256
"""Of pie-tiny, and of its queries."""
SAVES = """
from inferlet import Context

async def main() -> None:
    ctx = Context()
    ctx.user("Read this.")
    await ctx.save("manual")
"""
SLOW = {"docs/building.md"} | {page for page in PAGES if page.startswith(("templates/", "inferlets/"))}
"""They build, or type what other tests run in another way."""
_ID = re.compile(r"\b[0-9a-f]{16,32}\b")
_NUMBER = re.compile(r"[\d.]+(?: ?(?:[KMG]iB|B|ms|s|m\d+s)\b)?")
_PATH = re.compile(r"/\S+/")


class Command(NamedTuple):
    """A command of a page, and what the page shows below it."""

    text: str
    shown: list[str]


def commands(text: str) -> list[Command]:
    """Behind `$`; of a script every line."""
    if "$ " not in text:
        return [Command(line, []) for line in re.sub(r"\\\n\s*", " ", text).splitlines()]
    parts = [part.splitlines() for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]]
    return [Command(lines[0], lines[1:]) for lines in parts]


def shape(text: str) -> str:
    """What is the same on every machine and at any time."""
    plain = _NUMBER.sub("N", _ID.sub("ID", _PATH.sub("/…/", text)))
    return re.sub(r"\s+", " ", plain).strip()


def program_of(page: str, number: int = 0) -> str:
    programs = [block.text for block in blocks_of(ROOT / page) if block.kind == "program"]
    return programs[number]


class Reader:
    """Somebody with a shell in a folder, and with what the page takes for granted."""

    def __init__(self, daemon: Any, folder: Path) -> None:
        self.daemon, self.folder = daemon, folder
        bin_folder = folder / ".bin"
        bin_folder.mkdir()
        (bin_folder / "pie").write_text(f'#!/bin/sh\nexec {sys.executable} -m pie_cli "$@"\n')
        (bin_folder / "pie").chmod(0o755)
        config = {"PIE_CONFIG": str(folder / "config.toml")} if "pie-config" in folder.name else {}
        self.env = {**daemon.env, **config, "PATH": f"{bin_folder}:{os.environ['PATH']}", "COLUMNS": "120"}
        self.pid = ""

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def type(self, command: str) -> subprocess.CompletedProcess[str]:
        """Both streams in one, as on a terminal."""
        done = subprocess.run(
            re.sub(r"\bPID\b", self.pid, command),
            shell=True,
            cwd=self.folder,
            env=self.env,
            input="",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
        )
        self.pid = next(iter(re.findall(r"^([0-9a-f]{16})$", done.stdout, re.MULTILINE)), self.pid)
        return done


def new(template: str) -> Callable[[Reader], None]:
    def prepare(reader: Reader) -> None:
        create_program(reader.folder / "program", template)
        reader.folder /= "program"
        reader.write("questions.txt", "Where does Ann work?\nWho is Ben?\n")

    return prepare


def prepare_adapters(reader: Reader) -> None:
    write_files(
        reader.folder / "pirate-lora", tensors_of(HIDDEN, HIDDEN, rank=8), {"r": 8, "layers_to_transform": [0, 1]}
    )


def prepare_context(reader: Reader) -> None:
    reader.write("saves.py", SAVES)
    reader.type("pie run saves.py")


def prepare_recordings(reader: Reader) -> None:
    reader.write("story.py", program_of("docs/index.md"))
    reader.type("pie run --record other.rec story.py --max-tokens 9")


PREPARE: dict[str, Callable[[Reader], None]] = {
    "docs/adapters.md": prepare_adapters,
    "docs/building.md": lambda reader: create_program(reader.folder / "hello", "chat"),
    "docs/index.md": lambda reader: reader.write("story.py", program_of("docs/index.md")),
    "docs/kv-cache.md": prepare_context,
    "docs/profiling.md": lambda reader: reader.write("agent.py", program_of("docs/index.md")),
    "docs/record-replay.md": prepare_recordings,
    **{str(page.relative_to(ROOT)): new(page.parent.name) for page in ROOT.glob("templates/*/README.md")},
}
BEFORE: dict[tuple[str, str], Callable[[Reader], None]] = {
    ("docs/first-inferlet.md", 'pie run hello "Hello!" --tries 5'): lambda reader: reader.write(
        "hello/main.py", program_of("docs/first-inferlet.md", 1)
    )
}
"""What the reader does before a command of a page."""
AFTER = {
    "docs/adapters.md": "pie adapter remove pirate",
    "docs/kv-cache.md": "pie context remove manual && pie context remove manual-2",
    "templates/rag-cache/README.md": "pie context remove $(pie context list | sed -n 's/^\\(program-[^ ]*\\).*/\\1/p')",
}


@pytest.fixture
def reader(daemon: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Reader]:
    page = request.param
    folder = tmp_path / ("pie-config" if page == "docs/deploying.md" else "reader")
    folder.mkdir()
    (folder / "inferlets").symlink_to(ROOT / "inferlets")
    reading = Reader(daemon, folder)
    PREPARE.get(page, lambda _: None)(reading)
    yield reading
    if page in AFTER:
        assert reading.type(AFTER[page]).returncode == 0


def is_typed(command: Command) -> bool:
    return not command.text.startswith(NOT_TYPED) and "--watch" not in command.text


def marked(page: str) -> Any:
    return pytest.param(page, page, id=page, marks=[pytest.mark.slow] if page in SLOW else [])


@pytest.mark.parametrize(("reader", "page"), [marked(page) for page in PAGES], indirect=["reader"])
def test_what_the_page_says_is_typed(reader: Reader, page: str) -> None:
    shells = [block for block in checked_by(__file__, page) if block.kind == "shell"]
    for command in (each for block in shells for each in commands(block.text)):
        if not is_typed(command):
            continue
        BEFORE.get((page, command.text), lambda _: None)(reader)
        done = reader.type(command.text.replace("/models/my-llama", str(resolve(PIE_TINY))))
        is_error = command.text.startswith("pie diff") or any(line.startswith("error: ") for line in command.shown)
        assert (done.returncode != 0) == is_error, f"{command.text}\n{done.stdout}"
        if command.shown:
            assert [shape(line) for line in done.stdout.splitlines()] == [shape(line) for line in command.shown]


@pytest.mark.parametrize("reader", ["docs/record-replay.md"], indirect=True)
def test_where_an_edited_program_departs_is_shown_as_on_the_page(reader: Reader) -> None:
    (block,) = [block for block in checked_by(__file__, "docs/record-replay.md") if block.kind == "text"]
    reader.write("story.py", program_of("docs/index.md") + "\n# edited")
    reader.type("pie run --record story.rec story.py --max-tokens 8")
    reader.write("story.py", program_of("docs/index.md").replace("max_tokens=max_tokens", "max_tokens=9"))
    done = reader.type("pie replay story.rec story.py")
    said = done.stdout[done.stdout.index("error: ") :]
    assert (done.returncode, shape(said)) == (1, shape(block.text))
