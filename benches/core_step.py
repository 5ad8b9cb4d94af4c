"""What it costs a core to compose a step, in microseconds of CPU time: who runs, on whose pages, and at what price.

    python benches/core_step.py [--programs 1 64 256 1024 4096] [--policies market fcfs priority]
                                [--cases fits places pages] [--steps 300] [--json-out FILE]

No model and no messages. Programs of one context each: a prompt of 96 tokens, and replies of 1 to 128. In three cases:

- fits: there is room for all; when a reply is over the program ends, and another one comes
- places: all have pages, and a quarter of them has a place in the batch, 256 at most; programs stay, and reply to the
  same prompt again and again
- pages: a quarter of them has pages, the others wait for some; programs come and go

In parts:

- decision: `Scheduler.decide`
- rows: `Scheduler.rows`, which are counted with what it takes to run them (`loop.py`)

The budget for a decision is 200 µs at 256 programs and 2 ms at 4,096. What is done every few steps shows in the mean.
"""

from __future__ import annotations

import gc
import random
import time
from typing import Any

from common import least_median_mean
from options import bench_parser
from report import cells_of, save

from pie_engine.config import SchedulingSection
from pie_engine.core.claims import policy_of
from pie_engine.core.lineage import RandomStream
from pie_engine.core.operation import Operation
from pie_engine.core.scheduler import Batch, Scheduler
from pie_engine.core.state import Context, Host, Process
from pie_engine.kv.context import KvContext
from pie_engine.kv.pool import PagePool
from pie_engine.market.policy import POLICIES
from pie_engine.protocol.credits import CREDIT, PolicyName

CASES = ("fits", "places", "pages")
PARTS = ("decision", "rows")
BUDGET_US = {256: 200, 4096: 2000}
PAGE_SIZE, PROMPT_TOKENS, REPLY_TOKENS = 16, 96, 128
MOST_PAGES = (PROMPT_TOKENS + REPLY_TOKENS) // PAGE_SIZE
MEAN_PAGES = (PROMPT_TOKENS + REPLY_TOKENS // 2) // PAGE_SIZE
MAX_BATCH_TOKENS, MOST_PLACES = 16384, 256
NO_FACTS: Any = None
"""Of the model: it is not asked for any."""


class Reply(Operation):
    """A prompt and so many tokens more."""

    __slots__ = ("num_left",)

    def __init__(self, number: int, context: Context, num_tokens: int) -> None:
        super().__init__(number, context, NO_FACTS, number)
        self.num_left = num_tokens


class Crowd:
    """Programs on a scheduler; the tokens of a batch are made up."""

    def __init__(self, policy: PolicyName, case: str, num_programs: int) -> None:
        num_pages = MOST_PAGES + num_programs * (MEAN_PAGES if case == "pages" else 4 * MOST_PAGES) // 4
        num_places = max(min(num_programs // 4, MOST_PLACES), 1) if case == "places" else num_programs
        self._pool = PagePool(num_pages, PAGE_SIZE)
        section = SchedulingSection(policy=policy)
        self.scheduler = Scheduler(self._pool, policy_of(section, num_pages), MAX_BATCH_TOKENS, num_places)
        self._chance = random.Random(num_programs)
        self._host = Host("bench")
        self._num_steps = self._num_arrivals = 0
        self._stays = case == "places"
        for _ in range(num_programs):
            self._come()

    def _come(self) -> None:
        """A program; some bid, some are poor, some are rich."""
        chance, claims, number = self._chance, self.scheduler.claims, self._num_arrivals
        process = Process(self._host, str(number), "bench", claims.ledger, priority=chance.randrange(4))
        claims.join(process, chance.choice((10, 100, 1000)) * CREDIT)
        kv = KvContext(self._pool, root=b"bench")
        kv.extend([chance.randrange(1000) for _ in range(PROMPT_TOKENS)])
        if self._stays:
            kv.reserve(PROMPT_TOKENS)
            kv.advance(PROMPT_TOKENS - 1)
        context = Context(number, process, kv, RandomStream(0))
        context.bid = chance.choice((None, None, None, chance.randrange(CREDIT // 100)))
        self.scheduler.adopt(context)
        self._reply(context)

    def _reply(self, context: Context) -> None:
        self._num_arrivals += 1
        reply = Reply(self._num_arrivals, context, self._chance.randrange(1, REPLY_TOKENS + 1))
        context.queue.append(reply)
        self.scheduler.add(reply)

    def _end(self, reply: Reply) -> None:
        context = reply.context
        context.queue.clear()
        self.scheduler.remove(reply)
        if self._stays:
            context.truncate(PROMPT_TOKENS)
            context.kv.uncompute(PROMPT_TOKENS - 1)
            self._reply(context)
            return
        self.scheduler.rest(context)
        self.scheduler.drop(context)
        self.scheduler.claims.leave(context.process)
        self._come()

    def run(self, batch: Batch) -> None:
        """Everybody has got its tokens."""
        self._num_steps += 1
        for operation, row in batch:
            kv = operation.kv
            if kv.advance(kv.num_computed + len(row.tokens)):
                self.scheduler.claims.made(operation.context)
            if kv.num_computed < kv.num_tokens:
                continue
            assert isinstance(operation, Reply)
            kv.append(self._num_steps % 1000)
            operation.num_left -= 1
            if not operation.num_left:
                self._end(operation)
        self._pool.moves.take()


def measure(policy: PolicyName, case: str, num_programs: int, num_steps: int) -> dict[str, list[float]]:
    """Microseconds of each step, by part."""
    crowd = Crowd(policy, case, num_programs)
    scheduler = crowd.scheduler
    # Until all prompts have run that can, and replies end in every step.
    for step in range(REPLY_TOKENS):
        crowd.run(scheduler.compose(step))
    # As in a core that has started.
    gc.collect()
    gc.freeze()
    spent: dict[str, list[float]] = {part: [] for part in PARTS}
    for step in range(REPLY_TOKENS, REPLY_TOKENS + num_steps):
        began = time.thread_time_ns()
        decodes, prompts = scheduler.decide()
        decided = time.thread_time_ns()
        batch = scheduler.rows(step, decodes, prompts)
        ended = time.thread_time_ns()
        spent["decision"].append((decided - began) / 1000)
        spent["rows"].append((ended - decided) / 1000)
        crowd.run(batch)
    assert not scheduler.claims.violations()
    return spent


def result_of(policy: PolicyName, case: str, num_programs: int, num_steps: int) -> dict[str, Any]:
    """Least, median and mean of each part."""
    figures = {part: least_median_mean(us) for part, us in measure(policy, case, num_programs, num_steps).items()}
    budget = None if case == "fits" else BUDGET_US.get(num_programs)
    return {"policy": policy, "case": case, "programs": num_programs, "budget_us": budget, **figures}


def print_result(result: dict[str, Any]) -> None:
    budget = f"  (budget {result['budget_us']})" if result["budget_us"] else ""
    print(
        f"{result['programs']:5} {result['case']:6} {result['policy']:9} {cells_of(result, PARTS)}{budget}", flush=True
    )


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--programs", type=int, nargs="+", default=[1, 64, 256, 1024, 4096])
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    print("µs of CPU time a step, least / median / mean")
    results = []
    for num_programs in args.programs:
        for case in args.cases:
            for policy in args.policies:
                results.append(result_of(policy, case, num_programs, args.steps))
                print_result(results[-1])
    save(args.json_out, {"steps": args.steps, "results": results})


if __name__ == "__main__":
    main()
