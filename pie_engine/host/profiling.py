"""A tap that writes down when a process called its host, when it waited and what its cores did meanwhile.

The entries are those of `protocol/profile.py`. A program that runs pass after pass makes a few of them for each token,
so one is a handful of numbers behind others here; they are packed, compressed and sent a few times a second.
"""

from __future__ import annotations

import time
import zlib
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pie_engine.errors import ErrorInfo
from pie_engine.host.imports import plain_error
from pie_engine.host.noted import NOTED, NOTHING, Noted
from pie_engine.host.tap import Called, Place, Waited
from pie_engine.host.trace import TraceWriter
from pie_engine.protocol.profile import CALL_COLUMNS, VERSION, Batch, Core, End, Head
from pie_engine.protocol.to_host import Profiled

if TYPE_CHECKING:
    from pie_engine.host.process import Ending, Process

FIRST_TOKENS = 32
MAX_NUMBERS = 4096 * CALL_COLUMNS
"""Of the calls of a batch."""


class ProfileTap:
    """Writes the profile of one process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._writer = TraceWriter(process.events, "profile", VERSION, process.limits.engine.trace_mb, self._take_batch)
        self._next_digests: dict[int, int] = {}
        """By context: how many tokens it has when its beginnings are digested next."""
        self._resumed_ns = 0
        """When the guest went on; 0: it was put off, or has not run yet."""
        self._stopped_ns = 0
        """When it was last left."""
        self._begin_batch()
        process.profile = self
        now_us = time.monotonic_ns() // 1000
        self._writer.add(Head(now_us, process.program.name, process.program.version, process.pid, time.time()))

    def _begin_batch(self) -> None:
        self._sites: dict[tuple[Place, str], int] = {}
        self._calls: list[int] = []
        self._details: list[tuple[int, dict[str, Any]]] = []
        self._waits: list[int] = []
        self._runs: list[int] = []
        self._cores: dict[str, Core] = {}
        self._called_us = self._waited_us = self._ran_us = 0
        """Where the rows before began."""

    def _take_batch(self) -> Batch | None:
        if not (self._calls or self._waits or self._runs or self._cores):
            return None
        rows = self._calls, self._details, self._waits, self._runs
        sites = [(*place, name) for place, name in self._sites]
        batch = Batch(sites, *rows, list(self._cores.values()))
        self._begin_batch()
        return batch

    def called(self, call: Called) -> None:
        name, arguments, calls = call.function.name, call.arguments, self._calls
        site = call.place, name
        number = self._sites.get(site)
        if number is None:
            number = self._sites[site] = len(self._sites)
        noted = NOTED.get(name, NOTHING)
        row, detail, reads_prompt = noted[:3]
        if call.error is None:
            handle, ctx, num_tokens = row(arguments, call.result)
        else:
            handle, ctx, num_tokens = noted.failed_row(arguments)
        if detail is not None or call.error is not None:
            self._add_detail(noted, call)
        if reads_prompt:
            self._add_beginnings(ctx)
        began_ns = call.began_ns
        at = began_ns // 1000
        calls += (at - self._called_us, (call.ended_ns - began_ns) // 1000, number, handle, ctx, num_tokens)
        self._called_us = at
        if len(calls) >= MAX_NUMBERS and self._writer.flush():
            self._process.has_trace()

    def _add_detail(self, noted: Noted, call: Called) -> None:
        """What there is besides the number of tokens."""
        if call.error is not None:
            self._details.append((self._num_calls, {"error": plain_error(call.error).code}))
        elif noted.detail is not None and (detail := noted.detail(call.arguments, call.result)):
            self._details.append((self._num_calls, detail))

    def _add_beginnings(self, ctx: int) -> None:
        """Of the tokens of a context, when it has grown to twice its length since."""
        context = self._process.contexts.get(ctx)
        if context is not None and len(context.tokens) >= self._next_digests.get(ctx, FIRST_TOKENS):
            self._next_digests[ctx] = 2 * len(context.tokens)
            self._details.append((self._num_calls, {"beginnings": beginnings_of(context.tokens)}))

    @property
    def _num_calls(self) -> int:
        return len(self._calls) // CALL_COLUMNS

    def waited(self, wait: Waited) -> None:
        began_ns, ended_ns = wait.began_ns, wait.ended_ns
        if began_ns == ended_ns:
            return
        self._resumed_ns = ended_ns
        began_ns = max(began_ns, self._stopped_ns)
        at, has_timeout = began_ns // 1000, 0 if wait.timeout_us is None else 1
        self._waits += (at - self._waited_us, (ended_ns - began_ns) // 1000, has_timeout, len(wait.ready))
        self._waited_us = at

    def piped(self, text: str) -> None:
        """The steps say that already."""

    def ran(self, cpu_ns: int) -> None:
        """The guest has stopped to run; it took so much processor time since it went on."""
        now_ns = time.monotonic_ns()
        began_ns = self._resumed_ns or max(now_ns - cpu_ns, self._stopped_ns)
        self._resumed_ns, self._stopped_ns = 0, now_ns
        at = began_ns // 1000
        self._runs += (at - self._ran_us, (now_ns - began_ns) // 1000, cpu_ns // 1000)
        self._ran_us = at

    def core(self, model: str, times: Profiled) -> None:
        """News of a core. Their lists are this profile's from now on."""
        known = self._cores.get(model)
        if known is None:
            self._cores[model] = Core(
                model, times.num_pages, times.page_size, times.operations, times.steps, times.forks
            )
        else:
            known.operations.extend(times.operations)
            known.steps.extend(times.steps)
            known.forks.extend(times.forks)

    def ended(self, ending: Ending) -> None:
        batch = self._take_batch()
        if batch is not None:
            self._writer.add(batch)
        self._writer.add(End(time.monotonic_ns() // 1000, ending.code if isinstance(ending, ErrorInfo) else "return"))
        self._writer.flush()


def beginnings_of(tokens: Sequence[int]) -> list[int]:
    """CRC-32 of the first 32, 64, 128, … of them."""
    digests, digest, start, end = [], 0, 0, FIRST_TOKENS
    while end <= len(tokens):
        digest = zlib.crc32(array("i", tokens[start:end]).tobytes(), digest)
        digests.append(digest)
        start, end = end, 2 * end
    return digests
