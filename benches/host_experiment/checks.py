"""What a host must be able to do to its guests, besides run them fast. Each check is a process of its own, so that a
crash fails one line of the table: python checks.py KIND NAME
"""

import itertools
import json
import sys
import time

from host import NoWire
from worker import HOSTS, memory_kb

ENDLESS_WAIT = 'async def main():\n    await ask("never answered")\n'
BUSY = "async def main():\n    while True:\n        pass\n"
TRIVIAL = "async def main():\n    return 1\n"
SLEEPER = """
import asyncio
async def main():
    for _ in range(100):
        await asyncio.sleep(0.01)
    return "slept"
"""


def timers(host) -> str:
    """asyncio.sleep, and a wait with a timeout that no answer ends"""
    source = """
import asyncio
async def main():
    await asyncio.sleep(0.05)
    try:
        async with asyncio.timeout(0.05):
            await ask("never answered")
    except TimeoutError:
        return "timed out"
"""
    start = time.monotonic()
    assert outcome(host, source) == '{"result": "timed out"}'
    elapsed_ms = (time.monotonic() - start) * 1000
    assert 100 <= elapsed_ms < 400, elapsed_ms
    return f"100 ms of waits took {elapsed_ms:.0f} ms"


def cancellation(host) -> str:
    """a flag and a wake: CancelledError in main, which may clean up with further awaits"""
    source = """
import asyncio
async def main():
    try:
        await ask("never answered")
    except asyncio.CancelledError:
        await asyncio.sleep(0.01)
        return "cleaned up"
"""
    guest = host.spawn("cancelled", source)
    host.run(until_s=0.2)
    host.cancel(guest)
    host.run(until_s=2)
    assert guest.outcome == '{"result": "cleaned up"}', guest.outcome
    return "CancelledError raised in main, cleaned up with an await"


def busy_loop(host) -> str:
    """a guest that never waits is ended at its CPU limit; its neighbours do not notice"""
    neighbours = [host.spawn(f"neighbour-{index}", SLEEPER) for index in range(8)]
    busy = host.spawn("busy", BUSY, cpu_limit_s=0.5)
    start = time.monotonic()
    host.run(until_s=30)
    elapsed_s = time.monotonic() - start
    assert busy.outcome == "killed: cpu_limit", busy.outcome
    assert {guest.outcome for guest in neighbours} == {'{"result": "slept"}'}
    assert 0.5 <= busy.cpu_ns / 1e9 < 0.6, busy.cpu_ns
    return f"killed at {busy.cpu_ns / 1e9:.2f} s of its own CPU time; neighbours ended after {elapsed_s:.1f} s"


def memory_limit(host) -> str:
    """MemoryError in the guest, and a neighbour without the limit is untouched"""
    source = "async def main():\n    return len(bytearray(200_000_000))\n"
    limited = host.spawn("limited", source, memory_limit_bytes=64 << 20)
    free = host.spawn("free", source)
    host.run(until_s=10)
    assert '"MemoryError"' in limited.outcome, limited.outcome
    assert free.outcome == '{"result": 200000000}', free.outcome
    return "MemoryError at 64 MiB"


def memory_limit_in_small_steps(host) -> str:
    """the interpreter's own allocations fail, too"""
    source = "async def main():\n    kept = []\n    while True:\n        kept.append('x' * 1000 + str(len(kept)))\n"
    limited = host.spawn("limited", source, memory_limit_bytes=64 << 20)
    host.run(until_s=20)
    assert "MemoryError" in limited.outcome or limited.outcome.startswith("trap"), limited.outcome
    return limited.outcome.split(",")[0]


def drop_suspended(host) -> str:
    """killed in the middle of a wait, and in the middle of running; the host goes on"""
    waiting = [host.spawn(f"waiting-{index}", ENDLESS_WAIT) for index in range(20)]
    busy = [host.spawn(f"busy-{index}", BUSY) for index in range(5)]
    host.run(until_s=0.5)
    for guest in waiting + busy:
        host.kill(guest, "dropped")
    host.run(until_s=2)
    assert {guest.outcome for guest in waiting + busy} == {"killed: dropped"}
    assert outcome(host, TRIVIAL) == '{"result": 1}'
    return "20 waiting and 5 running guests dropped"


