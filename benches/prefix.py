"""What the prefix cache saves, on the bare engine loop: a shared prefix that is known, and one that 32 requests bring.

    python benches/prefix.py [--model FOLDER] [--json-out result.json]

known     time to the first token of PREFIX + own tokens when nothing is known, when PREFIX is, and of as many own
          tokens alone, which is the least that it can cost
together  32 requests with one fresh PREFIX, 16 at a time, 32 tokens each, with the cache and without it

PREFIX has 1,024 tokens and what is a request's own 32; every round has new random tokens.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections import deque
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
from pie_engine.protocol.to_host import Chunk, Failed

HOST = "bench"
PREFIX_LEN, OWN_LEN, OUTPUT_LEN = 1024, 32, 32
NUM_REQUESTS, CONCURRENCY = 32, 16


class Bench:
    """One core; contexts, operations and processes of a request have its number."""

    def __init__(self, section: ModelSection, seed: int) -> None:
        driver = driver_of(section)
        self.capabilities = driver.capabilities
        self._core = Core(driver, Tokenizer.load(resolve(section.path)), section)
        self._random = random.Random(seed)
        self._ids = count(1)

    def tokens(self, num: int) -> list[int]:
        return [self._random.randrange(self.capabilities.vocab_size) for _ in range(num)]

    def start(self, prompt: list[int], max_tokens: int) -> int:
        number = next(self._ids)
        plan = Plan(Sampler(), max_tokens=max_tokens, ignore_eos=True, chunk_ms=0)
        opening = [OpenProcess(str(number), "bench"), CreateContext(number, str(number), 0), Append(number, prompt)]
        self._core.receive(HOST, [*opening, Generate(number, number, plan)])
        return number

    def step(self) -> list[int]:
        """Numbers of the requests that ended in this step."""
        self._core.step()
        ended = []
        for result in self._core.take_outgoing().get(HOST, []):
            if isinstance(result, Failed):
                raise result.error.raised()
            if isinstance(result, Chunk) and result.finish:
                self._core.receive(HOST, [CloseProcess(str(result.op))])
                ended.append(result.op)
        return ended

    def first_token_s(self, prompt: list[int]) -> tuple[float, int]:
        """Time to the first token of a request alone, and the tokens that it had to compute."""
        before = self.num_computed
        started = time.perf_counter()
        self.start(prompt, max_tokens=1)
        while not self.step():
            pass
        return time.perf_counter() - started, self.num_computed - before

    def together(self) -> tuple[float, int]:
        """Time of all requests with a fresh common prefix, and the tokens that they had to compute."""
        prefix = self.tokens(PREFIX_LEN)
        waiting = deque(prefix + self.tokens(OWN_LEN) for _ in range(NUM_REQUESTS))
        before, num_running = self.num_computed, 0
        started = time.perf_counter()
        while waiting or num_running:
            while waiting and num_running < CONCURRENCY:
                self.start(waiting.popleft(), OUTPUT_LEN)
                num_running += 1
            num_running -= len(self.step())
        return time.perf_counter() - started, self.num_computed - before

    @property
    def num_computed(self) -> int:
        counts = self._core.counts
        return counts.num_prefill_tokens + counts.num_decode_tokens


def known(bench: Bench, rounds: int) -> dict[str, object]:
    samples: dict[str, list[tuple[float, int]]] = {"unknown": [], "known": [], "own_alone": []}
    for _ in range(rounds):
        prefix = bench.tokens(PREFIX_LEN)
        samples["unknown"].append(bench.first_token_s(prefix + bench.tokens(OWN_LEN)))
        samples["known"].append(bench.first_token_s(prefix + bench.tokens(OWN_LEN)))
        samples["own_alone"].append(bench.first_token_s(bench.tokens(OWN_LEN)))
    return {name: _summary(found) for name, found in samples.items()}


def _summary(samples: list[tuple[float, int]]) -> dict[str, object]:
    times_ms = [1e3 * elapsed for elapsed, _ in samples]
    return {
        "median_ms": round(statistics.median(times_ms), 2),
        "min_ms": round(min(times_ms), 2),
        "max_ms": round(max(times_ms), 2),
        "tokens_computed": max(num for _, num in samples),
    }


def run(args: argparse.Namespace) -> dict[str, object]:
    section = section_of(args, kv_memory_mb=1024)
    bench = Bench(section, args.seed)
    # Both with the same number of threads: each would measure and choose for itself.
    off = msgspec.structs.replace(section, prefix_cache="off", num_threads=bench.capabilities.num_threads)
    without = Bench(off, args.seed)
    bench.first_token_s(bench.tokens(PREFIX_LEN))
    together: dict[str, list[tuple[float, int]]] = {"with_cache": [], "without_cache": []}
    for _ in range(args.rounds):
        together["with_cache"].append(bench.together())
        together["without_cache"].append(without.together())
    return {
        "bench": "prefix",
        "workload": {
            "prefix_len": PREFIX_LEN, "own_len": OWN_LEN, "output_len": OUTPUT_LEN, "num_requests": NUM_REQUESTS,
            "concurrency": CONCURRENCY, "rounds": args.rounds, "seed": args.seed,
        },
        "model": {"name": section.label, **asdict(bench.capabilities)},
        "known": known(bench, args.rounds),
        "together": {name: _summary(samples) for name, samples in together.items()},
    }  # fmt: skip


def main() -> None:
    parser = bench_parser(__doc__)
    add_model_options(parser, num_threads=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    results = run(args)
    for part in ("known", "together"):
        for name, row in results[part].items():  # type: ignore[attr-defined]
            print(f"{part:9} {name:14} {row['median_ms']:10.1f} ms   {row['tokens_computed']:6} tokens computed")
    save(args.json_out, results)


if __name__ == "__main__":
    main()
