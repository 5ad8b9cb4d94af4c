"""What a program asks the core to generate."""

from __future__ import annotations

from typing import Literal

import msgspec

from pie_engine.protocol.sampling import GREEDY, Sampler

RUN_AHEAD_TOKENS = 64
"""Most tokens of a stream that the core generates before the program has taken them."""
CHUNK_MS = 20

FinishReason = Literal["stop", "length", "stopped"]
GrammarKind = Literal["json-schema", "regex", "lark", "ebnf", "choice"]


class Grammar(msgspec.Struct, frozen=True):
    """What a reply has to follow, token by token."""

    kind: GrammarKind
    text: str
    """By kind: a JSON schema; a regular expression for the whole reply; Lark rules; EBNF as llama.cpp has it (GBNF); a
    JSON list of texts."""


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
    chunk_ms: int = CHUNK_MS
    grammar: Grammar | None = None
    """The reply ends where it is complete; a stop token is only let in where it could end."""


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Tokens: of the context before the plan, of those the ones that did not have to run for it, and generated."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
