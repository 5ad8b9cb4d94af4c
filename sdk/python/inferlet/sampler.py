"""How the next token is chosen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from inferlet import _checks, _transport
from inferlet._packing import pack_pairs, pack_tokens
from inferlet.errors import InvalidInput

if TYPE_CHECKING:
    from inferlet.model import Model

_INF = math.inf
_RANGES: dict[str, tuple[str, float, float]] = {
    "temperature": ("[)", 0, _INF),
    "top_k": ("[)", 0, _INF),
    "top_p": ("(]", 0, 1),
    "min_p": ("[]", 0, 1),
    "typical_p": ("(]", 0, 1),
    "epsilon_cutoff": ("[)", 0, 1),
    "eta_cutoff": ("[)", 0, 1),
    "xtc_probability": ("[]", 0, 1),
    "xtc_threshold": ("(]", 0, 0.5),
    "mirostat_tau": ("[)", 0, _INF),
    "mirostat_eta": ("(]", 0, 1),
    "repetition_penalty": ("()", 0, _INF),
    "frequency_penalty": ("[]", -2, 2),
    "presence_penalty": ("[]", -2, 2),
    "penalty_window": ("[)", 0, _INF),
    "dry_multiplier": ("[)", 0, _INF),
    "dry_base": ("[]", 1, 10),
    "dry_allowed_length": ("[)", 1, _INF),
}
"""The engine's, whose words these are, too; which ends belong to it, lowest, highest."""
_INTEGERS = ("top_k", "penalty_window", "dry_allowed_length")
_BASIC = ("temperature", "top_k", "top_p", "min_p")
_REPLACED_BY_MIROSTAT = ("top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "xtc_probability")


class SamplerOptions(TypedDict, total=False):
    """The parameters of a `Sampler`."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
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
    dry_breakers: Sequence[int | str]
    logit_bias: Mapping[int, float]
    allowed_tokens: Iterable[int] | None
    banned_tokens: Iterable[int]


_DEFAULTS: dict[str, Any] = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "xtc_probability": 0.0,
    "xtc_threshold": 0.1,
    "mirostat_tau": 0.0,
    "mirostat_eta": 0.1,
    "repetition_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "penalty_window": 0,
    "dry_multiplier": 0.0,
    "dry_base": 1.75,
    "dry_allowed_length": 2,
    "dry_breakers": ("\n", ":", '"', "*"),
    "logit_bias": {},
    "allowed_tokens": None,
    "banned_tokens": (),
}


class Sampler:
    """Bias and penalties, then temperature, then truncations, then one draw. Immutable; share it between contexts.

    >>> Sampler.greedy()
    >>> Sampler.temperature(0.8)
    >>> Sampler.top_p(0.9, temperature=0.7)
    >>> Sampler.min_p(0.1, temperature=1.5, repetition_penalty=1.1)
    >>> Sampler.top_k(40).replace(logit_bias={50: -5.0})

    All parameters go together, but for mirostat, which replaces the other truncations; docs/sampling.md has the ranges,
    the order, the formulas and where they come from.
    """

    __slots__ = ("_is_basic", "_values")

    def __init__(self, **options: Unpack[SamplerOptions]) -> None:
        """Without arguments: a draw from what the model says.

        Args:
            temperature: 0 takes the likeliest token, after bias and penalties.
            top_k: keep this many of the likeliest tokens; 0: off.
            top_p: keep the fewest tokens that have this probability together; 1: off.
            min_p: keep what has this share of the likeliest token's probability; 0: off.
            typical_p: keep what is nearest to the expected surprise, up to this probability; 1: off.
            epsilon_cutoff: keep what has this probability; 0: off.
            eta_cutoff: the same, lower where the model is unsure; 0: off.
            xtc_probability: how often all top choices but the last one are removed; 0: off.
            xtc_threshold: what a top choice is.
            mirostat_tau: surprise to aim at, in bits; 0: off.
            mirostat_eta: how fast mirostat adapts.
            repetition_penalty: divides the logits of tokens that the context has; 1: off.
            frequency_penalty: subtracted for each time that a token was generated; 0: off.
            presence_penalty: subtracted for tokens that were generated; 0: off.
            penalty_window: how many of the last tokens the penalties and DRY look at; 0: all.
            dry_multiplier: how much going on with a repetition costs; 0: off.
            dry_base: how that grows with the length of the repetition.
            dry_allowed_length: how long it may be at no cost.
            dry_breakers: texts or token ids across which nothing counts as a repetition.
            logit_bias: what to add to the logits of tokens; `-math.inf` bans one.
            allowed_tokens: nothing else is chosen; None: everything may be.
            banned_tokens: are never chosen.

        Raises `InvalidInput` naming the parameter, its value and what it may be.
        """
        unknown = next((name for name in options if name not in _DEFAULTS), None)
        if unknown is not None:
            raise InvalidInput(f"a sampler has no `{unknown}`", hint=f"there are: {', '.join(_DEFAULTS)}")
        self._values = {**_DEFAULTS, **{name: _checked(name, value) for name, value in options.items()}}
        self._is_basic = all(name in _BASIC or self._values[name] == _DEFAULTS[name] for name in options)
        if self._values["mirostat_tau"]:
            self._check_mirostat()

    @classmethod
    def greedy(cls, **options: Unpack[SamplerOptions]) -> Sampler:
        """Always the most likely token, after bias and penalties."""
        return cls(**{"temperature": 0.0, **options})

    @classmethod
    def temperature(cls, temperature: float, **options: Unpack[SamplerOptions]) -> Sampler:
        """Draws from the distribution sharpened (below 1) or flattened (above 1)."""
        return cls(**{**options, "temperature": temperature})

    @classmethod
    def top_p(cls, top_p: float, **options: Unpack[SamplerOptions]) -> Sampler:
        """Draws from the fewest tokens that together have probability `top_p` (nucleus, Holtzman et al. 2019)."""
        return cls(**{**options, "top_p": top_p})

    @classmethod
    def top_k(cls, top_k: int, **options: Unpack[SamplerOptions]) -> Sampler:
        """Draws from the `top_k` most likely tokens."""
        return cls(**{**options, "top_k": top_k})

    @classmethod
    def min_p(cls, min_p: float, **options: Unpack[SamplerOptions]) -> Sampler:
        """Draws from what has at least `min_p` times the probability of the likeliest token (Nguyen et al. 2024)."""
        return cls(**{**options, "min_p": min_p})

    @classmethod
    def typical(cls, typical_p: float, **options: Unpack[SamplerOptions]) -> Sampler:
        """Draws from the tokens nearest to the expected surprise (Meister et al. 2022)."""
        return cls(**{**options, "typical_p": typical_p})

    @classmethod
    def mirostat(cls, tau: float, *, eta: float = 0.1, **options: Unpack[SamplerOptions]) -> Sampler:
        """Keeps the surprise of the text at `tau` bits (mirostat version 2, Basu et al. 2020)."""
        return cls(**{**options, "mirostat_tau": tau, "mirostat_eta": eta})

    def replace(self, **options: Unpack[SamplerOptions]) -> Sampler:
        """Another sampler, with these parameters changed."""
        return Sampler(**{**self._values, **options})

    @property
    def is_greedy(self) -> bool:
        """Whether nothing is left to chance."""
        return self._values["temperature"] == 0.0

    def __repr__(self) -> str:
        changed = {name: value for name, value in self._values.items() if value != _DEFAULTS[name]}
        name = "Sampler.greedy" if self.is_greedy else "Sampler"
        if self.is_greedy:
            del changed["temperature"]
        return f"{name}({', '.join(f'{key}={value!r}' for key, value in changed.items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sampler) and self._values == other._values

    def __hash__(self) -> int:
        return hash(repr(self))

    def _check_mirostat(self) -> None:
        for name in _REPLACED_BY_MIROSTAT:
            if (value := self._values[name]) != _DEFAULTS[name]:
                raise InvalidInput(
                    f"`mirostat_tau` = {self._values['mirostat_tau']:g} does not go with `{name}` = {value:g}",
                    hint="mirostat decides by itself how many tokens stay; leave the other truncations out",
                )

    def _record(self, model: Model) -> Any:
        """As the host takes it."""
        wire, values = _transport.host.generate, self._values
        basic = [values[name] for name in _BASIC]
        if self._is_basic:
            return wire.Sampler(*basic, None)
        allowed = values["allowed_tokens"]
        more = wire.SamplerOptions(
            *(values[name] for name in _RANGES if name not in _BASIC),
            pack_tokens(_breakers(values["dry_breakers"], model) if values["dry_multiplier"] else ()),
            pack_pairs(values["logit_bias"].items()),
            None if allowed is None else pack_tokens(allowed),
            pack_tokens(values["banned_tokens"]),
        )
        return wire.Sampler(*basic, more)


def sampler_record(sampler: Any, model: Model) -> Any:
    """As the host takes it. Raises `InvalidInput` for what is no `Sampler`."""
    if not isinstance(sampler, Sampler):
        raise InvalidInput(f"`sampler` has to be a Sampler; got {sampler!r}", hint=_sampler_hint(sampler))
    return sampler._record(model)


def _sampler_hint(wrong: Any) -> str:
    if isinstance(wrong, int | float) and not isinstance(wrong, bool):
        return f"write `Sampler.temperature({wrong!r})`"
    if wrong == "greedy":
        return "write `Sampler.greedy()`"
    hint = "there are `Sampler.greedy()`, `Sampler.temperature(0.7)`, `Sampler.top_p(0.9)` and `Sampler.top_k(40)`"
    return f"{hint}; what the model shall read goes into `ctx.user(…)`" if isinstance(wrong, str) else hint


def _checked(name: str, value: Any) -> Any:
    if name in _RANGES:
        return _number(name, value)
    if name == "logit_bias":
        return _bias(value)
    if name == "dry_breakers":
        return tuple(each if isinstance(each, str) else _checks.token_ids(f"`{name}`", [each])[0] for each in value)
    if name == "allowed_tokens" and value is None:
        return None
    ids = tuple(_checks.token_ids(f"`{name}`", value))
    if name == "allowed_tokens" and not ids:
        raise InvalidInput("`allowed_tokens` is empty: no token could be chosen", hint="None allows all tokens")
    return ids


def _number(name: str, value: Any) -> float | int:
    ends, low, high = _RANGES[name]
    kinds = int if name in _INTEGERS else int | float
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    is_above = is_number and (value >= low if ends[0] == "[" else value > low)
    if not is_above or not (value <= high if ends[1] == "]" else value < high):
        kind = "an integer, " if name in _INTEGERS and not is_number else "" if is_number else "a number, "
        raise InvalidInput(f"`{name}` has to be {kind}{_span(ends, low, high)}; got {value!r}")
    return value if name in _INTEGERS else float(value)


def _span(ends: str, low: float, high: float) -> str:
    least = f"{low:g} or more" if ends[0] == "[" else f"above {low:g}"
    if high == _INF:
        return least
    return (
        f"from {low:g} to {high:g}"
        if ends == "[]"
        else f"{least} and {'at most' if ends[1] == ']' else 'below'} {high:g}"
    )


def _bias(value: Any) -> dict[int, float]:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"`logit_bias` has to be a dict from token ids to numbers; got {value!r}")
    for token, bias in value.items():
        if not isinstance(bias, int | float) or isinstance(bias, bool) or not bias < _INF:
            raise InvalidInput(
                f"`logit_bias` has to be finite, or -inf to ban a token; got {bias!r} for token {token}",
                hint="`allowed_tokens` leaves nothing but what it lists",
            )
    return dict(zip(_checks.token_ids("`logit_bias`", value), map(float, value.values()), strict=True))


_breaker_ids: dict[tuple[str, str], int | None] = {}


def _breakers(breakers: Sequence[int | str], model: Model) -> list[int]:
    """Token ids; of a text, the one that it ends with in the middle of a word."""
    found = [each if isinstance(each, int) else _breaker_id(each, model) for each in breakers]
    return [token for token in found if token is not None]


def _breaker_id(text: str, model: Model) -> int | None:
    key = (model._name, text)
    if key not in _breaker_ids:
        ids = model.tokenizer.encode(f"a{text}") if text else []
        _breaker_ids[key] = ids[-1] if ids else None
    return _breaker_ids[key]
