"""What host memory for KV pages saves, on the bare engine loop, in CPU time, which other programs disturb less.

    python benches/offload.py [--model FOLDER] [--json-out result.json]

pages  to move the content of KV pages out to host memory and back in again, beside computing that much of a prompt
turns  contexts that four times as many pages would hold take turns with a few tokens, with host memory and without it
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from itertools import count

import msgspec
from options import bench_parser
from own_core import add_model_options, driver_of, section_of
from report import save

from pie_engine.config import ModelSection
from pie_engine.core.host_pages import HostPages
from pie_engine.core.loop import Core
from pie_engine.driver.base import Driver, Row
from pie_engine.hub.places import resolve
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.plan import Plan
from pie_engine.protocol.to_core import Append, CloseProcess, CreateContext, Flush, Generate, OpenProcess

HOST = "bench"
RUNS = (1, 16, 64)
"""Pages moved at once."""
NUM_CONTEXTS, CONTEXT_LEN, TURN_LEN, NUM_TURNS = 8, 256, 4, 3


def cpu_ms(work: Callable[[], object], rounds: int) -> float:
    """The median, after a round that does not count."""
    work()
    taken = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        taken.append(1e3 * (time.process_time() - started))
    return statistics.median(taken)


def pages(section: ModelSection, rounds: int) -> list[dict[str, float]]:
    """Of each run of pages: moving them out, moving them in, and computing their tokens."""
    driver = driver_of(section, num_pages=1)
    size, vocab = driver.capabilities.page_size, driver.capabilities.vocab_size
    driver.allocate_kv(2 * max(RUNS))
    host = HostPages(driver, max(RUNS))
    rows = []
    for num in RUNS:
        own, other, slots = list(range(num)), list(range(num, 2 * num)), list(range(num))
        tokens = [random.Random(index).randrange(vocab) for index in range(num * size)]
        row = Row(tokens, 0, own)
        rows.append(
            {
                "num_pages": num,
                "compute_ms": cpu_ms(partial(driver.execute, [row]), rounds),
                "out_ms": cpu_ms(partial(_move_out, driver, host, own, slots), 5 * rounds),
                "in_ms": cpu_ms(partial(_move_in, driver, host, other, slots), 5 * rounds),
            }
        )
    return rows


def _move_out(driver: Driver, host: HostPages, page_ids: list[int], slots: list[int]) -> None:
    host.write(slots, driver.read_pages(page_ids))


def _move_in(driver: Driver, host: HostPages, page_ids: list[int], slots: list[int]) -> None:
    driver.write_pages(page_ids, host.read(slots))


def turns(section: ModelSection) -> dict[str, float]:
    """All contexts are read, then each gets a few tokens at its turn, several times."""
    driver = driver_of(section, num_pages=1)
    size, vocab = driver.capabilities.page_size, driver.capabilities.vocab_size
    pages_of_one = -(-(CONTEXT_LEN + NUM_TURNS * TURN_LEN) // size)
    num_pages = NUM_CONTEXTS * pages_of_one // 4
    core = Core(driver, Tokenizer.load(resolve(section.path)), msgspec.structs.replace(section, num_pages=num_pages))
    choice, ids = random.Random(1), count(1)
    contexts = [next(ids) for _ in range(NUM_CONTEXTS)]
    core.receive(HOST, [OpenProcess("p", "bench")])
    for ctx in contexts:
        prompt = [choice.randrange(vocab) for _ in range(CONTEXT_LEN)]
        core.receive(HOST, [CreateContext(ctx, "p", 0), Append(ctx, prompt), Flush(next(ids), ctx)])
        _finish(core)
    before, started = core.counts.num_prefill_tokens + core.counts.num_decode_tokens, time.process_time()
    plan = Plan(max_tokens=TURN_LEN, ignore_eos=True)
    for _ in range(NUM_TURNS):
        for ctx in contexts:
            core.receive(HOST, [Generate(next(ids), ctx, plan)])
            _finish(core)
    taken = time.process_time() - started
    stats = core.stats()
    core.receive(HOST, [CloseProcess("p")])
    return {
        "cpu_s": taken,
        "tokens_computed": stats.batches.num_prefill_tokens + stats.batches.num_decode_tokens - before,
        "tokens_generated": NUM_TURNS * NUM_CONTEXTS * TURN_LEN,
        "pages_returned": stats.num_page_returns,
        "num_pages": num_pages,
    }


def _finish(core: Core) -> None:
    while not core.is_idle:
        core.step()
        core.take_outgoing()


def run(args: argparse.Namespace) -> dict[str, object]:
    section = section_of(args, offload_memory_mb=1024)
    return {
        "bench": "offload",
        "model": {"name": section.label, **asdict(driver_of(section, num_pages=1).capabilities)},
        "workload": {
            "num_contexts": NUM_CONTEXTS, "context_len": CONTEXT_LEN, "turn_len": TURN_LEN, "num_turns": NUM_TURNS,
            "rounds": args.rounds,
        },
        "pages": pages(section, args.rounds),
        "turns": {
            "with_host_memory": turns(section),
            "without": turns(msgspec.structs.replace(section, offload_memory_mb=0)),
        },
    }  # fmt: skip


def main() -> None:
    parser = bench_parser(__doc__)
    add_model_options(parser, num_threads=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    results = run(args)
    for row in results["pages"]:  # type: ignore[attr-defined]
        print("  ".join(f"{name} {value:.3g}" for name, value in row.items()))
    for name, row in results["turns"].items():  # type: ignore[attr-defined]
        print(f"{name:18}", "  ".join(f"{key} {value:.5g}" for key, value in row.items()))
    save(args.json_out, results)


if __name__ == "__main__":
    main()
