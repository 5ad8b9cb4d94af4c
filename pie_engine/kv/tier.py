"""The host tier: which content of KV pages lies in host memory, and how pages move between it and the device.

Integers only. A page is moved when its space is needed, not when its context has to wait, so what nobody overwrites
never moves; and under its content key (`kv.address`), so what several contexts share moves once for all of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Literal, NamedTuple


class Awaited:
    """Pages of a context that will come back for them, by their keys. They are of use up to the first that is lost."""

    __slots__ = ("end", "keys", "places")

    def __init__(self, keys: Sequence[bytes]) -> None:
        self.keys = keys
        self.places = {key: place for place, key in enumerate(keys)}
        self.end = len(keys)
        """From here on they are lost."""


class HostTier:
    """Slots `0 … num_slots - 1`, each with the content of a page. When all are full the longest unused is given up of
    those that nobody is sure to come back for.

    When all are awaited nothing more is taken in. Contexts that run in turn come back for what was unused longest: to
    give that up would keep for each of them what is lost when it comes, however much there is room for.
    """

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self._slots: dict[bytes, int] = {}
        """Key → slot."""
        self._spare: OrderedDict[bytes, None] = OrderedDict()
        """Those of the keys that nobody awaits, the one that is given up first before the others."""
        self._awaited: dict[bytes, dict[Awaited, None]] = {}
        """By key, in a slot or not, who will come for it."""
        self._free = list(range(num_slots - 1, -1, -1))
        self._wanted: frozenset[bytes] = frozenset()
        """Are about to be moved in: what makes room for them must not push them out."""

    def __len__(self) -> int:
        """Slots that hold something."""
        return len(self._slots)

    def __contains__(self, key: bytes) -> bool:
        return key in self._slots

    def run(self, keys: Iterable[bytes]) -> list[int]:
        """The slots of `keys` up to the first that is not there."""
        found: list[int] = []
        for key in keys:
            slot = self._slots.get(key)
            if slot is None:
                break
            found.append(slot)
        return found

    def put(self, key: bytes) -> int | None:
        """Where the content `key` is to be written; None: it is there already, or there is no slot for it."""
        if key in self._slots:
            if key in self._spare:
                self._spare.move_to_end(key)
            return None
        if not self._free and not self._give_up(key):
            return None
        slot = self._slots[key] = self._free.pop()
        if key not in self._awaited:
            self._spare[key] = None
        return slot

    def _give_up(self, key: bytes) -> bool:
        """Free a slot for `key`; False: all are of more use as they are."""
        given_up = next((each for each in self._spare if each not in self._wanted), None)
        if given_up is None and key in self._awaited:
            given_up = self._last_behind(key, next(reversed(self._awaited[key])))
        if given_up is not None:
            self.forget(given_up)
        return given_up is not None

    def _last_behind(self, key: bytes, awaited: Awaited) -> bytes | None:
        """The last of the pages in slots that are of no use without `key`; None: there is none, or others need it."""
        while awaited.end > awaited.places[key] + 1:
            last = awaited.keys[awaited.end - 1]
            if last in self._wanted or len(self._awaited[last]) > 1:
                return None
            awaited.end -= 1
            if last in self._slots:
                return last
        return None

    def expect(self, keys: Sequence[bytes]) -> Awaited:
        """A context will come back for these, unless it is called off: see `settle`."""
        awaited = Awaited(keys)
        for key in keys:
            self._awaited.setdefault(key, {})[awaited] = None
            self._spare.pop(key, None)
        return awaited

    def settle(self, awaited: Awaited) -> None:
        """The context is there, or will not come."""
        for key in awaited.keys:
            others = self._awaited[key]
            del others[awaited]
            if not others:
                del self._awaited[key]
                if key in self._slots:
                    self._spare[key] = None

    def forget(self, key: bytes) -> None:
        """Nobody will want it."""
        slot = self._slots.pop(key, None)
        if slot is not None:
            self._free.append(slot)
            self._spare.pop(key, None)

    def want(self, keys: Sequence[bytes]) -> None:
        """These are moved in next, as soon as there are pages; if they have to wait, they are given up last."""
        for key in keys:
            if key in self._spare:
                self._spare.move_to_end(key)
        self._wanted = frozenset(keys)

    def retire(self, keys: Iterable[bytes]) -> None:
        """These are in pages again. They stay, so that they need not be written once more, but are given up first."""
        for key in keys:
            if key in self._spare:
                self._spare.move_to_end(key, last=False)
        self._wanted = frozenset()

    def violations(self) -> list[str]:
        """What does not add up."""
        is_whole = sorted([*self._slots.values(), *self._free]) == list(range(self.num_slots))
        found = [] if is_whole else [f"slots of the host tier: {sorted(self._slots.values())} used, {self._free} free"]
        if self._spare.keys() != self._slots.keys() - self._awaited.keys():
            found.append("content of the host tier is neither awaited nor spare, or both")
        return found


class Move(NamedTuple):
    """Content that goes from one place to another: from page to page, from page to slot, from slot to page."""

    kind: Literal["copy", "out", "in"]
    source: int
    destination: int


class Moves:
    """What has to be moved before the next step, in order: a later move may overwrite what an earlier one reads."""

    def __init__(self) -> None:
        self._moves: list[Move] = []

    def __len__(self) -> int:
        return len(self._moves)

    def copy(self, source: int, destination: int) -> None:
        """Page to page."""
        self._moves.append(Move("copy", source, destination))

    def move_out(self, page: int, slot: int) -> None:
        self._moves.append(Move("out", page, slot))

    def move_in(self, slot: int, page: int) -> None:
        self._moves.append(Move("in", slot, page))

    def take(self) -> Iterator[tuple[str, list[tuple[int, int]]]]:
        """All of them, `(source, destination)`; those of one kind that follow one another go together."""
        moves, self._moves = self._moves, []
        for kind, run in groupby(moves, key=lambda move: move.kind):
            pairs = [(move.source, move.destination) for move in run]
            # Of two moves out or in to one place the last counts: nothing reads the first.
            last = {destination: source for source, destination in pairs}
            yield kind, pairs if kind == "copy" else [(source, place) for place, source in last.items()]
