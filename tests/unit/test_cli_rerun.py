"""`pie run --watch` against a stand-in of the daemon: saves, errors, keys, Ctrl-C."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pie_cli.editor import Place, command_for, place_of
from pie_cli.main import invoke
from pie_client.bundle import pack
from pie_engine.config import load_config
from pie_engine.errors import PieError
from tests.unit.cli_standin import Inbox, StandIn, Step, short_home

PROMPT = {"name": "prompt", "schema": {"type": "string"}}
COMMAND = [sys.executable, "-m", "pie_cli", "run", "--watch"]
ON_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from pie_cli.main import invoke
sys.exit(invoke(["run", "--watch", *sys.argv[1:]]))
"""
"""A new session has no terminal until it takes one."""


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with short_home(monkeypatch), StandIn(load_config().paths.api_socket) as standin:
        standin.add("chat", _chat, parameters=[PROMPT])
        standin.add("listens", _listens)
        standin.add("waits", _waits)
        standin.add("fails", _fails)
        yield standin


@pytest.fixture(autouse=True)
def _nobody_stays() -> Iterator[None]:
    """Also where a test fails."""
    yield
    for process in Watching.alive:
        process.kill()
        process.wait()
    Watching.alive.clear()


def _chat(given: dict[str, Any], _inbox: Inbox) -> Iterator[Step]:
    yield "message", f"said {given['prompt']}\n"


def _listens(_given: dict[str, Any], inbox: Inbox) -> Iterator[Step]:
    while (value := inbox.get()) not in (None, inbox.STOP):
        yield "message", f"got {value}\n"


def _waits(_given: dict[str, Any], inbox: Inbox) -> Iterator[Step]:
    yield "message", "waiting\n"
    inbox.get()
    yield "error", {"code": "cancelled", "message": "the process was terminated"}


def _fails(_given: dict[str, Any], _inbox: Inbox) -> Iterator[Step]:
    traceback = 'Traceback:\n  File "fails.py", line 2, in main\nValueError: no\n'
    yield "error", {"code": "exception", "message": "ValueError: no", "traceback": traceback}


class Watching:
    """A `pie run --watch` in a process of its own; with `terminal`, both ends of one, in its foreground."""

    alive: ClassVar[list[subprocess.Popen[bytes]]] = []

    def __init__(
        self,
        target: Path,
        *words: str,
        stdin: int = subprocess.DEVNULL,
        terminal: tuple[int, int] | None = None,
    ) -> None:
        self._source, out = terminal or os.pipe()
        command = [sys.executable, "-c", ON_TERMINAL] if terminal else COMMAND
        self.process = subprocess.Popen(
            [*command, str(target), *words],
            start_new_session=True,
            stdin=out if terminal else stdin,
            stdout=out,
            stderr=out,
        )
        self.alive.append(self.process)
        self.said = ""
        self.file = target

    def until(self, text: str) -> str:
        """What it says up to and with `text`, since the last time."""
        guard = threading.Timer(60, self.process.kill)
        guard.start()
        while text not in self.said:
            piece = os.read(self._source, 65536)
            assert piece, f"`{text}` did not come, but: {self.said}"
            self.said += piece.decode().replace("\r\n", "\n")
        guard.cancel()
        before, found, self.said = self.said.partition(text)
        return before + found

    def save(self, text: str = "x = 1\n") -> None:
        self.file.write_text(text)

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


def program(folder: Path, name: str) -> Path:
    file = folder / f"{name}.py"
    file.write_text("async def main() -> None: ...\n")
    return file


def states(daemon: StandIn) -> list[bool]:
    return [process.has_ended for process in daemon.processes.values()]


def test_each_save_runs_it_again_with_the_same_input(daemon: StandIn, tmp_path: Path) -> None:
    watching = Watching(program(tmp_path, "chat"), "hi")
    assert watching.until("said hi\n").startswith("watching ")
    watching.save()
    assert watching.until("said hi\n").endswith("chat.py changed\nsaid hi\n")
    watching.save("x = 2\n")
    watching.until("said hi\n")
    assert watching.end() == 130
    assert states(daemon) == [True] * 3


