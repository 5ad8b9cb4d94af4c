"""How long from a saved file to the first event of the new run, under `pie run --watch`.

    python benches/dev_loop.py [--rounds 20] [--json-out FILE]

Starts a daemon of its own with pie-tiny and, beside it, `pie run --watch --json`, and saves `main.py` again and again.
In milliseconds (median, least, most), each from just before the file is written:

- reload: until the first event of the new run has come out of the command; `reload_ms_median` is its median.
- reload_message: until the first message, which names the save, so that it is the new program that has run.
- reload_running: as `reload`, where the run before is still running and must be ended first.

Then the program generates after a prompt that no save changes: `cached_tokens` of `prompt_tokens` were computed before.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import BenchError, spread_ms
from options import bench_parser
from own_daemon import PIE, OwnDaemon, own_daemon
from report import save

SAYING = """from inferlet import session


async def main() -> None:
    session.send("{marker}")
"""
STAYING = """from inferlet import session


async def main() -> None:
    session.send("{marker}")
    await session.receive()
"""
GENERATING = """from inferlet import Context, session


async def main() -> None:
    ctx = Context()
    ctx.system("You are a patient teacher. " * 12)
    ctx.user("What is a page?")
    await ctx.generate(max_tokens=4)
    session.send("{marker}")
"""
PAUSE_S = 0.2
"""Between a run and the next save, as a person would leave it."""


class Watching:
    """A `pie run --watch --json` with what it has said so far."""

    def __init__(self, process: subprocess.Popen[str], main: Path) -> None:
        self._process = process
        self._main = main
        self._num_saves = 0

    def save(self, text: str) -> tuple[float, float]:
        """Seconds until the first event of the new run, and until the message that the saved program sends."""
        self._num_saves += 1
        marker = f"save {self._num_saves}"
        began = time.perf_counter()
        self._main.write_text(text.format(marker=marker))
        first_s = self._until("started") - began
        while True:
            event = self._next()
            if event["event"] == "message" and event["value"] == marker:
                return first_s, time.perf_counter() - began
            if event["event"] in ("message", "error"):
                raise BenchError(f"wanted `{marker}`, got {event}")

    def until_end(self) -> None:
        self._until("return")

    def _until(self, kind: str) -> float:
        while self._next()["event"] != kind:
            pass
        return time.perf_counter()

    def _next(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError("`pie run --watch` has ended")
        return json.loads(line)


@contextmanager
def watching(env: dict[str, str], folder: Path):
    """The command on a program in `folder`, after its first run; and what it wrote for people, once it has ended."""
    main = folder / "main.py"
    main.write_text(SAYING.format(marker="first"))
    with (folder.parent / "notes").open("w+") as notes:
        process = subprocess.Popen(
            [*PIE, "run", "--watch", "--json", str(folder)],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=notes,
            text=True,
        )
        try:
            running = Watching(process, main)
            running.until_end()
            yield running
        finally:
            process.terminate()
            process.wait()


def rounds_of(running: Watching, rounds: int, text: str, after: Callable[[], None]) -> tuple[list[float], list[float]]:
    firsts, messages = [], []
    for _ in range(rounds):
        time.sleep(PAUSE_S)
        first_s, message_s = running.save(text)
        firsts.append(first_s)
        messages.append(message_s)
        after()
    return firsts, messages


def cached_tokens(notes: str) -> dict[str, int]:
    """Of the last run, as its summary line says."""
    found = re.findall(r"\(after (\d+)(?:, (\d+) of them cached)?", notes)
    if not found:
        raise BenchError(f"no summary among: {notes}")
    prompt, cached = found[-1]
    return {"prompt_tokens": int(prompt), "cached_tokens": int(cached or 0)}


def measure(daemon: OwnDaemon, rounds: int) -> dict[str, object]:
    folder = daemon.folder / "program"
    folder.mkdir()
    (folder / "pie.toml").write_text('[program]\nname = "program"\n')
    with watching(daemon.env, folder) as running:
        rounds_of(running, 3, SAYING, running.until_end)
        firsts, messages = rounds_of(running, rounds, SAYING, running.until_end)
        rounds_of(running, 1, STAYING, lambda: None)
        during, _ = rounds_of(running, rounds, STAYING, lambda: None)
        rounds_of(running, 2, GENERATING, running.until_end)
        time.sleep(PAUSE_S)
    return {
        "reload_ms_median": spread_ms(firsts)["median_ms"],
        "reload": spread_ms(firsts),
        "reload_message": spread_ms(messages),
        "reload_running": spread_ms(during),
        "prefix": cached_tokens((daemon.folder / "notes").read_text()),
    }


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    with own_daemon() as daemon:
        results = measure(daemon, args.rounds)
    print(json.dumps(results, indent=2))
    save(args.json_out, results)


if __name__ == "__main__":
    main()
