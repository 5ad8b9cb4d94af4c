"""The records and enums of the WIT, as the fake host gives them to the SDK."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(enum.Enum):
    DEBUG = 0
    INFO = 1
    WARNING = 2
    ERROR = 3


class Output(enum.Enum):
    STDOUT = 0
    STDERR = 1


class ChildEventKind(enum.Enum):
    LAUNCHED = 0
    MESSAGE = 1
    RETURNED = 2
    FAILED = 3


@dataclass
class ChildEvent:
    kind: ChildEventKind
    value: str


class Finish(enum.Enum):
    STOP = 0
    LENGTH = 1
    CONTEXT = 2
    DEADLINE = 3
    STOPPED = 4


class SpeculationKind(enum.Enum):
    LOOKUP = 0
    MODEL = 1


@dataclass
class Speculation:
    kind: SpeculationKind
    max_tokens: int


class GrammarKind(enum.Enum):
    JSON_SCHEMA = 0
    REGEX = 1
    LARK = 2
    EBNF = 3
    CHOICE = 4


@dataclass
class Grammar:
    kind: GrammarKind
    text: str


@dataclass
class SamplerOptions:
    typical_p: float
    epsilon_cutoff: float
    eta_cutoff: float
    xtc_probability: float
    xtc_threshold: float
    mirostat_tau: float
    mirostat_eta: float
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    penalty_window: int
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_breakers: str
    logit_bias: str
    allowed_tokens: str | None
    banned_tokens: str


@dataclass
class Placement:
    positions: list[int] | None
    mask: list[list[int]] | None


@dataclass
class Probes:
    top_k: int
    logprobs_of: list[int]
    entropy: bool
    logits: bool
    hidden: bool
    of_allowed: bool


@dataclass
class Sampler:
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    more: SamplerOptions | None


@dataclass
class Plan:
    sampler: Sampler
    max_tokens: int | None
    timeout_s: float | None
    speculation: Speculation | None
    stop: list[str]
    stop_tokens: list[int]
    ignore_eos: bool
    seed: int | None
    logprobs: bool
    top_logprobs: int
    entropy: bool
    chunk_ms: int
    grammar: Grammar | None
    window: int | None
    sinks: int


class EarlyStopping(enum.Enum):
    NO = 0
    YES = 1
    NEVER = 2


@dataclass
class BeamPlan:
    num_beams: int
    max_tokens: int | None
    length_penalty: float
    early_stopping: EarlyStopping
    num_returned: int
    stop: list[str]
    stop_tokens: list[int]
    ignore_eos: bool
    timeout_s: float | None
    grammar: Grammar | None
