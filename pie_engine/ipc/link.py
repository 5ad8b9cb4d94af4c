"""ZeroMQ links between processes: typed messages, many in one frame, refused unless both ends know each other.

Each process binds one `Hub` (ROUTER) and connects one `Link` (DEALER) to each hub that it talks to. Every frame is an
envelope with the boot ids of sender and receiver; one meant for an earlier process at the same address is dropped,
so nothing that was said to a dead process reaches its successor.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec
import zmq

In = TypeVar("In")
log = logging.getLogger(__name__)

UNLIMITED = 0
LINGER_MS = 500


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """Header of a frame; the messages follow as a second part, already encoded."""

    sender: str
    receiver: str


_encode = msgspec.msgpack.Encoder().encode
_decode_envelope = msgspec.msgpack.Decoder(Envelope).decode


class Link(Generic[In]):
    """The connecting end. `accepts` is the union of message types that come back."""

    def __init__(self, context: zmq.Context[Any], address: str, own_boot: str, peer_boot: str, accepts: Any) -> None:
        self.peer_boot = peer_boot
        self._own_boot = own_boot
        self._header = _encode(Envelope(own_boot, peer_boot))
        self._decode = msgspec.msgpack.Decoder(list[accepts]).decode
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.IDENTITY, own_boot.encode())
        _configure(self.socket)
        self.socket.connect(address)

    def send(self, messages: Sequence[Any]) -> None:
        """Queue all messages as one frame; never blocks."""
        self.socket.send_multipart([self._header, _encode(messages)], copy=True)

    def receive(self) -> list[In]:
        """Everything that has arrived, in order; empty when there is nothing."""
        arrived: list[In] = []
        while True:
            try:
                header, body = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return arrived
            envelope = _decode_envelope(header)
            if envelope.sender != self.peer_boot or envelope.receiver != self._own_boot:
                log.warning("frame from %s to %s dropped: stale boot id", envelope.sender, envelope.receiver)
                continue
            arrived.extend(self._decode(body))

    def close(self) -> None:
        self.socket.close()


class Hub(Generic[In]):
    """The binding end: many peers, told apart by their boot ids."""

    def __init__(self, context: zmq.Context[Any], address: str, own_boot: str, accepts: Any) -> None:
        self._own_boot = own_boot
        self._headers: dict[str, bytes] = {}
        self._decode = msgspec.msgpack.Decoder(list[accepts]).decode
        self.socket = context.socket(zmq.ROUTER)
        _configure(self.socket)
        # A peer that is not (or no longer) connected: the frame is dropped. Its death is told by the daemon.
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 0)
        self.socket.bind(address)

    def send(self, peer_boot: str, messages: Sequence[Any]) -> None:
        header = self._headers.get(peer_boot)
        if header is None:
            header = self._headers[peer_boot] = _encode(Envelope(self._own_boot, peer_boot))
        self.socket.send_multipart([peer_boot.encode(), header, _encode(messages)], copy=True)

    def receive(self) -> list[tuple[str, list[In]]]:
        """Everything that has arrived: (peer's boot id, messages), in order."""
        arrived: list[tuple[str, list[In]]] = []
        while True:
            try:
                identity, header, body = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return arrived
            envelope = _decode_envelope(header)
            if envelope.receiver != self._own_boot or envelope.sender != identity.decode():
                log.warning("frame from %s to %s dropped: stale boot id", envelope.sender, envelope.receiver)
                continue
            arrived.append((envelope.sender, self._decode(body)))

    def forget(self, peer_boot: str) -> None:
        self._headers.pop(peer_boot, None)

    def close(self) -> None:
        self.socket.close()


def _configure(socket: zmq.Socket[Any]) -> None:
    # Flow is bounded by the protocol (run-ahead window, output limits), not by dropping frames.
    socket.setsockopt(zmq.SNDHWM, UNLIMITED)
    socket.setsockopt(zmq.RCVHWM, UNLIMITED)
    socket.setsockopt(zmq.LINGER, LINGER_MS)
