"""A tap that writes down when a process called its host, when it waited and what its cores did meanwhile.

The entries are those of `protocol/profile.py`.
"""

from __future__ import annotations

import time
import zlib
from array import array
from typing import TYPE_CHECKING, Any

from pie_engine.errors import ErrorInfo
from pie_engine.host.imports import plain_error
from pie_engine.host.noted import noted_of
from pie_engine.host.tap import Called, Waited
from pie_engine.host.trace import TraceWriter
from pie_engine.protocol.profile import VERSION, Call, Core, End, Entry, Head, Ran, Wait
from pie_engine.protocol.to_host import Profiled

if TYPE_CHECKING:
    from pie_engine.host.process import Ending, Process

FIRST_TOKENS = 32


class ProfileTap:
    """Writes the profile of one process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._writer = TraceWriter(process.events, "profile", VERSION, process.limits.engine.trace_mb)
        self._beginnings: dict[int, int] = {}
        """How many tokens of each context have been digested."""
        self._resumed_ns = 0
        """When the guest went on; 0: it was put off, or has not run yet."""
        self._stopped_ns = 0
        """When it was last left."""
        process.profile = self
        now_us = time.monotonic_ns() // 1000
        self._add(Head(now_us, process.program.name, process.program.version, process.pid, time.time()))

    def called(self, call: Called) -> None:
        function, arguments, result, error, began_ns, ended_ns = call
        noted = noted_of(function.name)
        if noted is None:
            return
        process = self._process
        if error is not None:
            detail: dict[str, Any] = {"error": plain_error(error).code}
        else:
            detail = {} if noted.detail is None else noted.detail(arguments, result)
        if noted.reads_prompt and (beginnings := self._digests(int(arguments[0]))):
            detail["beginnings"] = beginnings
        self._add(
            Call(
                began_ns // 1000,
                (ended_ns - began_ns) // 1000,
                process.place,
                process.task,
                function.name,
                0 if noted.handle is None else noted.handle(arguments, result) or 0,
                0 if noted.ctx is None else noted.ctx(arguments, result) or 0,
                detail,
            )
        )

    def waited(self, wait: Waited) -> None:
        timeout_us, ready, _, began_ns, ended_ns = wait
        if began_ns == ended_ns:
            return
        self._resumed_ns = ended_ns
        began_ns = max(began_ns, self._stopped_ns)
        self._add(Wait(began_ns // 1000, (ended_ns - began_ns) // 1000, timeout_us is not None, len(ready)))

    def piped(self, text: str) -> None:
        """The steps say that already."""

    def ran(self, cpu_ns: int) -> None:
        """The guest has stopped to run; it took so much processor time since it went on."""
        now_ns = time.monotonic_ns()
        began_ns = self._resumed_ns or max(now_ns - cpu_ns, self._stopped_ns)
        self._resumed_ns, self._stopped_ns = 0, now_ns
        self._add(Ran(began_ns // 1000, (now_ns - began_ns) // 1000, cpu_ns // 1000))

    def core(self, model: str, times: Profiled) -> None:
        """News of a core."""
        self._add(Core(model, times.num_pages, times.page_size, times.operations, times.steps, times.forks))

    def ended(self, ending: Ending) -> None:
        self._add(End(time.monotonic_ns() // 1000, ending.code if isinstance(ending, ErrorInfo) else "return"))
        self._writer.flush()

    def _digests(self, ctx: int) -> list[int]:
        """CRC-32 of the first 32, 64, 128, … tokens of a context that has grown to twice its length since."""
        context = self._process.contexts.get(ctx)
        num_tokens = 0 if context is None else len(context.tokens)
        if context is None or num_tokens < max(FIRST_TOKENS, 2 * self._beginnings.get(ctx, 0)):
            return []
        self._beginnings[ctx] = num_tokens
        digests, digest, start, end = [], 0, 0, FIRST_TOKENS
        while end <= num_tokens:
            digest = zlib.crc32(array("i", context.tokens[start:end]).tobytes(), digest)
            digests.append(digest)
            start, end = end, 2 * end
        return digests

    def _add(self, entry: Entry) -> None:
        if self._writer.add_small(entry):
            self._process.has_trace()
