"""Latency and throughput of the engine, bare and through everything, and the difference: the programmability tax.

    python benches/pie_bench.py latency --concurrency 16 --num-requests 16 --via both --interleave 5
    python benches/pie_bench.py tput --num-requests 64 --json-out result.json
    python benches/pie_bench.py latency --tier pass --via both

`latency` sends waves of `--concurrency` requests, each after the last one has ended; `tput` keeps that many in flight.
Prompts are random token ids, replies are exactly `--output-len` tokens long.

--via core   the bare engine loop in this process: no WebAssembly, no host, no gateway
--via pie    a daemon of its own, and one inferlet for each request; times are those at the client
--via both   both, taking turns `--interleave` times; the tax compares the times per token while a whole wave decodes

--tier plan  one `ctx.generate` a request; --tier pass: one `ctx.forward` a token
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import tomli_w
from common import Stamps, Workload, describe_machine, figures, require_exact_counts, summary_ms, tpot_of_full_batch_s

from pie_engine.config import ModelSection
from pie_engine.core.loop import Core
from pie_engine.driver.base import Driver, Row, RowResult
from pie_engine.driver.create import load_driver
from pie_engine.errors import PieError
from pie_engine.hub.places import resolve
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.plan import Plan
from pie_engine.protocol.sampling import Sampler
from pie_engine.protocol.to_core import (
    Append,
    CloseProcess,
    CoreMessage,
    CreateContext,
    Delivered,
    Forward,
    Generate,
    OpenProcess,
)
from pie_engine.protocol.to_host import Chunk, CoreResult, Failed, Forwarded

PROGRAMS = {"plan": Path(__file__).parent / "programs/generate", "pass": Path(__file__).parent / "programs/forward"}
HOST = "bench"
TOP_P = 0.9
"""With a temperature; the programs use the same."""
Wave = list[Stamps]


class TimedDriver:
    """A driver that knows how long its last step took and how many rows and tokens it had."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.last_s = 0.0
        self.last_rows = self.last_tokens = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def execute(self, rows: Sequence[Row]) -> list[RowResult]:
        started = time.perf_counter()
        results = self._driver.execute(rows)
        self.last_s = time.perf_counter() - started
        self.last_rows, self.last_tokens = len(rows), sum(len(row.tokens) for row in rows)
        return results


class BareCore:
    """The engine loop, driven inline. A token is stamped when the loop hands it out."""

    def __init__(self, section: ModelSection, tier: str) -> None:
        folder = resolve(section.path)
        driver = load_driver(
            section.driver, folder, dtype=section.dtype, num_threads=section.num_threads, page_size=section.page_size
        )
        self._driver = TimedDriver(driver)
        self.overhead_s: list[float] = []
        """Of each step that decoded for all requests at once: what the loop took besides the driver."""
        self.capabilities = asdict(self._driver.capabilities)
        self._core = Core(self._driver, Tokenizer.load(folder), section)
        self.num_pages = self._core.pool.num_pages
        self._request_type = PlanRequest if tier == "plan" else PassRequest
        self._ids = count(1)

    def run(self, workload: Workload, *, in_waves: bool) -> list[Wave]:
        prompts = prompts_of(workload, self.capabilities["vocab_size"])
        return [self._run_wave(wave, workload) for wave in waves_of(prompts, workload, in_waves)]

    def _run_wave(self, prompts: Sequence[list[int]], workload: Workload) -> Wave:
        waiting = deque(prompts)
        running: dict[int, PlanRequest | PassRequest] = {}
        wave: Wave = []
        while waiting or running:
            while waiting and len(running) < workload.concurrency:
                request = self._request_type(next(self._ids), workload)
                running[request.id] = request
                self._core.receive(HOST, request.opening(waiting.popleft()))
            now = self._step(workload)
            for result in self._core.take_outgoing().get(HOST, []):
                request = running[result.op]
                self._core.receive(HOST, request.answer(result, now))
                if request.is_done:
                    wave.append(running.pop(result.op).stamps)
        return wave

    def _step(self, workload: Workload) -> float:
        started = time.perf_counter()
        self._core.step()
        now = time.perf_counter()
        if self._driver.last_rows == self._driver.last_tokens == workload.concurrency:
            self.overhead_s.append(now - started - self._driver.last_s)
        self._driver.last_rows = 0
        return now


