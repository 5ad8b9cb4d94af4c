"""A token sequence and its KV cache."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

from inferlet import _checks, _transport
from inferlet._context_handle import append_tokens
from inferlet._loop import finished
from inferlet._placement import TokenMask, placement
from inferlet._plain_json import readable_json
from inferlet._transcript import Message
from inferlet.adapter import Adapter
from inferlet.errors import InvalidInput
from inferlet.forward import Passes
from inferlet.generation import Generation, window_of
from inferlet.market import Bidding
from inferlet.model import Model
from inferlet.saved import Saving


class Context(Generation, Passes, Bidding, Saving):
    """What the model has read and written so far, held in the engine's KV cache.

    >>> ctx = Context()
    >>> ctx.system("You are a helpful assistant.")
    >>> ctx.user("Tell me a story.")
    >>> async for chunk in ctx.generate(Sampler.top_p(0.9), max_tokens=200): ...

    Messages go through the model's own chat template. `append` adds text or tokens as they are: in a chat they belong
    to the assistant's turn, and the next `generate` goes on after them.

    The pages are freed by `release`, at the end of a `with` block, or when nothing refers to the context any more.
    """

    def __init__(
        self,
        model: Model | str | None = None,
        *,
        seed: int | None = None,
        tools: Sequence[Any] = (),
        adapter: Adapter | str | None = None,
        window: int | None = None,
        sinks: int = 0,
    ) -> None:
        """`model`: a `Model` or its name (None: the default). `seed`: of everything that is drawn here and in forks.
        `tools`: `@tool` functions or JSON schemas that the chat template shows to the model. `adapter`: a LoRA adapter
        that is loaded with the model, here and in all forks; raises `NotFound` for one that is not. `window` and
        `sinks`: what each token sees, from the first one on, as in `generate`; so a prompt of any length is read in the
        memory of a window."""
        self._id: int | None = None
        name = adapter.name if isinstance(adapter, Adapter) else adapter or ""
        self._adapter = _checks.text("the name of an adapter", name)
        self.model = model if isinstance(model, Model) else Model(model or "")
        self.tools = list(tools)
        size, num_sinks = window_of(window, sinks)
        wire = _transport.host.context
        self._adopt(_transport.call(wire.create, self.model._name, _checks.seed(seed), name), None)
        if size is not None:
            _transport.call(wire.slide, self._live_id(), size, num_sinks)

    @property
    def adapter(self) -> str | None:
        """The name of its adapter; None: it has none."""
        return self._adapter or None

    # Messages.

    def system(self, content: str) -> Self:
        """Add instructions. Returns the context, so that calls can be chained."""
        return self._say("system", content)

    def user(self, content: str) -> Self:
        """Add a message of the user."""
        return self._say("user", content)

    def assistant(self, content: str) -> Self:
        """Add a finished message of the assistant. What `generate` wrote is added by itself."""
        return self._say("assistant", content)

    def tool(self, result: Any, *, name: str = "", call_id: str = "") -> Self:
        """Add the result of a tool call: a text, or any JSON value."""
        try:
            content = result if isinstance(result, str) else readable_json(result)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"the result of a tool: {error}") from None
        extra = {key: value for key, value in (("name", name), ("tool_call_id", call_id)) if value}
        return self._say("tool", content, **extra)

    def _say(self, role: str, content: str, **extra: str) -> Self:
        _checks.text(f"a {role} message", content)
        self._idle_id(f"add a {role} message")
        self._chat.add({"role": role, "content": content, **extra})
        return self

    @property
    def messages(self) -> list[Message]:
        """The messages so far, as the chat template gets them.

        A reply that is still open, which more could be added to, is not among them: it is once another message
        follows.
        """
        return [dict(message) for message in self._chat.messages]

    # Content.

    def append(
        self,
        what: str | Sequence[int],
        *,
        special: bool = True,
        positions: Iterable[int] | None = None,
        mask: Iterable[TokenMask] | None = None,
    ) -> Self:
        """Add text or token ids as they are. Raises `ContextTooLong`.

        `special=False` reads special tokens in a text as plain text, for text you do not trust. `positions` and `mask`
        are those of `forward`; they are of token ids, not of a text.
        """
        ctx = self._idle_id("append")
        self._chat.open_reply()
        is_placed = positions is not None or mask is not None
        if is_placed or not isinstance(what, str):
            name = "what is appended with positions or a mask" if is_placed else "what is appended"
            tokens = _checks.token_ids(name, what)
            if is_placed:
                where = placement(self._there(ctx), len(tokens), positions, mask)
                _transport.call(_transport.host.context.place, ctx, tokens, where)
            else:
                append_tokens(ctx, tokens)
            self._chat.note_reply(tokens)
        elif what:
            text = _checks.text("what is appended", what)
            _transport.call(_transport.host.context.append_text, ctx, text, bool(special))
            self._chat.note_reply(text)
        return self

    @property
    def length(self) -> int:
        """How many tokens are there."""
        return _transport.call(_transport.host.context.length, self._synced_id())

    @property
    def tokens(self) -> list[int]:
        """All token ids."""
        return self._read(self._synced_id(), 0, self.length)

    @property
    def text(self) -> str:
        """The text of all tokens, special ones included."""
        return self.model.tokenizer.decode(self.tokens)

    @property
    def last_text(self) -> str:
        """What the last `generate` here has written so far, without the replies before it."""
        return self._last_text

    def truncate(self, length: int) -> Self:
        """Keep the first `length` tokens. Messages that are cut off are forgotten."""
        ctx = self._idle_id("truncate")
        self._chat.sync()
        there = self.length
        if not isinstance(length, int) or not 0 <= length <= there:
            raise InvalidInput(f"cannot truncate to {length!r}: the context has {there} tokens")
        if length < there:
            _transport.call(_transport.host.context.truncate, ctx, length)
            self._chat.cut(length)
        return self

    def drop(self, tokens: range) -> Self:
        """Forget tokens: nothing that is read from here on sees them, the last token included, which is read again.

        Pages of which all tokens are dropped are freed. Everything else stays what and where it is: `length`, `tokens`,
        `messages` and the positions of the tokens do not change. What was read after the dropped tokens has seen them,
        and is not read again; `truncate` and `append` do that.

        >>> start = ctx.length
        >>> ctx.tool(page)
        >>> await ctx.generate()
        >>> ctx.drop(range(start, start + 500))

        Raises `InvalidInput` for a range that is not there, `Unsupported` for a model with attention of its own.
        """
        ctx = self._idle_id("drop")
        self._chat.sync()
        there = self._there(ctx)
        if not isinstance(tokens, range) or tokens.step != 1 or tokens.start >= tokens.stop:
            raise InvalidInput(
                f"cannot drop {tokens!r}: it names no tokens", hint="`range(first, end)`, and `end` is not dropped"
            )
        if not 0 <= tokens.start < tokens.stop <= there:
            raise InvalidInput(
                f"cannot drop {tokens!r}: the context has {there} tokens", hint="`range(first, end)` says which of them"
            )
        _transport.call(_transport.host.context.drop, ctx, tokens.start, tokens.stop)
        return self

    def fork(self) -> Context:
        """Another context with the same content, at no cost: the two share pages until one of them writes.

        During a `generate` the fork has what has been received. Forks draw other random numbers than their parent.
        """
        child = Context.__new__(Context)
        child._id, child.model, child.tools = None, self.model, list(self.tools)
        child._adapter = self._adapter
        child._adopt(_transport.call(_transport.host.context.fork, self._synced_id()), self._chat)
        child._last_text = self.last_text
        return child

    async def flush(self) -> None:
        """Wait until everything so far has been read by the model. Forks made after it share the work."""
        self._idle_id("flush")
        self._chat.sync()
        wire = _transport.host.context
        await finished(_transport.call(wire.flush, self._idle_id("flush")), wire.finish_flush)
