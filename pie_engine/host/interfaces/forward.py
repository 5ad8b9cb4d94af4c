"""`forward`: one pass at a time, the program runs the loop."""

from __future__ import annotations

from typing import Any

from pie_engine.host.imports import Function
from pie_engine.host.operations import PassOperation, PassOutput
from pie_engine.host.process import Process
from pie_engine.protocol.sampling import Sampler


def start(process: Process, ctx: int, tokens: list[int], sampler: dict[str, Any] | None, top_k: int) -> int:
    how = None if sampler is None else Sampler(**sampler)
    return process.futures.add(PassOperation(process.context(ctx), tokens, how, top_k))


def finish(process: Process, done: int) -> PassOutput:
    return process.futures.get(done, PassOperation).finish()


FUNCTIONS: dict[str, Function] = {"start": start, "finish": finish}
