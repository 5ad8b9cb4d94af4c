"""What a profile costs: the CPU time of a program on the engine in one process, with and without.

    python benches/profiling.py [--model pie-tiny|fake] [--tokens 400] [--rounds 41] [--json-out FILE]

`chunks` takes a reply chunk by chunk, `passes` runs pass after pass, `forks` has eight tasks at once that generate as
many tokens each, so all have as many steps. On pie-tiny, whose steps take a millisecond, all that is not the model
weighs most: that is the worst case. `fake` is a model that takes no time: it tells the microseconds for each step, also
on a machine that others use. Host, sandbox and core are in one thread.

A round is a run with and a run without, right after one another, in turns which of them first: what the machine does
meanwhile meets both. What counts is the median over the rounds of how much more the one took, with an interval around
it; it has to be less than 3 %, except on `fake`. Beside it stand the least CPU times of all runs, and what a profile
takes however short the program is: as much more as a run of one token takes.
"""

from __future__ import annotations

import gc
import statistics
import time
from pathlib import Path
from typing import Any

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
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=41)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    with Embedded(HostSection(warm_instances=1)) as engine:
        if options.model == FAKE:
            engine.load(ModelSection(driver="fake", name=FAKE, prefix_cache="off"), FakeScript())
        else:
            engine.load(ModelSection(path=options.model, driver="cpu", prefix_cache="off"))
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
    """CPU seconds with and without, and how much more the profile takes, of 1."""
    fixed_s = statistics.median(after - before for before, after in rounds_of(engine, bundle, 1, num_rounds))
    pairs = rounds_of(engine, bundle, num_tokens, num_rounds)
    more_s = statistics.median(after - before for before, after in pairs)
    least, least_profiled = (min(times) for times in zip(*pairs, strict=True))
    low, overhead, high = median_within([after / before - 1 for before, after in pairs])
    return {
        "cpu_s": round(least, 5),
        "cpu_s_profiled": round(least_profiled, 5),
        "us_fixed": round(fixed_s * 1e6),
        "us_per_step": round((more_s - fixed_s) / num_tokens * 1e6, 1),
        "overhead": round(overhead, 4),
        "overhead_low": round(low, 4),
        "overhead_high": round(high, 4),
        "overhead_of_least": round(least_profiled / least - 1, 4),
    }


def rounds_of(engine: Embedded, bundle: Bundle, num_tokens: int, num_rounds: int) -> list[tuple[float, float]]:
    """CPU seconds of each round, without and with."""
    for profiled in (False, True):
        run(engine, bundle, num_tokens, profiled=profiled)
    pairs = []
    for number in range(num_rounds):
        order = (False, True) if number % 2 else (True, False)
        took = {profiled: run(engine, bundle, num_tokens, profiled=profiled) for profiled in order}
        pairs.append((took[False], took[True]))
    return pairs


def run(engine: Embedded, bundle: Bundle, num_tokens: int, *, profiled: bool) -> float:
    """CPU seconds from the launch to the end."""
    engine.warm_up()
    gc.collect()
    began = time.process_time()
    trace = ("profile",) if profiled else ()
    process = engine.launch(bundle, {"prompt": PROMPT, "num_tokens": num_tokens}, trace=trace)  # type: ignore[arg-type]
    process.wait()
    took = time.process_time() - began
    assert process.error is None, process.error
    return took


if __name__ == "__main__":
    main()
