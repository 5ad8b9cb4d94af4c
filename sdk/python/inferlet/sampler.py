"""How the next token is chosen."""

from __future__ import annotations

from typing import Any

from inferlet import _transport
from inferlet.errors import InvalidInput


class Sampler:
    """Temperature, then top-k, then top-p, then one draw. Immutable; share it between contexts.

    >>> Sampler.greedy()
    >>> Sampler.temperature(0.8)
    >>> Sampler.top_p(0.9, temperature=0.7)
    >>> Sampler.top_k(40)
    """

    __slots__ = ("_temperature", "_top_k", "_top_p")

    def __init__(self, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> None:
        """`temperature` 0 is greedy; `top_k` 0 and `top_p` 1 are off. Raises `InvalidInput` for other values."""
        self._temperature = _number("temperature", temperature, 0.0, None)
        self._top_p = _number("top_p", top_p, 0.0, 1.0)
        if self._top_p == 0.0:
            raise InvalidInput("top_p has to be above 0", hint="for the most likely token use Sampler.greedy()")
        if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 0:
            raise InvalidInput(f"top_k has to be an integer from 0 (off); got {top_k!r}")
        self._top_k = top_k

    @classmethod
    def greedy(cls) -> Sampler:
        """Always the most likely token."""
        return cls(temperature=0.0)

    @classmethod
    def temperature(cls, temperature: float, *, top_k: int = 0, top_p: float = 1.0) -> Sampler:
        """Draws from the distribution sharpened (below 1) or flattened (above 1)."""
        return cls(temperature=temperature, top_k=top_k, top_p=top_p)

    @classmethod
    def top_p(cls, top_p: float, *, temperature: float = 1.0, top_k: int = 0) -> Sampler:
        """Draws from the fewest tokens that together have probability `top_p` (nucleus, Holtzman et al. 2019)."""
        return cls(temperature=temperature, top_k=top_k, top_p=top_p)

    @classmethod
    def top_k(cls, top_k: int, *, temperature: float = 1.0, top_p: float = 1.0) -> Sampler:
        """Draws from the `top_k` most likely tokens."""
        return cls(temperature=temperature, top_k=top_k, top_p=top_p)

    @property
    def is_greedy(self) -> bool:
        """Whether nothing is left to chance."""
        return self._temperature == 0.0

    def __repr__(self) -> str:
        if self.is_greedy:
            return "Sampler.greedy()"
        return f"Sampler(temperature={self._temperature}, top_k={self._top_k}, top_p={self._top_p})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sampler) and self._fields == other._fields

    def __hash__(self) -> int:
        return hash(self._fields)

    @property
    def _fields(self) -> tuple[float, int, float]:
        return self._temperature, self._top_k, self._top_p

    def _record(self) -> Any:
        """As the host takes it."""
        return _transport.host.generate.Sampler(*self._fields)


def sampler_record(sampler: Any) -> Any:
    """As the host takes it. Raises `InvalidInput` for what is no `Sampler`."""
    if not isinstance(sampler, Sampler):
        raise InvalidInput(f"`sampler` has to be a Sampler; got {sampler!r}", hint=_sampler_hint(sampler))
    return sampler._record()


def _sampler_hint(wrong: Any) -> str:
    if isinstance(wrong, int | float) and not isinstance(wrong, bool):
        return f"write `Sampler.temperature({wrong!r})`"
    if wrong == "greedy":
        return "write `Sampler.greedy()`"
    hint = "there are `Sampler.greedy()`, `Sampler.temperature(0.7)`, `Sampler.top_p(0.9)` and `Sampler.top_k(40)`"
    return f"{hint}; what the model shall read goes into `ctx.user(…)`" if isinstance(wrong, str) else hint


def _number(name: str, value: Any, low: float, high: float | None) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not value >= low or (high is not None and value > high) or value == float("inf"):
        span = f"from {low:g}" + (f" to {high:g}" if high is not None else "")
        raise InvalidInput(f"{name} has to be a number {span}; got {value!r}")
    return float(value)
