"""What taps write on its way out: batches of entries as events of kind `trace`, bounded by a limit of their own.

An event's data is JSON: `{"tap": "record", "version": 1, "entries": N, "data": base64 of zlib of msgpack}`. The payload
is a list of N entries; what one is, each tap says for its version.
"""

from __future__ import annotations

import base64
import time
import zlib
from collections.abc import Callable
from typing import Any

import msgspec

from pie_engine.config import MIB
from pie_engine.host.events import EventLog, json_text
from pie_engine.protocol.to_host import TraceKind

BATCH_BYTES = 64 * 1024
"""Before compression."""
BATCH_S = 0.25
LEVEL = 1
"""Of zlib: text and token numbers shrink to a quarter, at a tenth of the time that the default takes."""

_encode = msgspec.msgpack.Encoder().encode


class TraceWriter:
    """Entries of one tap of one process, in order. Over `max_bytes` compressed ones it takes no more and says so."""

    def __init__(
        self,
        events: EventLog,
        tap: TraceKind,
        version: int,
        max_mb: float,
        collect: Callable[[], Any] = lambda: None,
    ) -> None:
        """`collect`: what its tap has not added yet, as one entry, or None; asked for before each event."""
        self.is_full = False
        self._events = events
        self._tap: TraceKind = tap
        self._version = version
        self._max_mb = max_mb
        self._num_bytes = 0
        self._collect = collect
        self._packed: list[bytes] = []
        self._num_packed_bytes = 0
        self._flushed_at = time.monotonic()
        events.traces.append(self)

    def add(self, entry: Any) -> bool:
        """One more; whether events came of it, which are then to be sent. `entry` is of builtin types."""
        if self.is_full:
            return False
        self._keep(entry)
        if self._num_packed_bytes < BATCH_BYTES and time.monotonic() - self._flushed_at < BATCH_S:
            return False
        self.flush()
        return True

    def flush_old(self) -> bool:
        """Make an event of what has been there for a while; whether there was something."""
        return time.monotonic() - self._flushed_at >= BATCH_S and self.flush()

    def flush(self) -> bool:
        """Make an event of what there is; whether there was something."""
        self._flushed_at = time.monotonic()
        rest = self._collect()
        if rest is not None and not self.is_full:
            self._keep(rest)
        if not self._packed:
            return False
        num_entries = len(self._packed)
        packed = zlib.compress(_array_head(num_entries) + b"".join(self._packed), LEVEL)
        self._packed.clear()
        self._num_packed_bytes = 0
        if self._num_bytes + len(packed) > self._max_mb * MIB:
            self._stop()
        else:
            self._num_bytes += len(packed)
            self._events.add("trace", json_text(self._head(num_entries, base64.b64encode(packed).decode())))
        return True

    def _keep(self, entry: Any) -> None:
        raw = _encode(entry)
        self._packed.append(raw)
        self._num_packed_bytes += len(raw)

    def _stop(self) -> None:
        self.is_full = True
        self._events.add("trace", json_text({**self._head(0, ""), "full_mb": self._max_mb}))
        message = (
            f"the {self._tap} of this process ends here: it has reached {self._max_mb:g} MiB; "
            "raise `trace_mb` under [host] in the configuration"
        )
        self._events.add("log", json_text({"level": "warning", "message": message}))

    def _head(self, num_entries: int, data: str) -> dict[str, object]:
        return {"tap": self._tap, "version": self._version, "entries": num_entries, "data": data}


def _array_head(length: int) -> bytes:
    """Of a msgpack array."""
    if length < 16:
        return bytes([0x90 | length])
    return b"\xdc" + length.to_bytes(2, "big") if length < 1 << 16 else b"\xdd" + length.to_bytes(4, "big")
