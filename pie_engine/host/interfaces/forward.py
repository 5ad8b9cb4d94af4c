"""`forward`: one pass at a time, the program runs the loop."""

from __future__ import annotations

from typing import Any

from pie_engine.host.imports import Function
from pie_engine.host.operations import PassOperation, PassOutput
from pie_engine.host.process import Process
from pie_engine.host.samplers import sampler_of
from pie_engine.protocol.placement import Placement
from pie_engine.protocol.sampling import NO_PROBES, Probes


def start(
    process: Process,
    ctx: int,
    tokens: list[int],
    sampler: dict[str, Any] | None,
    probes: dict[str, Any] | None,
    prompt_length: int,
    matcher: int | None,
    placement: dict[str, Any] | None,
) -> int:
    how = None if sampler is None else sampler_of(sampler)
    what = NO_PROBES if probes is None else Probes(**probes)
    held = None if matcher is None else process.matcher(matcher)
    where = None if placement is None else Placement(**placement)
    return process.futures.add(PassOperation(process.context(ctx), tokens, how, what, prompt_length, held, where))


def finish(process: Process, done: int) -> PassOutput:
    return process.futures.get(done, PassOperation).finish()


FUNCTIONS: dict[str, Function] = {"start": start, "finish": finish}
