"""`generate`: plans, which the core runs ahead of the program."""

from __future__ import annotations

from typing import Any

from pie_engine.host.imports import Function
from pie_engine.host.operations import ChunkOutput, SearchOperation, SearchOutput, Stream
from pie_engine.host.process import Process
from pie_engine.host.samplers import sampler_of
from pie_engine.protocol.plan import BeamPlan, Grammar, Plan, Speculation, Usage
from pie_engine.protocol.to_host import Chunk


def start(process: Process, ctx: int, plan: dict[str, Any]) -> int:
    rest = dict(plan)
    sampler = sampler_of(rest.pop("sampler"))
    grammar = Grammar(**fields) if (fields := rest.pop("grammar", None)) else None
    speculation = Speculation(**fields) if (fields := rest.pop("speculation", None)) else None
    made = Plan(sampler=sampler, grammar=grammar, speculation=speculation, **rest)
    return process.futures.add(Stream(process.context(ctx), made))


def take_next(process: Process, stream: int) -> Chunk | ChunkOutput | None:
    chunk = process.futures.get(stream, Stream).next()
    return ChunkOutput.of(chunk) if chunk is not None and chunk.top else chunk


def stop(process: Process, stream: int) -> Usage:
    return process.futures.get(stream, Stream).stop()


def draft(process: Process, stream: int, index: int, tokens: list[int]) -> None:
    process.futures.get(stream, Stream).draft(index, tokens)


def rewind(process: Process, stream: int, count: int) -> None:
    process.futures.get(stream, Stream).rewind(count)


def inject(process: Process, stream: int, tokens: list[int]) -> None:
    process.futures.get(stream, Stream).inject(tokens)


def pipe(process: Process, stream: int) -> None:
    process.futures.get(stream, Stream).pipe()


def search(process: Process, ctx: int, plan: dict[str, Any]) -> int:
    rest = dict(plan)
    grammar = Grammar(**fields) if (fields := rest.pop("grammar", None)) else None
    return process.futures.add(SearchOperation(process.context(ctx), BeamPlan(grammar=grammar, **rest)))


def finish_search(process: Process, done: int) -> SearchOutput:
    return process.futures.get(done, SearchOperation).finish()


FUNCTIONS: dict[str, Function] = {
    "start": start,
    "next": take_next,
    "stop": stop,
    "draft": draft,
    "rewind": rewind,
    "inject": inject,
    "pipe": pipe,
    "search": search,
    "finish-search": finish_search,
}
