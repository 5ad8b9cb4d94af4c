"""Typed access to `config.json`: every complaint names the file and the field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pie_engine.errors import ModelError, Unsupported

DTYPES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of one number in each dtype that weights may have."""
_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}


@dataclass(frozen=True, slots=True)
class Fields:
    """The raw configuration; a null is the same as an absent field."""

    raw: Mapping[str, Any]
    where: str
    context_limit: int = 0
    """The longest context that will be asked for; 0: the model's own."""

    def over(self, **defaults: Any) -> Fields:
        """These fields, with a family's own defaults under them. A null in the file stays a null."""
        return replace(self, raw={**defaults, **self.raw})

    def inner(self, name: str) -> Fields:
        """The fields of an object within."""
        value = self.raw.get(name)
        if not isinstance(value, Mapping):
            raise ModelError(f"{self.where}: {name} must be an object, not {value!r}")
        return replace(self, raw=value, where=f"{self.where} ({name})")

    def size(self, name: str, default: int | None = None) -> int:
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ModelError(f"{self.where}: {name} must be a positive integer, not {value!r}")
        return value

    def optional_size(self, name: str) -> int | None:
        return None if self.raw.get(name) is None else self.size(name)

    def number(self, name: str, default: float | None = None) -> float:
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ModelError(f"{self.where}: {name} must be a number, not {value!r}")
        return float(value)

    def positive(self, name: str, default: float | None = None) -> float:
        value = self.number(name, default)
        if value <= 0:
            raise ModelError(f"{self.where}: {name} must be positive, not {value}")
        return value

    def optional_positive(self, name: str) -> float | None:
        return None if self.raw.get(name) is None else self.positive(name)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise ModelError(f"{self.where}: {name} must be true or false, not {value!r}")
        return value

    def numbers(self, name: str, length: int) -> tuple[float, ...]:
        """A list of `length` positive numbers."""
        value = self._value(name, None)
        if not isinstance(value, list) or not all(isinstance(item, int | float) and item > 0 for item in value):
            raise ModelError(f"{self.where}: {name} must be a list of positive numbers")
        if len(value) != length:
            raise ModelError(f"{self.where}: {name} has {len(value)} numbers, {length} are needed")
        return tuple(map(float, value))

    def dtype(self) -> str:
        name = str(self.raw.get("dtype") or self.raw.get("torch_dtype") or "float32").removeprefix("torch.")
        if name not in DTYPES:
            raise Unsupported(f"{self.where}: dtype {name!r} is not supported", hint=f"supported: {', '.join(DTYPES)}")
        return name

    def activation(self, name: str = "hidden_act") -> str:
        value = self.raw.get(name) or "silu"
        if value not in _ACTIVATIONS:
            raise Unsupported(
                f"{self.where}: activation {value!r} is not supported", hint=f"supported: {', '.join(_ACTIVATIONS)}"
            )
        return _ACTIVATIONS[value]

    def token_ids(self, name: str) -> tuple[int, ...]:
        return token_ids(self.raw.get(name), self.where)

    def layer_windows(self, window: int | None, is_windowed: list[bool]) -> tuple[int | None, ...]:
        """The window of each layer: as `layer_types` says, or else where `is_windowed`."""
        kinds = self.raw.get("layer_types")
        if kinds is None:
            return tuple(window if here else None for here in is_windowed)
        known = ("full_attention", "sliding_attention")
        if not isinstance(kinds, list) or len(kinds) != len(is_windowed):
            raise ModelError(f"{self.where}: layer_types must name the kind of each of {len(is_windowed)} layers")
        for kind in kinds:
            if kind not in known:
                raise Unsupported(
                    f"{self.where}: layers of type {kind!r} are not supported", hint=f"supported: {', '.join(known)}"
                )
        return tuple(window if kind == "sliding_attention" else None for kind in kinds)

    def _value(self, name: str, default: Any) -> Any:
        value = self.raw.get(name)
        if value is None:
            value = default
        if value is None:
            raise ModelError(f"{self.where} has no {name}", hint="is this the folder of a text-generation model?")
        return value


def token_ids(value: Any, where: str) -> tuple[int, ...]:
    """The ids of one field, which may hold none, one or a list."""
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int) or token < 0:
            raise ModelError(f"{where}: token id {token!r} is not a non-negative integer")
    return tuple(ids)
