"""`context`: token sequences. What changes one is told to its core in order; what reads one is answered here."""

from __future__ import annotations

from pie_engine.host.imports import Function
from pie_engine.host.models import pack_tokens, unpack_tokens
from pie_engine.host.operations import FlushOperation
from pie_engine.host.process import Process


def create(process: Process, model: str, seed: int | None) -> int:
    return process.create_context(model, seed).ctx


def append(process: Process, ctx: int, tokens: list[int]) -> None:
    process.context(ctx).append(tokens)


def append_packed(process: Process, ctx: int, tokens: str) -> None:
    process.context(ctx).append(unpack_tokens(tokens))


def encode(process: Process, ctx: int, text: str) -> str:
    context = process.context(ctx)
    return pack_tokens(context.core.model.tokenizer.encode_after(context.tokens, text))


def append_text(process: Process, ctx: int, text: str, special: bool) -> int:
    context = process.context(ctx)
    tokens = context.core.model.tokenizer.encode_after(context.tokens, text, special=special)
    context.append(tokens)
    return len(tokens)


def flush(process: Process, ctx: int) -> int:
    return process.futures.add(FlushOperation(process.context(ctx)))


def finish_flush(process: Process, done: int) -> None:
    process.futures.get(done, FlushOperation).finish()


def fork(process: Process, ctx: int) -> int:
    return process.adopt(process.context(ctx).fork()).ctx


def truncate(process: Process, ctx: int, length: int) -> None:
    process.context(ctx).truncate(length)


def release(process: Process, ctx: int) -> None:
    process.release_context(ctx)


def length(process: Process, ctx: int) -> int:
    return len(process.context(ctx).tokens)


def tokens(process: Process, ctx: int, start: int, end: int) -> str:
    return pack_tokens(process.context(ctx).tokens[start:end])


FUNCTIONS: dict[str, Function] = {
    "create": create,
    "append": append,
    "append-packed": append_packed,
    "append-text": append_text,
    "encode": encode,
    "flush": flush,
    "finish-flush": finish_flush,
    "fork": fork,
    "truncate": truncate,
    "release": release,
    "length": length,
    "tokens": tokens,
}
