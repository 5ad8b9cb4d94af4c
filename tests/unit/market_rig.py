"""A policy, and contexts that claim places of a batch."""

from __future__ import annotations

from collections import Counter

from pie_engine.market.book import PACED, Standing
from pie_engine.market.ledger import Ledger
from pie_engine.market.policy import MarketPolicy, Policy, StepRecord
from pie_engine.market.sharing import PARTS
from pie_engine.protocol.credits import CREDIT

ENDOWMENT = 1000 * CREDIT


class Table:
    """A policy, and contexts that claim places of a batch. Each is a process of its own unless said otherwise."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.step = 0
        self.ran: Counter[int] = Counter()
        self.num_arrivals = 0

    def add(
        self,
        pid: str = "",
        *,
        bid: int = PACED,
        num_pages: int = 0,
        endowment: int = ENDOWMENT,
        priority: int = 0,
        standing: Standing = Standing.RUNNABLE,
    ) -> int:
        policy, book = self.policy, self.policy.book
        pid = pid or f"p{len(book)}"
        if pid not in policy.ledger:
            policy.join(pid, endowment, self.step, priority=priority)
        row = book.open(policy.ledger.seat(pid), self.step, bid)
        self.hold(row, num_pages)
        if standing != Standing.IDLE:
            self.num_arrivals += 1
            book.wake(row, self.num_arrivals, self.step, num_pages)
        if standing == Standing.PARKED:
            book.park(row)
        return row

    def hold(self, row: int, num_pages: int) -> None:
        self.policy.book.num_pages[row], self.policy.book.charge[row] = num_pages, num_pages * PARTS

    @property
    def runnable(self) -> list[int]:
        book = self.policy.book
        return [row for row in range(book.end) if book.standing[row] == Standing.RUNNABLE]

    def order(self) -> list[int]:
        rows = self.runnable
        return [rows[place] for place in self.policy.order(rows, self.step + 1)]

    def run(self, num_rows: int, num_tokens: int = 1) -> list[int]:
        """One step for the first `num_rows` claims."""
        order = self.order()
        self.step += 1
        ran = order[:num_rows]
        tokens = [num_tokens] * len(ran)
        self.policy.settle(StepRecord(self.step, ran, tokens, lacked_batch=order[num_rows:]))
        self.ran.update(ran)
        return ran

    def victims(self, row: int, num_missing: int, busy: tuple[int, ...] = ()) -> list[int]:
        return self.policy.victims(row, num_missing, self.step + 1, busy).tolist()


def market(quota: int = 16, **options: int) -> Table:
    return Table(MarketPolicy(Ledger(quota), **options))
