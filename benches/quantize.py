"""What quantizing on load costs and saves: held-out loss of pie-tiny, and decode steps, by dtype and `quantize`.

    python benches/quantize.py [--shape 135m] [--examples 60] [--json-out FILE]

The loss is the mean of -ln p(token) over held-out examples, which pie-tiny's training never saw; the perplexity is its
exponential. Steps are the shortest of many, in CPU time of one thread, at a context of 64 tokens.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from common import describe_machine
from make_checkpoint import write_checkpoint

from pie_engine.driver.base import Row
from pie_engine.driver.cpu import CpuDriver
from pie_engine.hub.places import resolve
from pie_engine.model.attention import Span
from pie_engine.model.tiny.chat_format import segments
from pie_engine.model.tiny.corpus import examples
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.sampling import GREEDY

SETTINGS: list[dict[str, str]] = [
    {"dtype": "float32", "kernels": "compiled", "quantize": "none"},
    {"dtype": "bfloat16", "kernels": "compiled", "quantize": "none"},
    {"dtype": "float32", "kernels": "torch", "quantize": "none"},
    {"dtype": "bfloat16", "kernels": "torch", "quantize": "none"},
    {"dtype": "bfloat16", "kernels": "compiled", "quantize": "int8"},
    {"dtype": "bfloat16", "kernels": "compiled", "quantize": "int4"},
    {"dtype": "bfloat16", "kernels": "torch", "quantize": "int8"},
    {"dtype": "bfloat16", "kernels": "torch", "quantize": "int4"},
]
BATCHES = (1, 4, 16)
CONTEXT = 64
MAX_TOKENS = 512
NUM_PAGES = 200


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what quantizing on load costs and saves.")
    parser.add_argument("--shape", default="135m", help="random checkpoint whose steps are timed")
    parser.add_argument("--examples", type=int, default=60, help="held-out examples of pie-tiny")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each measurement of a step")
    parser.add_argument("--json-out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    texts = list(itertools.islice(held_out(), options.examples))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), options.shape)
        for setting in SETTINGS:
            rows.append(setting | measure(setting, texts, Path(folder), options.seconds))
            print(json.dumps(rows[-1]))
    result = {"machine": describe_machine(), "shape": options.shape, "num_examples": options.examples, "results": rows}
    if options.json_out:
        options.json_out.write_text(json.dumps(result, indent=1) + "\n")


def measure(setting: dict[str, str], texts: list[list[int]], folder: Path, seconds: float) -> dict[str, Any]:
    tiny = load(resolve("pie-tiny"), setting)
    loss = mean_loss(tiny, texts)
    driver = load(folder, setting)
    steps = {f"step_ms_{batch}": step_ms(driver, batch, seconds) for batch in BATCHES}
    return {
        "loss": loss,
        "perplexity": math.exp(loss),
        "weights_mib": driver.capabilities.weight_bytes / 2**20,
        **steps,
    }


def load(folder: Path, setting: dict[str, str]) -> CpuDriver:
    driver = CpuDriver.load(folder, num_threads=1, **setting)  # type: ignore[arg-type]
    driver.allocate_kv(NUM_PAGES)
    return driver


def held_out() -> Iterator[list[int]]:
    """Token ids of examples that the training did not see."""
    tokenizer = Tokenizer.load(resolve("pie-tiny"))
    for example in examples(0, "held_out"):
        ids = [token for segment in segments(example) for token in tokenizer.encode(segment.text)]
        yield ids[:MAX_TOKENS]


def mean_loss(driver: CpuDriver, texts: list[list[int]]) -> float:
    """-ln p of each token but the first, fed in pieces of 16, as decoding in a batch would multiply them."""
    total, count = 0.0, 0
    for ids in texts:
        logits = torch.cat([_logits(driver, ids, at) for at in range(0, len(ids), 16)])[:-1]
        total += torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum").item()
        count += len(ids) - 1
    return total / count


def _logits(driver: CpuDriver, ids: list[int], start: int) -> torch.Tensor:
    piece = ids[start : start + 16]
    pages = list(range(-(-len(ids) // 16)))
    cache = driver._allocated()
    return driver._model.forward([Span(0, len(piece), start, pages)], piece, cache, list(range(len(piece))))


def step_ms(driver: CpuDriver, batch: int, seconds: float) -> float:
    pages = CONTEXT // 16
    rows = [Row([5], CONTEXT - 1, range(row * pages, (row + 1) * pages), GREEDY) for row in range(batch)]
    driver.execute(rows)
    times = []
    end = time.monotonic() + seconds
    while not times or time.monotonic() < end:
        start = time.thread_time()
        driver.execute(rows)
        times.append(time.thread_time() - start)
    return min(times) * 1e3


if __name__ == "__main__":
    main()
