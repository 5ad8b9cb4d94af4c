"""The prefix index: which page holds the KV of which content, and which of those pages nobody holds now."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence


class PrefixIndex:
    """Published pages by their content key (`kv.address`), one page a key.

    A published page is full, computed and immutable. When its last holder lets go it is *cached*: it keeps its content
    until its space is needed, and the longest unused goes first.
    """

    def __init__(self) -> None:
        self._pages: dict[bytes, int] = {}
        self._keys: dict[int, bytes] = {}
        self._cached: OrderedDict[int, None] = OrderedDict()

    @property
    def cached(self) -> Collection[int]:
        """Published pages that nobody holds, the longest unused first."""
        return self._cached.keys()

    @property
    def num_cached(self) -> int:
        return len(self._cached)

    def page_of(self, key: bytes) -> int | None:
        return self._pages.get(key)

    def key_of(self, page: int) -> bytes | None:
        return self._keys.get(page)

    def run(self, keys: Iterable[bytes]) -> list[int]:
        """The pages of `keys` up to the first that is not there."""
        found: list[int] = []
        for key in keys:
            page = self._pages.get(key)
            if page is None:
                break
            found.append(page)
        return found

    def publish(self, page: int, key: bytes) -> None:
        assert key not in self._pages, f"page {self._pages[key]} has the content of page {page} already"
        assert page not in self._keys, f"page {page} is published already"
        self._pages[key] = page
        self._keys[page] = key

    def forget(self, page: int) -> None:
        """The page gets another content; nobody finds it any more."""
        key = self._keys.pop(page, None)
        if key is not None:
            del self._pages[key]

    def retire(self, page: int) -> bool:
        """Nobody holds the page any more. False when it is not published: then nothing in it is worth keeping."""
        if page not in self._keys:
            return False
        self._cached[page] = None
        return True

    def revive(self, page: int) -> bool:
        """Somebody wants to hold the cached page. False when it is not cached."""
        if page not in self._cached:
            return False
        del self._cached[page]
        return True

    def evict(self, count: int) -> tuple[list[int], list[bytes]]:
        """Give up the cached pages that were unused longest. Returns them, and what they were published as."""
        pages = [self._cached.popitem(last=False)[0] for _ in range(count)]
        keys = list(map(self._keys.pop, pages))
        for key in keys:
            del self._pages[key]
        return pages, keys

    def drop(self, key: bytes) -> int | None:
        """Give up the page with this content, if nobody holds it. Returns it."""
        page = self._pages.get(key)
        if page is None or page not in self._cached:
            return None
        del self._cached[page]
        self.forget(page)
        return page

    def violations(self, num_holders: Sequence[int]) -> list[str]:
        """What does not add up, given how many contexts hold each page."""
        is_consistent = {page: key for key, page in self._pages.items()} == self._keys
        found = [] if is_consistent else ["the prefix index and the keys of published pages differ"]
        found += [f"page {page} is cached but not published" for page in self._cached if page not in self._keys]
        for page in self._keys:
            if (num_holders[page] == 0) != (page in self._cached):
                state = "cached" if page in self._cached else "not cached"
                found.append(f"page {page} is published, counts {num_holders[page]} holders and is {state}")
        return found
