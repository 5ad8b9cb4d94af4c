"""Words of the command line that are texts are taken as they are.

typer converts every value through pydantic, also a text to a text and a default to itself. Loading pydantic for that
takes 130 ms, a third of `pie ps`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

NEGATIVE_NUMBERS = {"ignore_unknown_options": True}
"""Settings of a verb whose words may be numbers: `-1` is refused as a number, and not as an unknown option."""


def number_of(text: str, rule: str) -> float:
    """Raises `InvalidInput`, which begins with `rule`, for what is none."""
    try:
        return float(text)
    except ValueError:
        from pie_engine.errors import InvalidInput

        raise InvalidInput(f"{rule}; got `{text}`") from None


def take_as_they_are() -> None:
    """Have typer ask us first. Where a version of typer has no such place, nothing changes."""
    import typer.core

    convert = getattr(typer.core, "build_runtime_param", None)
    if convert is not None and convert is not _AsItIs:
        _AsItIs.otherwise = staticmethod(convert)
        typer.core.build_runtime_param = _AsItIs  # type: ignore[attr-defined, assignment]


class _AsItIs:
    """What typer asks for the values of one parameter."""

    otherwise: Callable[[Any], Any]
    """Typer's own."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        annotation = self._kind.annotation
        if value is None and not param.multiple and param.nargs == 1:
            return None
        if isinstance(annotation, type) and type(value) is annotation and annotation in (str, bool, int, float):
            return value
        if annotation == list[str] and not isinstance(value, str):
            return list(value or ())
        return self.otherwise(self._kind).coerce(value, param=param, ctx=ctx)
