"""What a profile costs: the CPU time of a program on the engine in one process, with and without.

    python benches/profiling.py [--model pie-tiny|fake] [--tokens 400] [--rounds 15] [--json-out FILE]

`chunks` takes a reply chunk by chunk, `passes` runs pass after pass, `forks` has eight tasks at once. On pie-tiny,
whose steps take a millisecond, all that is not the model weighs most: that is the worst case. `fake` is a model that
takes no time: it tells the microseconds for each token, also on a machine that others use. With and without take
turns; host, sandbox and core are in one thread. The least CPU time of all rounds counts, and the median of the pairs'
ratios tells how far it can be trusted.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from pathlib import Path
from typing import Any

from common import describe_machine
from report import write_json

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
        return len(await asyncio.gather(*(branch(fork, num_tokens // 8) for fork in forks)))
""",
}
PROMPT = "Tell me about the sea and the ships on it. " * 8
FAKE = "fake"
Number = float | int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pie-tiny", help="name or folder")
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json-out", type=Path)
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
    if options.json_out is not None:
        what = {"model": Path(options.model).name, "tokens": options.tokens, "rounds": options.rounds}
        write_json(options.json_out, {**what, "programs": results, "machine": describe_machine()})


def measured(engine: Embedded, bundle: Bundle, num_tokens: int, num_rounds: int) -> dict[str, Number]:
    """CPU seconds with and without, and how much more the profile takes, of 1."""
    run(engine, bundle, num_tokens, profiled=False)
    run(engine, bundle, num_tokens, profiled=True)
    pairs = []
    for number in range(num_rounds):
        order = (False, True) if number % 2 else (True, False)
        took = {profiled: run(engine, bundle, num_tokens, profiled=profiled) for profiled in order}
        pairs.append((took[False], took[True]))
    without, profiled = (min(times) for times in zip(*pairs, strict=True))
    return {
        "cpu_s": round(without, 5),
        "cpu_s_profiled": round(profiled, 5),
        "us_per_token": round((profiled - without) / num_tokens * 1e6, 1),
        "overhead": round(profiled / without - 1, 4),
        "overhead_median": round(statistics.median(b / a for a, b in pairs) - 1, 4),
    }


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
