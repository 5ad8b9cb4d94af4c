"""A lean client of streamed OpenAI completions: one server on this machine, token ids in, token counts out.

A general HTTP library costs more per event than a small model needs per token, and would be measured with the peer.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from typing import Any

from common import BenchError
from workloads import Request

LOOPBACK = "127.0.0.1"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class SseParser:
    """Bytes of a `text/event-stream` in, the data of whole events out, wherever the bytes were cut.

    https://html.spec.whatwg.org/multipage/server-sent-events.html, without event names and ids.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        events = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data = []
        return events


class TokenCounts:
    """How many tokens each event of one request brings, and whether the server's own account agrees.

    A chunk's text says nothing certain: a token may be half a character and show up later. So the running totals
    count that servers are asked for: `usage` in each chunk (vLLM, SGLang), `timings.predicted_n` (llama.cpp).
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._seen: defaultdict[int, int] = defaultdict(int)
        self._total = -1

    def add(self, event: Mapping[str, Any]) -> list[tuple[int, int]]:
        """(which continuation, how many new tokens). Raises `BenchError` for an error and a chunk without counts."""
        if "error" in event:
            raise BenchError(f"the server answered: {json.dumps(event['error'])[:500]}")
        usage = event.get("usage")
        if usage and usage.get("prompt_tokens", 0) != len(self._request.prompt):
            raise BenchError(f"sent {len(self._request.prompt)} prompt tokens, the server counted {usage}")
        if not event.get("choices"):
            self._total = usage["completion_tokens"] if usage else self._total
            return []
        new = []
        for choice in event["choices"]:
            index, so_far = choice.get("index", 0), _tokens_so_far(event)
            new.append((index, so_far - self._seen[index]))
            self._seen[index] = so_far
        return new

    def check(self) -> None:
        """At the end. Raises `BenchError` unless all tokens came and the usage, where one was sent, says so too."""
        wanted = dict.fromkeys(range(self._request.num_forks), self._request.output_len)
        if dict(self._seen) != wanted:
            raise BenchError(f"asked for {wanted} tokens by continuation, got {dict(self._seen)}")
        if self._total not in (-1, sum(wanted.values())):
            raise BenchError(f"{sum(wanted.values())} tokens came, the usage says {self._total}")


def _tokens_so_far(event: Mapping[str, Any]) -> int:
    for account, key in (("timings", "predicted_n"), ("usage", "completion_tokens")):
        if event.get(account):
            return event[account][key]
    raise BenchError(f"a chunk without a count of tokens: {json.dumps(event)[:500]}")


class CompletionClient:
    """An engine behind `POST /v1/completions`. `extra` goes into every request: what only this server knows."""

    def __init__(self, port: int, model: str, extra: Mapping[str, Any]) -> None:
        self._port = port
        self._constant = {
            "model": model,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            "ignore_eos": True,
            **extra,
        }
        self._idle: list[Connection] = []

    async def stream(self, request: Request) -> AsyncIterator[tuple[int, int]]:
        """(which continuation, how many new tokens), as they come."""
        body = self._constant | {
            "prompt": request.prompt,
            "max_tokens": request.output_len,
            "n": request.num_forks,
            "temperature": request.temperature,
            "top_p": request.top_p,
        }
        counts, parser = TokenCounts(request), SseParser()
        async for piece in self._post("/v1/completions", json.dumps(body).encode()):
            for data in parser.feed(piece):
                if data != b"[DONE]":
                    for index, num_tokens in counts.add(json.loads(data)):
                        yield index, num_tokens
        counts.check()

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[1].close()

    async def _post(self, path: str, body: bytes) -> AsyncIterator[bytes]:
        """The pieces of the answer's body. The connection is used again after a whole one."""
        head = f"POST {path} HTTP/1.1\r\nHost: {LOOPBACK}\r\nContent-Type: application/json\r\n"
        connection, status, fields = await self._answered(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        reader, writer = connection
        if status != 200:
            raise BenchError(f"the server answered {status}: {(await reader.read(2000)).decode(errors='replace')}")
        if fields.get("transfer-encoding") != "chunked":
            raise BenchError(f"the server does not stream: {fields}")
        try:
            async for piece in _chunks(reader):
                yield piece
        except (OSError, EOFError, ValueError) as error:
            raise BenchError(f"the server broke off in the middle of an answer: {error!r}") from error
        if fields.get("connection") == "close":
            writer.close()
        else:
            self._idle.append(connection)

    async def _answered(self, message: bytes) -> tuple[Connection, int, dict[str, str]]:
        """Send `message`; a connection with status and header fields of its answer.

        llama.cpp closes connections after a stream without saying so: then a fresh one is taken.
        """
        while True:
            is_fresh = not self._idle
            try:
                connection = self._idle.pop() if self._idle else await asyncio.open_connection(LOOPBACK, self._port)
                connection[1].write(message)
                return connection, *await _read_head(connection[0])
            except (OSError, EOFError) as error:
                if is_fresh:
                    raise BenchError(f"the server does not answer: {error!r}") from error


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head[:-4].split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(first.split(" ")[1]), {name.lower(): value.strip().lower() for name, _, value in pairs}


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The data of a chunked body (RFC 9112, 7.1)."""
    while size := int((await reader.readline()).split(b";")[0], 16):
        yield (await reader.readexactly(size + 2))[:-2]
    while (await reader.readline()).strip():
        pass
