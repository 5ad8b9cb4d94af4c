"""What is said on the socket between a native program and its host: see `pie_engine/host/native.py`.

JSON, since this side may be a Python that has nothing but its standard library.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

HEADER = struct.Struct(">I")


class Gone(Exception):
    """The host has closed the connection: the process has ended."""


class Connection:
    """Frames both ways; reading waits."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._rest = b""

    def send(self, *frame: Any) -> None:
        raw = json.dumps(frame, separators=(",", ":")).encode()
        try:
            self._socket.sendall(HEADER.pack(len(raw)) + raw)
        except OSError as error:
            raise Gone from error

    def receive(self) -> Any:
        """The next frame. What has arrived of one is kept when Ctrl-C interrupts this."""
        size = HEADER.unpack(self._there(HEADER.size))[0]
        end = HEADER.size + size
        raw = self._there(end)
        self._rest = self._rest[end:]
        return json.loads(raw[HEADER.size :])

    def _there(self, size: int) -> bytes:
        """The first `size` bytes of what has not been read; they stay."""
        if len(self._rest) < size:
            pieces = [self._rest]
            missing = size - len(self._rest)
            try:
                while missing > 0:
                    piece = self._piece()
                    pieces.append(piece)
                    missing -= len(piece)
            finally:
                self._rest = b"".join(pieces)
        return self._rest[:size]

    def _piece(self) -> bytes:
        try:
            piece = self._socket.recv(1 << 18)
        except OSError as error:
            raise Gone from error
        if not piece:
            raise Gone
        return piece

    def close(self) -> None:
        self._socket.close()