def test_lines_of_stdin_are_sent_to_every_run(daemon: StandIn, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, b"one\ntwo\n")
    watching = Watching(program(tmp_path, "listens"), stdin=read)
    watching.until("got two\n")
    watching.save()
    assert "got one\n" in watching.until("got two\n")
    os.write(write, b"three\n")
    watching.until("got three\n")
    assert watching.end() == 130
    os.close(write)


def test_a_text_of_stdin_is_kept(daemon: StandIn, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, b"a long text")
    os.close(write)
    watching = Watching(program(tmp_path, "chat"), "-", stdin=read)
    watching.until("said a long text\n")
    watching.save()
    watching.until("said a long text\n")
    assert watching.end() == 130


def test_a_save_ends_the_run_first(daemon: StandIn, tmp_path: Path) -> None:
    watching = Watching(program(tmp_path, "waits"))
    watching.until("waiting\n")
    watching.save()
    assert watching.until("waiting\n") == "waits.py changed\nwaiting\n"
    assert states(daemon) == [True, False]
    assert watching.end() == 130
    assert states(daemon) == [True, True]


def test_a_broken_program_is_shown_and_the_next_save_runs(daemon: StandIn, tmp_path: Path) -> None:
    caret = '  File "chat.py", line 1\n    async def main(\n                  ^\nSyntaxError: never closed\n'
    daemon.programs["chat"].error = {"code": "invalid_program", "message": "SyntaxError in chat.py", "traceback": caret}
    watching = Watching(program(tmp_path, "chat"), "hi")
    assert watching.until("watching").startswith(caret + "error: SyntaxError in chat.py\n")
    daemon.programs["chat"].error = None
    watching.save()
    watching.until("said hi\n")
    assert watching.end() == 130


def test_a_file_of_a_programs_folder_is_told_once_to_be_another_program(daemon: StandIn, tmp_path: Path) -> None:
    (tmp_path / "pie.toml").write_text('[program]\nname = "chat"\n')
    watching = Watching(program(tmp_path, "chat"), "hi")
    assert watching.until("said hi\n").startswith("note: chat.py alone; ")
    watching.save()
    assert "alone" not in watching.until("said hi\n")
    assert watching.end() == 130


def test_a_broken_manifest_is_shown_and_the_next_save_runs(daemon: StandIn, tmp_path: Path) -> None:
    folder = tmp_path / "chat"
    folder.mkdir()
    (folder / "main.py").write_text("async def main() -> None: ...\n")
    manifest = folder / "pie.toml"
    manifest.write_text("[program\n")
    watching = Watching(folder, "hi")
    assert "pie.toml: " in watching.until("watching")
    manifest.write_text('[program]\nname = "chat"\n')
    watching.until("said hi\n")
    assert watching.end() == 130


