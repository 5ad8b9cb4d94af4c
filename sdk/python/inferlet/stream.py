"""Generation as it happens."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from inferlet import _checks, _transport
from inferlet._loop import host_loop
from inferlet._packing import unpack_top
from inferlet._session import Session
from inferlet.errors import Busy, InvalidInput, PieError

if TYPE_CHECKING:
    from inferlet.context import Context

FinishReason = Literal["stop", "length", "context", "pages", "deadline", "stopped"]
"""`stop`: a stop text or token, or the end of the grammar; `length`: `max_tokens`; `context`: the model's context is
full; `pages`: it takes all KV pages there are; `deadline`: `timeout` is over; `stopped`: by `Stream.stop`."""


@dataclass(slots=True)
class Usage:
    """Token counts of one `generate`."""

    prompt_tokens: int
    """In the context before it."""
    cached_tokens: int
    """Of those, the ones that did not have to run: their KV was there already."""
    completion_tokens: int
    drafted_tokens: int = 0
    """Guessed ahead with `speculate=` or `Stream.draft`."""
    accepted_tokens: int = 0
    """Of those, the ones that were right."""


@dataclass(slots=True)
class Chunk:
    """Some tokens of a reply: whatever was ready."""

    ids: list[int]
    text: str
    """Whole characters only; the concatenation of all chunks is the reply."""
    logprobs: list[float]
    """One for each id; empty unless asked for."""
    index: int
    """Where `ids[0]` is among the tokens of this reply."""
    top: list[list[tuple[int, float]]] = field(default_factory=list)
    """With `top_logprobs`: the most likely (token id, log-probability) at each id; none for what was forced."""
    entropies: list[float] = field(default_factory=list)
    """With `entropy`: in nats, one for each id."""
    finish: FinishReason | None = None
    """Set on the last chunk, which may be empty otherwise."""
    usage: Usage | None = None
    """On the last chunk."""


class _Done:
    """Awaiting it does nothing: for calls that take effect at once and read well with `await`."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


_DONE = _Done()


