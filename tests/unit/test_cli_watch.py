"""What counts as a save of a program, and what does not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pie_cli import watch
from pie_cli.watch import Watched


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "chat"
    (root / "data").mkdir(parents=True)
    (root / "main.py").write_text("async def main() -> None: ...\n")
    (root / "data" / "words.txt").write_text("a\n")
    return root


async def changed_by(watched: Watched, *edits: Callable[[], object]) -> list[str]:
    """What is reported once of edits that follow each other closely."""
    waiting = asyncio.create_task(watched.changed())
    await asyncio.sleep(0.02)
    for edit in edits:
        edit()
    return await asyncio.wait_for(waiting, 20)


async def is_silent(watched: Watched) -> bool:
    """Whether nothing that has happened so far counts."""
    waiting = asyncio.create_task(watched.changed())
    await asyncio.sleep(0.1)
    waiting.cancel()
    await asyncio.wait({waiting})
    return waiting.cancelled()


async def test_a_save_is_reported_once(folder: Path) -> None:
    watched = Watched(folder)
    assert await changed_by(watched, lambda: (folder / "main.py").write_text("x = 1\n")) == ["main.py"]
    assert await is_silent(watched)


async def test_files_beside_the_source_count(folder: Path) -> None:
    watched = Watched(folder)
    edits = (
        lambda: (folder / "data" / "words.txt").write_text("b\n"),
        lambda: (folder / "pie.toml").write_text("[program]\n"),
        lambda: (folder / "pie.lock").write_text("version = 1\n"),
    )
    assert await changed_by(watched, *edits) == ["data/words.txt", "pie.lock", "pie.toml"]


async def test_files_in_a_new_folder_count(folder: Path) -> None:
    watched = Watched(folder)
    waiting = asyncio.create_task(watched.changed())
    await asyncio.sleep(0.02)
    (folder / "prompts").mkdir()
    await asyncio.sleep(0.1)
    (folder / "prompts" / "system.txt").write_text("Be kind.\n")
    assert await asyncio.wait_for(waiting, 20) == ["prompts/system.txt"]


async def test_a_file_put_in_place_of_another_is_one_save(folder: Path) -> None:
    def replace() -> None:
        (folder / "main.py.new~").write_text("x = 2\n")
        os.replace(folder / "main.py.new~", folder / "main.py")

    watched = Watched(folder)
    assert await changed_by(watched, replace) == ["main.py"]
    assert await is_silent(watched)


async def test_a_file_that_is_deleted_and_written_anew_is_one_save(folder: Path) -> None:
    watched = Watched(folder)
    waiting = asyncio.create_task(watched.changed())
    await asyncio.sleep(0.02)
    (folder / "main.py").unlink()
    while (folder / "main.py").name in watched._state():
        await asyncio.sleep(0)
    (folder / "main.py").write_text("x = 3\n")
    assert await asyncio.wait_for(waiting, 20) == ["main.py"]
    assert watched._seen["main.py"] == watched._state()["main.py"]
    assert await is_silent(watched)


@pytest.mark.parametrize(
    "path",
    [
        ".main.py.swp", "main.py~", "#main.py#", "4913", "__pycache__/main.cpython-311.pyc", ".git/index", "README.md",
        "tests/test_main.py", ".pytest_cache/v/x", "dist/chat-0.1.0.wasm", "chat.pie", ".venv/pyvenv.cfg",
    ],
)  # fmt: skip
async def test_what_is_no_part_of_the_program_does_not_count(folder: Path, path: str) -> None:
    watched = Watched(folder)
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text("x")
    assert watched._state() == watched._seen


async def test_an_empty_file_is_given_time(folder: Path) -> None:
    before, empty, gone = (1, 5, 1), (2, 0, 1), None
    assert watch._is_unfinished(before, empty)
    assert watch._is_unfinished(before, gone)
    assert not watch._is_unfinished(before, (2, 7, 1))
    assert not watch._is_unfinished((1, 0, 1), empty)


async def test_a_folder_that_goes_and_comes_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SETTLE_S", 0.0)
    watched = Watched(folder)
    away = folder.with_name("away")
    assert "main.py" in await changed_by(watched, lambda: folder.rename(away))
    assert "main.py" in await changed_by(watched, lambda: away.rename(folder))
    assert await changed_by(watched, lambda: (folder / "main.py").write_text("y\n")) == ["main.py"]


async def test_one_file_is_watched_alone(tmp_path: Path) -> None:
    file = tmp_path / "chat.py"
    file.write_text("x = 1\n")
    watched = Watched(file)
    (tmp_path / "other.py").write_text("x")
    assert await changed_by(watched, lambda: file.write_text("x = 2\n")) == ["chat.py"]


async def test_a_link_out_of_the_folder_is_watched_where_it_leads(folder: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared" / "prompt.txt"
    shared.parent.mkdir()
    shared.write_text("a")
    (folder / "prompt.txt").symlink_to(shared)
    assert await changed_by(Watched(folder), lambda: shared.write_text("bc")) == ["prompt.txt"]


async def test_what_the_command_writes_itself_does_not_count(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = folder / "out.txt"
    with out.open("w") as file:
        monkeypatch.setattr(watch, "_outputs", lambda: frozenset({os.fstat(file.fileno()).st_ino}))
        watched = Watched(folder)
    watched.leave_out(folder / "run.rec")
    out.write_text("said")
    (folder / "run.rec").write_text("recorded")
    assert watched._state() == watched._seen
    (folder / "pie.lock").write_text("chosen\n")
    watched.expect("pie.lock")
    assert watched._state() == watched._seen


async def test_files_that_are_given_elsewhere_count(folder: Path, tmp_path: Path) -> None:
    given = tmp_path / "input.json"
    given.write_text("{}")
    watched = Watched(folder)
    watched.add(given)
    assert await changed_by(watched, lambda: given.write_text('{"prompt": "hi"}')) == [str(given)]


async def test_without_a_notice_of_the_system_saves_are_found_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no watches left")

    monkeypatch.setattr(watch, "awatch", refuse)
    monkeypatch.setattr(watch, "POLL_MS", 10)
    assert await changed_by(Watched(folder), lambda: (folder / "main.py").write_text("x = 9\n")) == ["main.py"]
