"""What the policy knows of a core, and what it says: the only place where the core's nouns meet `market.policy`.

Every process has a seat and every context a row. What changes is written there when it changes, a few stores; a
decision is asked for only in steps that cannot hold all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pie_engine.config import SchedulingSection
from pie_engine.core.ranking import Ranking
from pie_engine.core.state import Context, Process
from pie_engine.kv.pool import PagePool
from pie_engine.market.book import PACED
from pie_engine.market.columns import Ints
from pie_engine.market.ledger import Account, Ledger
from pie_engine.market.policy import NOBODY, POLICIES, TURN_STEPS, Policy, StepRecord
from pie_engine.market.sharing import EVERY_STEPS, holdings
from pie_engine.protocol.stats import MarketState

if TYPE_CHECKING:
    from pie_engine.core.operation import Operation

WORTH_A_MOVE = 4
"""A newcomer that bids more than so many times as much takes pages also from contexts that have just come: bids that
follow balances change all the time, and those that take turns to throw each other out would compute for nothing."""
PATIENCE = 4
"""Times what a prompt takes at least."""
CHILD_SHARE = 8
"""A child that is given no sum gets this part of what its parent has left: several in a row get about the same, and
their parent keeps enough to go on."""


def policy_of(section: SchedulingSection, num_pages: int) -> Policy:
    """The policy that the configuration names, for a pool of so many pages."""
    ledger = Ledger(section.admission_quota_pages)
    return POLICIES[section.policy](ledger, num_pages=num_pages, max_wait_steps=section.max_wait_steps)


class Holders:
    """Of pages, as one asks in one step who gives way."""

    def __init__(self, policy: Policy, step: int) -> None:
        self.step = step
        self.givers = policy.givers(step)
        self._bids = self._new = self._new_bids = NOBODY
        """By row; places of those that have just come, and what these bid. Only in a market."""
        if policy.name == "market":
            rows, self._bids = self.givers.rows, policy.strengths(step)
            self._new = (policy.book.term_end.ints[rows] > step).nonzero()[0]
            self._new_bids = self._bids[rows[self._new]]

    def spared_by(self, row: int) -> Ints:
        """Places of those that have just come, and bid so much that the row bids hardly more."""
        if not len(self._new):
            return NOBODY
        return self._new[self._new_bids >= int(self._bids[row]) // WORTH_A_MOVE]


class Claims:
    """The seats and rows of one core."""

    def __init__(self, policy: Policy, pool: PagePool) -> None:
        self.policy = policy
        self._book = policy.book
        self._pool = pool
        self._contexts: dict[int, Context] = {}
        """By row, the oldest first."""
        self.num_moved_out = 0
        """Contexts that lost their pages to others."""
        self.step = 0
        """As the policy counts: also steps in which nobody could run."""
        self._counted_at = -EVERY_STEPS
        self._knows_room = False
        """Of anybody."""
        self._holders: Holders | None = None
        """Of the last step in which somebody lacked pages that were not free."""

    # Who is there.

    @property
    def ledger(self) -> Ledger:
        return self.policy.ledger

    def join(self, process: Process, endowment: int | None, parent: str = "") -> None:
        """`endowment`: micro-credits; of a child out of the balance of its parent. None: an eighth of that."""
        if parent:
            # A child never makes credits: without its parent there are none for it.
            left = max(self.ledger.account(parent).balance, 0) if parent in self.ledger else 0
            endowment = left // CHILD_SHARE if endowment is None else min(endowment, left)
        assert endowment is not None, f"{process.pid} has no parent to inherit from"
        process.seat = self.policy.join(
            process.pid, endowment, self.step, parent=parent or None, priority=process.priority
        )

    def endow(self, process: Process, amount: int) -> None:
        """So many micro-credits more."""
        self.ledger.endow(process.pid, amount)

    def leave(self, process: Process) -> Account:
        """Its contexts are gone. Returns what it had then, with all paid that it owed."""
        self.policy.pay()
        account = self.ledger.account(process.pid)
        self.policy.leave(process.pid)
        return account

    def open(self, context: Context) -> None:
        """Nothing runs on it yet."""
        context.row = self._book.open(context.process.seat, self.step)
        self._contexts[context.row] = context
        self.has_pages(context)
        self.bid(context)

    def close(self, context: Context) -> None:
        self.policy.close(context.row)
        del self._contexts[context.row]

    def bid(self, context: Context) -> None:
        """What it bids has changed."""
        bid = context.bid_now
        self.policy.set_bid(context.row, PACED if bid is None else bid)

    def bid_of(self, context: Context) -> int:
        """What it bids in fact: micro-credits for a page and a step."""
        return self.policy.bid_of(context.row, self.step)

    def highest_bid(self, contexts: Iterable[Context]) -> int:
        """Of any of them; 0 where there is none."""
        rows = [context.row for context in contexts]
        return int(self.policy.bids(self.step)[rows].max()) if rows else 0

    def bids(self) -> list[int]:
        """Of all contexts, by row: see `bid_of`."""
        bids: list[int] = self.policy.bids(self.step).tolist()
        return bids

    def wake(self, operation: Operation) -> None:
        """It can run from the next step on."""
        self.has_pages(operation.context)
        num_wanted = self._pool.num_pages_for(operation.kv.num_tokens)
        self._book.wake(operation.context.row, operation.arrival, self.step, num_wanted)

    def park(self, context: Context) -> None:
        """Its operation waits for something that is not the core's to give."""
        self.has_pages(context)
        if context.process.paused_at is None:
            self._book.park(context.row)

    def rest(self, context: Context) -> None:
        """Nothing runs on it any more."""
        self.has_pages(context)
        self._book.rest(context.row, self.step)

    # What a step asks.

    def ranking(self, operations: Sequence[Operation], rows: Ints) -> Ranking:
        """Who goes first of operations that can run; `rows` of their contexts."""
        places = self.policy.order(rows, self.step)
        return Ranking(operations, rows, places, self._book.num_pages.ints[rows[places]] > 0)

    def victims(
        self, context: Context, num_missing: int, busy: Sequence[int], *, is_newcomer: bool
    ) -> Iterable[Context]:
        """Who gives its pages up for `context`, in this order, until `num_missing` are free; nobody if never. `busy`
        rows keep theirs, among them all that have got pages in this step. So do those that have just come, where a
        newcomer asks that bids hardly more."""
        row, policy = context.row, self.policy
        if policy.asks_in_vain(row, num_missing, self.step):
            return ()
        holders = self._holders_now()
        holders.givers.keep(busy)
        spared = holders.spared_by(row) if is_newcomer else NOBODY
        rows = policy.victims_among(holders.givers, row, num_missing, self.step, spared)
        if is_newcomer:
            # It is busy from here on, or loses even what it has found.
            holders.givers.keep_one(row)
        return (self._contexts[row] for row in rows)

    def _holders_now(self) -> Holders:
        """For all that lack pages in this step."""
        if self._holders is None or self._holders.step != self.step:
            self._holders = Holders(self.policy, self.step)
        return self._holders

    def has_pages(self, context: Context) -> None:
        """It may have others than before."""
        row = context.row
        self._book.num_pages[row], self._book.room[row] = context.kv.num_pages, 0

    def has_grown(self, context: Context) -> None:
        """It has one page more for its next tokens, and waits for none."""
        row = context.row
        self._book.num_pages[row] += 1
        self._book.lacks_pages[row] = 0
        self.has_room(context, self._pool.page_size)

    def moved_in(self, context: Context, num_steps: int) -> None:
        """It has got pages, and its prompt takes so many steps at least."""
        self._book.term_end[context.row] = self.step + TURN_STEPS + PATIENCE * num_steps

    def put_back(self, context: Context) -> None:
        """It has lost its pages to somebody who asked for `victims`."""
        self.num_moved_out += 1
        self._holders_now().givers.keep_one(context.row)
        self.policy.put_back(context.row)

    def has_room(self, context: Context, num_tokens: int) -> None:
        """It decodes, and its pages hold so many tokens more."""
        self._book.room[context.row], self._knows_room = num_tokens, True

    def rooms(self, rows: Ints) -> Ints:
        """Tokens that each of these decodes before somebody has to look at it; 0 or less: that is not known."""
        return self._book.room.ints[rows]

    def decode(self, rows: Ints) -> None:
        """These run in this step, one token each."""
        self._book.room.ints[rows] -= 1

    def lacks_pages(self, context: Context) -> bool:
        """Whether there were none for it when it was looked at last."""
        return bool(self._book.lacks_pages[context.row])

    def note_lack(self, context: Context, lacks_pages: bool) -> None:
        """It was looked at."""
        self._book.lacks_pages[context.row] = lacks_pages

    # What becomes of it.

    def made(self, context: Context) -> None:
        """Pages of the context have become full. Each costs once, however often it is computed for it."""
        num_full = context.kv.num_committed_pages
        if num_full > context.num_made:
            self.policy.made(context.process.seat, num_full - context.num_made)
            context.num_made = num_full

    def all_ran(self) -> None:
        """Nobody had to wait in this step: the next one may begin without a look at who has room."""
        if self._knows_room:
            self._book.room.ints[:] = 0
            self._knows_room = False
        self.policy.all_ran(self.step)

    def settle(self, ran: Ints, num_tokens: Ints, lacked_pages: Ints, lacked_batch: Ints) -> None:
        """After a step that did not hold all: rows of those who ran, with so many tokens each, and of the others."""
        self._book.lacks_pages.ints[lacked_pages] = 1
        if self.step - self._counted_at >= EVERY_STEPS:
            self._count_pages()
        self.policy.settle(StepRecord(self.step, ran, num_tokens, lacked_pages, lacked_batch))

    def _count_pages(self) -> None:
        """And split them among those that hold them. A few come and go without a word: of what a model does not look
        at any more, of guesses that did not come true."""
        self._counted_at = self.step
        contexts, num_held, charge = self._contexts, self._book.num_pages, self._book.charge
        rows = np.array([row for row in contexts if num_held[row] or charge[row]], np.int64)
        tables = [contexts[row].kv.table for row in rows.tolist()]
        num_pages, shares = holdings([table.ids or table.listed() for table in tables], self._pool.num_pages)
        self._book.num_pages.ints[rows] = num_pages
        self.policy.charge(rows, shares)

    def state(self) -> MarketState:
        """Of the market, for people."""
        policy = self.policy
        return MarketState(
            policy.name,
            price=policy.price,
            rent=self.ledger.rent,
            made=self.ledger.num_made,
            num_moved_out=self.num_moved_out,
        )

    def violations(self) -> list[str]:
        """What does not add up; empty when every credit is accounted for."""
        found = self.policy.ledger.violations()
        for row, context in self._contexts.items():
            if context.row != row or self._book.account[row] != context.process.seat:
                found.append(f"context {context.ctx} of {context.process.pid} is not in its row")
            if (room := self._book.room[row]) > context.kv.num_decodable:
                found.append(f"context {context.ctx} of {context.process.pid} has no room for {room} tokens")
        return found
