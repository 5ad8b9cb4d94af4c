"""HTTP over TCP, by httpx. Only imported when a URL is given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import httpx

from pie_client.errors import Interrupted, NoDaemon, explained
from pie_client.files import Body
from pie_engine.errors import InvalidInput

CONNECT_TIMEOUT_S = 10.0


class TcpCarrier:
    """One httpx client, without its limit on connections: an event stream holds one as long as its process lives."""

    def __init__(self, url: str) -> None:
        """Raises `InvalidInput` when `url` is none."""
        self._url = _checked(url)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self._client = httpx.AsyncClient(base_url=self._url, limits=limits, trust_env=False)

    async def open(self, method: str, path: str, headers: Mapping[str, str], body: Body, timeout_s: float) -> TcpReply:
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S, pool=None)
        length = {"Content-Length": str(len(body))}
        content = body if isinstance(body, bytes) else body.pieces()
        request = self._client.build_request(
            method, path, headers={**headers, **length}, content=content, timeout=timeout
        )
        try:
            return TcpReply(await self._client.send(request, stream=True), self._url)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            hint = "`pie serve --background --listen HOST:PORT` starts one that listens on TCP"
            raise explained(NoDaemon(f"no daemon answers at {self._url}", hint=hint)) from None
        except (httpx.TransportError, EOFError) as error:
            raise _interrupted(self._url, error) from None

    async def close(self) -> None:
        await self._client.aclose()


class TcpReply:
    def __init__(self, response: httpx.Response, url: str) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._url = url

    async def pieces(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._response.aiter_raw():
                yield piece
        except httpx.TransportError as error:
            raise _interrupted(self._url, error) from None

    async def close(self) -> None:
        await self._response.aclose()


def _checked(url: str) -> str:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL:
        address = httpx.URL()
    if address.scheme not in ("http", "https") or not address.host:
        hint = "write it like `http://127.0.0.1:8765`"
        raise explained(InvalidInput(f"`url` is `{url}`, which is not the address of a daemon", hint=hint))
    return url.rstrip("/")


def _interrupted(url: str, error: Exception) -> Interrupted:
    return Interrupted(f"the connection to {url} broke: {error or type(error).__name__}")
