"""Saves of a program's files, as they come: each once, and nothing else that happens in its folder."""

from __future__ import annotations

import asyncio
import os
import stat
from contextlib import aclosing, suppress
from pathlib import Path

from watchfiles import awatch

from pie_client.bundle import FOR_PEOPLE
from pie_client.walk import folders_of, stamps_of
from pie_engine.errors import PieError

STEP_MS = 10
"""A change counts once nothing more has changed for this long …"""
DEBOUNCE_MS = 50
"""… or after this long in any case."""
POLL_MS = 2000
"""Where the system tells nothing (network file systems, a folder above that was moved), it is looked at this often."""
SETTLE_S = 0.05
NUM_SETTLES = 4
"""So often a file that is gone or empty is given time to come back: some editors delete and write anew."""

LOCK_FILE = "pie.lock"
_UNREAD = FOR_PEOPLE - {LOCK_FILE}
_PROBES = frozenset({"4913"})
"""Vim makes a file of this name to see whether it may."""
_Stamp = tuple[int, int, int]
"""mtime, size, inode."""
State = dict[str, _Stamp]


class Watched:
    """The files of one program. It compares what is there with what was there, whatever the system told of it."""

    def __init__(self, root: Path) -> None:
        """root: a folder or a file."""
        self._root = root.absolute()
        self._also: set[Path] = set()
        self._never: set[str] = set()
        self._outputs = _outputs()
        self._seen = self._state()

    def add(self, file: Path) -> None:
        """One more file, wherever it is."""
        self._also.add(file.absolute())
        self._seen |= self._state_of_more()

    def leave_out(self, file: Path) -> None:
        """This one is written while the program runs."""
        self._never.add(str(file.absolute()))
        self._seen = {name: stamp for name, stamp in self._seen.items() if self._counts(name, stamp[2])}

    async def changed(self) -> list[str]:
        """Waits for a save; the paths of what has changed, relative to the folder where they lie in it."""
        while True:
            await self._alarmed()
            state = await self._settled()
            names = sorted(_differing(self._seen, state))
            self._seen = state
            if names:
                return names

    def expect(self, name: str) -> None:
        """This file may have been written by the command itself; that is no save."""
        state = self._state()
        if name in state:
            self._seen[name] = state[name]

    async def _alarmed(self) -> None:
        """Until something has happened somewhere near, or there is a difference already."""
        folders = self._folders()
        try:
            await self._listen(folders)
        except FileNotFoundError:
            await asyncio.sleep(STEP_MS / 1000)  # a folder went just now
        except (OSError, RuntimeError):
            await asyncio.sleep(POLL_MS / 1000)  # the system has no more watches for us

    async def _listen(self, folders: list[str]) -> None:
        watcher = awatch(
            *folders, watch_filter=None, debounce=DEBOUNCE_MS, step=STEP_MS, rust_timeout=POLL_MS,
            yield_on_timeout=True, recursive=False, ignore_permission_denied=True,
        )  # fmt: skip
        async with aclosing(watcher):
            coming = asyncio.ensure_future(anext(watcher))
            try:
                # It listens from its first step on; what happened before that is there to be seen.
                await asyncio.sleep(0)
                while not _differing(self._seen, self._state()):
                    await coming
                    if self._folders() != folders:
                        return
                    coming = asyncio.ensure_future(anext(watcher))
            finally:
                coming.cancel()
                await asyncio.wait({coming})

    async def _settled(self) -> State:
        state = self._state()
        for _ in range(NUM_SETTLES):
            if not any(_is_unfinished(stamp, state.get(name)) for name, stamp in self._seen.items()):
                break
            await asyncio.sleep(SETTLE_S)
            state = self._state()
        return state

    def _state(self) -> State:
        """Of each file what an edit changes; of what cannot be read, that."""
        state: State = {}
        try:
            for path, mtime, _, size, inode in stamps_of(self._root):
                if self._counts(path, inode):
                    state[self._root.name if path == str(self._root) else path] = (mtime, size, inode)
        except (OSError, PieError) as error:
            state[self._root.name] = (hash(str(error)), 0, 0)
        return state | self._state_of_more()

    def _state_of_more(self) -> State:
        state: State = {}
        for file in self._also:
            with suppress(OSError):
                found = file.stat()
                state[str(file)] = (found.st_mtime_ns, found.st_size, found.st_ino)
        return state

    def _counts(self, path: str, inode: int) -> bool:
        if path in _UNREAD or os.path.basename(path) in _PROBES or str(self._root / path) in self._never:
            return False
        return inode not in self._outputs

    def _folders(self) -> list[str]:
        """Where to listen: not to files, since editors put new ones in their place."""
        found = {_standing(self._root.parent), *(_standing(path.parent) for path in self._also)}
        with suppress(OSError, PieError):
            if self._root.is_dir():
                found.update(folders_of(self._root))
            elif self._root.is_symlink():
                found.add(os.path.dirname(os.path.realpath(self._root)))
        return sorted(found)


def _differing(before: State, after: State) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def _is_unfinished(before: _Stamp, after: _Stamp | None) -> bool:
    """Whether it is gone, or empty and was not."""
    return after is None or (after[1] == 0 and before[1] > 0)


def _standing(folder: Path) -> str:
    """The folder, or what is there of the way to it."""
    while not folder.is_dir():
        folder = folder.parent
    return str(folder)


def _outputs() -> frozenset[int]:
    """Where stdout and stderr go, if to files: `pie run --watch . > out.txt` must not run because of what it says."""
    found = set()
    for number in (1, 2):
        with suppress(OSError):
            opened = os.fstat(number)
            if stat.S_ISREG(opened.st_mode):
                found.add(opened.st_ino)
    return frozenset(found)
