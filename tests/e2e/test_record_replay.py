"""Recordings as a user makes, replays and compares them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pie_engine.protocol.recording import read_recording

PROGRAM = r"""
import random, time
from inferlet import Context, session

async def main(prompt: str = "Tell me a story", waits: bool = False) -> str:
    print(random.random(), time.time())
    ctx = Context()
    ctx.user(prompt)
    reply = await ctx.generate(max_tokens=8)
    if waits:
        session.send("waiting\n")
        await session.receive()
    return str(reply)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "story.py"
    path.write_text(PROGRAM)
    return path


def edited(program: Path, before: str, after: str) -> Path:
    path = program.with_name("edited.py")
    path.write_text(program.read_text().replace(before, after))
    return path


def test_a_recording_is_replayed_compared_and_tells_an_edit(daemon, program, tmp_path):
    first, second = tmp_path / "first.rec", tmp_path / "second.rec"
    ran = daemon.pie("run", "--record", str(first), str(program))
    assert (ran.returncode, ran.stderr) == (0, "")
    again = daemon.pie("replay", str(first))
    assert (again.returncode, again.stdout) == (0, ran.stdout)
    assert again.stderr.endswith("calls as recorded\n")

    other = daemon.pie("replay", str(first), str(edited(program, "max_tokens=8", "max_tokens=9")))
    assert other.returncode == 1
    assert "error: the program does something else than the recording, at call " in other.stderr
    assert "program    edited.py:9 in main: generate.start(" in other.stderr
    assert '{"max_tokens": 9})\n  recording  story.py:9 in main: generate.start(' in other.stderr

    assert daemon.pie("run", "--record", str(second), str(program), "--prompt", "Hi").returncode == 0
    compared = daemon.pie("diff", str(first), str(second))
    assert compared.returncode == 1
    assert "they first depart at call" in compared.stdout
    assert "reply 1:" in compared.stdout
    same = daemon.pie("diff", str(first), str(first))
    assert (same.returncode, same.stdout.splitlines()[-1]) == (0, "the calls, their results and the end are the same")


def start(daemon, *args: str) -> subprocess.Popen[str]:
    """`pie run` of a program that waits, when it does."""
    command = [sys.executable, "-m", "pie_cli", "run", *args]
    run = subprocess.Popen(
        command, env=daemon.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while "waiting" not in run.stdout.readline():
        assert run.poll() is None, run.stderr.read()
    return run


def test_ctrl_c_leaves_a_whole_recording(daemon, program, tmp_path):
    file = tmp_path / "interrupted.rec"
    run = start(daemon, "--record", str(file), str(program), "--waits")
    run.send_signal(signal.SIGINT)
    assert run.wait(90) == 130
    assert read_recording(file).end.kind == "error"
    again = daemon.pie("replay", str(file))
    assert again.returncode == 0
    assert "the program was asked to end" in again.stderr


def test_one_whose_writer_is_killed_is_cut_off_and_can_be_fetched_whole(daemon, program, tmp_path):
    file = tmp_path / "killed.rec"
    run = start(daemon, "--record", str(file), str(program), "--waits")
    run.kill()
    run.wait(90)
    assert read_recording(file).end is None
    again = daemon.pie("replay", str(file))
    assert again.returncode == 0
    assert "the recording ends here: it was cut off" in again.stderr


def test_one_of_a_detached_process_is_fetched_later(daemon, program, tmp_path):
    file = tmp_path / "later.rec"
    launched = daemon.pie("run", "--detach", "--record", str(file), str(program))
    pid = launched.stdout.strip()
    assert launched.stderr == f"`pie logs {pid} --record {file}` writes the recording, now or later\n"
    assert not file.exists()
    shown = daemon.pie("logs", pid, "--follow")
    assert "trace" not in shown.stdout + shown.stderr
    fetched = daemon.pie("logs", pid, "--record", str(file))
    assert (fetched.returncode, fetched.stdout) == (0, "")
    again = daemon.pie("replay", str(file))
    assert (again.returncode, again.stdout) == (0, shown.stdout)


def test_what_cannot_be_recorded_is_refused_in_words(daemon, program, tmp_path):
    refused = daemon.pie("run", "--record", str(tmp_path / "absent" / "x.rec"), str(program))
    assert refused.returncode == 2
    assert "there is no folder" in refused.stderr
    pid = daemon.pie("run", "--detach", str(program)).stdout.strip()
    unrecorded = daemon.pie("logs", pid, "--record", str(tmp_path / "x.rec"))
    assert unrecorded.returncode == 4
    assert f"process {pid} was not recorded" in unrecorded.stderr
    assert daemon.pie("replay", str(program)).returncode == 2
    assert daemon.pie("replay", str(tmp_path / "x.rec")).returncode == 4
