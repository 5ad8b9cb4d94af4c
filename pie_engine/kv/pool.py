"""The page pool: which KV pages are free, and how many contexts hold each of the others."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence


class PagePool:
    """Pages `0 … num_pages - 1` of a driver, by reference count.

    Pages are handed out in the order in which they became free, so the content of a freed page lives as long as it can.
    """

    def __init__(self, num_pages: int, page_size: int) -> None:
        assert min(num_pages, page_size) > 0, (num_pages, page_size)
        self.num_pages = num_pages
        self.page_size = page_size
        self._free = deque(range(num_pages))
        self._num_holders = [0] * num_pages

    @property
    def num_free(self) -> int:
        return len(self._free)

    def num_pages_for(self, num_tokens: int) -> int:
        """Pages that hold the KV of `num_tokens` tokens."""
        return -(-num_tokens // self.page_size)

    def is_shared(self, page: int) -> bool:
        return self._num_holders[page] > 1

    def take(self) -> int:
        """A free page, now held once. Ask `num_free` first."""
        page = self._free.popleft()
        self._num_holders[page] = 1
        return page

    def share(self, pages: Iterable[int]) -> None:
        """One more holder of each page."""
        for page in pages:
            assert self._num_holders[page] > 0, f"page {page} is free"
            self._num_holders[page] += 1

    def release(self, pages: Iterable[int]) -> None:
        """One holder less of each page; a page that nobody holds is free."""
        for page in pages:
            assert self._num_holders[page] > 0, f"page {page} is free already"
            self._num_holders[page] -= 1
            if not self._num_holders[page]:
                self._free.append(page)

    def violations(self, tables: Iterable[Sequence[int]]) -> list[str]:
        """What does not add up when `tables` are all page tables there are; empty when every page is accounted for."""
        held = Counter(page for table in tables for page in table)
        free = Counter(self._free)
        found = [f"page {page} is in the free list {count} times" for page, count in free.items() if count > 1]
        for page, num_holders in enumerate(self._num_holders):
            if held[page] != num_holders:
                found.append(f"page {page} counts {num_holders} holders but is in {held[page]} page tables")
            if (num_holders == 0) != (page in free):
                found.append(f"page {page} counts {num_holders} holders and is {'' if page in free else 'not '}free")
        return found
