"""What a program asks the core to generate."""

from __future__ import annotations

from typing import Literal

import msgspec

from pie_engine.protocol.sampling import GREEDY, Sampler

RUN_AHEAD_TOKENS = 64
"""Most tokens of a stream that the core generates before the program has taken them."""
CHUNK_MS = 20

MAX_DRAFT_TOKENS = 32
"""Most tokens that are guessed at once."""

FinishReason = Literal["stop", "length", "context", "pages", "deadline", "stopped"]
"""A stop text or token, or the end of the grammar; `max_tokens`; the model's context is full; `timeout_s` is over; the
program has stopped it."""
GrammarKind = Literal["json-schema", "regex", "lark", "ebnf", "choice"]


class Grammar(msgspec.Struct, frozen=True):
    """What a reply has to follow, token by token."""

    kind: GrammarKind
    text: str
    """By kind: a JSON schema; a regular expression for the whole reply; Lark rules; EBNF as llama.cpp has it (GBNF); a
    JSON list of texts."""


class Speculation(msgspec.Struct, frozen=True, omit_defaults=True):
    """How tokens are guessed ahead. It never changes the reply, only how fast it comes."""

    kind: Literal["lookup", "model"] = "lookup"
    """`lookup`: what followed the last tokens the time before. `model`: what the draft model would write."""
    max_tokens: int = 8
    """Most tokens guessed at once."""


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    """One `generate`: the core runs it token after token."""

    sampler: Sampler = GREEDY
    max_tokens: int | None = None
    stop: list[str] = []
    """Text that ends the reply; it is not part of it."""
    stop_tokens: list[int] = []
    """In addition to the model's own, unless `ignore_eos`. A stop token is neither delivered nor kept."""
    ignore_eos: bool = False
    seed: int | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    """The most likely tokens at each position, with their log-probabilities."""
    entropy: bool = False
    """Of the distribution at each position, in nats."""
    chunk_ms: int = CHUNK_MS
    timeout_s: float | None = None
    """The plan ends with `deadline` when this much time has gone by since the core has heard of it."""
    speculation: Speculation | None = None
    grammar: Grammar | None = None
    """The reply ends where it is complete; a stop token is only let in where it could end."""
    window: int | None = None
    """From here on every token of the context sees the last `window` tokens, itself included, and the first `sinks`;
    the pages of the others are let go. None: as before."""
    sinks: int = 0


MAX_BEAMS = 64
EarlyStopping = Literal["no", "yes", "never"]
"""When a beam search ends that has `num_beams` hypotheses: when no beam is better, at its present length; at once; or
when none could be, however long it gets. (Transformers: False, True, "never".)"""


class BeamPlan(msgspec.Struct, frozen=True, omit_defaults=True):
    """One beam search, as `generate(num_beams=…)` of Transformers does it."""

    num_beams: int
    max_tokens: int | None = None
    length_penalty: float = 1.0
    """A hypothesis scores the sum of its log-probabilities over its length to this power."""
    early_stopping: EarlyStopping = "no"
    num_returned: int = 1
    stop: list[str] = []
    stop_tokens: list[int] = []
    ignore_eos: bool = False
    timeout_s: float | None = None
    """What there is then is answered, unfinished beams after the hypotheses."""
    grammar: Grammar | None = None


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Tokens: of the context before the plan, of those the ones that did not have to run for it, and generated.

    Drafted are the tokens that were guessed, and accepted those of them that were right.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    spent: int = 0
    """Micro-credits that the market took, of those that it was given. Of a whole process only: plans have none of their
    own."""
    endowment: int = 0

    def plus(self, other: Usage, times: int = 1) -> Usage:
        """The sum with another, or the difference with `times=-1`."""
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        return Usage(*(mine + times * others for mine, others in pairs))


NO_USAGE = Usage()


class Hypothesis(msgspec.Struct, frozen=True, array_like=True):
    """One reply of a beam search."""

    ids: list[int]
    """Without the stop token that ended it."""
    text: str
    score: float
    """The sum of the log-probabilities, that of the stop token too, over its length with that token to the power of
    `length_penalty`."""
    finish: FinishReason
