"""What a step costs besides the model: the loop, the driver around the kernels, and the messages of the hosts.

    python benches/loop.py [--rows 1 16 64 256] [--steps 200] [--json-out FILE]

Steps of decoding plans on pie-tiny, one thread. The clock that the core sees goes 20 ms on with each of them, as under
a model that takes that long: every row sends a chunk in every step, and is acknowledged. In microseconds of the CPU
time of the thread; the budget is 150 + 10 for each row. First with the layers left out, in parts:

- core: composing, pages, keys, settling, text and chunks
- messages: decoding what the hosts say and encoding what they get
- driver: what surrounds the kernels of the model (embedding, layers, head), choosing the tokens included

Then all of it with the layers, which leave the processor's caches full of weights.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from common import least_median_mean
from options import bench_parser
from report import cells_of, save

from pie_engine.config import ModelSection
from pie_engine.core.loop import Core
from pie_engine.driver.base import Row, RowResult
from pie_engine.driver.cpu import CpuDriver
from pie_engine.hub.places import resolve
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.plan import Plan
from pie_engine.protocol.sampling import Sampler
from pie_engine.protocol.to_core import Append, CoreMessage, CreateContext, Delivered, Generate, OpenProcess
from pie_engine.protocol.to_host import Chunk, Failed

HOST = "bench"
STEP_S = 0.0201
PROMPT_TOKENS = 96
WARM_UP_STEPS = 24
SAMPLERS = {"greedy": Sampler(), "temperature": Sampler(temperature=0.8)}
PARTS = ("core", "messages", "driver", "sum", "with_layers")
BUDGET_US, BUDGET_US_PER_ROW = 150, 10

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[CoreMessage]).decode


class CpuClock:
    """CPU time of this thread in microseconds, in parts."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._at = 0

    def start(self) -> None:
        self.spent = {}
        self._at = time.thread_time_ns()

    def lap(self, part: str) -> None:
        """What went by since the last lap is of `part`."""
        self.spent[part] = self.spent.get(part, 0.0) + (time.thread_time_ns() - self._at) / 1000
        self._at = time.thread_time_ns()


class WatchedDriver:
    """A driver that tells the clock when it begins and ends, and so do its kernels."""

    def __init__(self, driver: CpuDriver, clock: CpuClock, *, runs_layers: bool) -> None:
        self._driver, self._clock = driver, clock
        team = driver._model._team
        run = team.run

        def timed(program: Any, *arrays: Any) -> None:
            clock.lap("driver")
            # The layers come with tables, the head comes without.
            if runs_layers or not arrays:
                run(program, *arrays)
            clock.lap("kernels")

        team.run = timed
        embedding = driver._model._embedding
        look_up = embedding.into

        def timed_look_up(*arrays: Any) -> None:
            clock.lap("driver")
            look_up(*arrays)
            clock.lap("kernels")

        embedding.into = timed_look_up

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def execute(self, rows: Sequence[Row]) -> list[RowResult]:
        self._clock.lap("core")
        results = self._driver.execute(rows)
        self._clock.lap("driver")
        return results


class Steps:
    """A core whose plans all decode."""

    def __init__(self, num_rows: int, sampler: Sampler, num_steps: int, *, runs_layers: bool) -> None:
        folder = resolve("pie-tiny")
        self.clock, self._now = CpuClock(), 0.0
        num_tokens = WARM_UP_STEPS + num_steps + 2
        num_pages = num_rows * ((PROMPT_TOKENS + num_tokens) // 16 + 2)
        section = ModelSection(path="pie-tiny", num_pages=num_pages, max_batch_tokens=4096, max_batch_sequences=256)
        driver = CpuDriver.load(folder, num_threads=1, num_pages=num_pages, kernels="compiled")
        watched: Any = WatchedDriver(driver, self.clock, runs_layers=runs_layers)
        self._core = Core(watched, Tokenizer.load(folder), section, clock=lambda: self._now)
        vocab = driver.capabilities.vocab_size
        self._num_tokens = dict.fromkeys(range(1, num_rows + 1), 0)
        for row in self._num_tokens:
            prompt = [(7 * row + 13 * place) % (vocab - 10) + 5 for place in range(PROMPT_TOKENS)]
            plan = Plan(sampler, max_tokens=num_tokens, ignore_eos=True)
            opening = [OpenProcess(str(row), HOST), CreateContext(row, str(row), row), Append(row, prompt)]
            self._core.receive(HOST, [*opening, Generate(row, row, plan)])
        for _ in range(WARM_UP_STEPS):
            self.step()

    def step(self) -> dict[str, float]:
        """One step; the CPU time of its parts."""
        incoming = _encode([Delivered(op, 0, num_tokens) for op, num_tokens in self._num_tokens.items()])
        self._now += STEP_S
        self.clock.start()
        self._core.receive(HOST, _decode(incoming))
        self.clock.lap("messages")
        self._core.step()
        self.clock.lap("core")
        outgoing = self._core.take_outgoing()
        for results in outgoing.values():
            _encode(results)
        self.clock.lap("messages")
        for results in outgoing.values():
            self._take(results)
        return self.clock.spent

    def _take(self, results: Sequence[Any]) -> None:
        for result in results:
            if isinstance(result, Failed):
                raise result.error.raised()
            assert isinstance(result, Chunk)
            self._num_tokens[result.op] += len(result.ids)


def measure(num_rows: int, sampler: Sampler, num_steps: int, *, runs_layers: bool) -> list[dict[str, float]]:
    """The parts of each step."""
    steps = Steps(num_rows, sampler, num_steps, runs_layers=runs_layers)
    # As in a core that has started.
    gc.collect()
    gc.freeze()
    return [steps.step() for _ in range(num_steps)]


def result_of(num_rows: int, sampling: str, num_steps: int) -> dict[str, object]:
    """Least, median and mean of each part."""
    without, with_layers = (
        measure(num_rows, SAMPLERS[sampling], num_steps, runs_layers=runs_layers) for runs_layers in (False, True)
    )
    samples = {name: [step[name] for step in without] for name in ("core", "messages", "driver")}
    samples["sum"] = [sum(step.values()) - step["kernels"] for step in without]
    samples["with_layers"] = [sum(step.values()) - step["kernels"] for step in with_layers]
    return {
        "rows": num_rows,
        "sampling": sampling,
        "budget_us": BUDGET_US + BUDGET_US_PER_ROW * num_rows,
        **{name: least_median_mean(us) for name, us in samples.items()},
    }


def print_result(result: dict[str, Any]) -> None:
    print(
        f"{result['rows']:4} {result['sampling']:12} {cells_of(result, PARTS)}  (budget {result['budget_us']})",
        flush=True,
    )


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--sampling", choices=SAMPLERS, nargs="+", default=list(SAMPLERS))
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    print("µs of CPU time a step, least / median / mean")
    results = []
    for num_rows in args.rows:
        for sampling in args.sampling:
            results.append(result_of(num_rows, sampling, args.steps))
            print_result(results[-1])
    save(args.json_out, {"model": "pie-tiny", "steps": args.steps, "results": results})


if __name__ == "__main__":
    main()