class PlanRequest:
    """One `generate`; context and operation have the id of the request."""

    def __init__(self, request_id: int, workload: Workload) -> None:
        self.id = request_id
        self.workload = workload
        self.sampler = Sampler(workload.temperature, top_p=TOP_P) if workload.temperature else Sampler()
        self.stamps = Stamps(time.perf_counter())

    @property
    def is_done(self) -> bool:
        return self.stamps.num_tokens >= self.workload.output_len

    def opening(self, prompt: list[int]) -> list[CoreMessage]:
        pid = str(self.id)
        context = [OpenProcess(pid, "bench"), CreateContext(self.id, pid, self.workload.seed)]
        return [*context, *self.first(prompt)]

    def first(self, prompt: list[int]) -> list[CoreMessage]:
        plan = Plan(self.sampler, max_tokens=self.workload.output_len, ignore_eos=True)
        return [Append(self.id, prompt), Generate(self.id, self.id, plan)]

    def answer(self, result: CoreResult, now: float) -> list[CoreMessage]:
        """Stamp what came, and say what a host would say then."""
        match result:
            case Failed():
                raise result.error.raised()
            case Chunk():
                self.stamps.add(now, len(result.ids))
                delivered = Delivered(self.id, result.epoch, self.stamps.num_tokens)
                return [CloseProcess(str(self.id)) if self.is_done else delivered]
            case Forwarded():
                self.stamps.add(now, 1)
                return [CloseProcess(str(self.id)) if self.is_done else self.next_pass([result.token or 0])]
        raise AssertionError(result)

    def next_pass(self, tokens: list[int]) -> CoreMessage:
        return Forward(self.id, self.id, tokens, self.sampler)


class PassRequest(PlanRequest):
    """A pass for each token."""

    def first(self, prompt: list[int]) -> list[CoreMessage]:
        return [self.next_pass(prompt)]


class WholePie:
    """A daemon of its own and inferlets. Tokens are stamped when the client has the message that tells of them."""

    def __init__(self, home: Path, vocab_size: int, tier: str) -> None:
        self._home = home
        self._vocab_size = vocab_size
        self._program = PROGRAMS[tier]

    def run(self, workload: Workload, *, in_waves: bool) -> list[Wave]:
        return asyncio.run(self._run(workload, in_waves))

    async def _run(self, workload: Workload, in_waves: bool) -> list[Wave]:
        from pie_client import PieClient

        prompts = prompts_of(workload, self._vocab_size)
        async with PieClient(home=self._home) as client:
            return [await self._run_wave(client, wave, workload) for wave in waves_of(prompts, workload, in_waves)]

    async def _run_wave(self, client: Any, prompts: Sequence[list[int]], workload: Workload) -> Wave:
        waiting = deque(prompts)
        wave: Wave = []

        async def worker() -> None:
            while waiting:
                wave.append(await self._run_request(client, waiting.popleft(), workload))

        await asyncio.gather(*(worker() for _ in range(min(workload.concurrency, len(prompts)))))
        return wave

    async def _run_request(self, client: Any, prompt: list[int], workload: Workload) -> Stamps:
        from pie_client import Event

        arguments = {
            "prompt": prompt,
            "max_tokens": workload.output_len,
            "temperature": workload.temperature,
            "seed": workload.seed,
        }
        stamps = Stamps(time.perf_counter())
        async for event, value in await client.launch_process(self._program, arguments):
            if event is Event.Message:
                stamps.add(time.perf_counter(), value)
            elif event is Event.Error:
                raise value.raised()
        return stamps


