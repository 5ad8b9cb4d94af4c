"""Launches of programs that run in a Python of their user's own, as `pie debug` starts them."""

from __future__ import annotations

from pathlib import PurePosixPath

from pie_engine.errors import InvalidInput, Unsupported
from pie_engine.protocol.http import LaunchRequest
from pie_engine.protocol.program import Bundle

MAX_PATH_BYTES = 100
"""A Unix socket's address holds 108, on macOS 104."""


def native_is_local() -> Unsupported:
    """For a client that came over TCP."""
    return Unsupported(
        "a program can be debugged only by clients on the daemon's own socket, and this one came over TCP",
        hint="run `pie debug` on the daemon's machine, without a URL",
    )


def check_native(request: LaunchRequest, bundle: Bundle) -> None:
    """Raises when a launch asks for what only the sandbox can do."""
    path = request.native
    if not PurePosixPath(path).is_absolute() or len(path.encode()) > MAX_PATH_BYTES:
        raise InvalidInput(
            f"`native` has to be the absolute path of a Unix socket, of {MAX_PATH_BYTES} bytes at most: `{path[:120]}`"
        )
    if bundle.manifest.runtime == "component":
        raise Unsupported(
            f"`{bundle.manifest.name}` is a component, which no Python can run",
            hint="debug the source it is built from",
        )
    if "record" in request.trace:
        raise Unsupported(
            "a program outside of the sandbox cannot be recorded: its clock and its chance are its machine's",
            hint="record it with `pie run --record`",
        )
