"""What a grammar costs: the same requests with and without a JSON schema, on the bare engine loop, interleaved.

    python benches/grammar.py [--model FOLDER] [--json-out result.json]

none      no grammar
text      an array of strings: a mask for every token, and hardly anything that is forced
records   an array of objects of four fields: between the values there is only one way to go on, and that takes no
          passes of its own

64 requests, 16 at a time, 128 random tokens in and exactly 64 out, greedy. CPU time is of the whole process.
`compile` is the time until a schema that has not been seen before can be used.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from itertools import count
from typing import Any

from common import Workload
from options import bench_parser
from own_core import add_model_options, driver_of, section_of
from report import save

from pie_engine.config import ModelSection
from pie_engine.core.loop import Core
from pie_engine.driver.base import Row, RowResult
from pie_engine.hub.places import resolve
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.plan import Grammar, Plan
from pie_engine.protocol.sampling import Sampler
from pie_engine.protocol.to_core import Append, CloseProcess, CreateContext, Generate, OpenProcess
from pie_engine.protocol.to_host import Chunk, Failed

HOST = "bench"
SCHEMAS: dict[str, Any] = {
    "none": None,
    "text": {"type": "array", "items": {"type": "string"}, "minItems": 500},
    "records": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "age": {"type": "integer", "minimum": 0, "maximum": 150},
                "kind": {"enum": ["customer", "supplier", "employee"]},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["name", "age", "kind", "tags"],
            "additionalProperties": False,
        },
        "minItems": 500,
    },
}


class TimedDriver:
    """A driver that knows how long it took."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self.spent_s = 0.0
        self.num_steps = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def execute(self, rows: Sequence[Row]) -> list[RowResult]:
        started = time.perf_counter()
        results: list[RowResult] = self._driver.execute(rows)
        self.spent_s += time.perf_counter() - started
        self.num_steps += 1
        return results


class Bench:
    """One core; contexts, operations and processes of a request have its number."""

    def __init__(self, section: ModelSection, workload: Workload) -> None:
        self._driver = TimedDriver(driver_of(section))
        self.capabilities = self._driver.capabilities
        self._core = Core(self._driver, Tokenizer.load(resolve(section.path)), section)
        self._core.facts.grammars.prepare()
        self._workload = workload
        self._ids = count(1)

    def compile_ms(self, schema: Any) -> float:
        """Of a schema with a title that has not been seen."""
        text = json.dumps({**schema, "title": str(next(self._ids))})
        started = time.perf_counter()
        self._core.facts.grammars.compile(Grammar("json-schema", text))._future.result()
        return 1e3 * (time.perf_counter() - started)

    def run(self, schema: Any) -> dict[str, float]:
        """All requests once."""
        grammar = None if schema is None else Grammar("json-schema", json.dumps(schema))
        self._driver.spent_s, self._driver.num_steps = 0.0, 0
        waiting = deque(range(self._workload.num_requests))
        num_running = num_tokens = 0
        started, cpu_started = time.perf_counter(), time.process_time()
        while waiting or num_running:
            while waiting and num_running < self._workload.concurrency:
                self._start(waiting.popleft(), grammar)
                num_running += 1
            self._core.step()
            for result in self._core.take_outgoing().get(HOST, []):
                if isinstance(result, Failed):
                    raise result.error.raised()
                if isinstance(result, Chunk):
                    num_tokens += len(result.ids)
                    if result.finish:
                        self._core.receive(HOST, [CloseProcess(str(result.op))])
                        num_running -= 1
        elapsed_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
        expected = self._workload.num_requests * self._workload.output_len
        assert num_tokens == expected, f"{num_tokens} tokens, not {expected}"
        return {
            "tokens_per_s": num_tokens / elapsed_s,
            "cpu_ms_per_token": 1e3 * cpu_s / num_tokens,
            "steps": self._driver.num_steps,
            "loop_ms_per_step": 1e3 * (elapsed_s - self._driver.spent_s) / self._driver.num_steps,
        }

    def _start(self, index: int, grammar: Grammar | None) -> None:
        number, workload = next(self._ids), self._workload
        prompt = workload.prompt(number, self.capabilities.vocab_size)
        sampler = Sampler(workload.temperature)
        plan = Plan(sampler, max_tokens=workload.output_len, ignore_eos=True, seed=index, grammar=grammar)
        opening = [OpenProcess(str(number), "bench"), CreateContext(number, str(number), 0), Append(number, prompt)]
        self._core.receive(HOST, [*opening, Generate(number, number, plan)])


