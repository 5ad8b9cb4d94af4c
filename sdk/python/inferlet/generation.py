"""Replies of the model: one, several side by side, and the likeliest."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

from inferlet import _checks, _transport
from inferlet._context_handle import ContextHandle
from inferlet._loop import finished
from inferlet.beams import Beams
from inferlet.errors import InvalidInput
from inferlet.grammar import Grammar, grammar_record, value_of
from inferlet.sampler import Sampler, sampler_record
from inferlet.stream import Stream

if TYPE_CHECKING:
    from inferlet.context import Context

T = TypeVar("T")
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


class Generation(ContextHandle):
    """What a `Context` lets the model write."""

    if TYPE_CHECKING:

        def fork(self) -> Context: ...

        async def flush(self) -> None: ...

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
            _checks.texts("stop", stop),
            _checks.token_ids("stop_tokens", stop_tokens),
            bool(ignore_eos),
            _checks.seed(seed),
            bool(logprobs),
            _checks.count("top_logprobs", top_logprobs) or 0,
            bool(entropy),
            _checks.count("chunk_ms", chunk_ms) or 0,
            grammar_record(grammar),
            *window_of(window, sinks),
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
            _checks.texts("stop", stop),
            _checks.token_ids("stop_tokens", stop_tokens),
            bool(ignore_eos),
            _checks.seconds("timeout", timeout),
            grammar_record(grammar),
        )
        return Beams.of(await finished(_transport.call(wire.search, ctx, plan), wire.finish_search))


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


def window_of(size: int | None, sinks: int) -> tuple[int | None, int]:
    if size == 0:
        raise InvalidInput("`window` has to be 1 or more: a token sees at least itself")
    if size is None and sinks:
        raise InvalidInput("`sinks` need a `window`: they are what is seen besides it")
    return _checks.count("window", size), _checks.count("sinks", sinks) or 0
