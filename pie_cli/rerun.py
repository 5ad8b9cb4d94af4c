"""`pie run --watch`: a program that runs again whenever one of its files is saved."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pie_cli import console, exits
from pie_cli.arguments import STDIN, arguments_of
from pie_cli.attach import Ending, Interrupts
from pie_cli.client import interruptible, new_client, run_async
from pie_cli.daemon import ensure_daemon
from pie_cli.editor import edit
from pie_cli.keys import Keys
from pie_cli.launch import (
    described,
    lines_for,
    printer_for,
    profiler_for,
    recorder_for,
    run_once,
    show_help,
    signature_of,
)
from pie_cli.options import Values, lacks_text, read_options
from pie_cli.project import note_what_is_left_out
from pie_cli.render import as_error, report
from pie_cli.stdin import Stdin
from pie_cli.watch import LOCK_FILE, Watched
from pie_cli.wishes import Changed, Failed, Interrupted, Wishes, listed
from pie_client.bundle import Packages, pack
from pie_engine.config import load_config
from pie_engine.errors import InvalidInput, NotFound, PieError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pie_cli.render import Printer
    from pie_client import PieClient
    from pie_engine.config import EngineConfig
    from pie_engine.protocol.http import ProgramView
    from pie_engine.protocol.program import Bundle

KEYS_HINT = ": `r` runs it again, `e` opens the editor at the last error, `q` quits"
LINES_NOTE = "what you type goes to the program, line by line, and again to each run after it; Ctrl-C quits"
END_S = 15.0
"""A process that is told to end does so within the grace times of the configuration."""


class _NotAsked(Exception):
    """`--watch` is an option of the program's own."""


class _HelpShown(Exception):
    """Help was asked for."""


class _Refused(Exception):
    """The command line does not fit the program."""

    def __init__(self, error: InvalidInput) -> None:
        self.error = error


class Run(NamedTuple):
    task: asyncio.Task[None]
    ending: Ending


def rerun_words(target: str, words: Sequence[str], own: dict[str, object]) -> int | None:
    """Runs `target` until it is told to stop. None where `--watch` among `words` is not meant for `pie run`.

    Raises `NotFound` and `InvalidInput` when it cannot even begin.
    """
    root = Path(os.path.expanduser(target)).absolute()
    if root.exists():
        return run_async(_rerun(target, root, list(words), own))
    if own.get("watch"):
        raise NotFound(f"there is no file or folder `{target}` to watch", hint="`--watch` is for programs on disk")
    return None


async def _rerun(target: str, root: Path, words: list[str], own: dict[str, object]) -> int | None:
    async with new_client() as client:
        try:
            return await _Reruns(client, load_config(), target, root, words, own).loop()
        except _NotAsked:
            return None
        except _HelpShown:
            return exits.OK
        except _Refused as refused:
            raise refused.error from None


