"""A context as the host knows it: a number, a transcript, and whether a reply is being generated in it."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Self

from inferlet import _checks, _transport
from inferlet._packing import pack_tokens, unpack_tokens
from inferlet._transcript import Message, Transcript
from inferlet.errors import Busy, InvalidInput, PieError
from inferlet.model import Model
from inferlet.stream import Stream

MAX_LISTED_TOKENS = 256
"""Longer token lists cross to the host packed."""


class ContextHandle:
    """What all that is done with a context needs of it."""

    model: Model
    """That reads and writes it."""
    tools: list[Any]
    """That the chat template shows to the model."""
    _id: int | None
    """None: it has been released."""
    _adapter: str
    """Its name; empty: none."""

    def _adopt(self, ctx: int, chat: Transcript | None) -> None:
        self._id, self._host = ctx, _transport.host
        self._chat = Transcript(ContextTokens(self)) if chat is None else chat.copy(ContextTokens(self))
        self._stream: weakref.ref[Stream] | None = None
        self._last_text = ""

    def release(self) -> None:
        """Free the pages now. The context cannot be used any more; releasing it again does nothing."""
        if self._id is not None:
            stream = self._running()
            if stream is not None:
                stream._abandon()
            ctx, self._id = self._id, None
            _transport.call(_transport.host.context.release, ctx)

    @staticmethod
    def _there(ctx: int) -> int:
        return _transport.call(_transport.host.context.length, ctx)

    def _encoded(self, text: str) -> list[int]:
        """The tokens of a text that goes on after what is there."""
        encode = _transport.host.context.encode
        return unpack_tokens(_transport.call(encode, self._live_id(), _checks.text("the text", text)))

    def _noting_text(self) -> Callable[[str], None]:
        """What a new stream calls with all of its text, each time that there is more or less of it."""
        note = self._chat.note_reply("")
        self._last_text = ""

        def on_text(text: str) -> None:
            self._last_text = text
            note(text)

        return on_text

    def _running(self) -> Stream | None:
        """The stream that is being generated here."""
        stream = self._stream() if self._stream is not None else None
        return None if stream is None or stream.is_finished else stream

    def _live_id(self) -> int:
        if self._id is None:
            raise InvalidInput("this context has been released", hint="use a `fork()` if it is needed twice")
        return self._id

    def _idle_id(self, verb: str) -> int:
        ctx = self._live_id()
        if self._running() is not None:
            raise Busy(
                f"cannot {verb}: a reply is being generated in this context",
                hint="read it to its end, `stream.stop()` it, or work on a `fork()`",
            )
        return ctx

    def _synced_id(self) -> int:
        ctx = self._live_id()
        if self._running() is None:
            self._chat.sync()
        return ctx

    def _read(self, ctx: int, start: int, end: int) -> list[int]:
        return unpack_tokens(_transport.call(_transport.host.context.tokens, ctx, start, end))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.release()

    def __del__(self) -> None:
        if getattr(self, "_id", None) is not None and self._host is _transport.host:
            with contextlib.suppress(PieError, RuntimeError, AttributeError):
                self.release()

    def __repr__(self) -> str:
        return "Context(released)" if self._id is None else f"Context(id={self._id})"


class ContextTokens:
    """What the transcript needs of its context. Refers to it weakly enough: by the numbers that do not change."""

    def __init__(self, context: ContextHandle) -> None:
        self._ctx = context._live_id()
        self._model = context.model
        self._tools = context.tools

    def length(self) -> int:
        return _transport.call(_transport.host.context.length, self._ctx)

    def read(self, start: int, end: int) -> list[int]:
        return unpack_tokens(_transport.call(_transport.host.context.tokens, self._ctx, start, end))

    def append_text(self, text: str) -> None:
        _transport.call(_transport.host.context.append_text, self._ctx, text, True)

    def append_tokens(self, tokens: Sequence[int]) -> None:
        append_tokens(self._ctx, list(tokens))

    def truncate(self, length: int) -> None:
        _transport.call(_transport.host.context.truncate, self._ctx, length)

    def encode(self, text: str) -> list[int]:
        return self._model.tokenizer.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        return self._model.tokenizer.decode(tokens, skip_special=True)

    def render(self, messages: Sequence[Message], cue: bool) -> str:
        return self._model.render_chat(messages, tools=self._tools, add_generation_prompt=cue)


def append_tokens(ctx: int, tokens: list[int]) -> None:
    wire = _transport.host.context
    if len(tokens) > MAX_LISTED_TOKENS:
        _transport.call(wire.append_packed, ctx, pack_tokens(tokens))
    elif tokens:
        _transport.call(wire.append, ctx, tokens)
