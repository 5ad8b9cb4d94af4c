"""What choosing the tokens of one step costs, beside the model: python benches/sampling_bench.py [--json-out FILE]

Logits like a language model's: the k-th likeliest token has a weight of k ** -1.3, in an order of its own in each row.
`flat` ones are nearly equal (normal, deviation 0.1). `compiled` is chosen by the kernels, the rest with NumPy.
Histories have 4,096 tokens, 1,000 of them generated, drawn by Zipf's law. Processor time of one thread.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from array import array
from collections.abc import Callable

import torch
from options import bench_parser
from report import save

from pie_engine.model.compiled_choice import Choice
from pie_engine.protocol.sampling import Sampler
from pie_engine.sampling.draw import Draw
from pie_engine.sampling.random import stream_key, uniform
from pie_engine.sampling.sampler import Choose, sample

PENALTIES = {"repetition_penalty": 1.1, "frequency_penalty": 0.1, "presence_penalty": 0.1}
SAMPLERS = {
    "greedy": Sampler(),
    "greedy + penalties": Sampler(**PENALTIES),
    "temperature": Sampler(0.8),
    "top-k 40": Sampler(0.8, top_k=40),
    "top-p 0.9": Sampler(0.8, top_p=0.9),
    "top-p 0.9 + penalties": Sampler(0.8, top_p=0.9, **PENALTIES),
    "min-p 0.05": Sampler(0.8, min_p=0.05),
    "typical 0.9": Sampler(0.8, typical_p=0.9),
    "eta 0.002": Sampler(0.8, eta_cutoff=2e-3),
    "mirostat 5": Sampler(0.8, mirostat_tau=5.0),
    "DRY, greedy": Sampler(dry_multiplier=0.8),
    "mask, greedy": Sampler(),
}
COMPILED = {
    "greedy": Sampler(),
    "temperature": Sampler(0.8),
    "top-k 40": Sampler(0.8, top_k=40),
    "top-k 1000": Sampler(0.8, top_k=1000),
    "top-k 10000": Sampler(0.8, top_k=10_000),
    "top-p 0.9": Sampler(0.8, top_p=0.9),
    "min-p 0.05": Sampler(0.8, min_p=0.05),
}
"""What the kernels choose; measured against NumPy, on both kinds of logits."""


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--vocab", type=int, default=49_152)
    parser.add_argument("--history", type=int, default=4096)
    parser.add_argument("--generated", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logits = zipf_logits(arguments.rows, arguments.vocab)
    flat = 0.1 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    results = {name: measure(name, sampler, logits, arguments) for name, sampler in SAMPLERS.items()}
    choice = Choice(arguments.vocab)
    for name, sampler in COMPILED.items():
        results[f"compiled: {name}"] = measure(name, sampler, logits, arguments, choice)
        results[f"flat: {name}"] = measure(name, sampler, flat, arguments)
        results[f"flat, compiled: {name}"] = measure(name, sampler, flat, arguments, choice)
    for name, figures in results.items():
        print(f"{name:32} {figures['median_ms']:8.3f} ms  (p10 {figures['p10_ms']:.3f}, p90 {figures['p90_ms']:.3f})")
    settings = {key: value for key, value in vars(arguments).items() if key != "json_out"}
    save(arguments.json_out, {"settings": settings, "results": results})


def zipf_logits(rows: int, vocab: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    ranks = torch.stack([torch.randperm(vocab, generator=generator) for _ in range(rows)])
    return -1.3 * torch.log(ranks + 1.0)


def measure(
    name: str, sampler: Sampler, logits: torch.Tensor, arguments: argparse.Namespace, choose: Choose | None = None
) -> dict[str, float]:
    rows, vocab = logits.shape
    randomness = random.Random(1)
    mask = bytes(randomness.randrange(256) for _ in range(-(-vocab // 8))) if name.startswith("mask") else None
    histories = [
        array("i", [int(randomness.paretovariate(0.6)) % vocab for _ in range(arguments.history)]) for _ in range(rows)
    ]
    num_prompt = arguments.history - arguments.generated

    def step(position: int) -> Callable[[], object]:
        draws = [
            Draw(sampler, uniform(stream_key(row), position), mask, histories[row], num_prompt) for row in range(rows)
        ]
        return lambda: sample(logits, draws, choose)

    samples = sorted([timed_ms(step(position)) for position in range(arguments.repeats + 5)][5:])
    tenth = len(samples) // 10
    return {
        "median_ms": round(statistics.median(samples), 3),
        "p10_ms": round(samples[tenth], 3),
        "p90_ms": round(samples[-1 - tenth], 3),
    }


def timed_ms(call: Callable[[], object]) -> float:
    start = time.thread_time()
    call()
    return 1e3 * (time.thread_time() - start)


if __name__ == "__main__":
    main()
