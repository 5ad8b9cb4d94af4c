"""The seam between the engine and a Python of a program's own, frame by frame."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pie_engine.embedded import Embedded
from pie_engine.errors import InvalidInput, PieError
from pie_engine.host.native import HEADER
from pie_engine.protocol.program import Bundle, Manifest
from tests.integration.native.runs import WAITER


class Raw:
    """The other end of a process, frame by frame."""

    def __init__(self, engine: Embedded, folder: Path) -> None:
        self.engine = engine
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / "s"))
        listener.listen(1)
        self.process = engine.launch(Bundle(Manifest(name="p"), {"main.py": WAITER}), native=str(folder / "s"))
        engine.turn()
        self.socket, _ = listener.accept()
        listener.close()
        self.socket.settimeout(10)
        self.began = self.read()

    def send(self, *frame: object) -> None:
        raw = json.dumps(frame).encode()
        self.socket.sendall(HEADER.pack(len(raw)) + raw)
        self.turn()

    def turn(self) -> None:
        for _ in range(5):
            self.engine.turn()

    def read(self) -> list[object]:
        (size,) = HEADER.unpack(self.socket.recv(4, socket.MSG_WAITALL))
        read = b""
        while len(read) < size:
            read += self.socket.recv(size - len(read))
        return json.loads(read)

    def ask(self, *frame: object) -> list[object]:
        self.send("call", *frame)
        return self.read()


@pytest.fixture
def raw(fake, tmp_path) -> Iterator[Raw]:
    made = Raw(fake, tmp_path)
    yield made
    made.socket.close()
    made.process.terminate()
    made.turn()


def test_it_is_told_what_to_run(raw):
    kind, function, bundle, arguments = raw.began
    assert (kind, function, arguments) == ("run", "run", "{}")
    assert json.loads(bundle)["files"] == {"main.py": WAITER}


def test_arguments_are_checked_by_their_types(raw):
    _, ctx = raw.ask("context", "create", ["", None, ""])
    wrong = [
        ("append", [ctx, [-1]]),
        ("append", [ctx, [True]]),
        ("append", [ctx, "text"]),
        ("append", [ctx]),
        ("append-text", [ctx, 5, True]),
        ("append-text", [ctx, "x", 1]),
        ("place", [ctx, [1], {"positions": None}]),
    ]
    for function, arguments in wrong:
        kind, code, _message, _retry = raw.ask("context", function, arguments)
        assert (kind, code) == ("error", "invalid-input"), (function, arguments)
    assert raw.ask("log", "write", ["nowhere", "x"])[:2] == ["error", "invalid-input"]
    assert raw.ask("context", "append-text", [ctx, "half \ud800", True])[0] == "ok"
    assert raw.ask("context", "length", [ctx])[0] == "ok"


def test_a_wait_can_be_interrupted_and_nothing_is_lost(raw):
    _, message = raw.ask("session", "receive", [])
    raw.send("call", "futures", "wait-any", [None])
    raw.send("interrupt")
    assert raw.read() == ["ok", []]
    raw.process.send("late")
    raw.send("interrupt")  # after the wait is over: it is for none
    assert raw.ask("futures", "wait-any", [None]) == ["ok", [message]]
    assert raw.ask("session", "finish-receive", [message]) == ["ok", '"late"']


def test_an_interrupt_that_comes_along_with_its_wait_ends_it(raw):
    raw.ask("session", "receive", [])
    frames = [json.dumps(frame).encode() for frame in (["call", "futures", "wait-any", [None]], ["interrupt"])]
    raw.socket.sendall(b"".join(HEADER.pack(len(frame)) + frame for frame in frames))
    host, (number,) = raw.engine.host, raw.engine.host.guests.sockets
    host.look_outside(number)  # once: a host's process looks again when something more comes
    for _ in range(3):
        host.run(0.1)
    assert raw.read() == ["ok", []]


def test_frames_may_come_in_pieces(raw):
    frame = json.dumps(["call", "runtime", "process-id", []]).encode()
    for byte in HEADER.pack(len(frame)) + frame:
        raw.socket.sendall(bytes([byte]))
        raw.turn()
    assert raw.read() == ["ok", raw.process.pid]


def test_large_results_wait_until_they_are_taken(raw):
    call = json.dumps(["call", "model", "encode", ["", "x" * 400_000, True]]).encode()
    writer = threading.Thread(target=raw.socket.sendall, args=(HEADER.pack(len(call)) + call,))
    writer.start()
    while writer.is_alive() or not any(raw.engine.host.guests.sockets.values()):
        raw.turn()

    got: list[object] = []
    reader = threading.Thread(target=lambda: got.append(raw.read()))
    reader.start()
    while reader.is_alive():
        raw.turn()
    assert got[0][0] == "ok"
    assert list(raw.engine.host.guests.sockets.values()) == [False]


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b'["what"]', "this is no call"),
        (b"{", "is not JSON"),
        (b'["call", "context", "nothing", []]', "which this engine does not have"),
    ],
)
def test_who_says_something_else_is_ended(raw, sent, message):
    raw.socket.sendall(HEADER.pack(len(sent)) + sent)
    raw.turn()
    assert message in raw.process.error.message


def test_a_frame_that_is_too_long_is_refused(raw):
    raw.socket.sendall(HEADER.pack(2**31))
    raw.turn()
    assert "2048 MiB is more than the 64" in raw.process.error.message


def test_a_call_that_cannot_fail_and_does_ends_the_program(raw):
    raw.send("call", "runtime", "at", [1, 2])
    assert raw.read()[0] == "trap"
    assert isinstance(raw.process.error.raised(), InvalidInput)


def test_nobody_at_the_socket_ends_the_process(fake, tmp_path):
    process = fake.launch(Bundle(Manifest(name="p"), {"main.py": WAITER}), native=str(tmp_path / "nobody"))
    fake.turn()
    with pytest.raises(PieError, match="there is nobody any more"):
        assert process.value