class _Reruns:
    """One watched program: what was typed for it, the run that there is, and why the next one begins."""

    def __init__(
        self, client: PieClient, config: EngineConfig, target: str, root: Path, words: list[str], own: dict[str, object]
    ) -> None:
        self._client = client
        self._config = config
        self._target = target
        self._root = root
        self._words = words
        self._own = own
        self._stdin = Stdin(keeps=True)
        self._watched = Watched(root)
        self._has_begun = False
        """The command line fits the program, or did once."""
        self._has_launched = False
        self._has_told = False
        self._traceback = ""

    async def loop(self) -> int:
        asks_lines = self._own.get("interactive") or not {"-i", "--interactive"}.isdisjoint(self._words)
        with Interrupts() as interrupts, Keys(is_wanted=not asks_lines) as keys:
            interrupts.before_exit = keys.restore
            self._keys = keys
            wishes = Wishes(self._watched, keys, interrupts)
            try:
                return await self._obey(wishes)
            finally:
                await wishes.close()

    async def _obey(self, wishes: Wishes) -> int:
        run = self._start(wishes)
        try:
            while True:
                match await wishes.next():
                    case Changed(names):
                        await self._end(run)
                        names |= wishes.further_changes()
                        console.note(console.paint(f"{listed(names)} changed", console.DIM))
                        run = self._start(wishes)
                    case "r":
                        await self._end(run)
                        run = self._start(wishes)
                    case "e":
                        # Saves wait until a terminal's editor is closed: nothing may write over it.
                        await edit(self._traceback, self._root, self._keys)
                    case "q":
                        return exits.OK
                    case Interrupted():
                        if not self._keys.are_read:
                            console.end_typed()
                        return exits.INTERRUPTED
                    case Failed(error):
                        raise error
        except console.OutputClosed:
            return exits.OK
        finally:
            await self._end(run)

    def _start(self, wishes: Wishes) -> Run:
        ending = Ending()
        run = Run(asyncio.create_task(self._attempt(ending)), ending)
        run.task.add_done_callback(wishes.add_failure)
        return run

    async def _end(self, run: Run) -> None:
        """Until the process has ended. One that does not even begin is given up."""
        run.ending.want()
        if not self._has_launched:
            run.task.cancel()
        _, waiting = await asyncio.wait({run.task}, timeout=END_S)
        if waiting:
            run.task.cancel()
            await asyncio.wait(waiting)

    async def _attempt(self, ending: Ending) -> None:
        """One run, from reading the files to the last event; what is wrong with the program is shown."""
        self._has_launched = False
        try:
            program, arguments, values = await self._prepared()
        except PieError as error:
            self._traceback = f"{error.traceback}\n{error.message}"
            report(error)
            self._tell_once()
        else:
            self._tell_once()
            self._has_launched = True
            own = {"summary": True} | values.own
            lines, printer = lines_for(own, self._stdin), _Remembering(printer_for(own))
            try:
                await run_once(self._client, program, arguments, own, printer, lines=lines, ending=ending)
            except PieError as error:
                report(error)
            self._traceback = printer.traceback

    def _tell_once(self) -> None:
        if not self._has_told:
            self._has_told = True
            note_what_is_left_out(self._target)
            keys = KEYS_HINT if self._keys.are_read else ""
            console.note(console.paint(f"watching {self._target}{keys}", console.DIM))

    async def _prepared(self) -> tuple[Bundle, dict[str, object], Values]:
        """The program as it is now, and what `main` is given."""
        program = await asyncio.to_thread(pack, self._root, Packages(say=console.note))
        self._watched.expect(LOCK_FILE)
        await ensure_daemon(self._client, self._config)
        view = await described(self._client, program)
        try:
            values, arguments = self._read(view)
        except InvalidInput as error:
            if self._has_begun:
                raise
            # It is what was typed, and no save mends that.
            raise _Refused(error) from error
        self._has_begun = True
        return program, arguments, values

    def _read(self, view: ProgramView) -> tuple[Values, dict[str, object]]:
        signature = signature_of(view)
        values = read_options(self._target, signature, self._words)
        values.own = self._own | values.own
        if not self._has_begun:
            self._check(values.own, view)
        with self._typing() if STDIN in values.words else nullcontext():
            arguments = arguments_of(self._target, signature, values, self._stdin)
        if lacks_text(signature, arguments) and "interactive" not in values.own and self._keys.are_read:
            self._talk(values.own)
        return values, arguments

    def _talk(self, own: dict[str, object]) -> None:
        """As `pie run` does: whoever gives a program nothing to begin with will type it. So do all runs after this."""
        self._keys.leave()
        self._own["interactive"] = own["interactive"] = True
        console.note(console.paint(LINES_NOTE, console.DIM))

    @contextmanager
    def _typing(self) -> Iterator[None]:
        """Around what may wait for a person to type a text."""
        with self._keys.lent(), interruptible():
            yield

    def _check(self, own: dict[str, object], view: ProgramView) -> None:
        """What is only known of the command line once the program is."""
        if not own.get("watch"):
            raise _NotAsked
        if own.get("help"):
            show_help(self._target, view)
            raise _HelpShown
        if own.get("detach"):
            raise InvalidInput("`--watch` stays and `--detach` leaves", hint="leave one of them out")
        if isinstance(given := own.get("input"), str) and given.startswith("@"):
            self._watched.add(Path(given[1:]))
        recorder_for(own), profiler_for(own)  # each run has its own; what is wrong with their files, no save mends
        for written in filter(None, (own.get("record"), own.get("trace"))):
            self._watched.leave_out(Path(str(written)).expanduser())


class _Remembering:
    """A printer that knows the traceback of the error that it has shown."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer
        self.shows_all = printer.shows_all
        self.traceback = ""

    def show(self, kind: str, value: object) -> None:
        if kind == "error":
            self.traceback = as_error(value).traceback
        self._printer.show(kind, value)

    def finish(self) -> None:
        self._printer.finish()
