"""A list whose forks share what they have in common, so that a fork costs the same at any length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from typing import Generic, TypeVar, overload

T = TypeVar("T")

BLOCK_ITEMS = 512
"""A fork copies fewer; what has grown to that is shared."""


class _Block(Generic[T]):
    """Items from index `start` on that nobody changes any more, behind those of `before`."""

    __slots__ = ("before", "items", "start")

    def __init__(self, before: _Block[T] | None, start: int, items: MutableSequence[T]) -> None:
        self.before = before
        self.start = start
        self.items = items


class SharedList(Sequence[T]):
    """Append, truncate, fork. Its beginning lies in blocks, of which each knows the one before it; forks share those.

    A list puts its items into a block when it is forked and has enough of them. Reading the end costs the same at any
    length; reading what is far before it costs a look at each block between.
    """

    __slots__ = ("_block", "_num_shared", "own")

    def __init__(self, own: MutableSequence[T]) -> None:
        """`own` is empty, a list or an array; the items are kept in such ones."""
        self.own = own
        """The items that are in no block; to be read only, where a call would cost too much."""
        self._block: _Block[T] | None = None
        self._num_shared = 0
        """Items that are in blocks. The last block may have more than that: what is behind is of other lists."""

    def __len__(self) -> int:
        return self._num_shared + len(self.own)

    def __iter__(self) -> Iterator[T]:
        return iter(self[:])

    @overload
    def __getitem__(self, where: int) -> T: ...
    @overload
    def __getitem__(self, where: slice) -> list[T]: ...
    def __getitem__(self, where: int | slice) -> T | list[T]:
        if isinstance(where, slice):
            start, end, step = where.indices(len(self))
            assert step == 1, step
            return list(self.part(start, end))
        index = where - self._num_shared if where >= 0 else where + len(self.own)
        if index >= 0:
            return self.own[index]
        where += 0 if where >= 0 else len(self)
        if where < 0:
            raise IndexError(where)
        return self.part(where, where + 1)[0]

    def part(self, start: int, end: int) -> MutableSequence[T]:
        """A copy of the items `start … end - 1`, as a list or array like that given in the beginning."""
        first, stop = start - self._num_shared, end - self._num_shared
        if first >= 0:
            return self.own[first : stop if stop > first else first]
        pieces = [self.own[: max(end - self._num_shared, 0)]]
        block, stop = self._block, min(end, self._num_shared)
        while start < stop:
            assert block is not None
            if block.start < stop:
                pieces.append(block.items[max(start - block.start, 0) : stop - block.start])
                stop = block.start
            block = block.before
        joined = pieces.pop()
        while pieces:
            joined += pieces.pop()
        return joined

    def append(self, item: T) -> None:
        self.own.append(item)

    def extend(self, items: Iterable[T]) -> None:
        self.own.extend(items)

    def truncate(self, length: int) -> None:
        """Keep the first `length` items."""
        if length >= self._num_shared:
            del self.own[length - self._num_shared :]
            return
        del self.own[:]
        self._num_shared = length
        while self._block is not None and self._block.start >= length:
            self._block = self._block.before

    def fork(self, length: int) -> SharedList[T]:
        """A list of the first `length` items."""
        if len(self.own) >= BLOCK_ITEMS:
            self._block = _Block(self._block, self._num_shared, self.own)
            self._num_shared += len(self.own)
            self.own = self.own[:0]
        child = SharedList(self.own[: max(length - self._num_shared, 0)])
        child._block, child._num_shared = self._block, self._num_shared
        if length < self._num_shared:
            child.truncate(length)
        return child
