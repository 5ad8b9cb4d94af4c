"""pie_client's reading of bytes: event streams and HTTP answers, however they are cut."""

from __future__ import annotations

import asyncio
import itertools
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_client.client import PieClient
from pie_client.errors import Interrupted, NoDaemon
from pie_client.events import Event, EventParser
from pie_client.programs import is_path
from pie_client.unix import UnixCarrier
from pie_engine.errors import ErrorInfo, NotFound
from pie_engine.protocol.http import ProgramView
from pie_engine.protocol.program import Bundle, Manifest, Signature

STREAM = (
    b": pid 1\n\n"
    b'id: 1\nevent: started\ndata: {"program":"a"}\n\n'
    b": keep-alive\n\n"
    b'id: 2\nevent: message\ndata: {\ndata:  "a": "\xc3\xa9: x"}\n\n'
    b"id: 3\nevent: of-the-future\ndata: 1\n\n"
    b'id: 4\nevent: error\ndata: {"code":"exception","message":"no","traceback":"x"}\n\n'
)
ARRIVALS = [
    (1, Event.Started, {"program": "a"}),
    (2, Event.Message, {"a": "é: x"}),
    (4, Event.Error, ErrorInfo("exception", "no", traceback="x")),
]


def pieces_of(data, cuts):
    edges = [0, *sorted(cut % len(data) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(st.lists(st.integers(0, 1000), max_size=30))
def test_event_streams_however_they_are_cut(cuts):
    parser = EventParser()
    arrivals = [arrival for piece in pieces_of(STREAM, cuts) for arrival in parser.feed(piece)]
    assert [(arrival.seq, arrival.event, arrival.value) for arrival in arrivals] == ARRIVALS


class Server:
    """Answers each request on a Unix socket with the next of `answers`, in pieces.

    It closes the connection at None, and waits at an `asyncio.Event`.
    """

    def __init__(self, path):
        self.path = str(path)
        self.requests = []
        self.num_connections = 0
        self.answers = []

    async def __aenter__(self):
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(self, *_):
        self._server.close()

    async def _serve(self, reader, writer):
        self.num_connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(re.search(rb"content-length: (\d+)", head.lower())[1])
                self.requests.append((head, await reader.readexactly(length)))
                for piece in self.answers.pop(0):
                    if piece is None:
                        return
                    if isinstance(piece, asyncio.Event):
                        await piece.wait()
                        continue
                    writer.write(piece)
                    await writer.drain()
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


def counted(body):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Y: a: b\r\n\r\n" % len(body) + body


def chunked(*chunks):
    parts = [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks]
    return b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n" + b"".join(parts) + b"0\r\n\r\n"


async def ask(carrier, body=b""):
    reply = await carrier.open("POST", "/x", {"A": "b"}, body, timeout_s=5)
    return reply, b"".join([piece async for piece in reply.pieces()])


@given(st.lists(st.integers(0, 10**6), max_size=12))
async def test_answers_however_they_are_cut(tmp_path_factory, cuts):
    body = bytes(range(256)) * 3
    async with Server(tmp_path_factory.mktemp("s") / "s") as server:
        carrier = UnixCarrier(server.path)
        for answer, status in ((counted(body), 200), (chunked(body[:1], body[1:300], body[300:]), 201)):
            server.answers.append(pieces_of(answer, cuts))
            reply, read = await ask(carrier, b"hello")
            assert (reply.status, read) == (status, body)
        assert server.num_connections == 1
        head, sent = server.requests[0]
        assert (head.split(b"\r\n")[0], sent) == (b"POST /x HTTP/1.1", b"hello")
        assert b"\r\nA: b\r\n" in head
        await carrier.close()


async def test_header_names_are_in_lower_case(tmp_path):
    async with Server(tmp_path / "s") as server:
        server.answers.append([counted(b"")])
        reply, _ = await ask(UnixCarrier(server.path))
        assert reply.headers["x-y"] == "a: b"


@pytest.mark.parametrize(
    "answer",
    [
        [None],
        [counted(b"abc")[:30], None],
        [counted(b"abc")[:-1], None],
        [chunked(b"abc")[:-8], None],
        [b"nonsense\r\n\r\n"],
    ],
)
async def test_an_answer_that_breaks_off_is_an_interruption(tmp_path, answer):
    async with Server(tmp_path / "s") as server:
        server.answers.append(answer)
        with pytest.raises(Interrupted):
            await ask(UnixCarrier(server.path))


async def test_a_silent_answer_is_an_interruption(tmp_path):
    async with Server(tmp_path / "s") as server:
        server.answers.append([chunked(b"abc")[:-5]])
        carrier = UnixCarrier(server.path)
        reply = await carrier.open("GET", "/", {}, b"", timeout_s=0.1)
        with pytest.raises(Interrupted):
            [piece async for piece in reply.pieces()]


async def test_connections_are_used_again_and_closed_ones_are_not(tmp_path):
    async with Server(tmp_path / "s") as server:
        carrier = UnixCarrier(server.path)
        server.answers = [[counted(b"1")], [counted(b"2"), None], [counted(b"3")]]
        assert [(await ask(carrier))[1] for _ in range(2)] == [b"1", b"2"]
        await asyncio.sleep(0.05)
        assert (await ask(carrier))[1] == b"3"
        assert server.num_connections == 2
        await carrier.close()


async def test_a_reply_that_is_closed_early_takes_its_connection_along(tmp_path):
    async with Server(tmp_path / "s") as server:
        carrier = UnixCarrier(server.path)
        server.answers = [[counted(b"12345")], [counted(b"2")]]
        reply = await carrier.open("GET", "/", {}, b"", timeout_s=1)
        await reply.close()
        await reply.close()
        assert [piece async for piece in reply.pieces()] == []
        assert (await ask(carrier))[1] == b"2"
        assert server.num_connections == 2


async def test_nobody_there(tmp_path):
    with pytest.raises(NoDaemon, match="no daemon answers"):
        await ask(UnixCarrier(str(tmp_path / "nobody")))


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_component_that_the_daemon_has_is_not_sent_again(monkeypatch, is_known):
    bundle = Bundle(Manifest(name="c", runtime="component"), blobs={"program.wasm": b"x"})
    view, asked = ProgramView(bundle.digest, "c", "0.0.0", Signature()), []

    async def ask(self, method, path, body, **_):
        asked.append((method, path))
        if method == "GET" and not is_known:
            raise NotFound("no")
        return msgspec.json.encode(view)

    monkeypatch.setattr(PieClient, "_ask", ask)
    async with PieClient() as client:
        assert await client.describe(bundle) == view
    sent = [] if is_known else [("POST", "/v1/programs?publish=false")]
    assert asked == [("GET", f"/v1/programs/{bundle.digest}"), *sent]


@pytest.mark.parametrize("text", ["./a", "a/b", "a.py", "a.wasm", "a.pie", ".", "..", "/abs"])
def test_what_is_a_path(text):
    assert is_path(text)


@pytest.mark.parametrize("text", ["chat", "chat@1.0.0", "my-program", "0a1b2c"])
def test_what_is_a_reference(text):
    assert not is_path(text)
