"""Streams that are closed or full, bytes that are no text, and Ctrl-C before anything runs."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from pie_cli.client import run_async
from pie_cli.main import invoke
from tests import thoroughness

Capture = pytest.CaptureFixture[str]
needs_full_disk = pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")


def shell(line: str) -> tuple[str, str, int]:
    """`line` with `pie` in it, as a shell has it; output, errors, exit code."""
    command = line.replace("pie ", f"{sys.executable} -m pie_cli ", 1)
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    return done.stdout, done.stderr, done.returncode


@needs_full_disk
@pytest.mark.parametrize("words", ["--version", "run --help"])
def test_a_full_disk_is_an_error_of_one_line(words: str) -> None:
    _, err, code = shell(f"pie {words} >/dev/full")
    assert err == "error: cannot write to stdout: No space left on device\nhint: send the output elsewhere\n"
    assert code == 1


@pytest.mark.parametrize("words", ["--help", "run --help"])
def test_a_closed_stdout_is_named(words: str) -> None:
    _, err, code = shell(f"pie {words} >&-")
    assert err == "error: cannot write to stdout: it is closed\nhint: send the output elsewhere\n"
    assert code == 1


@pytest.mark.parametrize("where", ["2>&-", pytest.param("2>/dev/full", marks=needs_full_disk), "<&-"])
def test_a_lost_stderr_or_stdin_does_not_fail_a_command(where: str, tmp_path: Path, capsys: Capture) -> None:
    assert invoke(["--version"]) == 0
    assert shell(f"pie --version {where}")[::2] == (capsys.readouterr().out, 0)
    assert shell(f"pie new {tmp_path}/hello {where}")[2] == 0


def test_words_that_are_no_text_are_refused(capsys: Capture) -> None:
    assert invoke(["run", os.fsdecode(b"caf\xe9.py")]) == 2
    assert capsys.readouterr().err == "error: `caf\\xe9.py` is not UTF-8\nhint: write it in UTF-8, or rename the file\n"


@pytest.mark.parametrize("target", ["/dev/null", "/dev/stdin"])
def test_what_is_no_file_or_folder_is_refused(target: str, tmp_path: Path) -> None:
    _, err, code = shell(f"pie run {target} </dev/null")
    assert (err.splitlines()[0], code) == (f"error: {target} is neither a file nor a folder", 2)


@pytest.mark.parametrize("target", ["./" + "x" * 5000, "~nobody-of-this-name/x.py"])
def test_a_path_that_cannot_be_is_not_there(target: str) -> None:
    assert invoke(["run", target]) == 4


def test_ctrl_c_is_quiet_from_the_first_moment(tmp_path: Path) -> None:
    """At moments all over the start of a command."""
    (tmp_path / "config.toml").touch()
    env = {**os.environ, "PIE_HOME": str(tmp_path), "PIE_CONFIG": str(tmp_path / "config.toml")}
    for delay_ms in range(0, 160, 160 // thoroughness.count(6, 32)):
        command = [sys.executable, "-c", SAYS_WHEN_IT_STARTS, "ps"]
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "imported\n"
        time.sleep(delay_ms / 1000)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (130, "") or (
            process.returncode == 3 and err.startswith("error: no daemon")
        )


SAYS_WHEN_IT_STARTS = """
import pie_cli.__main__
print("imported", flush=True)
pie_cli.__main__.main()
"""


def test_work_that_never_began_is_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_work: object) -> None:
        raise KeyboardInterrupt

    async def work() -> None: ...

    monkeypatch.setattr("asyncio.run", interrupted)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with pytest.raises(KeyboardInterrupt):
            run_async(work())
        gc.collect()
    assert shown == []
