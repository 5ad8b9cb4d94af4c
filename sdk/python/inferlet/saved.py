"""Contexts on the disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from inferlet import _checks, _transport
from inferlet._context_handle import ContextHandle, ContextTokens
from inferlet._loop import finished
from inferlet._plain_json import readable_json
from inferlet._transcript import Transcript
from inferlet.model import Model


@dataclass(slots=True)
class SavedContext:
    """What `Context.list` tells of a context on the disk."""

    name: str
    num_tokens: int
    num_bytes: int
    saved_at: float
    """Seconds since the epoch."""


class Saving(ContextHandle):
    """What a `Context` does with the disk."""

    async def save(self, name: str, *, durable: bool = True) -> None:
        """Keep the context on the disk under `name`, in place of what had the name; wait until it is there to stay.

        `durable=False` waits only until its KV is set aside, and goes on while it is written. Until that is done,
        `open` finds what was there before; a failure then is no exception, but an error in the log of the process.

        Names belong to the user and the model; they survive the end of the program and of the daemon. Raises
        `LimitExceeded` with the numbers when the disk or the user's share of it is full.
        """
        wire = _transport.host.context
        _checks.text("the name of a saved context", name)
        ctx = self._idle_id("save")
        self._chat.sync()
        state = {"chat": self._chat.state(), "last_text": self._last_text}
        await finished(_transport.call(wire.save, ctx, name, readable_json(state), bool(durable)), wire.finish_save)

    @classmethod
    def open(
        cls, name: str, model: Model | str | None = None, *, seed: int | None = None, tools: Sequence[Any] = ()
    ) -> Self:
        """A context with what was saved under `name`, chat and all, without computing it again.

        It is a copy: what is done with it leaves the saved one alone. `tools` are those of `Context()`. Raises
        `NotFound`, and `InvalidInput` when the name was saved with other weights or another dtype than the model has
        now, or with an adapter that is not loaded under its name.
        """
        context = cls.__new__(cls)
        context._id, context.tools = None, [*tools]
        context.model = model if isinstance(model, Model) else Model(model or "")
        wire = _transport.host.context
        _checks.text("the name of a saved context", name)
        opened = _transport.call(wire.open, context.model._name, name, _checks.seed(seed))
        context._adapter = opened.adapter
        context._adopt(opened.ctx, None)
        state = json.loads(opened.meta)
        context._chat = Transcript.restored(ContextTokens(context), state["chat"])
        context._last_text = state["last_text"]
        return context

    @staticmethod
    def delete(name: str, model: Model | str | None = None) -> None:
        """Remove a saved context. Contexts that were opened from it live on. Raises `NotFound`."""
        _checks.text("the name of a saved context", name)
        _transport.call(_transport.host.context.delete, _model_name(model), name)

    @staticmethod
    def list(model: Model | str | None = None) -> Sequence[SavedContext]:
        """The saved contexts of this user and model, by name."""
        found = _transport.call(_transport.host.context.list_saved, _model_name(model))
        return [SavedContext(each.name, each.num_tokens, each.num_bytes, each.saved_at) for each in found]


def _model_name(model: Model | str | None) -> str:
    return model._name if isinstance(model, Model) else model or ""
