"""What a profile costs: the CPU time of a program on the engine in one process, with and without.

    python benches/profiling.py [--model pie-tiny|fake] [--tokens 200] [--rounds 81] [--json-out FILE]

`chunks` takes a reply chunk by chunk, `passes` runs pass after pass, `forks` has eight tasks at once that generate as
many tokens each, so all have as many steps. On pie-tiny, whose steps take a millisecond, all that is not the model
weighs most: that is the worst case. `fake` is a model that takes no time: it tells the microseconds for each step, also
on a machine that others use. Host, sandbox and core are in one thread, and so is the model: threads that wait for one
another take CPU time that is nobody's.

A round is four runs right after one another, without, with, with and without, or the other way round: what the machine
does meanwhile meets both, and what goes on getting slower or faster does so too. What counts is the median over the
rounds of how much more CPU time those with a profile took, with an interval around it; it has to be less than 3 %,
except on `fake`. Beside it stand the same of the time on the clock, the least CPU times of all runs, and what a profile
takes however short the program is: as much more as a run of one token takes.
"""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from common import median_within
from options import bench_parser
from report import save

from pie_engine.config import HostSection, ModelSection
from pie_engine.driver.fake_script import FakeScript
from pie_engine.embedded import Embedded
from pie_engine.protocol.program import Bundle, Manifest

PROGRAMS = {
    "chunks": """
from inferlet import Context
async def main(prompt: str, num_tokens: int) -> int:
    with Context() as ctx:
        ctx.append(prompt)
        count = 0
        async for chunk in ctx.generate(max_tokens=num_tokens, ignore_eos=True):
            count += len(chunk.ids)
        return count
""",
    "passes": """
from inferlet import Context, Sampler
async def main(prompt: str, num_tokens: int) -> int:
    with Context() as ctx:
        ctx.append(prompt)
        await ctx.flush()
        token = 5
        for _ in range(num_tokens):
            token = (await ctx.forward([token], sampler=Sampler())).token
        return token
""",
    "forks": """
import asyncio
from inferlet import Context
async def branch(ctx, num_tokens):
    return await ctx.generate(max_tokens=num_tokens, ignore_eos=True)
async def main(prompt: str, num_tokens: int) -> int:
    with Context() as ctx:
        ctx.append(prompt)
        await ctx.flush()
        forks = [ctx.fork() for _ in range(8)]
        return len(await asyncio.gather(*(branch(fork, num_tokens) for fork in forks)))
""",
}
PROMPT = "Tell me about the sea and the ships on it. " * 8
FAKE = "fake"
MAX_OVERHEAD = 0.03
Number = float | int


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--model", default="pie-tiny", help="name or folder")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=81)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    with Embedded(HostSection(warm_instances=1)) as engine:
        if options.model == FAKE:
            engine.load(ModelSection(driver="fake", name=FAKE, prefix_cache="off"), FakeScript())
        else:
            engine.load(ModelSection(path=options.model, driver="cpu", prefix_cache="off", num_threads=1))
        for name, source in PROGRAMS.items():
            bundle = Bundle(Manifest(name=name), {"main.py": source})
            results[name] = measured(engine, bundle, options.tokens, options.rounds)
            print(name, results[name], flush=True)
    what = {"model": Path(options.model).name, "tokens": options.tokens, "rounds": options.rounds}
    save(options.json_out, {**what, "programs": results})
    worst = max(each["overhead"] for each in results.values())
    is_over = worst > MAX_OVERHEAD and options.model != FAKE
    raise SystemExit(f"more than {MAX_OVERHEAD:.0%}: {worst:.1%}" if is_over else 0)


def measured(engine: Embedded, bundle: Bundle, num_tokens: int, num_rounds: int) -> dict[str, Number]:
    """CPU seconds of a run with and without, and how much more the profile takes, of 1."""
    fixed_s = statistics.median(each.more_s for each in rounds_of(engine, bundle, 1, num_rounds))
    rounds = rounds_of(engine, bundle, num_tokens, num_rounds)
    more_s = statistics.median(each.more_s for each in rounds)
    least = min(took.cpu_s for each in rounds for took in each.without)
    least_profiled = min(took.cpu_s for each in rounds for took in each.profiled)
    low, overhead, high = median_within([each.overhead for each in rounds])
    return {
        "cpu_s": round(least, 5),
        "cpu_s_profiled": round(least_profiled, 5),
        "us_fixed": round(fixed_s * 1e6),
        "us_per_step": round((more_s - fixed_s) / num_tokens * 1e6, 1),
        "overhead": round(overhead, 4),
        "overhead_low": round(low, 4),
        "overhead_high": round(high, 4),
        "overhead_of_least": round(least_profiled / least - 1, 4),
        "overhead_of_wall": round(statistics.median(each.wall_overhead for each in rounds), 4),
    }


class Took(NamedTuple):
    """One run, from the launch to the end."""

    cpu_s: float
    wall_s: float


@dataclass(frozen=True)
class Round:
    """Two runs of each kind."""

    without: list[Took]
    profiled: list[Took]

    @property
    def more_s(self) -> float:
        """CPU seconds that a profile takes."""
        return sum(took.cpu_s for took in self.profiled) / 2 - sum(took.cpu_s for took in self.without) / 2

    @property
    def overhead(self) -> float:
        return sum(took.cpu_s for took in self.profiled) / sum(took.cpu_s for took in self.without) - 1

    @property
    def wall_overhead(self) -> float:
        return sum(took.wall_s for took in self.profiled) / sum(took.wall_s for took in self.without) - 1


def rounds_of(engine: Embedded, bundle: Bundle, num_tokens: int, num_rounds: int) -> list[Round]:
    """See above."""
    for profiled in (False, True):
        run(engine, bundle, num_tokens, profiled=profiled)
    rounds = []
    for number in range(num_rounds):
        order = (False, True, True, False) if number % 2 else (True, False, False, True)
        found: dict[bool, list[Took]] = {False: [], True: []}
        for profiled in order:
            found[profiled].append(run(engine, bundle, num_tokens, profiled=profiled))
        rounds.append(Round(found[False], found[True]))
    return rounds


def run(engine: Embedded, bundle: Bundle, num_tokens: int, *, profiled: bool) -> Took:
    engine.warm_up()
    gc.collect()
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    trace = ("profile",) if profiled else ()
    process = engine.launch(bundle, {"prompt": PROMPT, "num_tokens": num_tokens}, trace=trace)  # type: ignore[arg-type]
    process.wait()
    took = Took(time.process_time() - began_cpu_s, time.perf_counter() - began_s)
    assert process.error is None, process.error
    return took


if __name__ == "__main__":
    main()
