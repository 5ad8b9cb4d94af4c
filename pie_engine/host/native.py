"""Guests outside of the sandbox: programs that run in a Python of their user's, on the same machine, and make the same
calls over a Unix socket. Debuggers work there.

The other end listens at a path that the launch names, in a folder that only the user can enter; the host connects. A
frame is its length (4 bytes, big-endian) and JSON:

    to the program     ["run", function, text, …]     once, at the beginning
                       ["ok", result] | ["error", code, message, retry]
                       ["trap", message]              a call failed that cannot say so; the process has ended
    from the program   ["call", interface, function, [argument, …]]
                       ["interrupt"]                  a wait that is under way ends now, with nothing
                       ["outcome", is_ok, text]       once, at the end

A call is answered before the next one is read. How long the program is busy with itself is nobody's business.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wasmtime import Engine
from wasmtime.component import Component, ResultType

from pie_engine.config import MIB
from pie_engine.errors import Cancelled, InvalidInput, InvalidProgram, PieError
from pie_engine.host import tap
from pie_engine.host.checked import Check, check_of
from pie_engine.host.imports import NAMESPACE, WAIT, Function, error_record, imported, short_name
from pie_engine.host.plain import plain_of
from pie_engine.host.runner import Outcome, Owner, Status

HEADER = struct.Struct(">I")
MAX_FRAME_BYTES = 64 * MIB
_READ_BYTES = 256 * 1024
_PEER = struct.Struct("3i")
"""pid, uid, gid: Linux's `struct ucred`."""


@dataclass(frozen=True, slots=True)
class NativeFunction:
    """One import, for callers that speak JSON."""

    watched: tap.Import
    body: Function
    checks: tuple[Check, ...]
    can_fail: bool

    def __call__(self, owner: Owner, arguments: Sequence[Any]) -> Any:
        """Its result as plain data. Raises what the function raises."""
        if len(arguments) != len(self.checks):
            raise InvalidInput(f"{self.watched.name} takes {len(self.checks)} arguments, got {len(arguments)}")
        checked = [check(argument) for check, argument in zip(self.checks, arguments, strict=True)]
        if owner.tap is None or self.watched.name in tap.UNTAPPED:
            value = self.body(owner, *checked)
        else:
            value = tap.call(self.watched, self.body, owner, checked)
        return self.watched.plain(value)


NativeFunctions = Mapping[tuple[str, str], NativeFunction]
"""By interface and function, as in `context`, `append-text`."""


def native_functions(
    engine: Engine, component: Component, interfaces: Mapping[str, Mapping[str, Function]]
) -> NativeFunctions:
    """Every function of ours that `component` imports, with the types that it knows them by."""
    found = {}
    for name, functions in imported(engine, component, NAMESPACE):
        for function_name, kind in functions.items():
            if (name, function_name) != WAIT:
                watched = tap.Import(short_name(name), function_name, plain_of(kind.result))
                checks = tuple(check_of(parameter) for _, parameter in kind.params)
                body = interfaces[name][function_name]
                can_fail = isinstance(kind.result, ResultType)
                found[watched.interface, function_name] = NativeFunction(watched, body, checks, can_fail)
    return found


