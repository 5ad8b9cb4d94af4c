"""The page pool: which KV pages are free or cached, and how many contexts hold each of the others."""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from operator import gt

import numpy as np
import numpy.typing as npt

from pie_engine.kv.prefix import PrefixIndex
from pie_engine.kv.tier import HostTier, Moves

NO_PAGE = -1
"""In a page table: the page that was here is out of sight and has been let go."""


class PagePool:
    """Pages `0 … num_pages - 1` of a driver, by reference count.

    A page that nobody holds is free, or cached when its content is published in `index`. Free pages are handed out in
    the order in which they became free, then the cached ones, the longest unused first; the content of these goes to
    the host tier.
    """

    def __init__(self, num_pages: int, page_size: int, num_slots: int = 0, *, window: int | None = None) -> None:
        """`num_slots`: pages that the host tier holds. `window`: how many positions a token sees at most, itself
        included, whatever is asked; None: all."""
        assert min(num_pages, page_size) > 0, (num_pages, page_size)
        self.num_pages = num_pages
        self.page_size = page_size
        self.window = window
        self.index = PrefixIndex()
        self.tier = HostTier(num_slots)
        self.moves = Moves()
        self._free = deque(range(num_pages))
        self._num_holders = array("q", bytes(8 * num_pages))

    @property
    def num_free(self) -> int:
        """Pages that `take` can give: nobody holds them, cached or not."""
        return len(self._free) + self.index.num_cached

    def num_pages_for(self, num_tokens: int) -> int:
        """Pages that hold the KV of `num_tokens` tokens."""
        return -(-num_tokens // self.page_size)

    def num_holders(self, page: int) -> int:
        """Lists of pages that it is in."""
        return self._num_holders[page]

    def num_shared(self, pages: Sequence[int]) -> int:
        """Of pages that are held, those that are in more than one list."""
        return len(pages) - list(map(self._num_holders.__getitem__, pages)).count(1)

    def num_shared_beyond(self, held: Mapping[int, int]) -> int:
        """Of pages that are in so many of somebody's lists, those that are in others as well."""
        return sum(map(gt, map(self._num_holders.__getitem__, held), held.values()))

    def are_shared(self, pages: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Of pages that are held, each: whether it is in more than one list."""
        return np.frombuffer(self._num_holders, np.int64)[pages] > 1

    def is_shared(self, page: int) -> bool:
        return self._num_holders[page] > 1

    def take(self) -> int:
        """A page to be written after `moves`, now held once. Ask `num_free` first."""
        page = self._free.popleft() if self._free else self._evict(1)[0]
        self._num_holders[page] = 1
        return page

    def take_all(self, count: int) -> list[int]:
        """So many of them."""
        free, num_holders = self._free, self._num_holders
        pages = [free.popleft() for _ in range(min(count, len(free)))]
        if len(pages) < count:
            pages += self._evict(count - len(pages))
        for page in pages:
            num_holders[page] = 1
        return pages

    def _evict(self, count: int) -> list[int]:
        pages, keys = self.index.evict(count)
        if self.tier.num_slots:
            for page, key in zip(pages, keys, strict=True):
                if (slot := self.tier.put(key)) is not None:
                    self.moves.move_out(page, slot)
        return pages

    def share(self, pages: Iterable[int]) -> None:
        """One more holder of each page; they are held or cached."""
        for page in pages:
            if page == NO_PAGE:
                continue
            is_there = self._num_holders[page] > 0 or self.index.revive(page)
            assert is_there, f"page {page} is free"
            self._num_holders[page] += 1

    def release(self, pages: Iterable[int]) -> None:
        """One holder less of each page; a page that nobody holds is cached or free.

        Of one context's pages the last come first, so that what is found only after another page is given up before
        that one.
        """
        num_holders, retire, free = self._num_holders, self.index.retire, self._free
        for page in pages:
            if page == NO_PAGE:
                continue
            num_left = num_holders[page] - 1
            assert num_left >= 0, f"page {page} is free already"
            num_holders[page] = num_left
            if not num_left and not retire(page):
                free.append(page)

    def forget(self, keys: Iterable[bytes]) -> None:
        """Nobody will look for this content any more: it is given up wherever nobody holds it."""
        for key in keys:
            page = self.index.drop(key)
            if page is not None:
                self._free.append(page)
            self.tier.forget(key)

    def violations(self, tables: Iterable[Sequence[int]]) -> list[str]:
        """What does not add up when `tables` are all page tables there are; empty when every page is accounted for."""
        held = Counter(page for table in tables for page in table)
        free = Counter(self._free)
        free.update(self.index.cached)
        found = [f"page {page} is free {count} times" for page, count in free.items() if count > 1]
        for page, num_holders in enumerate(self._num_holders):
            if held[page] != num_holders:
                found.append(f"page {page} counts {num_holders} holders but is in {held[page]} page tables")
            if (num_holders == 0) != (page in free):
                found.append(f"page {page} counts {num_holders} holders and is {'' if page in free else 'not '}free")
        return found + self.index.violations(self._num_holders) + self.tier.violations()
