"""Small pieces of raw ASGI: reading a request, writing an answer. FastAPI is for the routes nobody waits for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, cast
from urllib.parse import parse_qs

import msgspec

from pie_engine.config import MIB
from pie_engine.errors import InvalidInput, PieError, ProtocolMismatch
from pie_engine.gateway.problems import TooLarge, retry_after, status_of
from pie_engine.protocol.http import ErrorBody
from pie_engine.protocol.version import PROTOCOL_HEADER, PROTOCOL_VERSION

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON_TYPE = (b"content-type", b"application/json")
STREAM_HEADERS: Headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]

_PROTOCOL_HEADER = PROTOCOL_HEADER.lower().encode()
_OUR_PROTOCOL = str(PROTOCOL_VERSION).encode()
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_encode = msgspec.json.Encoder().encode


class Request:
    """Method, path, headers and query of one request; the body when it is asked for."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.receive = receive
        self._scope = scope

    @property
    def wants_stream(self) -> bool:
        return b"text/event-stream" in self.headers.get(b"accept", b"")

    @property
    def is_local(self) -> bool:
        """It came over the Unix socket, so from a process of the same user."""
        return self._scope.get("client") is None

    def query(self, name: str) -> str | None:
        text: bytes = self._scope["query_string"]
        return parse_qs(text.decode("latin-1")).get(name, [None])[0] if text else None

    def int_query(self, name: str) -> int | None:
        text = self.query(name)
        return None if text is None else _int(text, f"`{name}`")

    @property
    def last_event_id(self) -> int | None:
        text = self.headers.get(b"last-event-id")
        return _int(text.decode("latin-1"), "`Last-Event-ID`") if text else None

    def check(self) -> None:
        """Raises when it speaks another protocol, or comes from a web page by way of the TCP port."""
        protocol = self.headers.get(_PROTOCOL_HEADER, _OUR_PROTOCOL)
        if protocol != _OUR_PROTOCOL:
            theirs = protocol.decode("latin-1")
            raise ProtocolMismatch(
                f"the client speaks protocol {theirs}, the daemon protocol {PROTOCOL_VERSION}",
                hint="`pie stop --drain`, then run again: the daemon is started in your version",
            )

    def check_origin(self) -> None:
        """On TCP a browser could be made to call us: only pages and names of this machine may."""
        if self.is_local:
            return
        host = self.headers.get(b"host", b"").decode("latin-1")
        origin = self.headers.get(b"origin", b"").decode("latin-1")
        if not _is_loopback(host) or (origin and not _is_loopback(origin.partition("://")[2])):
            raise InvalidInput(f"requests for `{host}` from `{origin}` are not served", hint="use http://localhost")

    async def body(self, max_bytes: int) -> bytes:
        announced = self.headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > max_bytes:
            raise _too_large(max_bytes)
        message = await self.receive()
        if not message.get("more_body"):
            return cast(bytes, message.get("body", b""))
        data = bytearray(message["body"])
        while message.get("more_body"):
            message = await self.receive()
            data += message.get("body", b"")
            if len(data) > max_bytes:
                raise _too_large(max_bytes)
        return bytes(data)


class Reply:
    """The answer to one request; remembers whether it has begun. `send` is ASGI's, for who speaks that."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False

    async def send(self, message: Message) -> None:
        self.has_begun = True
        await self._send(message)

    async def begin(self, status: int, headers: Headers) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, data: bytes = b"") -> None:
        await self._send({"type": "http.response.body", "body": data})

    async def json(self, status: int, body: Any, headers: Headers | None = None) -> None:
        data = _encode(body)
        length = (b"content-length", str(len(data)).encode())
        await self.begin(status, [JSON_TYPE, length, *(headers or [])])
        await self.finish(data)

    async def problem(self, error: PieError) -> None:
        info = error.info
        status = status_of(error)
        wait = retry_after(info, status)
        headers = [] if wait is None else [(b"retry-after", str(wait).encode())]
        await self.json(status, ErrorBody(info), headers)


def decoded(decode: Callable[[bytes], Any], body: bytes) -> Any:
    """Of a request. Raises `InvalidInput` saying what is wrong with it."""
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the request is not as it should be: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the request is not JSON: {error}") from error


def _int(text: str, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidInput(f"{name} is `{text}`, not a number") from None


def _is_loopback(authority: str) -> bool:
    return authority.rpartition(":")[0] in _LOOPBACK_NAMES or authority in _LOOPBACK_NAMES


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(
        f"the request is larger than {max_bytes / MIB:g} MiB", hint="leave data out, or raise `gateway.max_body_mb`"
    )