class Stream:
    """A reply that the engine is generating, ahead of the program. Made by `Context.generate`.

    >>> async for chunk in stream: print(chunk.text, end="")
    >>> text = await stream

    Leaving the `async for` early stops the generation; the context then holds what was received, as if the rest had
    never been generated.
    """

    def __init__(self, context: Context, handle: int, on_text: Callable[[str], None]) -> None:
        self._context = context
        self._handle = handle
        self._on_text = on_text
        self._loop = host_loop()
        self._signal = self._loop.watch(handle)
        self._texts: list[str] = []
        self.ids: list[int] = []
        """Token ids received so far."""
        self.logprobs: list[float] = []
        """One for each id, with `logprobs=True`."""
        self.top: list[list[tuple[int, float]]] = []
        """As in `Chunk`, with `top_logprobs`."""
        self.entropies: list[float] = []
        """As in `Chunk`, with `entropy=True`."""
        self.finish: FinishReason | None = None
        """Why it ended; None while it goes on."""
        self.usage: Usage | None = None
        """Token counts, when it has ended. After `stop()`: of what was received."""

    # Receiving.

    def __aiter__(self) -> _Iteration:
        return _Iteration(self)

    async def __anext__(self) -> Chunk:
        chunk = await self._next()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    def __await__(self) -> Generator[Any, None, str]:
        return self.text().__await__()

    async def text(self) -> str:
        """The whole text, when the reply is complete."""
        async for _ in self:
            pass
        return self._text

    @property
    def context(self) -> Context:
        """Where the reply is written."""
        return self._context

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will come."""
        return self._handle == 0

    # Steering. All of these take effect at once; they may be awaited, and need not be.

    def stop(self) -> _Done:
        """End the reply here; the context keeps what was received."""
        if not self.is_finished:
            self._end("stopped", usage_of(_transport.call(_transport.host.generate.stop, self._handle)))
        return _DONE

    def rewind(self, count: int) -> _Done:
        """Take the last `count` received tokens back and go on from there, with other random numbers.

        Raises `InvalidInput` for more tokens than were received, or when the reply has ended.
        """
        self._require_running("rewind", "`ctx.truncate(n)` takes tokens back after the end")
        if _checks.count("count", count) is None or count > len(self.ids):
            raise InvalidInput(f"cannot rewind {count} tokens: {len(self.ids)} have been received")
        _transport.call(_transport.host.generate.rewind, self._handle, count)
        if count:
            self._forget_last(count)
        return _DONE

    def inject(self, what: str | Sequence[int]) -> _Done:
        """Force this text (or these token ids) next and go on after it. It arrives as a chunk, too."""
        self._require_running("inject", "`ctx.append(…)` adds to the context after the end")
        is_text = isinstance(what, str)
        tokens = self._encoded(what) if is_text else _checks.token_ids("what is injected", what)
        if tokens:
            _transport.call(_transport.host.generate.inject, self._handle, tokens)
        return _DONE

    def draft(self, what: str | Sequence[int]) -> _Done:
        """Say what you expect next, after what has been received: the model reads it all at once, and what it would
        have written anyway comes sooner. What is wrong costs a little time and changes nothing.

        It replaces what was said before. What does not fit the grammar of the reply is left out, and with penalties
        nothing is guessed.
        """
        self._require_running("draft", "there is nothing left to come")
        tokens = self._encoded(what) if isinstance(what, str) else _checks.token_ids("a draft", what)
        _transport.call(_transport.host.generate.draft, self._handle, len(self.ids), tokens)
        return _DONE

    def pipe(self, session: Session | None = None) -> Stream:
        """Send the text to the client as it comes, without waking the program for it.

        The stream then yields one last chunk: the whole remaining text, no ids. `session` is for the reader: there is
        only one.
        """
        self._require_running("pipe", "send the text with `session.send`")
        sys.stdout.flush()
        _transport.call(_transport.host.generate.pipe, self._handle)
        return self

    # Inside.

    def _encoded(self, text: str) -> list[int]:
        """As it goes on after what has been received."""
        return self._context._encoded(text)

    @property
    def _text(self) -> str:
        if len(self._texts) > 1:
            self._texts = ["".join(self._texts)]
        return self._texts[0] if self._texts else ""

    async def _next(self) -> Chunk | None:
        if self._signal.is_awaited:
            raise Busy("another task already waits for this stream", hint="let one task read it and share what it gets")
        while not self.is_finished:
            await self._signal.wait()
            wire = self._take()  # everything that is there; nothing when it was taken back meanwhile
            if wire is not None:
                return self._received(wire)
        return None

    def _take(self) -> Any:
        try:
            return _transport.call(_transport.host.generate.next, self._handle)
        except PieError:
            self._end(None)
            raise

    def _received(self, wire: Any) -> Chunk:
        chunk = Chunk(wire.ids, wire.text, wire.logprobs, wire.index)
        chunk.top, chunk.entropies = [unpack_top(each) for each in wire.top], wire.entropies
        self.ids += chunk.ids
        self.logprobs += chunk.logprobs
        self.top += chunk.top
        self.entropies += chunk.entropies
        if chunk.text:
            self._texts.append(chunk.text)
            self._on_text(self._text)
        if wire.finish is not None:
            chunk.usage = None if wire.usage is None else usage_of(wire.usage)
            chunk.finish = wire.finish.name.lower()
            self._end(chunk.finish, chunk.usage)
        return chunk

    def _forget_last(self, count: int) -> None:
        for each in (self.ids, self.logprobs, self.top, self.entropies):
            del each[-count:]
        self._texts = [self._context.model.tokenizer.decode(self.ids, skip_special=True)]
        self._on_text(self._text)

    def _require_running(self, verb: str, instead: str) -> None:
        if self.is_finished:
            raise InvalidInput(f"cannot {verb}: this reply has ended", hint=instead)

    def _end(self, finish: FinishReason | None, usage: Usage | None = None) -> None:
        self._loop.unwatch(self._handle)
        self._handle, self.finish, self.usage = 0, finish, usage

    def _abandon(self) -> None:
        """Nobody looks any more. Also called while the loop goes away, when there is nothing left to stop."""
        with contextlib.suppress(PieError, RuntimeError):
            self.stop()

    def __repr__(self) -> str:
        return "<Stream: write `await ctx.generate(…)` for the text>"

    def __del__(self) -> None:
        if getattr(self, "_handle", 0):
            self._abandon()


def usage_of(wire: Any) -> Usage:
    """From the record of the host."""
    return Usage(
        wire.prompt_tokens, wire.cached_tokens, wire.completion_tokens, wire.drafted_tokens, wire.accepted_tokens
    )


class _Iteration:
    """What an `async for` holds: its end, however it comes about, is the end of this object."""

    __slots__ = ("stream",)

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def __aiter__(self) -> _Iteration:
        return self

    async def __anext__(self) -> Chunk:
        try:
            chunk = await self.stream._next()
        except BaseException:
            self.stream._abandon()
            raise
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    def __del__(self) -> None:
        if not self.stream.is_finished:
            self.stream._abandon()
