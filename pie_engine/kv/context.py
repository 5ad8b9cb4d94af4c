"""A token sequence and the KV pages of the part that has been computed."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

from pie_engine.kv.address import page_key
from pie_engine.kv.pool import PagePool
from pie_engine.kv.shared import SharedList
from pie_engine.kv.table import PageTable


class KvContext:
    """Tokens, of which the first `num_computed` have their KV in `page_ids`.

    Page `page_ids[i]` holds positions `i * page_size …`. Pages before `num_committed_pages` are full; with a `root`
    they are published for every context with the same one, and not written while they are. The working pages behind
    them are written from `num_computed` on, after `reserve`. Forks share pages by reference; a shared page that has to
    be written is copied first. Forking costs the same at any length (`kv.shared`, `kv.table`).
    """

    __slots__ = ("_keys", "_pool", "num_computed", "num_tokens", "root", "table", "tokens", "writable_end")

    def __init__(self, pool: PagePool, root: bytes | None = None) -> None:
        """`root`: see `kv.address`; without one its pages are neither published nor looked up."""
        self._pool = pool
        self.root = root
        self._keys: SharedList[bytes] = SharedList([])
        """Of the first full pages of `tokens`, computed or not; made when they are asked for."""
        self.tokens: SharedList[int] = SharedList(array("i"))
        """To be read only: `append`, `extend` and `truncate` change them."""
        self.num_tokens = 0
        """Of `tokens`; the loop asks for it all the time."""
        self.num_computed = 0
        self.table = PageTable(pool)
        self.writable_end = 0
        """Positions `num_computed … writable_end - 1` lie in pages of this context alone."""

    @property
    def page_ids(self) -> list[int]:
        """All pages; to be read only."""
        return self.table.listed()

    @property
    def num_pages(self) -> int:
        return len(self.table)

    @property
    def num_uncomputed(self) -> int:
        return self.num_tokens - self.num_computed

    @property
    def num_committed_pages(self) -> int:
        return self.num_computed // self._pool.page_size

    def append(self, token: int) -> None:
        self.tokens.own.append(token)
        self.num_tokens += 1

    def extend(self, tokens: Sequence[int]) -> None:
        self.tokens.extend(tokens)
        self.num_tokens += len(tokens)

    def num_new_pages(self, end: int) -> int:
        """Free pages that `reserve(end)` takes."""
        num_missing = max(0, self._pool.num_pages_for(end) - len(self.table))
        return num_missing + (self._shared_working_page() is not None)

    def reserve(self, end: int) -> tuple[int, int] | None:
        """Make the positions up to `end` writable. Returns the page copy `(source, destination)` that this needs.

        The copy has to be done before the pages are written; the pool must have `num_new_pages(end)` pages free.
        """
        pool, table, copy = self._pool, self.table, None
        working, index = self._shared_working_page(), self.num_committed_pages
        if working is not None:
            copy = (working, pool.take())
            table.replace(index, [copy[1]])
        elif index < len(table):
            pool.index.forget(table.page(index))
        for _ in range(len(table), pool.num_pages_for(end)):
            table.append(pool.take())
        self.writable_end = len(table) * pool.page_size
        return copy

    def advance(self, end: int) -> int:
        """The KV up to `end` has been written. Returns how many pages became full by that."""
        assert self.num_computed <= end <= self.writable_end, (self.num_computed, end, self.writable_end)
        size = self._pool.page_size
        first, num_full = self.num_computed // size, end // size
        self.num_computed = end
        if num_full > first:
            if self.root is not None:
                for index in range(first, num_full):
                    self._publish(index)
            self.table.seal(num_full)
        return num_full - first

    def coming_keys(self) -> Iterator[bytes]:
        """Keys of the pages that become full when all tokens are computed, in their order; none without a root."""
        if self.root is not None:
            for index in range(self.num_committed_pages, self.num_tokens // self._pool.page_size):
                yield self.key(index)

    def adopt(self, pages: list[int]) -> None:
        """Go on with the published pages of the first `coming_keys`, which were not computed here.

        The last token stays uncomputed: its logits may be wanted.
        """
        first = self.num_committed_pages
        self._pool.share(pages)
        self.table.replace(first, pages)
        self.num_computed = min((first + len(pages)) * self._pool.page_size, self.num_tokens - 1)
        self.writable_end = self.num_computed
        self.table.seal(self.num_committed_pages)

    def fork(self, length: int) -> KvContext:
        """A context of the first `length` tokens that shares the pages of those that are computed."""
        assert 0 <= length <= self.num_tokens, (length, self.num_tokens)
        pool, num_computed = self._pool, min(length, self.num_computed)
        child = KvContext.__new__(KvContext)
        child._pool, child.root = pool, self.root
        child.tokens, child.num_tokens = self.tokens.fork(length), length
        child._keys = self._keys.fork(min(length // pool.page_size, len(self._keys)))
        child.num_computed = child.writable_end = num_computed
        child.table = self.table.fork(pool.num_pages_for(num_computed), num_computed // pool.page_size)
        # The working page may now be shared.
        self.writable_end = self.num_computed
        return child

    def truncate(self, length: int) -> None:
        """Keep the first `length` tokens, as if the others had never been."""
        assert 0 <= length <= self.num_tokens, (length, self.num_tokens)
        self.tokens.truncate(length)
        self.num_tokens = length
        self._keys.truncate(min(length // self._pool.page_size, len(self._keys)))
        self.uncompute(min(length, self.num_computed))

    def uncompute(self, num_computed: int) -> None:
        """Keep the KV of the first `num_computed` tokens only."""
        assert 0 <= num_computed <= self.num_computed, (num_computed, self.num_computed)
        self.num_computed = self.writable_end = num_computed
        self.table.cut(self._pool.num_pages_for(num_computed), self.num_committed_pages)

    def release(self) -> None:
        """Give everything back; the context is empty."""
        self.truncate(0)

    def key(self, index: int) -> bytes:
        """Of page `index`, which `tokens` fill; there has to be a root."""
        assert self.root is not None, "without a root pages have no keys"
        keys, size = self._keys, self._pool.page_size
        for position in range(len(keys), index + 1):
            first = position * size
            parent = keys[-1] if position else self.root
            keys.append(page_key(parent, first, self.tokens.part(first, first + size)))
        return keys[index]

    def _publish(self, index: int) -> None:
        """Page `index` has become full. If another page has this content already, that one is kept."""
        page, key = self.table.page(index), self.key(index)
        known = self._pool.index.page_of(key)
        if known is None:
            self._pool.index.publish(page, key)
        else:
            self._pool.share([known])
            self.table.replace(index, [known])

    def _shared_working_page(self) -> int | None:
        index = self.num_committed_pages
        if index < len(self.table):
            page = self.table.page(index)
            if self._pool.is_shared(page):
                return page
        return None
