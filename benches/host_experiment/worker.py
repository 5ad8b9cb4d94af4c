"""One host process under load. Says `ready`, waits for a line on stdin, and prints what it measured as JSON.

python worker.py KIND HOST_INDEX PROGRAMS TOKENS REQUESTS_ADDRESS HOST_ADDRESS
"""

import json
import statistics
import sys
import time
from pathlib import Path

from fibres import FibreHost
from host import Wire
from threads import ThreadHost

HOSTS = {host.kind: host for host in (FibreHost, ThreadHost)}
PROGRAM = """
async def main():
    for _ in range({tokens}):
        await ask("next")
    return "ok"
"""


def main() -> None:
    kind, host_index, num_programs, num_tokens, requests_address, host_address = sys.argv[1:]
    host = HOSTS[kind](Wire(requests_address, host_address, int(host_index)))
    guests, memory = start_all(host, int(num_programs), int(num_tokens))
    print("ready", flush=True)
    sys.stdin.readline()
    measured = run_all(host)
    assert all(guest.outcome == '{"result": "ok"}' for guest in guests), {guest.outcome for guest in guests}
    print(json.dumps(measured | memory | {"tokens": len(guests) * int(num_tokens)}))


def start_all(host, num_programs: int, num_tokens: int):
    """Every program runs up to its first wait; nothing is sent yet."""
    source = PROGRAM.format(tokens=num_tokens)
    warm = host.spawn("warm", PROGRAM.format(tokens=0))
    host.run_until_idle()
    assert warm.outcome, "the warm-up program did not end"
    before = memory_kb()
    guests = [host.spawn(f"program-{index}", source) for index in range(num_programs)]
    host.run_until_idle()
    after = memory_kb()
    return guests, {f"{name}_kb_per_program": (after[name] - before[name]) // num_programs for name in after}


def run_all(host) -> dict:
    cpu_s, start = time.process_time(), time.monotonic()
    host.flush()
    host.run()
    quantiles = statistics.quantiles(host.wake_ns, n=100)
    return {
        "cpu_s": time.process_time() - cpu_s,
        "wall_s": time.monotonic() - start,
        "wake_p50_us": quantiles[49] / 1000,
        "wake_p99_us": quantiles[98] / 1000,
    }


def memory_kb() -> dict[str, int]:
    """Resident counts the pages of the component that all programs share; private does not."""
    fields = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, kb, *_ = line.split()
        fields[name.rstrip(":")] = int(kb)
    return {"resident": fields["Rss"], "private": fields["Private_Clean"] + fields["Private_Dirty"]}


if __name__ == "__main__":
    main()