def summary(samples: Sequence[dict[str, float]], plain: Sequence[dict[str, float]]) -> dict[str, object]:
    """Medians, and tokens/s against the plain run of the same round, by the clock and by the processor's time, which
    other programs on the machine disturb less."""
    rates = [sample["tokens_per_s"] for sample in samples]
    against = [100 * (rate / other["tokens_per_s"] - 1) for rate, other in zip(rates, plain, strict=True)]
    pairs = zip(samples, plain, strict=True)
    by_cpu = [100 * (other["cpu_ms_per_token"] / sample["cpu_ms_per_token"] - 1) for sample, other in pairs]
    return {
        "tokens_per_s": round(statistics.median(rates), 1),
        "least": round(min(rates), 1),
        "most": round(max(rates), 1),
        "against_none_percent": round(statistics.median(against), 2),
        "against_none_percent_by_cpu": round(statistics.median(by_cpu), 2),
        "against_none_percent_by_cpu_each": [round(value, 2) for value in by_cpu],
        "against_none_percent_each": [round(value, 2) for value in against],
        "cpu_ms_per_token": round(statistics.median(sample["cpu_ms_per_token"] for sample in samples), 4),
        "steps": round(statistics.median(sample["steps"] for sample in samples)),
        "loop_ms_per_step": round(statistics.median(sample["loop_ms_per_step"] for sample in samples), 3),
    }


def run(args: argparse.Namespace) -> dict[str, object]:
    section = section_of(args, kv_memory_mb=1024)
    workload = Workload(
        args.num_requests, args.concurrency, args.input_len, args.output_len, args.temperature, args.seed
    )
    bench = Bench(section, workload)
    for schema in SCHEMAS.values():
        bench.run(schema)
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in SCHEMAS}
    for number in range(args.rounds):
        for name in list(SCHEMAS) if number % 2 else reversed(SCHEMAS):
            samples[name].append(bench.run(SCHEMAS[name]))
    compiled = {
        name: round(statistics.median(bench.compile_ms(schema) for _ in range(5)), 2)
        for name, schema in SCHEMAS.items()
        if schema
    }
    return {
        "bench": "grammar",
        "workload": {**asdict(workload), "rounds": args.rounds},
        "model": {"name": section.label, **asdict(bench.capabilities)},
        "grammars": {name: summary(found, samples["none"]) for name, found in samples.items()},
        "compile_ms": compiled,
    }


def main() -> None:
    parser = bench_parser(__doc__)
    add_model_options(parser, num_threads=0)
    parser.add_argument("--num-requests", type=int, default=64)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--input-len", type=int, default=128)
    parser.add_argument("--output-len", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    results = run(args)
    for name, row in results["grammars"].items():  # type: ignore[attr-defined]
        print(
            f"{name:8} {row['tokens_per_s']:9.1f} tokens/s   {row['against_none_percent']:+6.2f} %, "
            f"{row['against_none_percent_by_cpu']:+6.2f} % by CPU time   "
            f"{row['cpu_ms_per_token']:.3f} ms of CPU a token   {row['steps']:5} steps   "
            f"loop {row['loop_ms_per_step']:.3f} ms a step"
        )
    print("compile", results["compile_ms"])
    save(args.json_out, results)


if __name__ == "__main__":
    main()
