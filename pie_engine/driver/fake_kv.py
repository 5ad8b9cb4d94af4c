"""The KV of the fake driver: it knows which tokens each slot was computed from, and asserts that it is read so."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from pie_engine.driver.base import KvPages
from pie_engine.kv.layout import Layout

_UNWRITTEN = -1
_START = 0
"""What comes before the first token."""
_MULTIPLIER, _INCREMENT, _MASK = 6364136223846793005, 1442695040888963407, (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Seen:
    """What a token sees, itself included."""

    tokens: array[int]
    salt: int = 0
    """0 where that is all there is before it. Otherwise it says what was seen, and where, on the way to it."""


class FakeKv:
    """Pages of token ids. `_digests`: of each slot, the sequence up to it; `_parents`: of each page, what is before it.

    Like real KV, a slot depends on all tokens that it was computed from: pages fit together in the order in which they
    were computed and in no other one, and all of a sequence are of one adapter. With a `window` a token sees the last
    `window` positions, itself included.
    """

    def __init__(self, num_pages: int, page_size: int, window: int | None = None) -> None:
        self.num_pages = num_pages
        self._size = page_size
        self._window = window
        self._positions = array("i", [_UNWRITTEN]) * (num_pages * page_size)
        self._tokens = array("i", [_UNWRITTEN]) * (num_pages * page_size)
        self._digests = array("Q", [_START]) * (num_pages * page_size)
        self._parents = array("Q", [_START]) * num_pages
        self._adapters = array("Q", [_START]) * num_pages

    def take(self, page_ids: Sequence[int], start: int, end: int, adapter: str) -> None:
        """Positions `start` to `end` are about to be written, with this adapter."""
        first = -(-start // self._size)
        self.check(page_ids[:first], adapter)
        for page in page_ids[first : -(-end // self._size)]:
            self._adapters[page] = crc32(adapter.encode())

    def check(self, page_ids: Sequence[int], adapter: str) -> None:
        """Assert that these pages were computed with this adapter."""
        for page in page_ids:
            assert self._adapters[page] == crc32(adapter.encode()), f"page {page} holds the KV of another adapter"

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
            self._tokens[slot], self._digests[slot], self._positions[slot] = token, digest, position
        self._forget_behind(page_ids, start + len(tokens))

    def write_row(self, page_ids: Sequence[int], start: int, tokens: Sequence[int], layout: Layout) -> None:
        """As `write`, of a row with a layout."""
        size = self._size
        positions = layout.positions(0, start + len(tokens))
        for index, token in enumerate(tokens):
            slot = start + index
            place = page_ids[slot // size] * size + slot % size
            self._tokens[place], self._positions[place] = token, positions[slot]
            seen = self._seen_slots(page_ids, layout, index, positions[slot])
            before = self._digests[seen[-2]] if len(seen) > 1 else _START
            if slot % size == 0:
                self._parents[page_ids[slot // size]] = before
            self._digests[place] = (before * _MULTIPLIER + token + _INCREMENT) & _MASK
            self._digests[place] ^= self._salt(seen, positions[slot])
        self._forget_behind(page_ids, start + len(tokens))

    def _salt(self, seen: Sequence[int], position: int) -> int:
        """0 when `seen` are all positions that the window leaves; otherwise it depends on them and what is there."""
        first = 0 if self._window is None else max(position + 1 - self._window, 0)
        if [self._positions[place] for place in seen] == list(range(first, position + 1)):
            return 0
        salt = 1
        for place in seen[:-1]:
            salt = (salt * _MULTIPLIER + self._digests[place] + self._positions[place]) & _MASK
        return (salt * _MULTIPLIER + position) & _MASK

    def _seen_slots(self, page_ids: Sequence[int], layout: Layout, index: int, position: int) -> list[int]:
        """The places that token `index` of a row sees; asserts that they are what the layout says."""
        size, end = self._size, layout.seen[index][-1][1]
        positions = layout.positions(0, end)
        slots = [slot for first, stop in layout.seen[index] for slot in range(first, stop)]
        places: list[int] = []
        for slot in slots:
            if self._window is not None and positions[slot] <= position - self._window:
                continue
            place = page_ids[slot // size] * size + slot % size
            assert self._tokens[place] != _UNWRITTEN, f"slot {slot} was never written"
            was = self._positions[place]
            assert was == positions[slot], f"slot {slot} was written for position {was}, not {positions[slot]}"
            places.append(place)
        return places

    def read_row(self, page_ids: Sequence[int], layout: Layout, index: int, position: int) -> Seen:
        """What token `index` of a row with this layout sees."""
        places = self._seen_slots(page_ids, layout, index, position)
        salt = self._salt(places, position)
        return Seen(array("i", [self._tokens[place] for place in places]), self._digests[places[-1]] if salt else 0)

    def _forget_behind(self, page_ids: Sequence[int], end: int) -> None:
        size = self._size
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
        ids = np.array(page_ids, dtype=np.int64)
        slots = {"tokens": self._tokens, "digests": self._digests, "positions": self._positions}
        pages = {name: np.array(values).reshape(-1, self._size)[ids] for name, values in slots.items()}
        return {**pages, "parents": np.array(self._parents)[ids], "adapters": np.array(self._adapters)[ids]}

    def write_pages(self, page_ids: Sequence[int], pages: KvPages) -> None:
        size = self._size
        for index, page in enumerate(page_ids):
            self._tokens[page * size : (page + 1) * size] = array("i", pages["tokens"][index].tolist())
            self._digests[page * size : (page + 1) * size] = array("Q", pages["digests"][index].tolist())
            self._positions[page * size : (page + 1) * size] = array("i", pages["positions"][index].tolist())
            self._parents[page] = int(pages["parents"][index])
            self._adapters[page] = int(pages["adapters"][index])

    def copy(self, source: int, destination: int) -> None:
        size = self._size
        for values in (self._tokens, self._digests, self._positions):
            values[destination * size : (destination + 1) * size] = values[source * size : (source + 1) * size]
        self._parents[destination] = self._parents[source]
        self._adapters[destination] = self._adapters[source]

    def _digest_before(self, page_ids: Sequence[int], position: int) -> int:
        if position == 0:
            return _START
        page, offset = page_ids[(position - 1) // self._size], (position - 1) % self._size
        return self._digests[page * self._size + offset]
