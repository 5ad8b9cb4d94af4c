"""How fast a checkpoint runs here: `python -m pie_engine.driver.cpu_speed FOLDER [--dtype …] [--num-threads …]`.

Prints one line per measurement: the time that reading the weights once takes, of decode steps, and the rate of
prefilling. Times are the shortest of many runs in CPU time of the calling thread, which other processes disturb least;
with more than one thread they are wall time.
"""

from __future__ import annotations

import argparse
import functools
import random
import sys
import time
from collections.abc import Callable

import torch

from pie_engine.driver.base import Row
from pie_engine.driver.cpu import CpuDriver
from pie_engine.hub.places import resolve
from pie_engine.protocol.sampling import GREEDY

DECODE_SHAPES = ((1, 64), (1, 512), (16, 64), (16, 256), (16, 1024))
"""(rows, tokens of context)"""
PREFILL_TOKENS = 512


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure decode steps and prefill of a checkpoint on this CPU.")
    parser.add_argument("model", help="pie-tiny, a folder, or a hub id that is in the local cache")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--kernels", default="auto", choices=["auto", "compiled", "torch"])
    parser.add_argument("--num-threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each measurement may take")
    options = parser.parse_args()
    folder = resolve(options.model)
    driver = CpuDriver.load(folder, dtype=options.dtype, num_threads=options.num_threads, kernels=options.kernels)
    driver.allocate_kv(1200)
    clock = time.thread_time if options.num_threads == 1 else time.perf_counter
    capabilities = driver.capabilities
    sys.stdout.write(
        f"{options.model}: {capabilities.dtype}, {capabilities.kernels} kernels, {capabilities.num_threads} threads\n"
    )
    weight_bytes = capabilities.weight_bytes
    floor_ms = 1e3 * weight_bytes / _read_bytes_per_s(options.num_threads)
    sys.stdout.write(f"reading {weight_bytes / 1e6:.0f} MB of weights:  {floor_ms:7.2f} ms\n")

    def shortest_ms(step: Callable[[], object]) -> float:
        step()
        times: list[float] = []
        end = time.monotonic() + options.seconds
        while not times or time.monotonic() < end:
            start = clock()
            step()
            times.append(clock() - start)
        return min(times) * 1e3

    for num_rows, num_tokens in DECODE_SHAPES:
        if num_tokens > capabilities.max_context_tokens:
            continue
        step_ms = shortest_ms(functools.partial(driver.execute, _decode_rows(num_rows, num_tokens)))
        sys.stdout.write(f"decode, batch {num_rows:2}, context {num_tokens:4}: {step_ms:7.2f} ms\n")
    prompt = Row([5] * PREFILL_TOKENS, 0, range(PREFILL_TOKENS // 16), GREEDY)
    prefill_ms = shortest_ms(lambda: driver.execute([prompt]))
    sys.stdout.write(f"prefill, {PREFILL_TOKENS} tokens: {PREFILL_TOKENS / prefill_ms * 1e3:.0f} tokens/s\n")


def _decode_rows(num_rows: int, num_tokens: int) -> list[Row]:
    """Rows at the end of a context, with their pages scattered over the pool."""
    per_row = -(-num_tokens // 16)
    pages = random.Random(0).sample(range(1200), num_rows * per_row)
    return [Row([5], num_tokens - 1, pages[row * per_row : (row + 1) * per_row], GREEDY) for row in range(num_rows)]


def _read_bytes_per_s(num_threads: int) -> float:
    """How fast memory is read: the least that a decode step can take is to read all weights once."""
    numbers = torch.zeros(1 << 26)
    torch.set_num_threads(num_threads)
    times = []
    for _ in range(8):
        start = time.perf_counter()
        numbers.sum()
        times.append(time.perf_counter() - start)
    return numbers.numel() * 4 / min(times)


if __name__ == "__main__":
    main()
