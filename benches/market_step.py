"""What a decision of the scheduling policies costs, in microseconds of CPU time for a step.

    python benches/market_step.py [--programs 64 256 1024 4096] [--policies market fcfs priority] [--json-out FILE]

Every program has a context that decodes, a quarter of them fits, and they are put in order, pay and are paid. In parts:

- order: who goes first (`Policy.order`)
- victims: a claim that lacks pages asks who gives way (`Policy.victims`)
- settle: price, rents, dividends, service (`Policy.settle`)

`fits`: the same programs when all of them fit. It is a part of what a core takes for a step (`core_step.py`).
"""

from __future__ import annotations

import gc
import random
import time

import numpy as np
from common import least_median_mean
from options import bench_parser
from report import cells_of, save

from pie_engine.market.book import PACED
from pie_engine.market.columns import Ints
from pie_engine.market.ledger import Ledger
from pie_engine.market.policy import POLICIES, Policy, StepRecord
from pie_engine.market.sharing import PARTS
from pie_engine.protocol.credits import CREDIT

PARTS_OF_STEP = ("order", "victims", "settle", "sum", "fits")


def crowd(policy: Policy, num_programs: int) -> Ints:
    """Rows of decoding contexts; some programs bid, some are poor, some are rich."""
    rng = random.Random(num_programs)
    rows = []
    for number in range(num_programs):
        seat = policy.join(f"p{number}", rng.choice((0, 10, 1000)) * CREDIT, 0, priority=rng.randrange(4))
        row = policy.book.open(seat, 0, rng.choice((PACED, PACED, PACED, rng.randrange(CREDIT))))
        num_pages = rng.randrange(1, 40)
        policy.book.wake(row, number, 0, num_pages)
        policy.book.num_pages[row], policy.book.charge[row] = num_pages, num_pages * PARTS
        rows.append(row)
    return np.array(rows)


def measure(name: str, num_programs: int, num_steps: int) -> dict[str, list[float]]:
    """Microseconds of each step, by part."""
    policy = POLICIES[name](Ledger(64), num_pages=10 * num_programs)
    rows = crowd(policy, num_programs)
    spent: dict[str, list[float]] = {part: [] for part in PARTS_OF_STEP}
    num_rows = min(max(num_programs // 4, 1), 256)
    gc.collect()
    gc.freeze()
    for step in range(1, num_steps + 1):
        began = time.thread_time_ns()
        order = policy.order(rows, step)
        ordered = time.thread_time_ns()
        ran, lacked = rows[order[:num_rows]], rows[order[num_rows:]]
        asking = time.thread_time_ns()
        for row in lacked[:1].tolist():
            policy.victims(row, 10**9, step, ran)
        asked = time.thread_time_ns()
        policy.settle(StepRecord(step, ran, np.ones(len(ran), np.int64), lacked[:1], lacked[1:]))
        settled = time.thread_time_ns()
        for part, took_ns in (
            ("order", ordered - began),
            ("victims", asked - asking),
            ("settle", settled - asked),
            ("sum", ordered - began + settled - asking),
        ):
            spent[part].append(took_ns / 1000)
    for step in range(num_steps + 1, 2 * num_steps):
        began = time.thread_time_ns()
        policy.all_ran(step)
        spent["fits"].append((time.thread_time_ns() - began) / 1000)
    return spent


def result_of(name: str, num_programs: int, num_steps: int) -> dict[str, object]:
    """Least, median and mean of each part."""
    figures = {part: least_median_mean(us) for part, us in measure(name, num_programs, num_steps).items()}
    return {"policy": name, "programs": num_programs, **figures}


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--programs", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    print("µs of CPU time a step, least / median / mean")
    results = []
    for num_programs in args.programs:
        for name in args.policies:
            result = result_of(name, num_programs, args.steps)
            print(f"{num_programs:5} {name:9} {cells_of(result, PARTS_OF_STEP)}", flush=True)
            results.append(result)
    save(args.json_out, {"steps": args.steps, "results": results})


if __name__ == "__main__":
    main()
