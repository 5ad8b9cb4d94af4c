"""`pie dev`: a program that clients find under its name, in its last version that works."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pie_cli import console, exits
from pie_cli.attach import Interrupts
from pie_cli.client import new_client, run_async
from pie_cli.daemon import ensure_daemon
from pie_cli.editor import edit
from pie_cli.keys import Keys
from pie_cli.launches import Launches
from pie_cli.project import note_what_is_left_out
from pie_cli.render import report
from pie_cli.watch import LOCK_FILE, Watched
from pie_cli.wishes import Changed, Failed, Interrupted, Wishes, listed
from pie_client.bundle import Packages, pack
from pie_engine.config import load_config
from pie_engine.errors import InvalidInput, NotFound, PieError
from pie_engine.protocol.credits import endowment_of
from pie_engine.protocol.program import NAME

if TYPE_CHECKING:
    from pie_client import PieClient
    from pie_engine.config import EngineConfig
    from pie_engine.protocol.http import ProcessView, ProgramView
    from pie_engine.protocol.program import Bundle

LOOK_S = 0.25
"""Between two looks at what clients do with it."""
GONE_S = 2.0
"""The same while the daemon does not answer."""


def hold(target: str, name: str | None = None, endowment: float | None = None) -> int:
    """Publishes `target` on each save that works, until it is told to stop. Raises `NotFound`, `InvalidInput`.

    name, endowment: instead of those in its pie.toml.
    """
    if endowment is not None:
        endowment_of(endowment)
    if name is not None and not NAME.fullmatch(name):
        hint = "use letters, digits, `.`, `_` and `-`, with a letter or digit first, 100 of them at most"
        raise InvalidInput(f"`{name}` cannot be the name of a program", hint=hint)
    root = Path(os.path.expanduser(target)).absolute()
    if not root.exists():
        raise NotFound(f"there is no file or folder `{target}`", hint="`pie new NAME` makes a program to start from")
    note_what_is_left_out(target)
    given = {"name": name, "endowment": endowment}
    return run_async(_hold(root, {key: value for key, value in given.items() if value is not None}))


async def _hold(root: Path, instead: Mapping[str, Any]) -> int:
    async with new_client() as client:
        return await _Holding(client, load_config(), root, instead).loop()


class _Holding:
    """One program, the version of it that is served, and those who use it."""

    def __init__(self, client: PieClient, config: EngineConfig, root: Path, instead: Mapping[str, Any]) -> None:
        """`instead`: fields of the manifest."""
        self._client = client
        self._config = config
        self._root = root
        self._instead = instead
        self._served: ProgramView | None = None
        self._launches: Launches | None = None
        self._traceback = ""

    async def loop(self) -> int:
        watched = Watched(self._root)
        with Interrupts("") as interrupts, Keys() as keys:
            interrupts.before_exit = keys.restore
            wishes = Wishes(watched, keys, interrupts)
            watching_launches = asyncio.create_task(self._show_launches())
            watching_launches.add_done_callback(wishes.add_failure)
            try:
                await self._publish(watched)
                return await self._obey(wishes, watched, keys)
            except console.OutputClosed:
                return exits.OK
            finally:
                watching_launches.cancel()
                await wishes.close()
                self._say_what_stays()

    async def _obey(self, wishes: Wishes, watched: Watched, keys: Keys) -> int:
        if keys.are_read:
            _say("`e` opens the editor at the last error, `q` quits")
        while True:
            match await wishes.next():
                case Changed(names):
                    _say(f"{listed(names | wishes.further_changes())} changed")
                    await self._publish(watched)
                case "e":
                    await edit(self._traceback, self._root, keys)
                case "q":
                    return exits.OK
                case Interrupted():
                    return exits.INTERRUPTED
                case Failed(error):
                    raise error

    async def _publish(self, watched: Watched) -> None:
        """The program as it is now, unless something is wrong with it."""
        try:
            bundle = await asyncio.to_thread(self._packed)
            watched.expect(LOCK_FILE)
            await ensure_daemon(self._client, self._config)
            view = await self._client.upload(bundle)
        except PieError as error:
            self._traceback = f"{error.traceback}\n{error.message}"
            report(error)
            served = self._served
            _say(f"{_title(served)} goes on being served" if served else "nothing is served yet")
            return
        self._traceback = ""
        await self._swap(view)

    def _packed(self) -> Bundle:
        bundle = pack(self._root, Packages(say=console.note))
        return msgspec.structs.replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, **self._instead))

    async def _swap(self, view: ProgramView) -> None:
        before, self._served = self._served, view
        if before is None or before.name != view.name:
            self._launches = Launches(self._client, view.name)
            await self._launches.begin()
        if before is not None and before.digest == view.digest:
            _say(f"{_title(view)} is as it was")
            return
        _say(f"serving {_title(view)}{self._of_other_versions()}")

    def _of_other_versions(self) -> str:
        """`; 2 that run finish on 3f2a91c0`."""
        launches, served = self._launches, self._served
        running = Counter(view.digest for view in launches.alive.values()) if launches and served else Counter()
        parts = [f"{num} on {_short(digest)}" for digest, num in running.items() if served and digest != served.digest]
        return f"; those that run finish on their version: {', '.join(parts)}" if parts else ""

    async def _show_launches(self) -> None:
        is_gone = False
        while True:
            await asyncio.sleep(GONE_S if is_gone else LOOK_S)
            launches = self._launches
            if launches is None:
                continue
            try:
                begun, ended = await launches.look()
                is_gone = False
            except PieError as error:
                if not is_gone:
                    report(error)
                is_gone = True
                continue
            for view in begun:
                console.data_line(f"{view.pid} began, on {_short(view.digest)}")
            for view in ended:
                console.data_line(f"{view.pid} ended: {_outcome(view)}")

    def _say_what_stays(self) -> None:
        if self._served is None:
            return
        num = len(self._launches.alive) if self._launches else 0
        running = f"; {num} of its processes go on" if num else ""
        _say(f"{_title(self._served)} stays uploaded{running}")


def _outcome(view: ProcessView) -> str:
    return f"{view.outcome}, after {(view.ended or view.created) - view.created:.2f} s"


def _title(view: ProgramView) -> str:
    """`chat@0.1.0 (3f2a91c0)`: edits of one version differ in their digests."""
    return f"{view.name}@{view.version} ({_short(view.digest)})"


def _short(digest: str) -> str:
    return digest[:8]


def _say(text: str) -> None:
    console.note(console.paint(text, console.DIM))
