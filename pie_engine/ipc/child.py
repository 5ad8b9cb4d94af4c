"""What gateway, hosts and cores share as children of the daemon: birth, the link home, and dying with the parent."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
from typing import Any, NoReturn

import msgspec
import zmq

from pie_engine.config import EngineConfig, decode_config
from pie_engine.errors import info_of
from pie_engine.ipc.link import LINGER_MS, Link
from pie_engine.protocol.to_daemon import (
    Birth,
    ChildMessage,
    DaemonMessage,
    Progress,
    Ready,
    StartFailed,
)

DAEMON_BOOT = "daemon"
EXIT_PARENT_GONE = 70
EXIT_START_FAILED = 78
EXIT_BLOCKED = 76
"""Of a host: one of its programs waits where nobody can wake or end it."""


class Child:
    """This process as a child of the daemon."""

    def __init__(self, birth: Birth, context: zmq.Context[Any]) -> None:
        self.birth = birth
        self.config: EngineConfig = decode_config(birth.config)
        self.context = context
        self.home: Link[ChildMessage] = Link(context, birth.daemon_address, birth.boot_id, DAEMON_BOOT, ChildMessage)

    def say(self, message: DaemonMessage) -> None:
        self.home.send([message])

    def progress(self, text: str, fraction: float | None = None) -> None:
        self.say(Progress(text, fraction))

    def ready(self, **detail: object) -> None:
        self.say(Ready(detail))

    def fail_start(self, error: BaseException) -> NoReturn:
        """Tell why, and exit; the daemon does not try again."""
        self.say(StartFailed(info_of(error)))
        self.close()
        sys.exit(EXIT_START_FAILED)

    def close(self) -> None:
        """Every socket of this process, those included that its owner could not close any more."""
        self.context.destroy(linger=LINGER_MS)


def be_born() -> Child:
    """Read the birth from standard input, set logging up, and from then on die with the daemon."""
    # A crash in native code leaves a trace in the log. Before wasmtime sets its own handlers, which pass on what is
    # not theirs.
    faulthandler.enable()
    birth = msgspec.json.decode(sys.stdin.buffer.readline(), type=Birth)
    child = Child(birth, zmq.Context())
    logging.basicConfig(
        stream=sys.stderr,
        level=child.config.log_level.upper(),
        format=f"%(asctime)s {birth.name} %(levelname)s %(name)s: %(message)s",
    )
    # The daemon answers Ctrl-C for everybody; a terminal sends it to the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, name="parent-watch", daemon=True).start()
    return child


def _die_with_parent() -> None:
    # Not through sys.stdin: its lock, held here for ever, would abort the interpreter's orderly end.
    descriptor = sys.stdin.fileno()
    while os.read(descriptor, 4096):
        pass
    # Nobody is left who could use an orderly end, and a busy main thread must not delay it.
    os._exit(EXIT_PARENT_GONE)
