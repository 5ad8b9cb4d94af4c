"""A tap that writes down every host call of a process and what came of it: enough to run it again without an engine.

The entries are those of `protocol/recording.py`. The guest of a recorded process begins as a replay's does: in a new
instance, compiling its own source.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from pie_engine.errors import ErrorInfo
from pie_engine.host.imports import plain_error
from pie_engine.host.surroundings import RealSurroundings
from pie_engine.host.tap import Called, Waited
from pie_engine.host.trace import TraceWriter
from pie_engine.protocol.program import Limits
from pie_engine.protocol.recording import NO_READS, VERSION, WAIT, Call, End, Fail, Head, Piped, Reads

if TYPE_CHECKING:
    from pie_engine.host.process import Ending, Process


class RecordTap:
    """Writes the recording of one process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._began_ns = time.monotonic_ns()
        self._writer = TraceWriter(process.events, "record", VERSION, process.limits.engine.trace_mb)
        self._surroundings = process.surroundings = NotedSurroundings()
        self._redact = process.redact if process.job.secrets.values else None
        self._add(_head(process))
        self._writer.flush()  # whatever happens now, there is something to replay
        process.has_trace()

    def called(self, call: Called) -> None:
        result = None if call.error else call.function.plain(call.result)
        self._add_call(call.function.name, call.arguments, result, call.place[0], call)

    def waited(self, wait: Waited) -> None:
        self._add_call(WAIT, [wait.timeout_us], wait.ready, self._process.places.now[0], wait)

    def _add_call(self, name: str, arguments: Sequence[Any], result: Any, place: str, over: Called | Waited) -> None:
        """`result`: as plain data."""
        at, took = (over.began_ns - self._began_ns) // 1000, (over.ended_ns - over.began_ns) // 1000
        reads = self._surroundings.take()
        if self._redact is not None:
            arguments, result = self._redact.in_data(arguments), self._redact.in_data(result)
        if over.error is None:
            self._add(Call(at, took, place, name, arguments, result, reads))  # type: ignore[arg-type]
        else:
            record = plain_error(over.error)
            message = record.message if self._redact is None else self._redact(record.message)
            failure = record.code, message, record.retry
            self._add(Fail(at, took, place, name, arguments, failure, reads))  # type: ignore[arg-type]

    def piped(self, text: str) -> None:
        self._add(Piped(self._now(), text if self._redact is None else self._redact(text)))

    def ended(self, ending: Ending) -> None:
        failed = isinstance(ending, ErrorInfo)
        value = msgspec.json.encode(ending).decode() if isinstance(ending, ErrorInfo) else ending
        if self._redact is not None:
            value = self._redact.in_json(value)
        kind = "error" if failed else "return"
        self._add(End(self._now(), kind, value, self._process.usage, self._surroundings.take()))  # type: ignore[arg-type]
        self._writer.flush()

    def _now(self) -> int:
        return (time.monotonic_ns() - self._began_ns) // 1000

    def _add(self, entry: Any) -> None:
        if self._writer.add(entry):
            self._process.has_trace()


class NotedSurroundings:
    """The machine's clock and chance, with what was read of them noted."""

    def __init__(self) -> None:
        self._real = RealSurroundings()
        self._last_ns = 0
        self._monotonic: list[int] = []
        self._wall: list[int] = []
        self._random: list[bytes] = []

    def monotonic_ns(self) -> int:
        now_ns = self._real.monotonic_ns()
        self._monotonic.append(now_ns - self._last_ns)
        self._last_ns = now_ns
        return now_ns

    def wall_ns(self) -> int:
        now_ns = self._real.wall_ns()
        self._wall.append(now_ns)
        return now_ns

    def random_bytes(self, count: int) -> bytes:
        drawn = self._real.random_bytes(count)
        self._random.append(drawn)
        return drawn

    def take(self) -> Reads:
        """What was read since the last time."""
        if not (self._monotonic or self._wall or self._random):
            return NO_READS
        reads = Reads(self._monotonic, self._wall, b"".join(self._random))
        self._monotonic, self._wall, self._random = [], [], []
        return reads


def _head(process: Process) -> Head:
    program, limits = process.program, process.limits
    arguments = [process.redact(text) for text in process.job.arguments]
    return Head(
        program.name,
        program.version,
        program.digest,
        process.pid,
        program.bundle,
        arguments,
        time.time(),
        Limits(limits.memory_mb, limits.cpu_s, limits.wall_s or None, limits.output_mb),
        list(process.job.secrets.values),
        process.runtime_build,
    )
