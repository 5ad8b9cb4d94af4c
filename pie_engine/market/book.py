"""Who is there: a row for each context of a core, as the policies see it.

The core writes what changes when it changes, a few stores into arrays; policies read whole columns. Nothing in here is
computed before somebody has to wait.
"""

from __future__ import annotations

from collections import Counter
from enum import IntEnum

from pie_engine.market.columns import Slots

PACED = -1
"""Instead of a bid: what spreads the balance over the rest of the program (`market.pacing`)."""


class Standing(IntEnum):
    """What a context does; of equally strong ones, the lower gives its pages up first."""

    GONE = 0
    """The row is free."""
    IDLE = 1
    """Nothing runs on it."""
    PARKED = 2
    """A plan that waits for its consumer, or something that is not the core's to give."""
    RUNNABLE = 3
    """It claims a place in the batch."""


# Plain integers: to look a member up takes longer than to write into a column, and so does comparing one with it.
IDLE, PARKED, RUNNABLE = Standing.IDLE.value, Standing.PARKED.value, Standing.RUNNABLE.value

AGE_BITS = 44
FIRM_BITS = AGE_BITS + 2
"""That `firmness` takes."""
_NEWEST = (1 << AGE_BITS) - 1
FIRM_RUNNABLE = RUNNABLE << AGE_BITS
"""The least firmness of what claims a place in the batch."""


def firmness(standing: int, age: int) -> int:
    """Of equally strong contexts the one with less gives its pages up first: a lower standing; of idle ones the oldest,
    of others the youngest."""
    return standing << AGE_BITS | (age if standing == IDLE else _NEWEST - age)


class Book:
    """Rows of contexts. All columns are to be read; those that say so are for the core to write."""

    def __init__(self) -> None:
        self._slots = slots = Slots()
        self.account = slots.column()
        """Seat of its process in the ledger."""
        self.standing = slots.column()
        self.bid = slots.column()
        """Micro-credits for a page and a step, or `PACED`. Written by the core, any time."""
        self.age = slots.column()
        """Of a runnable or parked one: the number of its operation by arrival; of an idle one: the step since which it
        is idle. Small is old."""
        self.firmness = slots.column()
        """How long it keeps its pages beside equally strong ones, see `firmness`."""
        self.since = slots.column()
        """The last step in which it ran or had nothing to wait for: it has waited since."""
        self.num_pages = slots.column()
        """That it holds. Written by the core when it changes."""
        self.num_wanted = slots.column()
        """Pages that it needs to run, while it holds none. See `wake` and `put_back`."""
        self.charge = slots.column()
        """Pages as they are charged, in `sharing.PARTS` of a page: see `Policy.charge`, which the core calls every
        `sharing.EVERY_STEPS` while not everything fits."""
        self.turn_end = slots.column()
        """Until this step nobody takes its pages: it had waited too long (`market.seam`)."""
        self.term_end = slots.column()
        """Until this step it has just come, see `core.claims`. Written by the core."""
        self.lacks_pages = slots.column()
        """1: it waits for pages. Written by the core."""
        self.room = slots.column()
        """Tokens that it decodes for certain, without a look at it; 0 or less: nobody knows. Written by the core."""
        self.num_ran = slots.column()
        """Steps with a price in which it ran, since its rent was reckoned."""
        self.num_reckoned = slots.column()
        """Steps with a price of which its rent was reckoned, since rents were paid."""
        self.burst = slots.column()
        """Tokens of its prompt that have run since it began."""
        self.changed: set[int] = set()
        """Rows that were opened, and whose bids have changed, since `Policy.strengths` has looked at them."""
        self.num_siblings = 0
        """Contexts beyond the first one of each process."""
        self._num_contexts: Counter[int] = Counter()
        """By seat."""

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def end(self) -> int:
        """All rows are below."""
        return self._slots.end

    def open(self, account: int, step: int, bid: int = PACED) -> int:
        """The row of a new context, on which nothing runs."""
        row = self._slots.take()
        self.changed.add(row)
        self.num_siblings += self._num_contexts[account] > 0
        self._num_contexts[account] += 1
        self.account[row], self.bid[row], self.since[row] = account, bid, step
        self._stand(row, IDLE, step)
        return row

    def _stand(self, row: int, standing: int, age: int) -> None:
        self.standing[row], self.age[row], self.firmness[row] = standing, age, firmness(standing, age)

    def close(self, row: int) -> None:
        """The context is gone."""
        account = self.account[row]
        self._num_contexts[account] -= 1
        self.num_siblings -= self._num_contexts[account] > 0
        self.standing[row] = 0
        self.num_pages[row] = self.num_wanted[row] = self.charge[row] = 0
        self._slots.give_back(row)

    def wake(self, row: int, arrival: int, step: int, num_wanted: int) -> None:
        """Its operation number `arrival` can run from step `step + 1` on. `num_wanted`: pages for all of its tokens."""
        self._stand(row, RUNNABLE, arrival)
        self.since[row] = step
        self.num_wanted[row], self.burst[row], self.lacks_pages[row] = num_wanted, 0, 0

    def put_back(self, row: int) -> None:
        """It has lost its pages."""
        self.num_wanted[row] = max(self.num_pages[row], self.num_wanted[row])
        self.num_pages[row] = self.charge[row] = self.term_end[row] = self.room[row] = 0

    def park(self, row: int) -> None:
        """Its operation waits for something else than the batch or pages."""
        self.term_end[row] = 0
        self._stand(row, PARKED, self.age[row])

    def rest(self, row: int, step: int) -> None:
        """Nothing runs on it from step `step` on."""
        self.term_end[row] = 0
        self._stand(row, IDLE, step)
