"""How long from an edited file to its first event, and how many programs a second.

    python benches/launch.py [--rounds 20] [--seconds 10] [--concurrency 64] [--json-out FILE]

Starts a daemon of its own with pie-tiny, and prints, in milliseconds (median, and min..max):

- edit:  `main.py` is written anew, then launched through pie_client; until its first message arrives.
- no-op: an unchanged program whose main returns at once; until its return arrives.
- whole `pie run` processes, and `pie --help`.
- launches a second of the no-op, `--concurrency` at once, sustained for `--seconds`, by a client process of its own;
  with the milliseconds of CPU time that each process spends on one of them (where there is a /proc).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import subprocess
import time
from pathlib import Path

from common import spread_ms
from options import bench_parser
from own_daemon import PIE, own_daemon
from report import save

EDITED = """from inferlet import session

async def main() -> None:
    session.send("{marker}")
"""
NO_OP = "async def main() -> None:\n    pass\n"


async def edit_to_first_event(client, folder: Path, rounds: int) -> list[float]:
    from pie_client import Event

    samples = []
    for number in range(rounds):
        marker = f"edit {number} {time.time_ns()}"
        (folder / "main.py").write_text(EDITED.format(marker=marker))
        started = time.perf_counter()
        process = await client.launch_process(folder)
        async for event, value in process:
            if event is Event.Message:
                samples.append(time.perf_counter() - started)
                assert value == marker, f"stale: {value!r}, wanted {marker!r}"
        await asyncio.sleep(0.05)
    return samples


async def no_op(client, folder: Path, rounds: int) -> list[float]:
    samples = []
    for _ in range(rounds):
        started = time.perf_counter()
        process = await client.launch_process(folder)
        async for _pair in process:
            pass
        samples.append(time.perf_counter() - started)
        await asyncio.sleep(0.05)
    return samples


async def sustained(
    client, folder: Path, seconds: float, concurrency: int, processes: dict[str, int]
) -> dict[str, object]:
    """Launches a second with `concurrency` programs at once."""
    end = time.perf_counter() + seconds
    done = 0

    async def worker() -> None:
        nonlocal done
        while time.perf_counter() < end:
            process = await client.launch_process(folder)
            async for _pair in process:
                pass
            done += 1

    started, cpu = time.perf_counter(), cpu_seconds(processes)
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    per_s = done / (time.perf_counter() - started)
    spent = {role: 1e3 * (after - cpu[role]) / done for role, after in cpu_seconds(processes).items()}
    return {"launches": done, "per_s": per_s, "concurrency": concurrency, "cpu_ms_per_launch": spent}


def cpu_seconds(processes: dict[str, int]) -> dict[str, float]:
    """CPU time of each process so far; of none where the system has no /proc."""
    ticks = {}
    for role, pid in processes.items():
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks[role] = int(fields[11]) + int(fields[12])
    return {role: count / os.sysconf("SC_CLK_TCK") for role, count in ticks.items()}


def daemon_processes(env: dict[str, str]) -> dict[str, int]:
    """The daemon's parts and this client, by role."""
    found = subprocess.run([*PIE, "doctor", "--json"], env=env, capture_output=True, text=True, check=False).stdout
    ready = re.findall(r"(gateway|core|host)[^\"]* is ready \(process (\d+)\)", found)
    return {role: int(pid) for role, pid in ready} | {"client": os.getpid()}


def whole_process(command: list[str], env: dict[str, str], rounds: int) -> list[float]:
    samples = []
    for _ in range(rounds):
        started = time.perf_counter()
        subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        samples.append(time.perf_counter() - started)
    return samples


async def in_process(home: Path, folder: Path, args: argparse.Namespace) -> dict[str, object]:
    from pie_client import PieClient

    edited, still = folder / "edited", folder / "still"
    for path, text in ((edited, EDITED.format(marker="warm-up")), (still, NO_OP)):
        path.mkdir()
        (path / "main.py").write_text(text)
        (path / "pie.toml").write_text(f'[program]\nname = "{path.name}"\n')
    async with PieClient(home=home) as client:
        for path in (edited, still) * 3:
            async for _pair in await client.launch_process(path):
                pass
        return {
            "edit_to_first_event": spread_ms(await edit_to_first_event(client, edited, args.rounds)),
            "no_op": spread_ms(await no_op(client, still, args.rounds)),
            "sustained": await sustained(client, still, args.seconds, args.concurrency, args.processes),
        }


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--concurrency", type=int, default=64)
    args = parser.parse_args()
    with own_daemon() as daemon:
        args.processes = daemon_processes(daemon.env)
        results = asyncio.run(in_process(daemon.home, daemon.folder, args))
        no_op_again = [*PIE, "run", str(daemon.folder / "still")]
        results["pie_run"] = spread_ms(whole_process(no_op_again, daemon.env, args.rounds))
        results["pie_help"] = spread_ms(whole_process([*PIE, "--help"], daemon.env, args.rounds))
    print(json.dumps(results, indent=2))
    save(args.json_out, results)


if __name__ == "__main__":
    main()
