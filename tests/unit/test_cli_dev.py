"""`pie dev`, `attach` and `send` against a stand-in of the daemon."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pie_cli import console
from pie_cli.launches import FIRST_LOOK, Launches
from pie_cli.main import invoke
from pie_engine.config import load_config
from tests.unit.cli_standin import Inbox, StandIn, Step, short_home

Capture = pytest.CaptureFixture[str]
COMMAND = [sys.executable, "-m", "pie_cli"]


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setattr(console, "_line_is_open", {"stdout": False, "stderr": False})
    with short_home(monkeypatch), StandIn(load_config().paths.api_socket) as standin:
        standin.add("echo", _echo)
        yield standin


def _echo(_given: dict[str, Any], inbox: Inbox) -> Iterator[Step]:
    yield "message", "ready\n"
    while (value := inbox.get()) not in (None, inbox.STOP):
        yield "message", f"got {value}\n"
    yield "return", None


def launched(daemon: StandIn) -> str:
    return daemon.launch({"program": "echo"}).pid


# send


def test_a_message_is_sent_as_a_text(daemon: StandIn, capsys: Capture) -> None:
    pid = launched(daemon)
    assert invoke(["send", pid, "5"]) == 0
    assert invoke(["send", pid, "last", "--end"]) == 0
    assert invoke(["logs", "-f", pid]) == 0
    assert capsys.readouterr().out == "ready\ngot 5\ngot last\n"


def test_a_message_may_be_json_and_come_from_stdin(
    daemon: StandIn, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = launched(daemon)
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"a": [1]}'))
    assert invoke(["send", pid, "-", "--json"]) == 0
    assert invoke(["send", pid, "--end"]) == 0
    assert invoke(["logs", "-f", pid]) == 0
    assert "got {'a': [1]}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["p1"], 2, "error: there is nothing to send\n"),
        (["p1", "{", "--json"], 2, "error: the message is not JSON: "),
        (["p9", "hi"], 4, "error: there is no process `p9`\n"),
    ],
)
def test_what_cannot_be_sent(daemon: StandIn, words: list[str], code: int, text: str, capsys: Capture) -> None:
    launched(daemon)
    assert invoke(["send", *words]) == code
    assert capsys.readouterr().err.startswith(text)


# attach


def test_attach_shows_what_was_said_and_sends_lines(daemon: StandIn) -> None:
    pid = launched(daemon)
    attached = subprocess.Popen(
        [*COMMAND, "attach", pid],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert attached.stdin
    assert attached.stdout
    assert attached.stderr
    assert attached.stdout.readline() == "ready\n"
    attached.stdin.write("hello\n")
    attached.stdin.close()
    assert attached.stdout.readline() == "got hello\n"
    attached.send_signal(signal.SIGINT)
    assert attached.wait(30) == 130
    assert attached.stderr.read() == f"detached; `pie attach {pid}` comes back, `pie kill {pid}` ends it\n"
    assert not daemon.processes[pid].has_ended
    assert daemon.processes[pid].inbox.is_empty(), "the end of stdin is not the end of messages"


def test_attach_gives_the_exit_code_of_the_process(daemon: StandIn, capsys: Capture) -> None:
    daemon.add("fails", lambda given, inbox: iter([("message", "a\n"), ("error", {"code": "x", "message": "no"})]))
    pid = daemon.launch({"program": "fails"}).pid
    while not daemon.processes[pid].has_ended:
        time.sleep(0.001)
    assert invoke(["attach", pid, "--no-interactive"]) == 1
    assert capsys.readouterr() == ("a\n", "error: no\n")
    assert invoke(["attach", pid, "--no-interactive", "--new", "--json"]) == 1
    assert '"error"' in (said := capsys.readouterr().out)
    assert '"message", "value": "a' not in said
    assert invoke(["attach", "p9"]) == 4


# dev


def test_a_program_is_served_in_its_last_good_version(daemon: StandIn, tmp_path: Path) -> None:
    file = tmp_path / "echo.py"
    file.write_text("async def main() -> None: ...\n")
    daemon.add("mine", _echo)
    daemon.programs["mine"].error = {"code": "invalid_program", "message": "SyntaxError in echo.py"}
    with subprocess.Popen(
        [*COMMAND, "dev", str(file), "--name", "mine", "--endowment", "50"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as holding:
        assert holding.stdout
        lines = iter(holding.stdout.readline, "")
        assert [next(lines), next(lines)] == ["error: SyntaxError in echo.py\n", "nothing is served yet\n"]
        daemon.programs["mine"].error = None
        file.write_text("x = 1\n")
        assert [next(lines), next(lines)] == ["echo.py changed\n", "serving mine@0.1.0 (digest-m)\n"]
        pid = daemon.launch({"program": "mine"}).pid
        assert next(lines) == f"{pid} began, on digest-m\n"
        daemon.programs["mine"].error = {"code": "invalid_program", "message": "no"}
        file.write_text("x = (\n")
        assert [next(lines) for _ in range(3)][1:] == [
            "error: no\n",
            "mine@0.1.0 (digest-m) goes on being served\n",
        ]
        daemon.processes[pid].inbox.put(None)
        assert next(lines).startswith(f"{pid} ended: return, after ")
        holding.send_signal(signal.SIGINT)
        assert next(lines) == "mine@0.1.0 (digest-m) stays uploaded\n"
        assert holding.wait(30) == 130
    assert set(daemon.published) == {"mine"}
    assert daemon.manifests["mine"]["endowment"] == 50


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["./nothing"], 4, "error: there is no file or folder `./nothing`\n"),
        ([".", "--name", "a b"], 2, "error: `a b` cannot be the name of a program\n"),
        ([".", "--endowment", "-1"], 2, "error: an endowment is a number of credits from 0 to 1000000; got -1\n"),
    ],
)
def test_what_cannot_be_held(words: list[str], code: int, text: str, capsys: Capture) -> None:
    assert invoke(["dev", *words]) == code
    assert capsys.readouterr().err.startswith(text)


class Listing:
    """The list of processes of a daemon, the newest first."""

    def __init__(self) -> None:
        self.views: list[dict[str, Any]] = []
        self.num_asked: list[int | None] = []

    def add(self, program: str = "chat", *, ended: bool = False) -> str:
        pid = f"p{len(self.views)}"
        view = {"pid": pid, "program": program, "version": "1", "digest": "d", "host": None, "created": time.time()}
        view |= {"state": "ended" if ended else "running", "ended": None, "outcome": None, "last_event": 1}
        self.views.insert(0, view)
        return pid

    async def list_processes(self, *, with_ended: bool = False, limit: int | None = None) -> list[dict[str, Any]]:
        self.num_asked.append(limit)
        views = [view for view in self.views if with_ended or view["state"] != "ended"]
        return views[:limit]

    async def inspect(self, pid: str) -> dict[str, Any]:
        return next(view for view in self.views if view["pid"] == pid)


async def test_no_process_is_missed_however_short_and_many() -> None:
    listing = Listing()
    old = listing.add()
    launches = Launches(listing, "chat")  # type: ignore[arg-type]
    await launches.begin()
    assert await launches.look() == ([], [])
    pids = [listing.add(ended=True) for _ in range(3 * FIRST_LOOK)]
    listing.add("other", ended=True)
    begun, ended = await launches.look()
    assert [view.pid for view in begun] == pids
    assert {view.pid for view in ended} == set(pids)
    assert await launches.look() == ([], [])
    await listing.inspect(old)
    listing.views[-1]["state"] = "ended"
    for _ in range(2 * FIRST_LOOK):
        listing.add("other", ended=True)
    begun, ended = await launches.look()
    assert (begun, [view.pid for view in ended]) == ([], [old])
