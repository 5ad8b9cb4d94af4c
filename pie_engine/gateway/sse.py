"""Server-sent events: how an event looks on the wire, and the newest ones of a process kept at hand."""

from __future__ import annotations

from collections import deque

KEEP_ALIVE = b": keep-alive\n\n"
MAX_TAIL_BYTES = 32 * 1024


def frame(seq: int, kind: str, data: str) -> bytes:
    if "\n" in data or "\r" in data:
        # JSON may be spread over lines; each is a `data:` of its own, and the reader joins them.
        # Not `splitlines`: the characters that it also splits at are ordinary ones inside a JSON string.
        data = data.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\ndata: ")
    return f"id: {seq}\nevent: {kind}\ndata: {data}\n\n".encode()


class Tail:
    """The newest frames, bounded in bytes, so that who keeps up never reads the database.

    Invariant: every stored event after `floor` is here.
    """

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self._frames: deque[tuple[int, bytes, bool]] = deque()
        self._num_bytes = 0

    def push(self, seq: int, data: bytes, *, is_trace: bool = False) -> None:
        self._frames.append((seq, data, is_trace))
        self._num_bytes += len(data)
        while self._num_bytes > MAX_TAIL_BYTES:
            self.floor, dropped, _ = self._frames.popleft()
            self._num_bytes -= len(dropped)

    def forget(self, seq: int) -> None:
        """Everything up to `seq`, which is all there is."""
        self.floor = seq
        self._frames.clear()
        self._num_bytes = 0

    def after(self, cursor: int, *, with_trace: bool = True) -> list[bytes] | None:
        """The frames after `cursor`; None: only the store has them all."""
        if cursor < self.floor:
            return None
        return [data for seq, data, is_trace in self._frames if seq > cursor and (with_trace or not is_trace)]
