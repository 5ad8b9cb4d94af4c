"""A token sequence and its KV cache."""

from __future__ import annotations

import contextlib
import json
import weakref
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypedDict, TypeVar, Unpack

from inferlet import _checks, _transport
from inferlet._loop import finished
from inferlet._packing import pack_tokens, unpack_floats, unpack_tokens, unpack_top
from inferlet._placement import TokenMask, placement
from inferlet._plain_json import readable_json
from inferlet._transcript import Message, Transcript
from inferlet.adapter import Adapter
from inferlet.beams import Beams
from inferlet.errors import Busy, InvalidInput, PieError
from inferlet.grammar import Grammar, grammar_record, value_of
from inferlet.matcher import Matcher
from inferlet.model import Model
from inferlet.sampler import Sampler, sampler_record
from inferlet.stream import Stream

T = TypeVar("T")
MAX_LISTED_TOKENS = 256
"""Longer token lists cross to the host packed."""
CHUNK_MS = 20
DRAFT_TOKENS = 8
_GREEDY = Sampler.greedy()


class GenerateOptions(TypedDict, total=False):
    """What `generate` takes besides the sampler."""

    max_tokens: int | None
    timeout: float | None
    stop: str | Sequence[str]
    stop_tokens: Sequence[int]
    seed: int | None
    logprobs: bool
    top_logprobs: int
    entropy: bool
    ignore_eos: bool
    grammar: Grammar | Any
    window: int | None
    sinks: int
    speculate: str | None
    draft_tokens: int
    chunk_ms: int


@dataclass(slots=True)
class SavedContext:
    """What `Context.list` tells of a context on the disk."""

    name: str
    num_tokens: int
    num_bytes: int
    saved_at: float
    """Seconds since the epoch."""


@dataclass(slots=True)
class Output:
    """What one forward pass saw at the last position."""

    token: int | None
    """Drawn by the sampler; None without one. It is not appended: pass it to the next `forward`."""
    logprob: float | None
    """Of `token`, before temperature."""
    top: list[tuple[int, float]]
    """The `top_k` most likely (token id, log-probability), most likely first, before temperature."""
    logprobs: dict[int, float] = field(default_factory=dict)
    """Of the tokens of `logprobs_of`, before temperature."""
    entropy: float | None = None
    """Of the model's distribution, in nats."""
    logits: array[float] | None = None
    """What the model said, one number for each token of the vocabulary."""
    hidden: array[float] | None = None
    """The hidden state of the last position, as the output layer gets it."""


