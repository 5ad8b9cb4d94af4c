"""What a program asks of the sampler; crosses from host to core and from core to driver."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import msgspec

from pie_engine.errors import InvalidInput


class Sampler(msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True, dict=True):
    """How the next token is chosen from the logits; docs/sampling.md has the formulas and their sources.

    The steps in their order; each is off at its default and sees what the ones before it have left:

    1. allowed and banned tokens, logit bias
    2. repetition, frequency and presence penalty, DRY
    3. temperature; 0 takes the likeliest token now, and what follows does nothing
    4. top-k, top-p, min-p, typical, epsilon cutoff, eta cutoff, XTC; or mirostat instead of all of them
    5. one draw by inverse CDF over what is left, sorted by probability
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    mirostat_tau: float = 0.0
    """Target surprise in bits; 0: off."""
    mirostat_eta: float = 0.1
    repetition_penalty: float = 1.0
    """Counts the whole context."""
    frequency_penalty: float = 0.0
    """Counts what was generated, as the presence penalty does."""
    presence_penalty: float = 0.0
    penalty_window: int = 0
    """How many of the last tokens the penalties and DRY look at; 0: all."""
    dry_multiplier: float = 0.0
    """0: off. DRY counts the whole context."""
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_breakers: tuple[int, ...] = ()
    """Tokens across which DRY sees no repetition."""
    logit_bias: dict[int, float] = {}
    """Added to the logits; -inf bans a token."""
    allowed_tokens: tuple[int, ...] | None = None
    """Nothing else is chosen; None: everything may be."""
    banned_tokens: tuple[int, ...] = ()

    @cached_property
    def is_greedy(self) -> bool:
        return self.temperature == 0.0

    @property
    def has_penalties(self) -> bool:
        return self.repetition_penalty != 1.0 or self.frequency_penalty != 0.0 or self.presence_penalty != 0.0

    # Asked for every token: kept with the object, beside its fields.
    @cached_property
    def reads_history(self) -> bool:
        """Whether the choice depends on the tokens so far, other than through the model."""
        return self.has_penalties or self.dry_multiplier != 0.0

    @cached_property
    def truncations(self) -> tuple[str, ...]:
        """The parameters that say what is left to draw from, in the order of the steps; without top-k."""
        names = ("top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "xtc_threshold", "mirostat_tau")
        return tuple(
            name
            for name in names
            if (self.xtc_probability if name == "xtc_threshold" else getattr(self, name) != getattr(GREEDY, name))
        )

    @cached_property
    def settings(self) -> tuple[float, float, float, float] | None:
        """Temperature, top-k, top-p and min-p, if no others play a part in a draw; else None."""
        if self.is_greedy:
            return GREEDY_SETTINGS
        if not set(self.truncations) <= {"top_p", "min_p"}:
            return None
        return self.temperature, self.top_k, self.top_p, self.min_p

    @cached_property
    def is_plain(self) -> bool:
        """Whether its `settings` are all that it asks for."""
        return self.settings is not None and not self.changes_logits

    @cached_property
    def changes_logits(self) -> bool:
        """Whether logits change before anything is chosen."""
        return (
            self.allowed_tokens is not None or bool(self.banned_tokens) or bool(self.logit_bias) or self.reads_history
        )


GREEDY = Sampler()
GREEDY_SETTINGS = (0.0, 0, 1.0, 0.0)


class TopToken(msgspec.Struct, frozen=True, array_like=True):
    """One entry of a top-k distribution: log-probability of `token` before temperature and filters."""

    token: int
    logprob: float


class Probes(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is looked at beside the draw: what the model says, before masks, bias, penalties and temperature."""

    top_k: int = 0
    """The most likely tokens with their log-probabilities."""
    logprobs_of: list[int] = []
    """Log-probabilities of these tokens."""
    entropy: bool = False
    """Of the distribution, in nats."""
    logits: bool = False
    hidden: bool = False
    """The hidden state of the last position after the final norm, as the output layer gets it."""
    of_allowed: bool = False
    """The most likely tokens are those of the tokens that the mask allows."""

    @property
    def is_empty(self) -> bool:
        return not (self.top_k or self.logprobs_of or self.entropy or self.logits or self.hidden)


NO_PROBES = Probes()


class Probed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was seen, of what was asked for."""

    top: list[TopToken] = []
    """Most likely first."""
    logprobs: list[float] = []
    """One for each of `logprobs_of`."""
    entropy: float | None = None
    logits: bytes = b""
    """fp32, little-endian: one for each token of the vocabulary."""
    hidden: bytes = b""
    """fp32, little-endian: one for each of the model's dimensions."""


NOTHING_PROBED = Probed()


@dataclass(frozen=True, slots=True)
class Range:
    """What a number may be. Neither NaN nor an infinity is ever inside."""

    low: float
    high: float = math.inf
    is_low_open: bool = False
    is_high_open: bool = False

    def __contains__(self, value: float) -> bool:
        is_above = value > self.low if self.is_low_open else value >= self.low
        is_below = value < self.high if self.is_high_open or self.high == math.inf else value <= self.high
        return is_above and is_below

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.is_low_open else f"{self.low:g} or more"
        if self.high == math.inf:
            return low
        if not self.is_low_open and not self.is_high_open:
            return f"from {self.low:g} to {self.high:g}"
        return f"{low} and {'below' if self.is_high_open else 'at most'} {self.high:g}"


RANGES = {
    "temperature": Range(0),
    "top_k": Range(0),
    "top_p": Range(0, 1, is_low_open=True),
    "min_p": Range(0, 1),
    "typical_p": Range(0, 1, is_low_open=True),
    "epsilon_cutoff": Range(0, 1, is_high_open=True),
    "eta_cutoff": Range(0, 1, is_high_open=True),
    "xtc_probability": Range(0, 1),
    "xtc_threshold": Range(0, 0.5, is_low_open=True),
    "mirostat_tau": Range(0),
    "mirostat_eta": Range(0, 1, is_low_open=True),
    "repetition_penalty": Range(0, is_low_open=True),
    "frequency_penalty": Range(-2, 2),
    "presence_penalty": Range(-2, 2),
    "penalty_window": Range(0),
    "dry_multiplier": Range(0),
    "dry_base": Range(1, 10),
    "dry_allowed_length": Range(1),
}
"""Of every number of a sampler. The SDK refuses the same values, with the same words."""
NOT_WITH_MIROSTAT = ("top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "xtc_probability")
_TOKEN_LISTS = ("dry_breakers", "logit_bias", "allowed_tokens", "banned_tokens")


def check_sampler(sampler: Sampler, vocab_size: int) -> None:
    """Raises `InvalidInput` naming the parameter, its value and what it may be."""
    for name, allowed in RANGES.items():
        value = getattr(sampler, name)
        if value not in allowed:
            raise InvalidInput(f"`{name}` has to be {allowed}; got {value!r}")
    for name in _TOKEN_LISTS:
        for token in getattr(sampler, name) or ():
            if not 0 <= token < vocab_size:
                raise InvalidInput(f"`{name}` has to hold token ids from 0 to {vocab_size - 1}; got {token}")
    for token, bias in sampler.logit_bias.items():
        if not bias < math.inf:
            raise InvalidInput(
                f"`logit_bias` has to be finite, or -inf to ban a token; got {bias} for token {token}",
                hint="`allowed_tokens` leaves nothing but what it lists",
            )
    if sampler.allowed_tokens is not None and not sampler.allowed_tokens:
        raise InvalidInput("`allowed_tokens` is empty: no token could be chosen", hint="None allows all tokens")
    if sampler.mirostat_tau:
        _check_mirostat(sampler)


def _check_mirostat(sampler: Sampler) -> None:
    for name in NOT_WITH_MIROSTAT:
        if (value := getattr(sampler, name)) != getattr(GREEDY, name):
            raise InvalidInput(
                f"`mirostat_tau` = {sampler.mirostat_tau:g} does not go with `{name}` = {value:g}",
                hint="mirostat decides by itself how many tokens stay; leave the other truncations out",
            )
