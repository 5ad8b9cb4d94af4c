"""HTTP to the daemon, whichever way it goes: over the Unix socket by `unix.py`, over TCP by `tcp.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

import msgspec

from pie_client.errors import explained
from pie_client.files import Body, FileBody
from pie_client.lock import holder
from pie_client.unix import UnixCarrier
from pie_engine.config import Paths
from pie_engine.errors import ErrorInfo, InvalidInput, PieError
from pie_engine.protocol.http import ErrorBody
from pie_engine.protocol.version import PROTOCOL_HEADER, PROTOCOL_VERSION

REPLY_TIMEOUT_S = 90.0
"""An upload may wait for the runtime to be built."""
SLOWEST_BYTES_PER_S = 4 << 20
"""Of a file on its way to the daemon, which writes it to its disk."""
SILENCE_TIMEOUT_S = 60.0
"""The daemon says something on an event stream every 15 seconds."""

_decode_error = msgspec.json.Decoder(ErrorBody).decode


class Reply(Protocol):
    """An answer whose head is there. It must be read to its end or closed."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""

    def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises `Interrupted` when the connection breaks or is silent for too long."""

    async def close(self) -> None:
        """Safe at any time, also twice."""


class Carrier(Protocol):
    """Brings requests to one daemon. Raises `NoDaemon` when it cannot connect, `Interrupted` when it breaks later."""

    async def open(self, method: str, path: str, headers: Mapping[str, str], body: Body, timeout_s: float) -> Reply: ...

    async def close(self) -> None: ...


class Transport:
    """Requests with our headers; answers that are refusals raised as what they say."""

    def __init__(self, paths: Paths, url: str | None) -> None:
        self._paths = None if url else paths
        self._carrier: Carrier = _tcp(url) if url else UnixCarrier(str(paths.api_socket))
        self._is_closed = False
        self.has_connected = False

    async def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The body of a 2xx answer; any other is raised."""
        return await read(await self.open(method, path, body, timeout_s=REPLY_TIMEOUT_S))

    async def send_file(self, method: str, path: str, body: FileBody) -> bytes:
        """The body of a 2xx answer to a request that may take long to arrive."""
        headers = {"Content-Type": "application/octet-stream"}
        timeout_s = REPLY_TIMEOUT_S + len(body) / SLOWEST_BYTES_PER_S
        return await read(await self.open(method, path, body, headers, timeout_s=timeout_s))

    async def open(
        self, method: str, path: str, body: Body = b"", headers: Mapping[str, str] | None = None, *, timeout_s: float
    ) -> Reply:
        """The answer as soon as its head is there. Raises what the daemon says, `NoDaemon` or `Interrupted`."""
        self._check_open()
        common = {PROTOCOL_HEADER: str(PROTOCOL_VERSION), "Content-Type": "application/json"}
        reply = await self._carrier.open(method, path, {**common, **(headers or {})}, body, timeout_s)
        self.has_connected = True
        if self._is_closed:
            await reply.close()
            self._check_open()
        if reply.status >= 300:
            raise explained(_refusal(reply.status, await read(reply)))
        return reply

    def refuse_more(self) -> None:
        """From now on every request is `InvalidInput`, those on their way included."""
        self._is_closed = True

    async def close(self) -> None:
        self.refuse_more()
        await self._carrier.close()

    def is_gone(self) -> bool:
        """The daemon has ended, in order or not: waiting for its gateway is no use. Over TCP nobody can tell."""
        paths = self._paths
        return paths is not None and not (paths.api_socket.exists() and holder(paths.daemon_lock) is not None)

    def _check_open(self) -> None:
        if self._is_closed:
            raise explained(InvalidInput("this client is closed", hint="make another `PieClient`"))


def _tcp(url: str) -> Carrier:
    # httpx takes longer to import than most programs take to run.
    from pie_client.tcp import TcpCarrier

    return TcpCarrier(url)


async def read(reply: Reply) -> bytes:
    return b"".join([piece async for piece in reply.pieces()])


def _refusal(status: int, body: bytes) -> PieError:
    try:
        return _decode_error(body).error.raised()
    except msgspec.DecodeError:
        return ErrorInfo("error", f"the daemon answered {status}: {body[:200].decode(errors='replace')}").raised()