class NativeGuest:
    """A program at the other end of a socket, as a guest."""

    used_cpu_ns = 0
    """Its time is its own."""

    def __init__(self, functions: NativeFunctions, path: str) -> None:
        """Raises `Cancelled` when nobody listens at `path`, and `InvalidInput` when it is somebody else."""
        self._functions = functions
        self._socket = _connected(path)
        self._inbox, self._outbox = bytearray(), bytearray()
        self._has_left = False
        self._outcome: Outcome | None = None
        self._owner: Owner

    # For the host's loop.

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def has_unsent(self) -> bool:
        """Whether there is something for it that it does not take yet."""
        return bool(self._outbox)

    def exchange(self) -> bool:
        """Send and receive what can be, without waiting; whether `resume` has something to do."""
        self._send()
        with contextlib.suppress(BlockingIOError):
            while not self._has_left and len(self._inbox) <= MAX_FRAME_BYTES:
                try:
                    piece = self._socket.recv(_READ_BYTES)
                except ConnectionError:
                    piece = b""
                self._has_left = not piece
                self._inbox += piece
        return self._has_left or self._has_frame

    # As a guest.

    def limit_memory(self, num_bytes: int) -> None:
        """It is a process of its own."""

    def begin(self, owner: Owner, function: str, arguments: Sequence[str]) -> None:
        self._owner = owner
        self._say("run", function, *arguments)

    def answer(self, ready: list[int] | PieError) -> None:
        if isinstance(ready, PieError):
            self._fail(ready)
        else:
            self._say("ok", ready)

    def resume(self) -> Status:
        """Raises `Cancelled` when the program's process is gone, and `InvalidInput` when it says what is no call."""
        for frame in self._frames():
            status = self._take(frame)
            if status is Status.WAITING and self._has_frame:
                return Status.PREEMPTED  # to go on with the interrupt that came along with the wait
            if status is not None:
                return status
        if self._has_left:
            raise Cancelled(
                "the Python that ran the program has ended, and `main` had not returned",
                hint="it was ended from outside, or left by `os._exit`",
            )
        return Status.AWAY

    def take_outcome(self) -> Outcome:
        assert self._outcome is not None
        return self._outcome

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._send()
        self._socket.close()

    # Frames.

    @property
    def _has_frame(self) -> bool:
        """A whole one, or the beginning of one that is too long."""
        if len(self._inbox) < HEADER.size:
            return False
        (size,) = HEADER.unpack_from(self._inbox)
        return bool(size > MAX_FRAME_BYTES or len(self._inbox) >= HEADER.size + size)

    def _frames(self) -> Iterator[Any]:
        while len(self._inbox) >= HEADER.size:
            (size,) = HEADER.unpack_from(self._inbox)
            if size > MAX_FRAME_BYTES:
                raise InvalidInput(f"a call of {size / MIB:.0f} MiB is more than the {MAX_FRAME_BYTES // MIB} allowed")
            end = HEADER.size + size
            if len(self._inbox) < end:
                return
            raw = bytes(self._inbox[HEADER.size : end])
            del self._inbox[:end]
            yield _decoded(raw)

    def _take(self, frame: Any) -> Status | None:
        match frame:
            case ["call", "futures", "wait-any", [timeout_us]]:
                return self._wait(timeout_us)
            case ["call", str(interface), str(function), list(arguments)]:
                self._call(interface, function, arguments)
            case ["outcome", bool(is_ok), str(text)]:
                self._outcome = Outcome(is_ok, text)
                return Status.ENDED
            case ["interrupt"]:
                pass  # the wait that it was for is over
            case _:
                raise InvalidInput(f"this is no call: {str(frame)[:100]}")
        return None

    def _wait(self, timeout_us: Any) -> Status | None:
        self._owner.num_calls += 1
        try:
            if timeout_us is not None and (not isinstance(timeout_us, int) or timeout_us < 0):
                raise InvalidInput(f"`timeout-us` has to be a whole number, got {timeout_us!r}")
            ready = self._owner.begin_wait(timeout_us)
        except PieError as refusal:
            self._fail(refusal)
            return None
        if ready is None:
            return Status.WAITING
        self._say("ok", ready)
        return None

    def _call(self, interface: str, name: str, arguments: list[Any]) -> None:
        self._owner.num_calls += 1
        function = self._functions.get((interface, name))
        if function is None:
            message = f"the program calls {interface}#{name}, which this engine does not have"
            raise InvalidProgram(message, hint="use the SDK of this version of Pie")
        try:
            result = function(self._owner, arguments)
        except Exception as error:
            if not function.can_fail:
                self._say("trap", error_record(error).message)
                raise
            self._fail(error)
            return
        self._say("ok", result)

    def _fail(self, error: BaseException) -> None:
        record = error_record(error)
        self._say("error", record.code, record.message, record.retry)

    def _say(self, *frame: Any) -> None:
        raw = json.dumps(frame, separators=(",", ":")).encode()
        self._outbox += HEADER.pack(len(raw)) + raw
        self._send()

    def _send(self) -> None:
        """As much as it takes now. That it has left shows when it is read from."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while self._outbox:
                del self._outbox[: self._socket.send(self._outbox)]


def _decoded(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"a call is not JSON: {error}") from error


def _connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.connect(path)
        _check_peer(connection)
    except OSError as error:
        connection.close()
        why = "there is nobody any more who would run the program"
        raise Cancelled(f"{why}: {path}: {error.strerror or error}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _check_peer(connection: socket.socket) -> None:
    """A path can lead anywhere; what is there has to be of the same user."""
    if not hasattr(socket, "SO_PEERCRED"):  # not Linux: the folder's permissions have to do
        return
    _, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    if uid != os.getuid():
        raise InvalidInput(f"the socket of the program belongs to user {uid}, the daemon to {os.getuid()}")