class Context:
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
        size, num_sinks = _window(window, sinks)
        wire = _transport.host.context
        self._adopt(_transport.call(wire.create, self.model._name, _checks.seed(seed), name), None)
        if size is not None:
            _transport.call(wire.slide, self._live_id(), size, num_sinks)

    def _adopt(self, ctx: int, chat: Transcript | None) -> None:
        self._id, self._host = ctx, _transport.host
        self._chat = Transcript(_Tokens(self)) if chat is None else chat.copy(_Tokens(self))
        self._stream: weakref.ref[Stream] | None = None
        self._last_text = ""

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
                _append_tokens(ctx, tokens)
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

    def release(self) -> None:
        """Free the pages now. The context cannot be used any more; releasing it again does nothing."""
        if self._id is not None:
            stream = self._running()
            if stream is not None:
                stream._abandon()
            ctx, self._id = self._id, None
            _transport.host.context.release(ctx)

    # On the disk.

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
    ) -> Context:
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
        context._chat = Transcript.restored(_Tokens(context), state["chat"])
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

    # Generation.

    def generate(
        self,
        sampler: Sampler | None = None,
        *,
        max_tokens: int | None = None,
        timeout: float | None = None,
        speculate: str | None = None,
        draft_tokens: int = DRAFT_TOKENS,
        stop: str | Sequence[str] = (),
        stop_tokens: Sequence[int] = (),
        seed: int | None = None,
        logprobs: bool = False,
        top_logprobs: int = 0,
        entropy: bool = False,
        ignore_eos: bool = False,
        grammar: Grammar | Any = None,
        window: int | None = None,
        sinks: int = 0,
        chunk_ms: int = CHUNK_MS,
    ) -> Stream:
        """Let the model write. It starts at once and runs ahead; read it with `async for`, or `await` the whole text.

        Args:
            sampler: how tokens are chosen; greedy if left out.
            max_tokens: most tokens to write; None: until a stop or the end of the model's context.
            timeout: seconds until it ends with what there is then (`finish` is `deadline`); None: no limit.
            speculate: guess tokens ahead; the reply is the same. `lookup`: what followed the last ones the time before,
                which makes a reply faster that copies from its context. `model`: what the model's draft model would
                write, if the configuration names one. `Stream.draft` hands in guesses of your own.
            draft_tokens: most tokens guessed at once, from 1 to 32.
            stop: text that ends the reply and is not part of it.
            stop_tokens: token ids that end the reply, besides the model's own.
            seed: starts the random numbers anew: the same seed on the same tokens gives the same reply.
            logprobs: report the log-probability of each token.
            top_logprobs: how many of the most likely tokens to report at each token.
            entropy: report the entropy of the model's distribution at each token, in nats.
            ignore_eos: go on past the model's own stop tokens.
            grammar: what the reply has to follow: a `Grammar`, or a type or JSON schema for its JSON. The reply ends
                where it is complete; `max_tokens`, a stop text or the end of the context may end it before.
            window: from here on each token of this context sees only so many, the last ones, itself included, and
                besides the first `sinks`. Pages of all others are freed, so the memory stays bounded. It lasts until
                another `generate` gives another window; None: as before.
            sinks: how many tokens at the start stay visible; models lean on a few, 4 say
                (https://arxiv.org/abs/2309.17453).
            chunk_ms: least time between two chunks, in milliseconds.

        Raises `Busy` while another `generate` runs here, `ContextTooLong` and `OutOfPages` with the numbers. Reading
        raises `InvalidInput` or `Unsupported` for a grammar that is wrong, cannot be enforced or leads nowhere.
        """
        ctx = self._idle_id("generate")
        record = sampler_record(_GREEDY if sampler is None else sampler, self.model)
        self._chat.open_reply()
        wire = _transport.host.generate
        plan = wire.Plan(
            record,
            _checks.count("max_tokens", max_tokens),
            _checks.seconds("timeout", timeout),
            _speculation(speculate, draft_tokens),
            [_checks.text("stop", text) for text in ([stop] if isinstance(stop, str) else stop)],
            _checks.token_ids("stop_tokens", stop_tokens),
            bool(ignore_eos),
            _checks.seed(seed),
            bool(logprobs),
            _checks.count("top_logprobs", top_logprobs) or 0,
            bool(entropy),
            _checks.count("chunk_ms", chunk_ms) or 0,
            grammar_record(grammar),
            *_window(window, sinks),
        )
        stream = Stream(self, _transport.call(wire.start, ctx, plan), self._noting_text())
        self._stream = weakref.ref(stream)
        return stream

    async def generate_as(self, kind: type[T], sampler: Sampler | None = None, **options: Unpack[GenerateOptions]) -> T:
        """Let the model write JSON for `kind`, and return it as that.

        >>> person = await ctx.generate_as(Person, max_tokens=100)

        Args:
            kind: a type that `main` could take as a parameter (a dataclass, a `TypedDict`, `list[int]`, …), or a
                class with `model_json_schema` and `model_validate_json`, as pydantic's have.
            sampler: how tokens are chosen among those that fit; greedy if left out.
            options: those of `generate`, but for `grammar`.

        Raises `InvalidInput` when the reply was cut before it was complete; `last_text` has what there is.
        """
        if "grammar" in options:
            raise InvalidInput("`generate_as` takes no `grammar`: the type is it", hint="`generate` takes one")
        stream = self.generate(sampler, grammar=Grammar.json_schema(kind), **options)
        text = await stream
        if stream.finish != "stop":
            hint = "raise `max_tokens`" if stream.finish == "length" else ""
            raise InvalidInput(f"the reply was cut after {len(stream.ids)} tokens and is not complete", hint=hint)
        return value_of(text, kind)

    async def generate_n(self, n: int, sampler: Sampler, **options: Unpack[GenerateOptions]) -> list[Stream]:
        """Let the model write `n` replies side by side, each in a fork of its own, which read the prompt once.

        >>> replies = await asyncio.gather(*await ctx.generate_n(4, Sampler.temperature(1.0), max_tokens=40))

        Args:
            n: how many.
            sampler: how tokens are chosen; forks draw different random numbers.
            options: those of `generate`. With `seed`, reply i has the seed `seed + i`.

        Returns the streams; `stream.context` is the fork, to go on with the one that was best. This context stays as
        it is. Raises what `generate` raises.
        """
        if not isinstance(n, int) or isinstance(n, bool) or n < 1:
            raise InvalidInput(f"`n` has to be an integer, 1 or more; got {n!r}")
        seed = options.pop("seed", None)
        self._idle_id("generate")
        self._chat.open_reply()
        await self.flush()
        forks = [self.fork() for _ in range(n)]
        seeds = [None if seed is None else (_checks.seed(seed) + i) % 2**64 for i in range(n)]
        return [fork.generate(sampler, seed=own, **options) for fork, own in zip(forks, seeds, strict=True)]

    async def generate_beams(
        self,
        num_beams: int,
        *,
        max_tokens: int | None = None,
        length_penalty: float = 1.0,
        early_stopping: bool | str = False,
        num_return_sequences: int = 1,
        stop: str | Sequence[str] = (),
        stop_tokens: Sequence[int] = (),
        ignore_eos: bool = False,
        timeout: float | None = None,
        grammar: Grammar | Any = None,
    ) -> Beams:
        """Search for the likeliest replies: in each step, keep the `num_beams` best beginnings of them.

        The same search, with the same scores, as `generate(num_beams=…)` of Transformers. The beams share the KV pages
        of what they have in common and run in one batch. This context stays as it is: `ctx.append(beams.best.ids)`
        goes on with one of the replies.

        Args:
            num_beams: how many, from 1 to 64.
            max_tokens: most tokens of a reply; None: until a stop or the end of the model's context.
            length_penalty: a reply scores the sum of its log-probabilities over its length to this power, so more than
                0 favours long replies and less than 0 short ones.
            early_stopping: when to end with `num_beams` replies complete: False, when no beam is better than the worst
                of them as it is now; True, at once; `"never"`, when none could become better.
            num_return_sequences: how many of the best replies to return, at most `num_beams`.
            stop: text that ends a reply and is not part of it.
            stop_tokens: token ids that end a reply, besides the model's own.
            ignore_eos: go on past the model's own stop tokens.
            timeout: seconds after which it ends with what there is, complete replies before others.
            grammar: what the replies have to follow, as in `generate`.

        Raises what `generate` raises, and `InvalidInput` where no reply follows the grammar.
        """
        ctx = self._idle_id("search")
        wire = _transport.host.generate
        self._chat.open_reply()
        plan = wire.BeamPlan(
            _checks.count("num_beams", num_beams) or 0,
            _checks.count("max_tokens", max_tokens),
            _checks.number("length_penalty", length_penalty),
            wire.EarlyStopping[_early_stopping(early_stopping)],
            _checks.count("num_return_sequences", num_return_sequences) or 0,
            [_checks.text("stop", text) for text in ([stop] if isinstance(stop, str) else stop)],
            _checks.token_ids("stop_tokens", stop_tokens),
            bool(ignore_eos),
            _checks.seconds("timeout", timeout),
            grammar_record(grammar),
        )
        return Beams.of(await finished(_transport.call(wire.search, ctx, plan), wire.finish_search))

    def matcher(self, grammar: Grammar | Any) -> Matcher:
        """A matcher at the start of `grammar` for `forward`: a `Grammar`, or a type or JSON schema for its JSON.

        It is compiled in the background. What is wrong with the grammar is an error of what it is first used for.
        """
        if grammar is None:
            raise InvalidInput("a matcher needs a grammar")
        create = _transport.host.matcher.create
        return Matcher(self, _transport.call(create, self._live_id(), grammar_record(grammar)))

    async def forward(
        self,
        tokens: str | Sequence[int] = (),
        sampler: Sampler | None = None,
        *,
        top_k: int = 0,
        logprobs_of: Sequence[int] = (),
        entropy: bool = False,
        logits: bool = False,
        hidden: bool = False,
        prompt_length: int = 0,
        matcher: Matcher | None = None,
        top_allowed: bool = False,
        positions: Iterable[int] | None = None,
        mask: Iterable[TokenMask] | None = None,
    ) -> Output:
        """Append `tokens` (ids or text), let the model read all that is new, and look at what it expects next.

        All that is looked at is what the model says: before masks, bias, penalties and temperature.

        Args:
            tokens: what to append; nothing: look at the end of what is there.
            sampler: draw `Output.token` with it.
            top_k: how many of the most likely tokens `Output.top` lists.
            logprobs_of: tokens whose log-probabilities `Output.logprobs` has.
            entropy: whether `Output.entropy` is wanted.
            logits: whether `Output.logits` are wanted.
            hidden: whether `Output.hidden` is wanted.
            prompt_length: how many tokens of the context the frequency and presence penalties leave out, because they
                were not generated.
            matcher: draw only what may come next in its grammar, or a stop token of the model where that may end.
                `Output.token` is None where nothing can follow: the grammar is complete. It does not take the token:
                `matcher.advance(out.token)` says that it was written.
            top_allowed: whether `Output.top` lists only what the matcher lets in.
            positions: where each of `tokens` stands, if not behind the one before it; later tokens go on behind the
                last. It is what the model is told, and says nothing about the order in the context.
            mask: what each of `tokens` sees, itself included: bools, one for each token of the context up to it; or
                ranges of tokens, `[range(0, 9), range(12, 14)]`. What was dropped stays unseen. Tokens that come later
                see all of them, unless they have a mask, too.

        Raises `InvalidInput` for a mask of another length or of a token that does not see itself, and for a position
        that the model does not have; `Unsupported` for positions and masks with a model that has attention of its own.
        """
        ctx = self._idle_id("forward")
        record = None if sampler is None else sampler_record(sampler, self.model)
        self._chat.open_reply()
        is_text = isinstance(tokens, str)
        ids = self._encoded(tokens) if is_text else _checks.token_ids("tokens", tokens)
        wire = _transport.host.forward
        asked = _checks.token_ids("`logprobs_of`", logprobs_of) if logprobs_of else []
        num_top = _checks.count("top_k", top_k) or 0
        probes = None
        if num_top or asked or entropy or logits or hidden:
            probes = wire.Probes(num_top, asked, bool(entropy), bool(logits), bool(hidden), bool(top_allowed))
        num_prompt = _checks.count("prompt_length", prompt_length) or 0
        held = None if matcher is None else matcher._handle
        where = None
        if positions is not None or mask is not None:
            where = placement(self._there(ctx), len(ids), positions, mask)
        handle = _transport.call(wire.start, ctx, ids, record, probes, num_prompt, held, where)
        if ids:
            self._chat.note_reply(ids)
        seen = await finished(handle, wire.finish)
        if probes is None:
            return Output(seen.token, seen.logprob, [])
        return Output(
            seen.token,
            seen.logprob,
            unpack_top(seen.top),
            dict(zip(asked, seen.logprobs, strict=True)),
            seen.entropy,
            unpack_floats(seen.logits) if logits else None,
            unpack_floats(seen.hidden) if hidden else None,
        )

    # Inside.

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


