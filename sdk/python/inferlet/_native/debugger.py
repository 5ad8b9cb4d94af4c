"""An IDE's debugger at the other end of a port: debugpy."""

from __future__ import annotations

import sys


def listen(address: str, *, wait: bool) -> None:
    """Let an IDE attach at HOST:PORT. `wait`: until one has."""
    import debugpy

    host, _, port = address.rpartition(":")
    host, number = debugpy.listen((host or "127.0.0.1", int(port)))
    what = "waiting for a debugger at" if wait else "a debugger can attach at"
    sys.stderr.write(f"{what} {host}:{number}\n")
    if wait:
        debugpy.wait_for_client()
