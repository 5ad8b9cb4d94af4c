"""HTTP/1.1 over a Unix socket on asyncio streams.

A launch through httpx costs its client 2.6 ms of processor time, 5.5 ms with 64 open connections (its pool looks at
each of them for every request), and its import a good part of a `pie run`. This costs a tenth, for the one server
that it has to understand.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Mapping

from pie_client.errors import Interrupted, NoDaemon, explained
from pie_client.files import Body

MAX_IDLE_CONNECTIONS = 64
MAX_IDLE_S = 60.0
"""Less than the daemon keeps an idle connection."""
CONNECT_TIMEOUT_S = 10.0
DRAIN_BYTES = 64 * 1024
PIECE_BYTES = 64 * 1024


class UnixCarrier:
    """Connections to one socket; those that are idle are used again, the youngest first."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._idle: list[Connection] = []

    async def open(self, method: str, path: str, headers: Mapping[str, str], body: Body, timeout_s: float) -> UnixReply:
        connection = self._take_idle() or await self._connect()
        try:
            async with asyncio.timeout(timeout_s):
                await connection.send(_head(method, path, headers, body) + (body if isinstance(body, bytes) else b""))
                if not isinstance(body, bytes):
                    async for piece in body.pieces():
                        await connection.send(piece)
                status, fields = await connection.read_head()
        except BaseException as error:
            connection.abort()
            if isinstance(error, (OSError, EOFError, ValueError, asyncio.LimitOverrunError)):
                raise interrupted(self._path, error) from None
            raise
        return UnixReply(self, connection, status, fields, timeout_s)

    async def close(self) -> None:
        while self._idle:
            self._idle.pop().abort()

    def give_back(self, connection: Connection) -> None:
        if len(self._idle) < MAX_IDLE_CONNECTIONS:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.abort()

    def broken(self, error: Exception) -> Interrupted:
        return interrupted(self._path, error)

    def _take_idle(self) -> Connection | None:
        oldest = time.monotonic() - MAX_IDLE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable and connection.idle_since > oldest:
                return connection
            connection.abort()
        return None

    async def _connect(self) -> Connection:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return Connection(*await asyncio.open_unix_connection(self._path))
        except OSError as error:
            if error.errno == errno.EAGAIN:
                # More connections at once than the socket's queue holds: it is there, so try again.
                raise interrupted(self._path, error) from None
            raise explained(_nobody(self._path, error)) from None


class Connection:
    """One stream, with one request on it at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.idle_since = 0.0
        self._writer = writer

    @property
    def is_usable(self) -> bool:
        return not self.reader.at_eof() and not self._writer.is_closing()

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        if len(data) > DRAIN_BYTES:
            await self._writer.drain()

    async def read_head(self) -> tuple[int, dict[str, str]]:
        """Status and header fields."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head[:-4].split("\r\n")
        fields = {}
        for line in lines:
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
        return int(first.partition(" ")[2][:3]), fields

    def abort(self) -> None:
        self._writer.close()


class UnixReply:
    """An answer; at the end of its body the connection goes back to the carrier."""

    def __init__(
        self, carrier: UnixCarrier, connection: Connection, status: int, headers: dict[str, str], silence_s: float
    ) -> None:
        self.status = status
        self.headers: Mapping[str, str] = headers
        self._carrier = carrier
        self._connection: Connection | None = connection
        self._silence_s = silence_s

    async def pieces(self) -> AsyncIterator[bytes]:
        connection = self._connection
        if connection is None:
            return
        try:
            body = _chunks if self.headers.get("transfer-encoding") == "chunked" else self._counted
            async for piece in body(connection.reader, self._silence_s):
                yield piece
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            await self.close()
            raise self._carrier.broken(error) from None
        self._release(connection)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    def _counted(self, reader: asyncio.StreamReader, silence_s: float) -> AsyncIterator[bytes]:
        return _counted(reader, int(self.headers.get("content-length", "0")), silence_s)

    def _release(self, connection: Connection) -> None:
        if self._connection is None:
            return
        self._connection = None
        if self.headers.get("connection") == "close":
            connection.abort()
        else:
            self._carrier.give_back(connection)


async def _chunks(reader: asyncio.StreamReader, silence_s: float) -> AsyncIterator[bytes]:
    while True:
        async with asyncio.timeout(silence_s):
            size = int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16)
        async for piece in _counted(reader, size, silence_s):
            yield piece
        await reader.readexactly(2)
        if size == 0:
            return


async def _counted(reader: asyncio.StreamReader, num_bytes: int, silence_s: float) -> AsyncIterator[bytes]:
    while num_bytes:
        async with asyncio.timeout(silence_s):
            piece = await reader.read(min(num_bytes, PIECE_BYTES))
        if not piece:
            raise EOFError("closed in the middle of an answer")
        num_bytes -= len(piece)
        yield piece


def _head(method: str, path: str, headers: Mapping[str, str], body: Body) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: pie", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1")


def interrupted(address: str, error: Exception) -> Interrupted:
    return Interrupted(f"the connection to {address} broke: {error or type(error).__name__}")


def _nobody(path: str, error: OSError) -> NoDaemon:
    # That the socket is not there, or that nobody listens at it, is what the message says already.
    is_plain = isinstance(error, (FileNotFoundError, ConnectionRefusedError))
    reason = "" if is_plain else f": {error.strerror or error or type(error).__name__}"
    return NoDaemon(f"no daemon answers at {path}{reason}", hint="`pie serve --background` starts one")
