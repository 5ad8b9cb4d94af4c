"""Network, processes and writable files: a sandbox has none, and asking for them says so instead of giving an errno.

The errors are `OSError`s still, for programs that expect that something of this kind can fail.
"""

from __future__ import annotations

import builtins
import functools
import io
import os
import socket
import subprocess
import tempfile
import urllib.request
from typing import Any, NoReturn
from urllib.error import URLError

from inferlet._loop import no_network, no_processes
from inferlet.errors import ReadOnly

WRITES = frozenset("wax+")
"""Letters of the modes of `open` that write."""
IN_MEMORY = "hold it in memory, with `io.BytesIO` or `io.StringIO`; return or send what is to stay"


def install() -> None:
    """Patch the standard library."""
    _install_sockets()
    _install_processes()
    _install_files()


def _install_sockets() -> None:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise no_network()

    def unknown_open(self: Any, request: urllib.request.Request) -> NoReturn:
        """Without `ssl` there is no handler for https."""
        if request.type != "https":
            raise URLError(f"unknown url type: {request.type}")
        error = no_network()
        raise URLError(error) from error

    socket.socket.__init__ = refuse  # type: ignore[method-assign,assignment]
    for name in ("getaddrinfo", "getnameinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr", "socketpair"):
        setattr(socket, name, refuse)
    urllib.request.UnknownHandler.unknown_open = unknown_open  # type: ignore[method-assign]


def _install_processes() -> None:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise no_processes()

    subprocess.Popen.__init__ = refuse  # type: ignore[method-assign,assignment]
    os.system = os.popen = refuse  # type: ignore[assignment]


def _install_files() -> None:
    plain_open = io.open

    @functools.wraps(plain_open)
    def open(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        try:
            return plain_open(file, mode, *args, **kwargs)
        except OSError as error:
            if not WRITES.intersection(mode):
                raise
            refusal = ReadOnly(f"{str(file)!r} cannot be written: a sandbox has files to read only", hint=IN_MEMORY)
            refusal.errno = error.errno
            raise refusal from None

    def no_temporary_folder() -> NoReturn:
        raise ReadOnly("a sandbox has no folder for temporary files", hint=IN_MEMORY)

    builtins.open = io.open = open
    tempfile._get_default_tempdir = no_temporary_folder  # type: ignore[attr-defined]
