"""A token sequence and the KV pages of the part that has been computed."""

from __future__ import annotations

from pie_engine.kv.pool import PagePool


class KvContext:
    """Tokens, of which the first `num_computed` have their KV in `page_ids`.

    Page `page_ids[i]` holds positions `i * page_size …`. Pages before `num_committed_pages` are full and never written
    again while they are shared; the working pages behind them are written from `num_computed` on, after `reserve`.
    Forks share pages by reference, and a shared page that has to be written is copied first.
    """

    __slots__ = ("_pool", "num_computed", "page_ids", "tokens", "writable_end")

    def __init__(self, pool: PagePool) -> None:
        self._pool = pool
        self.tokens: list[int] = []
        self.num_computed = 0
        self.page_ids: list[int] = []
        self.writable_end = 0
        """Positions `num_computed … writable_end - 1` lie in pages of this context alone."""

    @property
    def num_uncomputed(self) -> int:
        return len(self.tokens) - self.num_computed

    @property
    def num_committed_pages(self) -> int:
        return self.num_computed // self._pool.page_size

    def num_new_pages(self, end: int) -> int:
        """Free pages that `reserve(end)` takes."""
        num_missing = max(0, self._pool.num_pages_for(end) - len(self.page_ids))
        return num_missing + (self._shared_working_page() is not None)

    def reserve(self, end: int) -> tuple[int, int] | None:
        """Make the positions up to `end` writable. Returns the page copy `(source, destination)` that this needs.

        The copy has to be done before the pages are written; the pool must have `num_new_pages(end)` pages free.
        """
        pool, copy = self._pool, None
        working = self._shared_working_page()
        if working is not None:
            copy = (working, pool.take())
            self.page_ids[self.num_committed_pages] = copy[1]
            pool.release([working])
        while len(self.page_ids) * pool.page_size < end:
            self.page_ids.append(pool.take())
        self.writable_end = len(self.page_ids) * pool.page_size
        return copy

    def advance(self, end: int) -> None:
        """The KV up to `end` has been written."""
        assert self.num_computed <= end <= self.writable_end, (self.num_computed, end, self.writable_end)
        self.num_computed = end

    def fork(self, length: int) -> KvContext:
        """A context of the first `length` tokens that shares the pages of those that are computed."""
        assert 0 <= length <= len(self.tokens), (length, len(self.tokens))
        child = KvContext(self._pool)
        child.tokens = self.tokens[:length]
        child.num_computed = child.writable_end = min(length, self.num_computed)
        child.page_ids = self.page_ids[: self._pool.num_pages_for(child.num_computed)]
        self._pool.share(child.page_ids)
        # The working page may now be shared.
        self.writable_end = self.num_computed
        return child

    def truncate(self, length: int) -> None:
        """Keep the first `length` tokens, as if the others had never been."""
        assert 0 <= length <= len(self.tokens), (length, len(self.tokens))
        del self.tokens[length:]
        self.uncompute(min(length, self.num_computed))

    def uncompute(self, num_computed: int) -> None:
        """Keep the KV of the first `num_computed` tokens only."""
        assert 0 <= num_computed <= self.num_computed, (num_computed, self.num_computed)
        self.num_computed = self.writable_end = num_computed
        num_kept = self._pool.num_pages_for(num_computed)
        self._pool.release(self.page_ids[num_kept:])
        del self.page_ids[num_kept:]

    def release(self) -> None:
        """Give everything back; the context is empty."""
        self.truncate(0)

    def _shared_working_page(self) -> int | None:
        index = self.num_committed_pages
        if index < len(self.page_ids) and self._pool.is_shared(self.page_ids[index]):
            return self.page_ids[index]
        return None
