"""The KV of the fake driver: it knows which tokens each slot was computed from, and asserts that it is read so."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from pie_engine.driver.base import KvPages

_UNWRITTEN = -1
_START = 0
"""What comes before the first token."""
_MULTIPLIER, _INCREMENT, _MASK = 6364136223846793005, 1442695040888963407, (1 << 64) - 1


class FakeKv:
    """Pages of token ids. `_digests`: of each slot, the sequence up to it; `_parents`: of each page, what is before it.

    Like real KV, a slot depends on all tokens before it: pages fit together in the order in which they were computed
    and in no other one.
    """

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages = num_pages
        self._size = page_size
        self._tokens = array("i", [_UNWRITTEN]) * (num_pages * page_size)
        self._digests = array("Q", [_START]) * (num_pages * page_size)
        self._parents = array("Q", [_START]) * num_pages

    def write(self, page_ids: Sequence[int], start: int, tokens: Sequence[int]) -> None:
        """KV of `tokens` at positions from `start`; what lies behind them in the last page is stale from now on."""
        size = self._size
        digest = self._digest_before(page_ids, start)
        for position, token in enumerate(tokens, start):
            page = page_ids[position // size]
            if position % size == 0:
                self._parents[page] = digest
            digest = (digest * _MULTIPLIER + token + _INCREMENT) & _MASK
            slot = page * size + position % size
            self._tokens[slot], self._digests[slot] = token, digest
        end = start + len(tokens)
        if num_used := end % size:
            first = page_ids[end // size] * size
            self._tokens[first + num_used : first + size] = array("i", [_UNWRITTEN]) * (size - num_used)

    def read(self, page_ids: Sequence[int], end: int) -> array[int]:
        """The first `end` tokens of the sequence in these pages. Asserts that they were computed after one another."""
        size, sequence, digest = self._size, array("i"), _START
        for index, page in enumerate(page_ids[: -(-end // size)]):
            sequence.extend(self._tokens[page * size : (page + 1) * size])
            is_next = self._parents[page] == digest
            assert is_next, f"page {page}, used for positions from {index * size}, holds the KV of another sequence"
            digest = self._digests[(page + 1) * size - 1]
        del sequence[end:]
        assert _UNWRITTEN not in sequence, f"position {sequence.index(_UNWRITTEN)} was never written"
        return sequence

    def read_pages(self, page_ids: Sequence[int]) -> KvPages:
        tokens, digests = (np.array(values).reshape(-1, self._size) for values in (self._tokens, self._digests))
        ids = np.array(page_ids, dtype=np.int64)
        return {"tokens": tokens[ids], "digests": digests[ids], "parents": np.array(self._parents)[ids]}

    def write_pages(self, page_ids: Sequence[int], pages: KvPages) -> None:
        size = self._size
        for index, page in enumerate(page_ids):
            self._tokens[page * size : (page + 1) * size] = array("i", pages["tokens"][index].tolist())
            self._digests[page * size : (page + 1) * size] = array("Q", pages["digests"][index].tolist())
            self._parents[page] = int(pages["parents"][index])

    def copy(self, source: int, destination: int) -> None:
        size = self._size
        for values in (self._tokens, self._digests):
            values[destination * size : (destination + 1) * size] = values[source * size : (source + 1) * size]
        self._parents[destination] = self._parents[source]

    def _digest_before(self, page_ids: Sequence[int], position: int) -> int:
        if position == 0:
            return _START
        page, offset = page_ids[(position - 1) // self._size], (position - 1) % self._size
        return self._digests[page * self._size + offset]
