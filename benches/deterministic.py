"""What `deterministic` costs, on the bare engine loop: requests at once with and without it, in CPU time, interleaved.

    python benches/deterministic.py [--model FOLDER] [--json-out result.json]

Compiled kernels give the same bits anyway; torch keeps to shapes that round alike (`model.steady`).
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from dataclasses import asdict
from itertools import count

import msgspec
from options import bench_parser
from own_core import add_model_options, driver_of, section_of
from report import save

from pie_engine.config import ModelSection
from pie_engine.core.loop import Core
from pie_engine.hub.places import resolve
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.plan import Plan
from pie_engine.protocol.sampling import Sampler
from pie_engine.protocol.to_core import Append, CloseProcess, CreateContext, Generate, OpenProcess
from pie_engine.protocol.to_host import Chunk

HOST = "bench"
INPUT_LEN, OUTPUT_LEN = 64, 32
CONCURRENCY = (1, 16)
SAMPLER = Sampler(temperature=0.8, top_p=0.95)


class Bench:
    """One core."""

    def __init__(self, section: ModelSection) -> None:
        driver = driver_of(section)
        self.capabilities = driver.capabilities
        self._core = Core(driver, Tokenizer.load(resolve(section.path)), section)
        self._ids = count(1)

    def ms_per_token(self, concurrency: int, seed: int) -> float:
        """CPU time of a whole wave of requests, for each token that it has generated."""
        choice, core = random.Random(seed), self._core
        core.receive(HOST, [OpenProcess("p", "bench")])
        for _ in range(concurrency):
            ctx = next(self._ids)
            prompt = [choice.randrange(self.capabilities.vocab_size) for _ in range(INPUT_LEN)]
            plan = Plan(SAMPLER, OUTPUT_LEN, ignore_eos=True, logprobs=True, chunk_ms=0)
            core.receive(HOST, [CreateContext(ctx, "p", ctx), Append(ctx, prompt), Generate(ctx, ctx, plan)])
        started, num_tokens = time.process_time(), 0
        while not core.is_idle:
            core.step()
            results = core.take_outgoing().get(HOST, [])
            num_tokens += sum(len(result.ids) for result in results if isinstance(result, Chunk))
        taken = time.process_time() - started
        assert num_tokens == concurrency * OUTPUT_LEN, num_tokens
        core.receive(HOST, [CloseProcess("p")])
        return 1e3 * taken / num_tokens


def compare(section: ModelSection, rounds: int) -> dict[str, object]:
    """Both settings of a model, and their ratio at each concurrency."""
    plain = Bench(section)
    exact = Bench(msgspec.structs.replace(section, deterministic=True, num_threads=plain.capabilities.num_threads))
    found: dict[str, object] = {"capabilities": asdict(exact.capabilities)}
    for concurrency in CONCURRENCY:
        times: dict[str, list[float]] = {"default": [], "deterministic": []}
        for index in range(rounds + 1):
            for name, bench in (("default", plain), ("deterministic", exact)):
                times[name].append(bench.ms_per_token(concurrency, index))
        medians = {f"{name}_ms": round(statistics.median(each[1:]), 3) for name, each in times.items()}
        ratios = [exact / plain for plain, exact in zip(times["default"][1:], times["deterministic"][1:], strict=True)]
        found[str(concurrency)] = medians | {
            "ratio": round(statistics.median(ratios), 3),
            "min_ratio": round(min(ratios), 3),
            "max_ratio": round(max(ratios), 3),
        }
    return found


def run(args: argparse.Namespace) -> dict[str, object]:
    section = section_of(args, kv_memory_mb=256)
    return {
        "bench": "deterministic",
        "model": section.label,
        "workload": {"input_len": INPUT_LEN, "output_len": OUTPUT_LEN, "rounds": args.rounds},
        "kernels": {
            kernels: compare(msgspec.structs.replace(section, kernels=kernels), args.rounds)
            for kernels in args.kernels.split(",")
        },
    }


def main() -> None:
    parser = bench_parser(__doc__)
    add_model_options(parser, num_threads=1)
    parser.add_argument("--kernels", default="compiled,torch")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    results = run(args)
    for kernels, found in results["kernels"].items():  # type: ignore[attr-defined]
        for concurrency in CONCURRENCY:
            print(f"{kernels:9} {concurrency:3}", "  ".join(f"{k} {v}" for k, v in found[str(concurrency)].items()))
    save(args.json_out, results)


if __name__ == "__main__":
    main()
