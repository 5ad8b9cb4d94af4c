"""One process at the daemon whose program runs in a Python that is started here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import tempfile
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pie_cli import exits
from pie_cli.stdin import stdin_is_ours
from pie_engine.errors import Cancelled, PieError

if TYPE_CHECKING:
    from pie_cli.debugging.pythons import Python
    from pie_cli.render import Printer
    from pie_client import PieClient, Process
    from pie_engine.protocol.program import Bundle

LEAVE_S = 2.0
"""How long the Python and the process may take to notice that the other one has ended."""
_INTERRUPTED = "the program was ended by Ctrl-C"


class Place:
    """A folder that only the user can enter: the SDK, the socket and what the Python is told; `here`: where we are."""

    def __init__(self, folder: Path) -> None:
        from importlib.util import find_spec

        spec = find_spec("inferlet")
        assert spec is not None
        assert spec.origin is not None
        self.folder = folder
        self.here = Path.cwd()
        self.socket = str(folder / "host")
        self.sdk = folder / "sdk"
        self.sdk.mkdir()
        # Not the folder that it lies in: that may be all of site-packages, of another Python than the one it is for.
        (self.sdk / "inferlet").symlink_to(Path(spec.origin).parent)


@contextlib.contextmanager
def new_place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="pie-native-") as folder:
        yield Place(Path(folder))


async def run_native(
    client: PieClient,
    place: Place,
    python: Python,
    bundle: Bundle,
    arguments: dict[str, object],
    printer: Printer,
    session: dict[str, Any],
    **wishes: Any,
) -> int:
    """Launch it, start its Python, and show what it says until both have ended. The exit code.

    session: fields of `inferlet._native.__main__.Session`, without the socket.
    wishes: what the launch asks for beside the program, such as `endowment`.
    """
    terminal = termios.tcgetattr(0) if stdin_is_ours() else None
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place.socket)
        listener.listen(1)
        process = await client.launch_process(
            bundle, arguments, on_disconnect="terminate", native=place.socket, **wishes
        )
        try:
            child = await _started(place, python, listener, session)
        except BaseException:
            await _terminate(process)
            raise
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the program, or for its debugger
    watch = asyncio.create_task(_end_with(child, process))
    try:
        return await _shown(process, printer)
    finally:
        watch.cancel()
        if not await _left(child) and terminal is not None:
            termios.tcsetattr(0, termios.TCSANOW, terminal)
        await _terminate(process)
        signal.signal(signal.SIGINT, before)


async def _started(
    place: Place, python: Python, listener: socket.socket, session: dict[str, Any]
) -> asyncio.subprocess.Process:
    wanted = place.folder / "session.json"
    wanted.write_text(json.dumps({"socket": place.socket, "fd": listener.fileno(), **session}))
    return await asyncio.create_subprocess_exec(
        python.path,
        "-P",
        *(["-Xfrozen_modules=off"] if session.get("listen") else []),  # or debuggers miss breakpoints there
        "-m",
        "inferlet._native",
        str(wanted),
        pass_fds=[listener.fileno()],
        env={**os.environ, "PYTHONPATH": str(place.sdk)},
    )


async def _shown(process: Process, printer: Printer) -> int:
    from pie_cli.attach import exit_code_of
    from pie_cli.render import as_error

    code = exits.OK
    async for event, value in process:
        if event.value == "error":
            error = as_error(value)
            code = exits.INTERRUPTED if error.message == _INTERRUPTED else exit_code_of(value)
            if error.code == Cancelled.code and error.message.startswith("the program was ended") and code:
                break  # whoever did that knows
        printer.show(event.value, value)
    printer.finish()
    return code


async def _end_with(child: asyncio.subprocess.Process, process: Process) -> None:
    """The host sees the end of the Python by itself, unless the process has not come so far as to have a host."""
    await child.wait()
    await asyncio.sleep(LEAVE_S)
    await _terminate(process)


async def _left(child: asyncio.subprocess.Process) -> bool:
    """Whether it has left by itself; else it is killed, and its terminal may not be as it was."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(child.wait(), LEAVE_S)
    if child.returncode is not None:
        return True
    # It may stand at a prompt, or be busy with itself.
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    await child.wait()
    return False


async def _terminate(process: Process) -> None:
    with contextlib.suppress(PieError):
        await process.terminate()
