"""Page tables: which page holds which positions of a context. Their forks share blocks of pages, and hold them as one.

A page is counted once for every list that it is in: a block's or a table's own. A block counts its holders itself,
which are tables that end with it and blocks that follow it, so a fork is one more holder, however many pages there are.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence

from pie_engine.kv.pool import NO_PAGE, PagePool

BLOCK_PAGES = 8
"""Full pages that a table counts by itself are between one and two of these when it forks."""


class PageBlock:
    """Full pages from number `start` of a table on, behind those of `before`; what is in them stays."""

    __slots__ = ("before", "num_holders", "pages", "start")

    def __init__(self, before: PageBlock | None, start: int, pages: list[int]) -> None:
        """Takes over its maker's holds of the pages and of `before`, and is held by it."""
        self.before = before
        self.start = start
        self.pages = pages
        self.num_holders = 1


class PageTable:
    """The pages of one context, in the order of their tokens; `NO_PAGE` in the place of one that was let go."""

    __slots__ = ("_block", "_num_shared", "_pool", "ids", "own")

    def __init__(self, pool: PagePool) -> None:
        self._pool = pool
        self._block: PageBlock | None = None
        self._num_shared = 0
        """Pages that are in blocks."""
        self.own: list[int] = []
        """The others, each counted by the pool for this table; to be read only."""
        self.ids: array[int] | None = array("q")
        """All of them, to be read only; None: of a fork, before somebody has asked with `listed`. An array, because
        every step puts those of all its rows together."""

    def __len__(self) -> int:
        return self._num_shared + len(self.own)

    def listed(self) -> array[int]:
        """All pages; to be read only. A fork makes this list when it runs for the first time."""
        if self.ids is None:
            self.ids = array("q")
            for block in reversed(list(self.blocks())):
                self.ids.extend(block.pages)
            self.ids.extend(self.own)
        return self.ids

    def blocks(self) -> Iterator[PageBlock]:
        """The last one first."""
        block = self._block
        while block is not None:
            yield block
            block = block.before

    def violations(self) -> list[str]:
        """What does not add up within the table."""
        shared = [page for block in reversed(list(self.blocks())) for page in block.pages]
        found = [] if len(shared) == self._num_shared else ["a page table and its blocks have not the same length"]
        if self.ids is not None and self.ids.tolist() != shared + self.own:
            found.append("a page table and its blocks differ")
        return found

    def page(self, index: int) -> int:
        """Page `index`, which is in no block."""
        assert index >= self._num_shared, f"page {index} is in a block"
        return self.own[index - self._num_shared]

    def append(self, page: int) -> None:
        """Takes over the caller's hold of the page."""
        self.own.append(page)
        if self.ids is not None:
            self.ids.append(page)

    def extend(self, pages: list[int]) -> None:
        """As with `append`, of each."""
        self.own.extend(pages)
        if self.ids is not None:
            self.ids.extend(pages)

    def replace(self, first: int, pages: list[int]) -> None:
        """Put `pages` where others were from number `first` on, none of them in a block. The holds are exchanged."""
        start, end = first - self._num_shared, first - self._num_shared + len(pages)
        assert start >= 0, f"page {first} is in a block"
        replaced = self.own[start:end]
        self.own[start:end] = pages
        if self.ids is not None:
            self.ids[first : first + len(pages)] = array("q", pages)
        self._pool.release(replaced)

    def let_go(self, first: int, end: int) -> None:
        """Give up the pages `first … end - 1`, all of which are there; their places stay."""
        if first < self._num_shared:
            self._open(len(self), first)
        self.replace(first, [NO_PAGE] * (end - first))

    def seal(self, num_full: int) -> None:
        """The first `num_full` pages stay as they are: all but the last of them go into blocks."""
        count = num_full - self._num_shared - BLOCK_PAGES
        if count >= BLOCK_PAGES:
            self._block = PageBlock(self._block, self._num_shared, self.own[:count])
            self._num_shared += count
            del self.own[:count]

    def fork(self, num_pages: int, num_full: int) -> PageTable:
        """A table of the first `num_pages` pages, of which `num_full` are full for it."""
        child = PageTable(self._pool)
        child._block, child._num_shared = self._block, self._num_shared
        child.own = self.own[: max(num_pages - self._num_shared, 0)]
        child.ids = None
        if self._block is not None:
            self._block.num_holders += 1
        self._pool.share(child.own)
        if num_full < child._num_shared:
            child._open(num_pages, num_full)
        return child

    def cut(self, num_pages: int, num_full: int) -> None:
        """Keep the first `num_pages` pages, of which `num_full` stay full; the one behind those may be written."""
        kept = max(num_pages - self._num_shared, 0)
        if kept < len(self.own):
            self._pool.release(reversed(self.own[kept:]))
            del self.own[kept:]
        if num_full < self._num_shared:
            self._open(num_pages, num_full)
        if self.ids is not None:
            del self.ids[num_pages:]

    def _open(self, num_pages: int, num_full: int) -> None:
        """Let go of the blocks that are not full for this table any more; it goes on with pages of them by itself."""
        block = self._block
        while block is not None and block.start + len(block.pages) > num_full:
            kept = block.pages[: max(num_pages - block.start, 0)]
            self._pool.share(kept)
            self.own[:0] = kept
            self._num_shared, self._block = block.start, block.before
            if self._block is not None:
                self._block.num_holders += 1
            self._let_go(block)
            block = self._block
        self.seal(num_full)

    def _let_go(self, block: PageBlock | None) -> None:
        """One holder less; a block that nobody holds lets go of its pages and of the block before it."""
        while block is not None:
            assert block.num_holders > 0, f"the block of page {block.start} is free already"
            block.num_holders -= 1
            if block.num_holders:
                return
            self._pool.release(reversed(block.pages))
            block = block.before


def joined(tables: Iterable[Sequence[int]]) -> bytearray:
    """The page ids of tables one after the other, as 64-bit integers; those that are arrays are such ones."""
    return bytearray().join([table if type(table) is array else array("q", table) for table in tables])
