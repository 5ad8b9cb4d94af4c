"""Sets of tasks have the same order in every run: that in which the program put its tasks into sets.

`asyncio.wait` gives sets, and `TaskGroup` and `as_completed` go through some. By the addresses of objects, as Python
has it, their order would be another one after each edit, and a replay of the edited program would depart there.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Iterable
from typing import Any

_numbers = itertools.count(1)


class Task(asyncio.Task[Any]):
    """asyncio's own, with a hash of its own: its number among the tasks that anybody has asked for one."""

    __slots__ = ("_number",)

    def __hash__(self) -> int:
        try:
            return self._number
        except AttributeError:
            self._number: int = next(_numbers)
            return self._number


def install() -> None:
    """Once, while the runtime is built."""
    asyncio.Task = asyncio.tasks.Task = Task  # type: ignore[misc]
    original = asyncio.as_completed

    @functools.wraps(original)
    def as_completed(fs: Iterable[Any], *, timeout: float | None = None) -> Any:
        """It makes a set of what it is given, and coroutines have no numbers."""
        if not (asyncio.isfuture(fs) or asyncio.iscoroutine(fs)):
            fs = [asyncio.ensure_future(each) for each in dict.fromkeys(fs)]
        return original(fs, timeout=timeout)

    asyncio.as_completed = asyncio.tasks.as_completed = as_completed
