"""A token sequence and the KV pages of the part that has been computed."""

from __future__ import annotations

from collections.abc import Iterator

from pie_engine.kv.address import page_key
from pie_engine.kv.pool import PagePool


class KvContext:
    """Tokens, of which the first `num_computed` have their KV in `page_ids`.

    Page `page_ids[i]` holds positions `i * page_size …`. Pages before `num_committed_pages` are full; with a `root`
    they are published for every context with the same one, and not written while they are. The working pages behind
    them are written from `num_computed` on, after `reserve`. Forks share pages by reference; a shared page that has to
    be written is copied first.
    """

    __slots__ = ("_keys", "_pool", "num_computed", "page_ids", "root", "tokens", "writable_end")

    def __init__(self, pool: PagePool, root: bytes | None = None) -> None:
        """`root`: see `kv.address`; without one its pages are neither published nor looked up."""
        self._pool = pool
        self.root = root
        self._keys: list[bytes] = []
        """Of the first full pages of `tokens`, computed or not; made when they are asked for."""
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
        elif self.num_committed_pages < len(self.page_ids):
            pool.index.forget(self.page_ids[self.num_committed_pages])
        while len(self.page_ids) * pool.page_size < end:
            self.page_ids.append(pool.take())
        self.writable_end = len(self.page_ids) * pool.page_size
        return copy

    def advance(self, end: int) -> int:
        """The KV up to `end` has been written. Returns how many pages became full by that."""
        assert self.num_computed <= end <= self.writable_end, (self.num_computed, end, self.writable_end)
        first = self.num_committed_pages
        self.num_computed = end
        if self.root is not None:
            for index in range(first, self.num_committed_pages):
                self._publish(index)
        return self.num_committed_pages - first

    def coming_keys(self) -> Iterator[bytes]:
        """Keys of the pages that become full when all tokens are computed, in their order; none without a root."""
        if self.root is not None:
            for index in range(self.num_committed_pages, len(self.tokens) // self._pool.page_size):
                yield self._key(index)

    def adopt(self, pages: list[int]) -> None:
        """Go on with the published pages of the first `coming_keys`, which were not computed here.

        The last token stays uncomputed: its logits may be wanted.
        """
        first = self.num_committed_pages
        self._pool.share(pages)
        replaced = self.page_ids[first : first + len(pages)]
        self.page_ids[first : first + len(pages)] = pages
        self._pool.release(replaced)
        self.num_computed = min((first + len(pages)) * self._pool.page_size, len(self.tokens) - 1)
        self.writable_end = self.num_computed

    def fork(self, length: int) -> KvContext:
        """A context of the first `length` tokens that shares the pages of those that are computed."""
        assert 0 <= length <= len(self.tokens), (length, len(self.tokens))
        child = KvContext(self._pool, self.root)
        child.tokens = self.tokens[:length]
        child._keys = self._keys[: length // self._pool.page_size]
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
        del self._keys[length // self._pool.page_size :]
        self.uncompute(min(length, self.num_computed))

    def uncompute(self, num_computed: int) -> None:
        """Keep the KV of the first `num_computed` tokens only."""
        assert 0 <= num_computed <= self.num_computed, (num_computed, self.num_computed)
        self.num_computed = self.writable_end = num_computed
        num_kept = self._pool.num_pages_for(num_computed)
        self._pool.release(reversed(self.page_ids[num_kept:]))
        del self.page_ids[num_kept:]

    def release(self) -> None:
        """Give everything back; the context is empty."""
        self.truncate(0)

    def violations(self) -> list[str]:
        """Published pages that hold something else than this context's tokens."""
        index = self._pool.index
        return [
            f"page {page} is published as something else than the tokens of a context that holds it"
            for position, page in enumerate(self.page_ids[: self.num_committed_pages])
            if index.key_of(page) not in (None, None if self.root is None else self._key(position))
        ]

    def _publish(self, index: int) -> None:
        """Page `index` has become full. If another page has this content already, that one is kept."""
        page, key = self.page_ids[index], self._key(index)
        known = self._pool.index.page_of(key)
        if known is None:
            self._pool.index.publish(page, key)
        else:
            self._pool.share([known])
            self._pool.release([page])
            self.page_ids[index] = known

    def _key(self, index: int) -> bytes:
        assert self.root is not None, "without a root pages have no keys"
        keys, size = self._keys, self._pool.page_size
        for position in range(len(keys), index + 1):
            first = position * size
            parent = keys[-1] if keys else self.root
            keys.append(page_key(parent, first, self.tokens[first : first + size]))
        return keys[index]

    def _shared_working_page(self) -> int | None:
        index = self.num_committed_pages
        if index < len(self.page_ids) and self._pool.is_shared(self.page_ids[index]):
            return self.page_ids[index]
        return None
