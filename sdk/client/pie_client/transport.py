"""HTTP to the daemon: the only file that knows httpx, which is imported when the first request is made.

Requests go to httpx's transport without its client on top: nothing here redirects, keeps cookies or reads proxies
from the environment, and those layers cost more than the daemon takes to answer.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pie_client.errors import Interrupted, NoDaemon
from pie_engine.errors import ErrorInfo, PieError
from pie_engine.protocol.http import ErrorBody
from pie_engine.protocol.version import PROTOCOL_HEADER, PROTOCOL_VERSION

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT_S = 10.0
REPLY_TIMEOUT_S = 90.0
"""An upload may wait for the runtime to be built."""
SILENCE_TIMEOUT_S = 60.0
"""The daemon says something on an event stream every 15 seconds."""
KEPT_CONNECTIONS = 64

_decode_error = msgspec.json.Decoder(ErrorBody).decode


class Transport:
    """One connection pool to one daemon."""

    def __init__(self, socket: Path | None, url: str) -> None:
        self._socket = socket
        self._url = url.rstrip("/")
        self._pool: httpx.AsyncHTTPTransport | None = None
        self.has_connected = False

    @property
    def address(self) -> str:
        return str(self._socket or self._url)

    async def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The body of a 2xx answer; any other is raised."""
        reply = await self.open(method, path, body, timeout_s=REPLY_TIMEOUT_S)
        return await reply.read()

    async def open(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, *, timeout_s: float
    ) -> Reply:
        """The answer as soon as its head is there. Raises what the daemon says, `NoDaemon` or `Interrupted`."""
        import httpx

        timeout = {"connect": CONNECT_TIMEOUT_S, "read": timeout_s, "write": timeout_s, "pool": None}
        request = httpx.Request(
            method,
            self._url + path,
            content=body,
            headers={PROTOCOL_HEADER: str(PROTOCOL_VERSION), "Content-Type": "application/json", **(headers or {})},
            extensions={"timeout": timeout},
        )
        try:
            reply = Reply(await self._transport().handle_async_request(request), self.address)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise self._unreachable(error) from error
        except httpx.TransportError as error:
            raise interrupted(self.address, error) from error
        self.has_connected = True
        if reply.status >= 300:
            raise _refusal(reply.status, await reply.read())
        return reply

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()
            self._pool = None

    def _transport(self) -> httpx.AsyncHTTPTransport:
        import httpx

        if self._pool is None:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=KEPT_CONNECTIONS)
            self._pool = httpx.AsyncHTTPTransport(uds=str(self._socket) if self._socket else None, limits=limits)
        return self._pool

    def _unreachable(self, error: Exception) -> PieError:
        if _errno_of(error) == errno.EAGAIN:
            # More connections at once than the socket's queue holds.
            return interrupted(self.address, error)
        return NoDaemon(f"no daemon answers at {self.address}", hint="start one with `pie serve`")

    def is_gone(self) -> bool:
        """The daemon ended in order and took its socket along: waiting for it is no use."""
        return self._socket is not None and not self._socket.exists()


class Reply:
    """Status and headers of an answer, and its body when it is asked for."""

    def __init__(self, response: httpx.Response, address: str) -> None:
        self._response = response
        self._address = address
        self.status = response.status_code

    def header(self, name: str) -> str:
        value: str = self._response.headers[name]
        return value

    async def read(self) -> bytes:
        return b"".join([piece async for piece in self.pieces()])

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises `Interrupted` when the connection breaks."""
        import httpx

        stream = self._response.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        try:
            async for piece in stream:
                yield piece
        except httpx.TransportError as error:
            raise interrupted(self._address, error) from error

    async def close(self) -> None:
        await self._response.aclose()


def interrupted(address: str, error: Exception) -> Interrupted:
    return Interrupted(f"the connection to {address} broke: {error or type(error).__name__}")


def _refusal(status: int, body: bytes) -> PieError:
    try:
        return _decode_error(body).error.raised()
    except msgspec.DecodeError:
        return ErrorInfo("error", f"the daemon answered {status}: {body[:200].decode(errors='replace')}").raised()


def _errno_of(error: BaseException | None) -> int | None:
    while error is not None:
        if isinstance(error, OSError):
            return error.errno
        error = error.__cause__ or error.__context__
    return None
