"""One host process under load. Says `ready`, waits for a line on stdin, and prints what it measured as JSON.

python worker.py KIND HOST_INDEX PROGRAMS TOKENS REQUESTS_ADDRESS HOST_ADDRESS
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

from fibres import FibreHost
from host import Wire
from threads import ThreadHost

HOSTS = {host.kind: host for host in (FibreHost, ThreadHost)}
WARM_TOKENS = 3  # the first ones touch memory for the first time
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
    print(json.dumps(run_all(host, guests) | memory), flush=True)
    os._exit(0)  # most programs are still at it


def start_all(host, num_programs: int, num_tokens: int):
    """Every program runs up to a wait, with a few tokens behind it; nothing is sent yet."""
    source = PROGRAM.format(tokens=WARM_TOKENS + num_tokens)
    warm = host.spawn("warm", PROGRAM.format(tokens=0))
    host.run_until_idle()
    assert warm.outcome, "the warm-up program did not end"
    before = memory_kb()
    guests = [host.spawn(f"program-{index}", source) for index in range(num_programs)]
    host.run_until_idle()
    for _ in range(WARM_TOKENS):
        handles, host.outbox = host.outbox, []
        host.answer(handles, time.monotonic_ns())
        host.run_until_idle()
    host.wake_ns.clear()
    after = memory_kb()
    return guests, {f"{name}_kb_per_program": (after[name] - before[name]) // num_programs for name in after}


def run_all(host, guests: list) -> dict:
    """Until the first program ends: what an ending costs is another question."""
    cpu_s, start = time.process_time(), time.monotonic()
    host.flush()
    while len(host.guests) == len(guests):
        host.step(20)
    cpu_s, wall_s, wake_ns = time.process_time() - cpu_s, time.monotonic() - start, host.wake_ns.copy()
    assert '{"result": "ok"}' in {guest.outcome for guest in guests}
    quantiles = statistics.quantiles(wake_ns, n=100)
    wakes = {"wake_p50_us": quantiles[49] / 1000, "wake_p99_us": quantiles[98] / 1000}
    return {"cpu_s": cpu_s, "wall_s": wall_s, "tokens": len(wake_ns), **wakes}


def memory_kb() -> dict[str, int]:
    """Resident counts the pages of the component that all programs share; private does not."""
    fields = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, kb, *_ = line.split()
        fields[name.rstrip(":")] = int(kb)
    return {"resident": fields["Rss"], "private": fields["Private_Clean"] + fields["Private_Dirty"]}


if __name__ == "__main__":
    main()
