"""A day with the command line: create, run, edit, run again; talk, interrupt, look what happened."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from pie_cli import daemon as cli_daemon
from pie_engine.config import load_config
from pie_engine.protocol.program import GUEST_PYTHON

ECHO = """
from inferlet import session


async def main() -> int:
    count = 0
    while (text := await session.receive()) is not None:
        session.send(f"{text}!\\n")
        count += 1
    return count
"""
WAITING = """
from inferlet import Context, session


async def main() -> None:
    ctx = Context()
    ctx.user("Remember this.")
    await ctx.flush()
    session.send("waiting\\n")
    await session.receive()
"""
TALKING = """
import asyncio


async def main() -> None:
    while True:
        print("x" * 1000)
        await asyncio.sleep(0.001)
"""
GENERATING = """
from inferlet import Context, Sampler, session


async def main(prompt: str, max_tokens: int = 12) -> str:
    ctx = Context()
    ctx.user(prompt)
    async for chunk in ctx.generate(Sampler.greedy(), max_tokens=max_tokens):
        session.send(chunk.text)
    return ctx.last_text
"""


def start(daemon: Any, *words: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pie_cli", *words]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(command, env=daemon.env, text=True, **pipes)


def program(folder: Path, text: str) -> str:
    path = folder / "program.py"
    path.write_text(text, "utf-8")
    return str(path)


async def pages_in_use(client: Any) -> int:
    return sum(model["num_pages"] - model["num_free_pages"] for model in await client.models())


def test_create_run_edit_run_again(daemon: Any, tmp_path: Path) -> None:
    created = daemon.pie("new", str(tmp_path / "hello"))
    assert created.returncode == 0, created.stderr
    first = daemon.pie("run", str(tmp_path / "hello"), "Hello", "--max-tokens", "8")
    assert (first.returncode, first.stderr) == (0, ""), first.stdout
    assert first.stdout.strip()
    main = tmp_path / "hello" / "main.py"
    main.write_text(
        re.sub(r"(?s)async def main.*", 'async def main() -> str:\n    return "edited"\n', main.read_text())
    )
    second = daemon.pie("run", str(tmp_path / "hello"))
    assert second.stdout == "edited\n", second.stderr


def test_the_same_prompt_gives_the_same_text_and_a_summary(daemon: Any, tmp_path: Path) -> None:
    target = program(tmp_path, GENERATING)
    first = daemon.pie("run", target, "Hello", "--summary")
    second = daemon.pie("run", target, "Hello", "--json")
    assert first.returncode == 0, first.stderr
    assert re.fullmatch(
        r"(\d+ tokens( \(.+\))?, )?TTFT \d+ ms, (\d+\.\d tokens/s, )?([\d,.]+ credits?, )?\d+\.\d\d s\n", first.stderr
    )
    events = [json.loads(line) for line in second.stdout.splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["started", "return"]
    assert "".join(event["value"] for event in events if event["event"] == "message") + "\n" == first.stdout


def test_the_sandbox_has_the_python_that_manifests_are_checked_against(daemon: Any, tmp_path: Path) -> None:
    text = "import sys\n\n\nasync def main() -> list[int]:\n    return list(sys.version_info[:2])\n"
    assert json.loads(daemon.pie("run", program(tmp_path, text)).stdout) == list(GUEST_PYTHON)


def test_what_was_run_from_a_path_is_not_there_by_name(daemon: Any, tmp_path: Path) -> None:
    target = program(tmp_path, 'async def main() -> str:\n    return "here"\n')
    assert daemon.pie("run", target).stdout == "here\n"
    assert daemon.pie("run", "program").returncode == 4


def test_kill_ends_a_process_by_the_start_of_its_id(daemon: Any, tmp_path: Path) -> None:
    pid = daemon.pie("run", program(tmp_path, WAITING), "--detach").stdout.strip()
    killed = daemon.pie("kill", pid[:10])
    assert (killed.returncode, killed.stderr) == (0, f"{pid} has ended: cancelled\n")


def test_lines_of_stdin_are_messages(daemon: Any, tmp_path: Path) -> None:
    done = daemon.pie("run", program(tmp_path, ECHO), input_text="one\ntwo\n")
    assert (done.stdout, done.stderr, done.returncode) == ("one!\ntwo!\n2\n", "", 0)


async def test_ctrl_c_ends_the_program_and_frees_its_pages(
    daemon: Any, client: Any, eventually: Any, tmp_path: Path
) -> None:
    async def is_free() -> bool:
        return await pages_in_use(client) == 0

    await eventually(is_free)  # the figure is up to half a second old
    run = start(daemon, "run", program(tmp_path, WAITING))
    assert run.stdout is not None
    assert run.stdout.readline() == "waiting\n"
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=30)
    assert (run.returncode, err) == (130, "ending the program; Ctrl-C again leaves at once\n")

    await eventually(is_free)


async def test_a_closed_pipe_ends_the_program(daemon: Any, client: Any, eventually: Any, tmp_path: Path) -> None:
    run = start(daemon, "run", program(tmp_path, TALKING))
    assert run.stdout is not None
    assert run.stderr is not None
    assert run.stdout.readline() == "x" * 1000 + "\n"
    run.stdout.close()
    assert run.wait(timeout=30) == 0
    assert run.stderr.read() == ""
    run.stderr.close()

    async def has_ended() -> bool:
        return not await client.list_processes()

    await eventually(has_ended)


async def test_detached_programs_go_on_and_are_in_ps_and_logs(
    daemon: Any, client: Any, eventually: Any, tmp_path: Path
) -> None:
    pid = daemon.pie("run", program(tmp_path, WAITING), "--detach").stdout.strip()

    async def has_said() -> bool:
        return daemon.pie("logs", pid).stdout == "waiting\n"

    await eventually(has_said, timeout_s=30)
    assert pid in daemon.pie("ps").stdout
    (record,) = [p for p in json.loads(daemon.pie("ps", "--json").stdout)["processes"] if p["pid"] == pid]
    assert record["state"] == "running"
    await (await client.attach(pid)).terminate()
    followed = daemon.pie("logs", pid, "--follow")
    assert followed.stdout == "waiting\n"
    assert "cancelled" in daemon.pie("ps", "--all").stdout


def test_two_runs_at_once_start_one_daemon(fresh: Any, tmp_path: Path) -> None:
    fresh.use_fake_model()
    target = program(tmp_path, 'async def main() -> str:\n    return "done"\n')
    runs = [start(fresh, "run", target) for _ in range(2)]
    outputs = [run.communicate(timeout=90) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert [out for out, _ in outputs] == ["done\n", "done\n"]
    assert sum("starting the Pie daemon" in err for _, err in outputs) == 1
    paths = load_config({"home": str(fresh.home)}).paths
    assert cli_daemon.running_daemon(paths) is not None
    assert fresh.pie("stop", "--drain").returncode == 0
    assert cli_daemon.running_daemon(paths) is None


def test_ps_is_watched_until_ctrl_c(daemon):
    command = [sys.executable, "-m", "pie_cli", "ps", "--watch", "--json", "--interval", "0.1"]
    with subprocess.Popen(command, env=daemon.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watch:
        pictures = [json.loads(watch.stdout.readline()) for _ in range(3)]
        watch.send_signal(signal.SIGINT)
        assert (watch.wait(20), watch.stderr.read()) == (130, "")
    assert [picture["models"][0]["name"] for picture in pictures] == ["pie-tiny"] * 3
