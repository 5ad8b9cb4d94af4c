"""Single passes of the model, for programs that decode by themselves."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from inferlet import _checks, _transport
from inferlet._context_handle import ContextHandle
from inferlet._loop import finished
from inferlet._packing import unpack_floats, unpack_top
from inferlet._placement import TokenMask, placement
from inferlet.errors import InvalidInput
from inferlet.grammar import Grammar, grammar_record
from inferlet.matcher import Matcher
from inferlet.sampler import Sampler, sampler_record


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


class Passes(ContextHandle):
    """What a `Context` lets the model say of the next token."""

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
