"""python benches/host_experiment.py [--json-out FILE] [--markdown-out FILE] [--repeats 3] [--programs 1 16 64 256]"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import report
from load import measure, summarize

HERE = Path(__file__).parent
KINDS = ("fibres", "threads")
CHECKS = (
    "timers",
    "cancellation",
    "busy_loop",
    "memory_limit",
    "memory_limit_in_small_steps",
    "drop_suspended",
    "churn",
    "trap",
    "wasi_wait",
    "deep_recursion",
    "callback_failure",
)
CHECK_TIMEOUT_S = 180


def main() -> None:
    options = parse_arguments()
    results = {
        "machine": report.describe_machine(),
        "repeats": options.repeats,
        "load": run_load(options.programs, options.repeats),
        "checks": run_checks(),
    }
    if options.json_out:
        options.json_out.write_text(json.dumps(results, indent=1) + "\n")
    if options.markdown_out:
        options.markdown_out.write_text(report.as_markdown(results))
    print(report.as_markdown(results))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json-out", type=Path)
    parser.add_argument("--markdown-out", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--programs", type=int, nargs="+", default=[1, 16, 64, 256])
    return parser.parse_args()


def run_load(program_counts: list[int], repeats: int) -> list[dict]:
    """The kinds take turns, so that a busy moment of the machine does not hit one of them only."""
    rows = []
    for num_programs, num_hosts in [(n, hosts) for hosts in (1, 2) for n in program_counts if n >= hosts]:
        runs = {kind: [] for kind in KINDS}
        for _ in range(repeats):
            for kind in KINDS:
                runs[kind].append(measure(kind, num_programs, num_hosts))
        for kind in KINDS:
            rows.append({"kind": kind, "programs": num_programs, "hosts": num_hosts} | summarize(runs[kind]))
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def run_checks() -> list[dict]:
    return [run_check(kind, name) for name in CHECKS for kind in KINDS]


def run_check(kind: str, name: str) -> dict:
    try:
        done = subprocess.run(
            [sys.executable, HERE / "checks.py", kind, name], text=True, capture_output=True, timeout=CHECK_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return {"kind": kind, "check": name, "passed": False, "detail": "did not end"}
    if done.returncode == 0:
        return {"kind": kind, "check": name, "passed": True, "detail": json.loads(done.stdout)}
    last_line = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return {"kind": kind, "check": name, "passed": False, "detail": last_line}


main()
