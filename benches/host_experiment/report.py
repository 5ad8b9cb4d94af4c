"""The machine by its parts, and the results as a page. No names of hosts or paths."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

UNITS = {
    "cpu_us_per_token": "CPU µs/token",
    "tokens_per_s": "tokens/s",
    "wake_p50_us": "wake p50 µs",
    "wake_p99_us": "wake p99 µs",
    "private_kb_per_program": "private kB/program",
    "resident_kb_per_program": "resident kB/program",
}


def describe_machine() -> dict[str, str]:
    """Before anything has been started: the load is what others use."""
    return {
        "cpu": f"{cpu_name()}, {os.cpu_count()} cores",
        "memory": f"{memory_gib()} GiB",
        "system": f"Linux {platform.release().split('-')[0]}",
        "python": f"Python {platform.python_version()}",
        **{tool: f"{tool} {version(tool)}" for tool in ("wasmtime", "componentize-py", "pyzmq")},
        "load": f"load {os.getloadavg()[0]:.1f} at the start",
    }


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def as_markdown(results: dict) -> str:
    return "\n".join(
        [
            "# How one host runs many programs",
            "",
            describe(results),
            "",
            *load_table(results["load"]),
            "",
            *check_table(results["checks"]),
            "",
            (Path(__file__).parent / "decision.md").read_text(),
        ]
    )


def describe(results: dict) -> str:
    return (
        f"{', '.join(results['machine'].values())}. Each number is the median of {results['repeats']} runs, with the "
        "least and the most in brackets. A token is `await ask(…)` in asyncio in the sandbox: three host calls, and an "
        "answer that comes over a ZeroMQ ipc socket from a batcher process whose step takes 4 ms. A wake is the time "
        "from the moment the batcher sends an answer to the moment that the program goes on."
    )


def load_table(rows: list[dict]) -> list[str]:
    lines = [
        "| programs | hosts | runner | " + " | ".join(UNITS.values()) + " |",
        "|--:" * 2 + "|---" + "|--:" * len(UNITS) + "|",
    ]
    for row in rows:
        cells = [f"{row[name][0]:.0f} ({row[name][1]:.0f}–{row[name][2]:.0f})" for name in UNITS]
        lines.append(f"| {row['programs']} | {row['hosts']} | {row['kind']} | " + " | ".join(cells) + " |")
    return lines


def check_table(checks: list[dict]) -> list[str]:
    lines = ["| check | runner | | what happened |", "|---|---|---|---|"]
    for check in checks:
        mark = "passes" if check["passed"] else "**fails**"
        detail = check["detail"].replace("|", "\\|")
        lines.append(f"| {check['check'].replace('_', ' ')} | {check['kind']} | {mark} | {detail} |")
    return lines