def test_it_ends_when_nobody_reads_what_it_says(daemon: StandIn, tmp_path: Path) -> None:
    file = program(tmp_path, "waits")
    process = subprocess.Popen([*COMMAND, str(file)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.close()
    assert process.wait(30) == 0
    assert states(daemon) == [True]


def test_a_wrong_command_line_is_refused(daemon: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(program(tmp_path, "chat"))
    assert invoke(["run", "--watch", file]) == 2
    assert "`--prompt` is missing" in capsys.readouterr().err
    assert invoke(["run", file, "hi", "--watch", "--detach"]) == 2
    assert "`--watch` stays and `--detach` leaves" in capsys.readouterr().err
    assert invoke(["run", "--watch", "--record", "absent/x.rec", file, "hi"]) == 2
    assert "there is no folder `absent`" in capsys.readouterr().err
    assert invoke(["run", "--watch", "--trace", "x.html", file, "hi"]) == 2
    assert "`x.html` is no name of a trace" in capsys.readouterr().err
    assert invoke(["run", "--watch", "chat", "hi"]) == 4
    assert "there is no file or folder `chat` to watch" in capsys.readouterr().err


def test_a_program_may_have_an_option_of_that_name(daemon: StandIn, tmp_path: Path) -> None:
    own = {"name": "watch", "schema": {"type": "boolean"}, "required": False, "default": False}
    daemon.add("clock", _chat, parameters=[PROMPT, own])
    assert invoke(["run", str(program(tmp_path, "clock")), "hi", "--watch"]) == 0
    (process,) = daemon.processes.values()
    assert process.input == {"prompt": "hi", "watch": True}


def test_keys_run_it_again_open_the_editor_and_quit(
    daemon: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "opened"
    monkeypatch.setenv("EDITOR", f"sh -c 'echo \"$@\" > {notes}; echo opened' vi")
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    watching = Watching(program(tmp_path, "fails"), terminal=(ours, theirs))
    assert "`q` quits" in watching.until("ValueError: no")
    os.write(ours, b"r")
    watching.until("ValueError: no")
    os.write(ours, b"e")
    watching.until("opened\n")
    assert notes.read_text() == f"+2 {tmp_path / 'fails.py'}\n"
    os.write(ours, b"q")
    assert watching.process.wait(30) == 0
    assert termios.tcgetattr(theirs) == before
    assert states(daemon) == [True, True]


def test_on_a_terminal_a_program_without_its_text_gets_what_is_typed(daemon: StandIn, tmp_path: Path) -> None:
    daemon.add("talks", _listens, parameters=[{**PROMPT, "required": False, "default": ""}])
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    watching = Watching(program(tmp_path, "talks"), terminal=(ours, theirs))
    assert "what you type goes to the program" in watching.until("watching ")
    os.write(ours, b"q\n")
    watching.until("got q\n")
    watching.save()
    assert "talks.py changed" in watching.until("got q\n")
    os.write(ours, b"\x03")
    watching.until("^C\n")
    assert watching.process.wait(30) == 130
    assert termios.tcgetattr(theirs) == before
    assert states(daemon) == [True, True]


def test_on_a_terminal_a_program_with_its_text_has_keys(daemon: StandIn, tmp_path: Path) -> None:
    watching = Watching(program(tmp_path, "chat"), "hi", terminal=pty.openpty())
    assert "`q` quits" in watching.until("said hi\n")
    assert watching.end() == 130


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_the_terminal_is_restored(daemon: StandIn, tmp_path: Path, number: int, status: int) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    watching = Watching(program(tmp_path, "waits"), terminal=(ours, theirs))
    watching.until("waiting\n")
    assert not termios.tcgetattr(theirs)[3] & termios.ICANON
    assert watching.end(number) == status
    assert termios.tcgetattr(theirs) == before


def test_the_editor_is_opened_at_the_innermost_place_of_the_program(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("x\n")
    (tmp_path / "helper.py").write_text("x\n")
    traceback = (
        'Traceback (most recent call last):\n  File "main.py", line 5, in main\n    go()\n'
        '  File "helper.py", line 7, in go\n    1/0\n  File "/usr/lib/python3.14/asyncio/x.py", line 9, in y\n'
    )
    assert place_of(traceback, tmp_path) == Place(tmp_path / "helper.py", 7)
    assert place_of("ValueError: no\n", tmp_path) is None
    manifest = tmp_path / "pie.toml"
    manifest.write_text("[program\n")
    broken = f"\n{manifest}: Expected ']' (at line 1, column 9)"
    assert place_of(broken, tmp_path) == Place(manifest, 1)
    spaced = tmp_path / "a folder"
    spaced.mkdir()
    for name in ("pie.toml", "main.py"):
        (spaced / name).write_bytes(b"caf\xe9")
        with pytest.raises(PieError) as raised:
            pack(spaced)
        assert place_of(f"\n{raised.value.message}", spaced) == Place(spaced / name, 1)
        (spaced / name).write_text('[program]\nname = "spaced"\n')
    assert place_of('  File "main.py", line 1\n', tmp_path / "main.py") == Place(tmp_path / "main.py", 1)


@pytest.mark.parametrize(
    ("editor", "words"),
    [
        ("vim", "vim +7 main.py"),
        ("emacs -nw", "emacs -nw +7 main.py"),
        ("code --wait", "code --goto main.py:7"),
        ("subl -n -w", "subl -n main.py:7"),
        ("emacs -w 80", "emacs -w 80 +7 main.py"),
        ("/usr/bin/hx", "/usr/bin/hx main.py:7"),
        ("pycharm", "pycharm --line 7 main.py"),
    ],
)
def test_editors_are_told_the_line_as_they_want_it(editor: str, words: str) -> None:
    assert " ".join(command_for(Place(Path("main.py"), 7), editor)) == words


def test_without_an_editor_it_is_vi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.delenv("EDITOR", raising=False)
    assert command_for(Place(Path("main.py"), 7)) == ["vi", "+7", "main.py"]
