"""`pie run` against a stand-in of the daemon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pie_cli.main import invoke
from tests.e2e.terminal import OnTerminal
from tests.unit.cli_programs import chat, daemon_with_programs, deaf, echo, fails, only_process
from tests.unit.cli_standin import StandIn

Capture = pytest.CaptureFixture[str]
COMMAND = [sys.executable, "-m", "pie_cli"]
NOTE = "note: running the uploaded chat@0.1.0\n"
TEXT = {"name": "text", "schema": {"type": "string"}, "required": False, "default": ""}


class Here:
    """Where a command at a terminal finds its daemon: as this process does."""

    env = os.environ


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with daemon_with_programs(monkeypatch) as standin:
        yield standin


def test_run_streams_messages_and_the_return_value(daemon: StandIn, capsys: Capture) -> None:
    assert invoke(["run", "chat", "hi", "--count", "2"]) == 0
    captured = capsys.readouterr()
    assert captured.out == 'hi hi \n{"said": "hi"}\n'
    assert captured.err == NOTE
    assert only_process(daemon).on_disconnect == "terminate"


def test_run_takes_a_file(daemon: StandIn, capsys: Capture, tmp_path: Path) -> None:
    file = tmp_path / "chat.py"
    file.write_text("async def main(prompt: str) -> None: ...\n")
    assert invoke(["run", str(file), "--prompt", "hi"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("hi ")
    assert captured.err == ""


def test_a_file_of_a_programs_folder_is_told_to_be_another_program(
    daemon: StandIn, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("chat.py").write_text("async def main(prompt: str) -> None: ...\n")
    Path("pie.toml").write_text('[program]\nname = "chat"\nentry = "chat"\n')
    told = "note: chat.py alone; the program of the pie.toml beside it is "
    for words in (["run", "chat.py", "hi"], ["build", "--bundle", "chat.py"]):
        assert invoke(words) == 0
        assert capsys.readouterr().err.startswith(f"{told}`.`\n")
    assert invoke(["run", str(tmp_path / "chat.py"), "hi"]) == 0
    assert capsys.readouterr().err == f"{told}`{tmp_path}`\n"
    assert invoke(["run", ".", "hi"]) == 0
    assert told not in capsys.readouterr().err


def test_a_file_that_is_run_is_not_published(daemon: StandIn, tmp_path: Path) -> None:
    file = tmp_path / "chat.py"
    file.write_text("async def main(prompt: str) -> None: ...\n")
    assert invoke(["run", str(file), "hi"]) == 0
    assert daemon.published == []
    assert only_process(daemon).program == "chat"


def test_run_as_json(daemon: StandIn, capsys: Capture) -> None:
    assert invoke(["run", "--json", "chat", "hi"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["started", "message", "return"]
    assert events[-1]["value"] == {"said": "hi"}


def test_an_error_as_json(daemon: StandIn, capsys: Capture) -> None:
    assert invoke(["run", "--json", "fails"]) == 1
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["event"], last["value"]["code"]) == ("error", "exception")


def test_text_that_the_terminal_cannot_show_does_no_harm(daemon: StandIn) -> None:
    daemon.add("odd", lambda given, inbox: iter([("message", "aé→\n")]))
    process = run_process("run", "odd", stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert process.communicate(timeout=30) == ("a??\n", "note: running the uploaded odd@0.1.0\n")


def test_summary_names_tokens_and_times(daemon: StandIn, capsys: Capture) -> None:
    assert invoke(["run", "chat", "hi", "--summary"]) == 0
    assert capsys.readouterr().err.startswith(f"{NOTE}12 tokens, TTFT ")


def test_help_of_the_program(daemon: StandIn, capsys: Capture) -> None:
    assert invoke(["run", "chat", "--help"]) == 0
    assert "Says it again." in capsys.readouterr().out
    assert daemon.processes == {}


def test_help_before_the_target_is_the_programs_too(daemon: StandIn, capsys: Capture) -> None:
    daemon.add("helps", chat, parameters=[{"name": "help", "schema": {"type": "string"}}], doc="Has help.")
    assert invoke(["run", "--help", "helps"]) == 0
    assert "Has help." in capsys.readouterr().out
    assert daemon.processes == {}


def test_stdin_that_is_no_text_is_refused(daemon: StandIn) -> None:
    done = subprocess.run([*COMMAND, "run", "chat", "-"], input=b"\xff\xfe", capture_output=True)
    assert done.returncode == 2
    assert b"error: stdin is not text in UTF-8" in done.stderr


def test_detach_prints_the_process_id(daemon: StandIn, capsys: Capture) -> None:
    assert invoke(["run", "chat", "hi", "--detach"]) == 0
    process = only_process(daemon)
    assert capsys.readouterr().out == f"{process.pid}\n"
    assert process.on_disconnect == "detach"


def test_detach_says_how_its_recording_profile_and_trace_are_fetched(daemon: StandIn, capsys: Capture) -> None:
    words = ["--record", "a.rec", "--profile", "--trace", "b.json"]
    assert invoke(["run", *words, "--detach", "chat", "hi"]) == 0
    out, err = capsys.readouterr()
    pid = out.strip()
    assert err.splitlines()[-3:] == [
        f"`pie logs {pid} --record a.rec` writes the recording, now or later",
        f"`pie profile {pid}` shows where its time goes, now or later",
        f"`pie profile {pid} b.json` writes the trace, now or later",
    ]


def test_a_trace_has_the_name_of_one(daemon: StandIn, capsys: Capture) -> None:
    assert invoke(["run", "--trace", "page.html", "chat", "hi"]) == 2
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "error: `page.html` is no name of a trace",
        "hint: name a file that ends in `.json`; `pie profile` makes pages of traces",
    ]
    assert daemon.processes == {}


def test_a_program_that_raises_exits_1_with_its_traceback(daemon: StandIn, capsys: Capture) -> None:
    assert invoke(["run", "fails"]) == 1
    assert capsys.readouterr().err == "note: running the uploaded fails@0.1.0\nTraceback …\nValueError: no\n"


@pytest.mark.parametrize(
    ("code", "traceback", "exit_code"),
    [
        ("invalid_input", "", 2),
        ("invalid_input", "Traceback …", 1),
        ("invalid_program", "Traceback …", 2),
        ("memory_limit", "", 1),
        ("core_lost", "Traceback …", 3),
        ("context_too_long", "", 1),
        ("internal", "", 1),
    ],
)
def test_the_exit_code_follows_the_error(daemon: StandIn, code: str, traceback: str, exit_code: int) -> None:
    error = {"code": code, "message": "so it ended", "traceback": traceback}
    daemon.add("ends", lambda given, inbox: iter([("error", error)]))
    assert invoke(["run", "ends"]) == exit_code


def test_an_unknown_target_exits_4(daemon: StandIn, capsys: Capture) -> None:
    assert invoke(["run", "nothing"]) == 4
    assert invoke(["run", "./nothing"]) == 4
    assert "error: there is no file or folder `./nothing`" in capsys.readouterr().err


def test_wrong_input_exits_2_before_anything_runs(daemon: StandIn, capsys: Capture) -> None:
    assert invoke(["run", "chat", "hi", "--count", "many"]) == 2
    assert capsys.readouterr().err == (
        f"{NOTE}error: `--count` needs an integer, got `many`\nhint: see `pie run chat --help`\n"
    )
    assert daemon.processes == {}


def test_an_upload_that_is_refused_exits_2(daemon: StandIn, capsys: Capture) -> None:
    daemon.add("broken", fails)
    daemon.programs["broken"].error = {"code": "invalid_program", "message": "main.py has no `main`", "hint": "add it"}
    assert invoke(["run", "broken"]) == 2
    assert capsys.readouterr().err == "error: main.py has no `main`\nhint: add it\n"


def test_an_old_daemon_is_named(daemon: StandIn, capsys: Capture) -> None:
    daemon.health |= {"protocol": 7, "version": "9.0"}
    assert invoke(["run", "chat", "hi"]) == 3
    assert capsys.readouterr().err.splitlines() == [
        "error: the running daemon (9.0) speaks protocol 7, this command speaks 1",
        "hint: `pie stop --drain` lets its programs end and stops it; then run this again",
    ]


def run_process(*words: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options
    )


def test_lines_of_a_pipe_are_messages(daemon: StandIn) -> None:
    process = run_process("run", "echo", stdin=subprocess.PIPE)
    out, err = process.communicate("one\ntwo", timeout=30)
    assert (out, err, process.returncode) == ("got one\ngot two\n", "note: running the uploaded echo@0.1.0\n", 0)


def test_what_is_typed_at_a_terminal_is_a_conversation_where_no_text_is_given(daemon: StandIn) -> None:
    daemon.add("talk", echo, parameters=[TEXT])
    with OnTerminal(Here, "run", "talk") as shell:
        shell.until("what you type goes to the program, line by line; Ctrl-D ends it\n")
        shell.press("one\n")
        assert shell.until("got one\n") == "one\ngot one\n"
        shell.press("\x04")
        assert shell.end() == 0


def test_with_a_text_what_is_typed_is_left_to_the_shell(daemon: StandIn) -> None:
    daemon.add("talk", echo, parameters=[TEXT])
    with OnTerminal(Here, "run", "talk", "hi") as shell:
        shell.until("note: running the uploaded talk@0.1.0\n")
        while not daemon.processes:
            time.sleep(0.01)
        only_process(daemon).inbox.put("of another client")
        shell.press("one\n")
        shell.until("got of another client\n")
        only_process(daemon).inbox.put(None)
        assert shell.end() == 0
    assert "got one" not in shell.rest


def test_a_text_from_stdin_that_is_empty_is_its_end(daemon: StandIn) -> None:
    daemon.add("talk", echo, parameters=[TEXT])
    process = run_process("run", "talk", "-", stdin=subprocess.PIPE)
    assert process.communicate("", timeout=30)[0] == ""
    assert process.returncode == 0


def test_stdin_can_be_left_alone(daemon: StandIn) -> None:
    process = run_process("run", "chat", "hi", "--no-interactive", stdin=subprocess.PIPE)
    assert process.wait(timeout=30) == 0
    process.communicate()
    assert only_process(daemon).inbox.is_empty()


def test_ctrl_c_ends_the_program(daemon: StandIn) -> None:
    process = run_process("run", "endless", stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.splitlines()[1:] == ["ending the program; Ctrl-C again leaves at once"]
    assert only_process(daemon).has_ended


def test_a_second_ctrl_c_leaves_at_once(daemon: StandIn) -> None:
    daemon.add("deaf", deaf)
    process = run_process("run", "deaf", stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith("note: running")
    assert process.stderr.readline().startswith("ending the program")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130
    process.communicate()


def test_a_closed_stdout_ends_the_program_quietly(daemon: StandIn) -> None:
    process = run_process("run", "endless", stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "working\n"
    process.stdout.close()
    assert process.wait(timeout=30) == 0
    assert process.stderr.read() == "note: running the uploaded endless@0.1.0\n"
    process.stderr.close()
    assert only_process(daemon).events_after(0)
    deadline = time.monotonic() + 10
    while not only_process(daemon).has_ended and time.monotonic() < deadline:
        time.sleep(0.01)
    assert only_process(daemon).has_ended


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_full_disk_ends_the_program_with_an_error(daemon: StandIn) -> None:
    with Path("/dev/full").open("w") as full:
        command = [*COMMAND, "run", "endless"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=30)
    assert done.returncode == 1
    assert b"\nerror: cannot write to stdout: No space left on device\n" in done.stderr
    assert not only_process(daemon).inbox.is_empty() or only_process(daemon).has_ended


def test_a_closed_stderr_does_not_fail_a_program(daemon: StandIn) -> None:
    daemon.add("prints", lambda given, inbox: iter([("stderr", "x\n"), ("log", {"message": "y"}), ("message", "z\n")]))
    done = subprocess.run(["sh", "-c", f"{sys.executable} -m pie_cli run prints --summary 2>&-"], capture_output=True)
    assert (done.stdout, done.returncode) == (b"z\n", 0)


def test_a_launch_asks_for_credits(daemon: StandIn) -> None:
    assert invoke(["run", "chat", "hi", "--endowment", "50.5"]) == 0
    assert invoke(["run", "echo", "--detach", "--endowment=0"]) == 0
    assert [process.endowment for process in daemon.processes.values()] == [50.5, 0]


def test_credits_are_left_to_the_daemon_unless_asked_for(daemon: StandIn, capsys: Capture) -> None:
    assert invoke(["run", "chat", "hi"]) == 0
    assert only_process(daemon).endowment is None
    assert invoke(["run", "chat", "hi", "--endowment", "-1"]) == 2
    assert "error: an endowment is a number of credits from 0 to 1000000; got -1\n" in capsys.readouterr().err
