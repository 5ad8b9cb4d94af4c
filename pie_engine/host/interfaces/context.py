"""`context`: token sequences. What changes one is told to its core in order; what reads one is answered here."""

from __future__ import annotations

from typing import Any

import msgspec

from pie_engine.errors import InvalidInput
from pie_engine.host.imports import Function
from pie_engine.host.models import pack_tokens, unpack_tokens
from pie_engine.host.operations import FlushOperation, SaveOperation
from pie_engine.host.process import Process
from pie_engine.protocol.placement import Placement


def create(process: Process, model: str, seed: int | None, adapter: str) -> int:
    return process.create_context(model, seed, adapter).ctx


def append(process: Process, ctx: int, tokens: list[int]) -> None:
    process.context(ctx).append(tokens)


def place(process: Process, ctx: int, tokens: list[int], placement: dict[str, Any]) -> None:
    process.context(ctx).append(tokens, Placement(**placement))


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


def drop(process: Process, ctx: int, first: int, end: int) -> None:
    process.context(ctx).drop(first, end)


def slide(process: Process, ctx: int, window: int, sinks: int) -> None:
    process.context(ctx).slide(window, sinks)


def release(process: Process, ctx: int) -> None:
    process.release_context(ctx)


class Opened(msgspec.Struct, frozen=True):
    """`context.opened`"""

    ctx: int
    meta: str
    adapter: str


class SavedContext(msgspec.Struct, frozen=True):
    """`context.saved`"""

    name: str
    num_tokens: int
    num_bytes: int
    saved_at: float


def save(process: Process, ctx: int, name: str, meta: str, durable: bool) -> int:
    return process.futures.add(SaveOperation(process.context(ctx), name, meta, durable))


def finish_save(process: Process, done: int) -> None:
    process.futures.get(done, SaveOperation).finish()


def open_saved(process: Process, model: str, name: str, seed: int | None) -> Opened:
    core = process.core(model)
    manifest = process.saved.read(process.job.user, core.model.name, name)
    if manifest.model_id != core.model.model_id:
        raise InvalidInput(
            f"saved context `{name}` belongs to another model: it was saved with {manifest.model_id}, and "
            f"{core.model.name} is {core.model.model_id} now",
            hint="load the model that it was saved with (weights and dtype), or delete it and save it again",
        )
    adapter = core.adapters.get(manifest.adapter)
    if manifest.adapter and (adapter is None or adapter.adapter_id != manifest.adapter_id):
        what = "is not loaded" if adapter is None else "has other content now"
        raise InvalidInput(
            f"saved context `{name}` was computed with the adapter `{manifest.adapter}`, which {what}",
            hint="load the adapter that it was saved with under that name, or delete it and save it again",
        )
    context = process.create_context(model, seed, manifest.adapter)
    context.restore(name, manifest.tokens, manifest.seen)
    return Opened(context.ctx, manifest.meta, manifest.adapter)


def delete(process: Process, model: str, name: str) -> None:
    process.saved.delete(process.job.user, process.core(model).model.name, name)


def list_saved(process: Process, model: str) -> list[SavedContext]:
    return [
        SavedContext(manifest.name, len(manifest.tokens), manifest.blob_bytes, manifest.saved_at)
        for manifest in process.saved.list(process.job.user, process.core(model).model.name)
    ]


def length(process: Process, ctx: int) -> int:
    return len(process.context(ctx).tokens)


def tokens(process: Process, ctx: int, start: int, end: int) -> str:
    return pack_tokens(process.context(ctx).tokens[start:end])


FUNCTIONS: dict[str, Function] = {
    "create": create,
    "append": append,
    "place": place,
    "append-packed": append_packed,
    "append-text": append_text,
    "encode": encode,
    "flush": flush,
    "finish-flush": finish_flush,
    "fork": fork,
    "truncate": truncate,
    "drop": drop,
    "slide": slide,
    "release": release,
    "save": save,
    "finish-save": finish_save,
    "open": open_saved,
    "delete": delete,
    "list-saved": list_saved,
    "length": length,
    "tokens": tokens,
}
