"""What a command that stays is told to do: by saves, by keys, by Ctrl-C, in the order in which it comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pie_cli.attach import Interrupts
    from pie_cli.keys import Keys
    from pie_cli.watch import Watched


MAX_NAMES = 3


class Changed(NamedTuple):
    """Files were saved."""

    names: set[str]


class Interrupted(NamedTuple):
    """Ctrl-C."""


class Failed(NamedTuple):
    """Something of the command's own has failed."""

    error: BaseException


Wish = Changed | Interrupted | Failed | str
"""A text is a key."""


class Wishes:
    """Collects them until `close`."""

    def __init__(self, watched: Watched, keys: Keys, interrupts: Interrupts) -> None:
        self._wishes: list[Wish] = []
        self._has_some = asyncio.Event()
        sources = (self._take_changes(watched), self._take_keys(keys), self._take_interrupt(interrupts))
        self._tasks = [asyncio.create_task(source) for source in sources]
        for task in self._tasks:
            task.add_done_callback(self.add_failure)

    async def next(self) -> Wish:
        """The oldest one."""
        while not self._wishes:
            self._has_some.clear()
            await self._has_some.wait()
        return self._wishes.pop(0)

    def further_changes(self) -> set[str]:
        """Takes out those that a run which starts now will have seen."""
        changes = [wish for wish in self._wishes if isinstance(wish, Changed)]
        self._wishes = [wish for wish in self._wishes if not isinstance(wish, Changed)]
        return set().union(*(change.names for change in changes))

    def add_failure(self, task: asyncio.Task[None]) -> None:
        """When a task ends by an error that nobody has expected."""
        if not task.cancelled() and (error := task.exception()):
            self._add(Failed(error))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _add(self, wish: Wish) -> None:
        self._wishes.append(wish)
        self._has_some.set()

    async def _take_changes(self, watched: Watched) -> None:
        while True:
            self._add(Changed(set(await watched.changed())))

    async def _take_keys(self, keys: Keys) -> None:
        while True:
            self._add(await keys.next())

    async def _take_interrupt(self, interrupts: Interrupts) -> None:
        await interrupts.wait()
        self._add(Interrupted())


def listed(names: set[str]) -> str:
    """`main.py, pie.toml and 4 more`."""
    shown = sorted(names)[:MAX_NAMES]
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
