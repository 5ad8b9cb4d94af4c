"""A tap that writes down every host call of a process and what came of it: enough to run it again without an engine.

Entries, version 1, as msgpack arrays; times are microseconds, `at` since the launch:

    ["head", {program, version, digest, pid, user, bundle, arguments, time}]
    ["call", at, took, "context.append", [argument, …], result]
    ["fail", at, took, "context.append", [argument, …], [code, message, retry]]
    ["wait", at, took, timeout or nil, [future, …]]
    ["refused", at, took, timeout or nil, [code, message, retry]]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from pie_engine.errors import PieError
from pie_engine.host.imports import plain_error
from pie_engine.host.tap import Import
from pie_engine.host.trace import TraceWriter

if TYPE_CHECKING:
    from pie_engine.host.process import Process

VERSION = 1
UNRECORDED = frozenset({("runtime", "store-code")})
"""What says nothing about the run: whether code was compiled before."""


class RecordTap:
    """Writes the recording of one process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._began_ns = time.monotonic_ns()
        self._writer = TraceWriter(process.events, "record", VERSION, process.limits.engine.trace_mb)
        self._add(["head", _head(process)])

    def call(
        self,
        function: Import,
        arguments: Sequence[Any],
        result: Any,
        error: BaseException | None,
        began_ns: int,
        ended_ns: int,
    ) -> None:
        if (function.interface, function.function) in UNRECORDED:
            return
        name = f"{function.interface}.{function.function}"
        kind, outcome = ("call", function.plain(result)) if error is None else ("fail", _failure(error))
        self._add([kind, *self._times(began_ns, ended_ns), name, arguments, outcome])

    def waited(
        self, timeout_us: int | None, ready: Sequence[int], error: PieError | None, began_ns: int, ended_ns: int
    ) -> None:
        kind, outcome = ("wait", ready) if error is None else ("refused", _failure(error))
        self._add([kind, *self._times(began_ns, ended_ns), timeout_us, outcome])

    def ended(self) -> None:
        self._writer.flush()

    def _times(self, began_ns: int, ended_ns: int) -> tuple[int, int]:
        return (began_ns - self._began_ns) // 1000, (ended_ns - began_ns) // 1000

    def _add(self, entry: list[Any]) -> None:
        if self._process.job.secrets.values:
            entry = _redacted(entry, self._process.redact)
        if self._writer.add(entry):
            self._process.has_trace()


def _redacted(value: Any, redact: Callable[[str], str]) -> Any:
    """With every text in it redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: _redacted(each, redact) for key, each in value.items()}
    return [_redacted(each, redact) for each in value] if isinstance(value, list | tuple) else value


def _failure(error: BaseException) -> list[Any]:
    record = plain_error(error)
    return [record.code, record.message, record.retry]


def _head(process: Process) -> dict[str, Any]:
    job, manifest = process.job, process.program.manifest
    return {
        "program": manifest.name,
        "version": manifest.version,
        "digest": process.program.digest,
        "pid": process.pid,
        "user": job.user,
        "bundle": msgspec.to_builtins(process.program.bundle, builtin_types=(bytes,)),
        "arguments": list(job.arguments),
        "time": time.time(),
    }
