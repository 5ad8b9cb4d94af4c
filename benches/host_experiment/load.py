"""Load: N programs over one or two host processes against one batcher process, as a core would answer them."""

import json
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
STEP_MS = 4
TOKENS_A_RUN = 6000


def measure(kind: str, num_programs: int, num_hosts: int) -> dict:
    """One run; times are sums over hosts, latencies the slowest host's."""
    num_tokens = max(30, min(200, TOKENS_A_RUN // num_programs))
    with tempfile.TemporaryDirectory() as folder:
        requests = f"ipc://{folder}/requests"
        addresses = [f"ipc://{folder}/host-{index}" for index in range(num_hosts)]
        with batcher(requests, addresses):
            workers = [
                start_worker(kind, index, num_programs // num_hosts, num_tokens, requests, address)
                for index, address in enumerate(addresses)
            ]
            return combine([finish(worker) for worker in release(workers)])


@contextmanager
def batcher(requests: str, addresses: list[str]):
    process = subprocess.Popen([sys.executable, HERE / "batcher.py", requests, str(STEP_MS), *addresses])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def start_worker(*arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, HERE / "worker.py", *map(str, arguments)],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def release(workers: list[subprocess.Popen]) -> list[subprocess.Popen]:
    """Starts all hosts at once, when the last has its programs up."""
    for worker in workers:
        assert worker.stdout.readline() == "ready\n", "a host did not come up"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    return workers


def finish(worker: subprocess.Popen) -> dict:
    try:
        output, _ = worker.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        worker.kill()
        raise
    return json.loads(output)


def combine(hosts: list[dict]) -> dict:
    num_tokens = sum(host["tokens"] for host in hosts)
    return {
        "cpu_us_per_token": sum(host["cpu_s"] for host in hosts) / num_tokens * 1e6,
        "tokens_per_s": num_tokens / max(host["wall_s"] for host in hosts),
        **{
            name: max(host[name] for host in hosts)
            for name in ("wake_p50_us", "wake_p99_us", "resident_kb_per_program", "private_kb_per_program")
        },
    }


def summarize(runs: list[dict]) -> dict:
    """name: [median, least, most]"""
    return {name: [round(f([run[name] for run in runs]), 1) for f in (median, min, max)] for name in runs[0]}
