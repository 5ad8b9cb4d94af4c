"""`python -m inferlet._native FILE`: the Python that `pie debug` and `pie repl` start. FILE: a `Session` as JSON."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from dataclasses import dataclass, field
from typing import Any

from inferlet import _transport
from inferlet._loop import HostLoop
from inferlet._native import debugger, prompt
from inferlet._native.frames import Connection, Gone
from inferlet._native.host import NativeHost
from inferlet._native.importer import LocalImporter
from inferlet._native.terminal import Terminal, install_pdb, post_mortem
from inferlet._runtime import importer as bundles
from inferlet._runtime import patches, program


@dataclass
class Session:
    """What the command line wants."""

    socket: str
    """At which the host is waited for."""
    fd: int
    """The same, listening already."""
    folder: str
    """Where the program lies, with its data files."""
    files: dict[str, str] = field(default_factory=dict)
    """Where the files of its bundle lie."""
    listen: str = ""
    """HOST:PORT for an IDE's debugger."""
    wait: bool = False
    """Until the IDE is there."""
    pm: bool = False
    """Open pdb where the program has failed."""
    repl: dict[str, Any] | None = None
    """Arguments of the prompt that takes the place of a program."""


def main(session: Session) -> int:
    if session.listen:
        debugger.listen(session.listen, wait=session.wait)
    connection = Connection(_accepted(session))
    _kind, _function, bundle, arguments = connection.receive()
    host = NativeHost(connection)
    _transport.connect(host)
    signal.signal(signal.SIGINT, host.on_ctrl_c)
    os.chdir(session.folder)
    bundles.ROOT = session.folder
    loop, terminal = HostLoop(), Terminal()
    if session.repl is not None:
        from inferlet._native import repl

        is_ok, text = repl.run(loop, terminal, **session.repl)
    else:
        is_ok, text = _run(session, bundle, arguments, loop, terminal, host)
    try:
        connection.send("outcome", is_ok, text)
    except Gone:
        return 1  # it was ended from outside, which its events say
    connection.close()
    return 0 if is_ok else 1


def _run(
    session: Session, bundle: str, arguments: str, loop: HostLoop, terminal: Terminal, host: NativeHost
) -> program.Outcome:
    importer = LocalImporter({}, session.files)
    host.owns = importer.owns
    interrupted: list[BaseException] = []

    def new_importer(files: dict[str, str], _code: dict[str, str]) -> LocalImporter:
        importer.__init__(files, session.files)  # type: ignore[misc]
        return importer

    def on_error(error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "BdbQuit":
            interrupted.append(error)
        elif session.pm:
            post_mortem(terminal, loop, importer.owns)(error)

    patches.install_native()
    install_pdb(terminal, loop)
    prompt.install(loop, host, importer.owns)
    sys.argv = [session.files.get("main.py", session.folder)]
    is_ok, text = program.run(bundle, arguments, loop, new_importer, on_error)
    if interrupted:
        how = "by Ctrl-C" if isinstance(interrupted[0], KeyboardInterrupt) else "in the debugger"
        return False, json.dumps({"code": "cancelled", "message": f"the program was ended {how}"})
    return is_ok, text if is_ok else _with_short_names(text, importer)


def _with_short_names(text: str, importer: LocalImporter) -> str:
    """An error as the sandbox would report it."""
    info = json.loads(text)
    return json.dumps(
        {key: importer.relative(value) if isinstance(value, str) else value for key, value in info.items()}
    )


def _accepted(session: Session) -> socket.socket:
    with socket.socket(fileno=session.fd) as listener:
        connection, _ = listener.accept()
    return connection


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        wanted = Session(**json.load(file))
    status = main(wanted)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    os._exit(status)
