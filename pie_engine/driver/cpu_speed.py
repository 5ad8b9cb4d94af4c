"""How fast a checkpoint runs here: `python -m pie_engine.driver.cpu_speed FOLDER [--dtype …] [--num-threads …]`.

Prints one line per measurement: the time of a decode step, of its linears alone, and of prefilling. Times are the
shortest of many runs in CPU time of the calling thread, which other processes disturb least; with more than one
thread they are wall time.
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
from pie_engine.model.decoder import Decoder
from pie_engine.model.experts import Mlp
from pie_engine.protocol.sampling import GREEDY

DECODE_SHAPES = ((1, 64), (1, 512), (16, 64), (16, 256), (16, 1024))
"""(rows, tokens of context)"""
PREFILL_TOKENS = 512


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure decode steps and prefill of a checkpoint on this CPU.")
    parser.add_argument("model", help="pie-tiny, a folder, or a hub id that is in the local cache")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--num-threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each measurement may take")
    options = parser.parse_args()
    driver = CpuDriver.load(resolve(options.model), dtype=options.dtype, num_threads=options.num_threads)
    driver.allocate_kv(1200)
    clock = time.thread_time if options.num_threads == 1 else time.perf_counter
    capabilities = driver.capabilities
    sys.stdout.write(f"{options.model}: {capabilities.dtype}, {capabilities.num_threads} threads\n")

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
        linears_ms = shortest_ms(functools.partial(_run_linears, driver, num_rows))
        sys.stdout.write(
            f"decode, batch {num_rows:2}, context {num_tokens:4}: "
            f"{step_ms:7.2f} ms, linears {linears_ms:7.2f} ms, the rest {step_ms - linears_ms:7.2f} ms\n"
        )
    prompt = Row([5] * PREFILL_TOKENS, 0, range(PREFILL_TOKENS // 16), GREEDY)
    prefill_ms = shortest_ms(lambda: driver.execute([prompt]))
    sys.stdout.write(f"prefill, {PREFILL_TOKENS} tokens: {PREFILL_TOKENS / prefill_ms * 1e3:.0f} tokens/s\n")


def _decode_rows(num_rows: int, num_tokens: int) -> list[Row]:
    """Rows at the end of a context, with their pages scattered over the pool."""
    per_row = -(-num_tokens // 16)
    pages = random.Random(0).sample(range(1200), num_rows * per_row)
    return [Row([5], num_tokens - 1, pages[row * per_row : (row + 1) * per_row], GREEDY) for row in range(num_rows)]


@torch.inference_mode()
def _run_linears(driver: CpuDriver, num_rows: int) -> None:
    """The matrix products of a decode step, and nothing else."""
    model = driver._model
    assert isinstance(model, Decoder), "a model that Transformers runs"
    views = model._buffers_for(num_rows).views(num_rows)
    hidden = torch.zeros(num_rows, model.config.hidden_size)
    attended = torch.ones(views.attention.out.shape, dtype=model.dtype)
    views.normed.fill_(1)
    views.inner.fill_(1)
    for block in model._blocks:
        block.qkv.into(views.qkv, views.normed)
        block.attention_out.add_to(hidden, attended)
        if isinstance(block.mlp, Mlp):  # which experts a token takes is up to the token
            block.mlp.gate_up.into(views.gate_up, views.normed)
            block.mlp.down.add_to(hidden, views.inner)
    torch.mm(views.normed, model._head.t())


if __name__ == "__main__":
    main()
