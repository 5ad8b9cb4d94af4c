"""What the daemon is made of: restarts, logs, the home folder, the lock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from pie_engine.config import EngineConfig, HostSection, ModelSection
from pie_engine.daemon import main
from pie_engine.errors import Busy, InvalidConfig
from pie_engine.supervise.backoff import DELAYS_S, WINDOW_S, Backoff
from pie_engine.supervise.child import exit_reason
from pie_engine.supervise.home import DaemonLock, prepare_home, remove_stale_files
from pie_engine.supervise.incidents import Incident, Incidents
from pie_engine.supervise.logs import NUM_LAST_LINES, LastLines, RotatingLog
from pie_engine.supervise.supervisor import seats_of


def test_delays_grow_and_then_it_stays_down():
    backoff = Backoff()
    delays = [backoff.delay_after_death(float(second)) for second in range(5)]
    assert delays == [*DELAYS_S, None]


def test_rare_deaths_are_forgotten():
    backoff = Backoff()
    assert {backoff.delay_after_death(n * (WINDOW_S + 1)) for n in range(10)} == {0.0}


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exit status 0"), (78, "exit status 78"), (-9, "killed by SIGKILL"), (-111, "killed by signal 111")],
)
def test_exit_reasons(status, words):
    assert exit_reason(status) == words


def test_logs_are_rotated_by_size(tmp_path):
    log = RotatingLog(tmp_path / "x.log", max_bytes=100)
    for number in range(12):
        log.write(f"{number:02d}".encode() * 20 + b"\n")
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.log", "x.log.1", "x.log.2"]
    assert (tmp_path / "x.log").read_text().startswith("10")
    assert (tmp_path / "x.log.1").read_text().startswith("08")


def test_the_last_lines_of_a_stream():
    lines = LastLines()
    for number in range(100):
        lines.feed(f"line {number}\nhalf".encode())
        lines.feed(b" line\n" if number % 2 else b"")
    lines.feed(b"\xff open")
    kept = lines.lines()
    assert len(kept) == NUM_LAST_LINES + 1
    assert kept[-1].endswith("\N{REPLACEMENT CHARACTER} open")


def test_incidents_are_lines_of_json_and_sentences(tmp_path):
    incidents = Incidents(RotatingLog(tmp_path / "incidents.jsonl"))
    for number in range(30):
        incidents.add(Incident(1.0, "core", "tiny", "b", number, "killed by SIGKILL", "started again", ["last"]))
    lines = [json.loads(line) for line in (tmp_path / "incidents.jsonl").read_text().splitlines()]
    assert (len(lines), lines[0]["reason"], lines[0]["stderr"]) == (30, "killed by SIGKILL", ["last"])
    assert len(incidents.recent) == 20
    assert "core tiny (process 29): killed by SIGKILL; started again" in incidents.recent[-1]


def test_seats():
    config = EngineConfig(models=(ModelSection(path="a/b"), ModelSection(path="c")), host=HostSection(num_hosts=2))
    assert seats_of(config) == [
        ("gateway", "gateway"),
        ("core", "b"),
        ("core", "c"),
        ("host", "host-0"),
        ("host", "host-1"),
    ]
    with pytest.raises(InvalidConfig, match="two models are called `b`"):
        seats_of(EngineConfig(models=(ModelSection(path="a/b"), ModelSection(path="c/b"))))


def test_the_home_is_made_private(tmp_path):
    paths = EngineConfig(home=str(tmp_path / "deep" / "home")).paths
    prepare_home(paths)
    assert {folder.stat().st_mode & 0o777 for folder in (paths.home, paths.run, paths.logs)} == {0o700}
    assert list(paths.home.iterdir()) != []
    (paths.run / "core-1.sock").touch()
    paths.kv_regions(12).touch()
    (paths.run / "keep.lock").touch()
    remove_stale_files(paths)
    assert [path.name for path in paths.run.iterdir()] == ["keep.lock"]


def test_a_home_that_is_a_file_is_named(tmp_path):
    (tmp_path / "home").touch()
    with pytest.raises(InvalidConfig, match="home") as caught:
        prepare_home(EngineConfig(home=str(tmp_path / "home")).paths)
    assert "PIE_HOME" in caught.value.hint


def test_a_full_disk_is_named_with_the_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 5 * 1024 * 1024}))
    with pytest.raises(InvalidConfig, match="5 MiB free, 32 MiB needed"):
        prepare_home(EngineConfig(home=str(tmp_path)).paths)


def test_there_is_one_daemon_of_a_home(tmp_path):
    path = tmp_path / "daemon.lock"
    first = DaemonLock(path)
    assert json.loads(path.read_text()) == {"os_pid": os.getpid(), "instance": first.instance.instance}
    with pytest.raises(Busy, match="already running"):
        DaemonLock(path)
    first.release()
    second = DaemonLock(path)
    assert second.instance.instance != first.instance.instance
    second.release()


def test_the_lock_goes_with_a_process_that_is_killed(tmp_path):
    code = "import sys, signal, os; from pathlib import Path; from pie_engine.supervise.home import DaemonLock\n"
    code += "lock = DaemonLock(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    path = tmp_path / "daemon.lock"
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -signal.SIGKILL
    DaemonLock(path).release()


@pytest.mark.parametrize(
    ("argument", "part"),
    [("{", "--config-json"), ('{"homes": "x"}', "unknown key `homes`"), ('{"host": {"num_hosts": "x"}}', "num_hosts")],
)
def test_a_bad_configuration_is_said_on_stderr(argument, part, capsys):
    assert main(["--config-json", argument]) == 78
    err = capsys.readouterr().err
    assert part in err
    assert err.endswith("code: invalid_config\n")