@contextmanager
def daemon(section: ModelSection) -> Iterator[Path]:
    """A daemon that serves `section`, in a home of its own."""
    with tempfile.TemporaryDirectory(prefix="pie-b-") as name:
        home = Path(name)
        config = home / "config.toml"
        config.write_text(tomli_w.dumps({"models": [msgspec.to_builtins(section)]}))
        env = {**os.environ, "PIE_HOME": str(home / "home"), "PIE_CONFIG": str(config)}
        pie = [sys.executable, "-m", "pie_cli"]
        subprocess.run([*pie, "serve", "--background"], env=env, check=True, stdout=subprocess.DEVNULL)
        try:
            yield home / "home"
        finally:
            subprocess.run([*pie, "stop"], env=env, check=False, stdout=subprocess.DEVNULL)


def prompts_of(workload: Workload, vocab_size: int) -> list[list[int]]:
    return [workload.prompt(index, vocab_size) for index in range(workload.num_requests)]


def waves_of(prompts: list[list[int]], workload: Workload, in_waves: bool) -> list[list[list[int]]]:
    size = workload.concurrency if in_waves else len(prompts)
    return [prompts[start : start + size] for start in range(0, len(prompts), size)]


def flat(waves: Sequence[Wave]) -> Wave:
    return [stamps for wave in waves for stamps in wave]


def measure(
    engines: dict[str, BareCore | WholePie], workload: Workload, rounds: int, in_waves: bool
) -> dict[str, list[list[Wave]]]:
    """Of each engine, the waves of each round; the engines take turns."""
    measured: dict[str, list[list[Wave]]] = {name: [] for name in engines}
    num_warm_up = min(workload.concurrency, workload.num_requests)
    for engine in engines.values():
        engine.run(replace(workload, num_requests=num_warm_up, output_len=min(8, workload.output_len)), in_waves=True)
    for number in range(rounds):
        for name, engine in engines.items():
            # New prompts in each round: those of the last one are in the prefix cache.
            waves = engine.run(replace(workload, seed=workload.seed + 1 + number), in_waves=in_waves)
            require_exact_counts(flat(waves), workload)
            measured[name].append(waves)
            print(f"round {number + 1} of {rounds} via {name}", file=sys.stderr)
    return measured


def tax_of(measured: dict[str, list[list[Wave]]]) -> dict[str, object]:
    """Time per token via pie against the bare loop, round by round, while whole waves decode."""
    tpot_ms = {
        name: [1e3 * statistics.fmean(tpot_of_full_batch_s(wave) for wave in waves) for waves in rounds]
        for name, rounds in measured.items()
    }
    percents = [100 * (pie / core - 1) for core, pie in zip(tpot_ms["core"], tpot_ms["pie"], strict=True)]
    if any(math.isnan(percent) for percent in percents):
        return {"note": "no time in which a whole wave decoded: raise --output-len"}
    return {
        "core_tpot_ms": [round(value, 3) for value in tpot_ms["core"]],
        "pie_tpot_ms": [round(value, 3) for value in tpot_ms["pie"]],
        "percent_median": round(statistics.median(percents), 2),
        "percent_min": round(min(percents), 2),
        "percent_max": round(max(percents), 2),
    }


def results_of(
    args: argparse.Namespace, section: ModelSection, core: BareCore, measured: dict[str, list[list[Wave]]]
) -> dict[str, object]:
    runs = {
        name: [figures(flat(waves)) for waves in rounds]  # one entry a round, so that the spread is there
        for name, rounds in measured.items()
    }
    has_tax = args.bench == "latency" and len(measured) == 2
    return {
        "bench": args.bench,
        "tier": args.tier,
        "workload": asdict(workload_of(args)),
        "model": {"name": section.label, "num_pages": core.num_pages, **core.capabilities},
        "runs": runs,
        "loop_overhead_ms": summary_ms(core.overhead_s),
        **({"tax": tax_of(measured)} if has_tax else {}),
        "machine": describe_machine(),
    }


