"""LoRA adapters: what a model has learned besides, one for each context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inferlet import _checks, _transport
from inferlet.errors import NotFound

if TYPE_CHECKING:
    from inferlet.model import Model


@dataclass(frozen=True)
class AdapterInfo:
    """What the engine knows of an adapter."""

    name: str
    adapter_id: str
    """Digest of its files."""
    rank: int
    num_bytes: int
    """Memory that it takes."""


class Adapter:
    """An adapter that is loaded with a model: `pie adapter add`, or `adapters` in the configuration.

    >>> Adapter.names()
    >>> ctx = Context(adapter="pirate")
    """

    def __init__(self, name: str, model: Model | str | None = None) -> None:
        """`name` as `Adapter.names()` lists it; it is looked up when it is first used."""
        self.name = _checks.text("the name of an adapter", name)
        self._model = _name_of(model)

    @staticmethod
    def names(model: Model | str | None = None) -> list[str]:
        """The names of all that are loaded with a model (None: the default one)."""
        return [each.name for each in _transport.call(_transport.host.model.adapters, _name_of(model))]

    @property
    def info(self) -> AdapterInfo:
        """Its digest and sizes. Raises `NotFound`."""
        for each in _transport.call(_transport.host.model.adapters, self._model):
            if each.name == self.name:
                return AdapterInfo(each.name, each.adapter_id, each.rank, each.num_bytes)
        raise NotFound(f"no adapter called `{self.name}` is loaded", hint="`Adapter.names()` lists them")

    def __repr__(self) -> str:
        return f"Adapter({self.name!r})"


def _name_of(model: Model | str | None) -> str:
    return model if isinstance(model, str) else "" if model is None else model._name