def churn(host) -> str:
    """500 one after another, then four crowds of 500; private memory settles"""
    for _ in range(100):
        outcome(host, TRIVIAL)
    before = memory_kb()["private"]
    start = time.monotonic()
    for _ in range(500):
        outcome(host, TRIVIAL)
    each_ms = (time.monotonic() - start) * 2
    sequential = memory_kb()["private"] - before
    levels = [crowd(host, 500) for _ in range(4)]
    growth = [after - before for before, after in itertools.pairwise(levels)]
    assert sequential < 5000, sequential
    assert min(growth) < 2000, levels
    return (
        f"{each_ms:.1f} ms each; private memory: {sequential} kB more after 500 in sequence; after crowds of 500: "
        + ", ".join(f"{level // 1024} MiB" for level in levels)
    )


def crowd(host, num_guests: int) -> int:
    guests = [host.spawn(f"one-of-many-{index}", SLEEPER.replace("100", "3")) for index in range(num_guests)]
    host.run(until_s=60)
    assert {guest.outcome for guest in guests} == {'{"result": "slept"}'}
    return memory_kb()["private"]


def wasi_wait(host) -> str:
    """a wait inside WASI, which the real runtime replaces, delays the neighbours and harms nobody"""
    neighbour = host.spawn("neighbour", SLEEPER)
    guest = host.spawn("sleeper", "import time\nasync def main():\n    time.sleep(0.3)\n")
    start = time.monotonic()
    host.run(until_s=10)
    assert guest.outcome == '{"result": null}'
    assert neighbour.outcome == '{"result": "slept"}'
    return f"time.sleep(0.3) in one guest; a neighbour of 1.0 s ended after {time.monotonic() - start:.1f} s"


def trap(host) -> str:
    """one guest aborts, one exits; a neighbour lives on"""
    neighbour = host.spawn("neighbour", SLEEPER)
    aborted = host.spawn("aborted", "import os\nasync def main():\n    os.abort()\n")
    left = host.spawn("left", "import os\nasync def main():\n    os._exit(3)\n")
    host.run(until_s=10)
    assert aborted.outcome.startswith("trap: "), aborted
    assert left.outcome.startswith("trap: "), left
    assert neighbour.outcome == '{"result": "slept"}'
    return "abort and exit end their own guest only"


def deep_recursion(host) -> str:
    """endless recursion in the guest ends that guest"""
    source = "async def main():\n    def f():\n        return f() + 1\n    return f()\n"
    guest = host.spawn("deep", source)
    host.run(until_s=10)
    assert outcome(host, TRIVIAL) == '{"result": 1}'
    return guest.outcome.split(",")[0]


def callback_failure(host) -> str:
    """an exception in a host function ends that guest only, with its text"""
    neighbour = host.spawn("neighbour", SLEEPER)
    guest = host.spawn("wrong", "from wit_world.imports import core\nasync def main():\n    core.take(123456)\n")
    host.run(until_s=10)
    assert guest.outcome.startswith("trap: "), guest.outcome
    assert "123456" in guest.outcome
    assert neighbour.outcome == '{"result": "slept"}'
    return "contained"


CHECKS = (
    timers,
    cancellation,
    busy_loop,
    memory_limit,
    memory_limit_in_small_steps,
    drop_suspended,
    churn,
    trap,
    wasi_wait,
    deep_recursion,
    callback_failure,
)


def outcome(host, source: str) -> str:
    guest = host.spawn("guest", source)
    host.run(until_s=10)
    return guest.outcome


if __name__ == "__main__":
    kind, name = sys.argv[1:]
    check = {check.__name__: check for check in CHECKS}[name]
    print(json.dumps(check(HOSTS[kind](NoWire()))))
