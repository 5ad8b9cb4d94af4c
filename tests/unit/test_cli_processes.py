"""`pie ps`, `logs`, `kill`, `bid`, `endow` and `stop` against a stand-in of the daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pie_cli.commands.ps import _pages_line
from pie_cli.main import invoke
from tests.unit.cli_programs import daemon_with_programs
from tests.unit.cli_standin import StandIn

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with daemon_with_programs(monkeypatch) as standin:
        yield standin


def test_ps_shows_processes_and_pages(daemon: StandIn, capsys: Capture) -> None:
    assert invoke(["run", "echo", "--detach"]) == 0
    assert invoke(["run", "chat", "hi"]) == 0
    capsys.readouterr()
    assert invoke(["ps"]) == 0
    header, row, pages = capsys.readouterr().out.splitlines()
    assert header.split() == ["PID", "PROGRAM", "STATE", "PAGES", "TOKENS", "ACCEPTED", "BID", "BALANCE", "AGE"]
    assert row.split()[:5] == ["p1", "echo", "running", "3", "12"]
    assert pages == "pie-tiny: 3 of 100 pages in use, 97 free"
    assert invoke(["ps", "--all"]) == 0
    assert "ended: return" in capsys.readouterr().out


def test_ps_as_json(daemon: StandIn, capsys: Capture) -> None:
    invoke(["run", "echo", "--detach"])
    capsys.readouterr()
    assert invoke(["ps", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["processes"][0]["pid"] == "p1"
    assert shown["models"][0]["num_free_pages"] == 97


def test_logs_show_what_was_said(daemon: StandIn, capsys: Capture) -> None:
    invoke(["run", "chat", "hi"])
    said = capsys.readouterr().out
    assert invoke(["logs", "p1"]) == 0
    assert capsys.readouterr().out == said
    assert invoke(["logs", "p1", "--follow", "--json"]) == 0
    assert [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()] == [
        "started", "message", "return",
    ]  # fmt: skip


def test_logs_of_nothing_exit_4(daemon: StandIn, capsys: Capture) -> None:
    assert invoke(["logs", "p99"]) == 4
    assert capsys.readouterr().err == ("error: there is no process `p99`\nhint: `pie ps --all` shows which there are\n")


def test_a_process_id_may_be_cut_short(daemon: StandIn, capsys: Capture) -> None:
    for _ in range(2):
        invoke(["run", "echo", "--detach"])
    daemon.processes["abc1"] = daemon.processes.pop("p1")
    daemon.processes["abc1"].pid = "abc1"
    daemon.processes["p2"].add("return", "done")
    capsys.readouterr()
    assert invoke(["logs", "p"]) == 0
    assert capsys.readouterr().out == "done\n"
    daemon.processes["abd1"] = daemon.processes.pop("p2")
    daemon.processes["abd1"].pid = "abd1"
    assert invoke(["logs", "ab"]) == 2
    assert capsys.readouterr().err == "error: 2 processes begin with `ab`\nhint: which one: abc1, abd1?\n"


def test_kill_ends_processes(daemon: StandIn, capsys: Capture) -> None:
    invoke(["run", "endless", "--detach"])
    invoke(["run", "fails", "--detach"])
    while not daemon.processes["p2"].has_ended:
        time.sleep(0.01)
    capsys.readouterr()
    assert invoke(["kill", "p1", "p2", "p1"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert sorted(said) == ["p1 has ended: cancelled", "p2 had ended already: exception"]
    assert daemon.processes["p1"].has_ended
    assert invoke(["kill", "x"]) == 4


@pytest.mark.parametrize("words", [["ps"], ["logs", "p1"], ["kill", "p1"]])
def test_without_a_daemon_they_say_so(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("PIE_HOME", str(tmp_path))
    assert invoke(words) == 3
    assert capsys.readouterr().err.splitlines() == [
        "error: no daemon is running",
        "hint: `pie run` starts one, and so does `pie serve`",
    ]


def test_stop_waits_for_the_daemon_to_end(daemon: StandIn, capsys: Capture) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    daemon.health["daemon_os_pid"] = sleeper.pid
    daemon.on_stop = lambda: (sleeper.kill(), sleeper.wait())
    assert invoke(["stop", "--drain"]) == 0
    assert daemon.stop_requests == [{"drain": True}]
    assert capsys.readouterr().err == f"the daemon (process {sleeper.pid}) has stopped\n"


def test_stop_without_a_daemon_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("PIE_HOME", str(tmp_path))
    assert invoke(["stop"]) == 0
    assert capsys.readouterr().err == "no daemon is running\n"


def test_stop_that_takes_too_long_fails(daemon: StandIn, capsys: Capture) -> None:
    assert invoke(["stop", "--timeout", "0.1"]) == 3
    assert f"the daemon (process {os.getpid()}) does not stop" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ({"name": "m", "ready": False}, "m: starting"),
        ({"name": "m", "ready": True, "num_pages": 100}, "m: starting"),
        ({"name": "m", "ready": False, "failed": {"message": "no such model"}}, "m: cannot start: no such model"),
        ({"name": "m", "ready": True, "num_pages": 9, "num_free_pages": 4}, "m: 5 of 9 pages in use, 4 free"),
        (
            {
                "name": "m",
                "ready": True,
                "num_pages": 9,
                "num_free_pages": 4,
                "num_cached_pages": 3,
                "num_page_hits": 6,
                "num_page_misses": 2,
                "num_host_pages": 40,
                "num_used_host_pages": 7,
            },
            "m: 5 of 9 pages in use, 4 free (3 of them cached), 7 of 40 in host memory, "
            "6 of 8 prompt pages found in the cache",
        ),
    ],
)
def test_ps_says_what_is_known_of_pages(model: dict[str, object], line: str) -> None:
    assert _pages_line(model) == line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bid", "-1"], "a bid is a number of credits from 0 to 1000000; got -1"),
        (["bid", "99999999999"], "a bid is a number of credits from 0 to 1000000; got 99999999999"),
        (["bid", "high"], "a bid is a number of credits or `default`; got `high`"),
        (["endow", "-5"], "an endowment is a number of credits from 0 to 1000000; got -5"),
        (["endow", "lots"], "an endowment is a number of credits; got `lots`"),
    ],
)
def test_what_is_no_amount_of_credits_is_refused_as_such(
    daemon: StandIn, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert invoke([words[0], "0123456789abcdef", words[1]]) == 2
    assert f"error: {message}\n" in capsys.readouterr().err