def _early_stopping(value: bool | str) -> str:
    names = {False: "NO", True: "YES", "never": "NEVER"}
    if not isinstance(value, bool | str) or value not in names:
        raise InvalidInput(f"`early_stopping` has to be False, True or `never`; got {value!r}")
    return names[value]


def _speculation(kind: str | None, max_tokens: int) -> Any:
    """As the host takes it."""
    if kind is None:
        return None
    if kind not in ("lookup", "model"):
        raise InvalidInput(f"`speculate` has to be None, `lookup` or `model`; got {kind!r}")
    wire = _transport.host.generate
    return wire.Speculation(wire.SpeculationKind[kind.upper()], _checks.count("draft_tokens", max_tokens) or 0)


def _window(size: int | None, sinks: int) -> tuple[int | None, int]:
    if size == 0:
        raise InvalidInput("`window` has to be 1 or more: a token sees at least itself")
    if size is None and sinks:
        raise InvalidInput("`sinks` need a `window`: they are what is seen besides it")
    return _checks.count("window", size), _checks.count("sinks", sinks) or 0


class _Tokens:
    """What the transcript needs of its context. Refers to it weakly enough: by the numbers that do not change."""

    def __init__(self, context: Context) -> None:
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
        _append_tokens(self._ctx, list(tokens))

    def truncate(self, length: int) -> None:
        _transport.call(_transport.host.context.truncate, self._ctx, length)

    def encode(self, text: str) -> list[int]:
        return self._model.tokenizer.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        return self._model.tokenizer.decode(tokens, skip_special=True)

    def render(self, messages: Sequence[Message], cue: bool) -> str:
        return self._model.render_chat(messages, tools=self._tools, add_generation_prompt=cue)


def _model_name(model: Model | str | None) -> str:
    return model._name if isinstance(model, Model) else model or ""


def _append_tokens(ctx: int, tokens: list[int]) -> None:
    wire = _transport.host.context
    if len(tokens) > MAX_LISTED_TOKENS:
        _transport.call(wire.append_packed, ctx, pack_tokens(tokens))
    elif tokens:
        _transport.call(wire.append, ctx, tokens)