def print_report(results: dict[str, Any]) -> None:
    """The figures for people; each is the median over the rounds."""
    print(f"{'':6} {'tokens/s':>9} {'TTFT p50':>9} {'p99':>8} {'TPOT p50':>9} {'p99':>8}   (ms)")
    for name, rounds in results["runs"].items():
        rate = statistics.median(run["output_tokens_per_s"] for run in rounds)
        cells = [
            statistics.median(run[metric][point] for run in rounds) if rounds[0][metric] else math.nan
            for metric in ("ttft_ms", "tpot_ms")
            for point in ("p50", "p99")
        ]
        print(f"{name:6} {rate:9.1f} {cells[0]:9.2f} {cells[1]:8.2f} {cells[2]:9.3f} {cells[3]:8.3f}")
    if overhead := results["loop_overhead_ms"]:
        rows = results["workload"]["concurrency"]
        print(f"loop besides the driver: {1e3 * overhead['p50']:.0f} µs a step of {rows} rows (p50)")
    tax = results.get("tax", {})
    if "percent_median" in tax:
        spread = f"{tax['percent_min']:+.1f} … {tax['percent_max']:+.1f} %"
        print(f"tax on the time per token in a full batch: {tax['percent_median']:+.1f} % ({spread})")
    elif tax:
        print(tax["note"])


def workload_of(args: argparse.Namespace) -> Workload:
    return Workload(args.num_requests, args.concurrency, args.input_len, args.output_len, args.temperature, args.seed)


def section_of(args: argparse.Namespace) -> ModelSection:
    """The model's configuration; a path stays out of the results, they have the label only."""
    path = str(Path(args.model).resolve()) if Path(args.model).is_dir() else args.model
    return ModelSection(
        path=path,
        name=Path(args.model).name,
        driver=args.driver,
        dtype=args.dtype,
        num_threads=args.num_threads,
        kv_memory_mb=args.kv_memory_mb,
        max_batch_tokens=args.max_batch_tokens,
    )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", choices=["latency", "tput"])
    parser.add_argument("--via", choices=["core", "pie", "both"], default="core")
    parser.add_argument("--tier", choices=["plan", "pass"], default="plan")
    parser.add_argument("--driver", choices=["cpu", "cuda", "fake"], default="cpu")
    parser.add_argument("--model", default="pie-tiny", help="a folder, a hub id in the local cache, or pie-tiny")
    parser.add_argument("--device", default="", help="refuse to measure on another device than this one")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--num-threads", type=int, default=0)
    parser.add_argument("--kv-memory-mb", type=int, default=512)
    parser.add_argument("--max-batch-tokens", type=int, default=512)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--num-requests", type=int, default=16)
    parser.add_argument("--input-len", type=int, default=64)
    parser.add_argument("--output-len", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--interleave", type=int, default=3, metavar="ROUNDS")
    parser.add_argument("--json-out", type=Path)
    return parser.parse_args()


def run(args: argparse.Namespace) -> dict[str, object]:
    section = section_of(args)
    core = BareCore(section, args.tier)
    if args.device not in ("", core.capabilities["device"]):
        raise SystemExit(f"driver {args.driver} runs on {core.capabilities['device']}, not on {args.device}")
    with ExitStack() as stack:
        engines: dict[str, BareCore | WholePie] = {}
        if args.via in ("core", "both"):
            engines["core"] = core
        if args.via in ("pie", "both"):
            home = stack.enter_context(daemon(with_threads_of(section, core)))
            engines["pie"] = WholePie(home, core.capabilities["vocab_size"], args.tier)
        measured = measure(engines, workload_of(args), args.interleave, in_waves=args.bench == "latency")
    return results_of(args, section, core, measured)


def with_threads_of(section: ModelSection, core: BareCore) -> ModelSection:
    """The same number of threads for both: each would measure and choose for itself."""
    return msgspec.structs.replace(section, num_threads=core.capabilities["num_threads"])


def main() -> None:
    args = parse_args()
    try:
        results = run(args)
    except PieError as error:
        raise SystemExit(f"{error.message}\nhint: {error.hint}" if error.hint else error.message) from error
    print_report(results)
    if args.json_out:
        args.json_out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
