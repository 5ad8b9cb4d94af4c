"""Calls of recordings in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pie_engine.protocol.departure import Departure

MAX_CHARS = 60
"""Of one argument."""
CONTEXT_CHARS = 12
"""Shown of a text before the place where it differs from another one."""


_DEPARTED = {"call": "does something else", "output": "says something else", "ending": "ends otherwise"}
_NOTHING = "(nothing)"


class Handle(str):
    """Something that the host has given out, by the order in which it did."""


_JSON_ARGUMENTS = {"session.send": 0, "model.render-chat": 1}
"""Positions of arguments that are JSON, and are shown as what they stand for."""


def call_text(function: str, arguments: Sequence[Any], other: Sequence[Any] = (), max_chars: int = MAX_CHARS) -> str:
    """`context.append-text(3, "Write a …", true)`, shortened so that what differs from `other` ones is seen."""
    texts = [value_text(*_differing(*pair), max_chars) for pair in _pairs(function, arguments, other)]
    return f"{function}({', '.join(texts)})"


def fitted_call_text(function: str, arguments: Sequence[Any], other: Sequence[Any], num_chars: int) -> str:
    """`call_text` in about `num_chars`: what is as in `other` gives way to what is not."""
    whole = call_text(function, arguments, other, num_chars)
    pairs = _pairs(function, arguments, other)
    num_other = sum(value != theirs for value, theirs in pairs)
    if len(whole) <= num_chars or not num_other:
        return whole
    texts = [_short(value) if value == theirs else "" for value, theirs in pairs]
    room = (num_chars - len(f"{function}({', '.join(texts)})")) // num_other - len("……")
    shown = [text or _fitted(*pair, max(room, CONTEXT_CHARS)) for text, pair in zip(texts, pairs, strict=True)]
    return f"{function}({', '.join(shown)})"


def _short(value: Any) -> str:
    return value if isinstance(value, Handle) else "…"


def _fitted(value: Any, other: Any, max_chars: int) -> str:
    """Of an object those fields that differ, without all of its braces."""
    shown, start = _differing(value, other)
    if isinstance(shown, dict) and isinstance(other, dict):
        text = f"{{{', '.join(_dotted(shown))}}}"
        return text if len(text) <= max_chars else text[:max_chars] + "…"
    return value_text(shown, start, max_chars)


def _dotted(value: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """`sampler.temperature: 1.0`"""
    for name, each in value.items():
        if isinstance(each, dict):
            yield from _dotted(each, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}: {value_text(each)}"


def _pairs(function: str, arguments: Sequence[Any], other: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Each argument with the one that it is compared with."""
    beside = list(other if len(other) == len(arguments) else arguments)
    arguments, place = list(arguments), _JSON_ARGUMENTS.get(function)
    for values in (arguments, beside):
        if place is not None and place < len(values):
            values[place] = _said(values[place])
    return list(zip(arguments, beside, strict=True))


def _said(text: Any) -> Any:
    """What JSON stands for; a secret in it may have been replaced by what is none."""
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text


def value_text(value: Any, start: int = 0, max_chars: int = MAX_CHARS) -> str:
    """JSON on one line, shortened to the part that begins at about `start`."""
    text = value if isinstance(value, Handle) else json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
    if len(text) <= max_chars:
        return text
    first = max(0, min(start - min(CONTEXT_CHARS, max_chars // 3), len(text) - max_chars))
    cut = text[first : first + max_chars]
    return ("…" if first else "") + cut + ("…" if first + max_chars < len(text) else "")


def departure_lines(departure: Departure) -> list[str]:
    """Where a replay does something else: what the program did, and what the recording has."""
    made, recorded = departure.made, departure.recorded
    theirs = recorded.arguments if recorded is not None else ()
    lines = [f"the program {_DEPARTED[departure.kind]} than the recording, at call {departure.number}"]
    if departure.text or made is None:
        lines.append(f"  program    {departure.text or _NOTHING}")
    else:
        lines.append(f"  program    {_place(departure.place)}: {call_text(made[0], made[1], theirs)}")
    if recorded is not None:
        text = call_text(recorded.function, theirs, made[1] if made is not None else ())
        lines.append(f"  recording  {_place(recorded.place)}: {text}")
    elif not departure.text:
        lines.append(f"  recording  {_NOTHING}")
    return lines


def _place(place: str) -> str:
    return place or "(no line of the program)"


def _differing(value: Any, other: Any) -> tuple[Any, int]:
    """What is to be shown of a value, and where in its text it begins to differ."""
    value, other = _without_nulls(value), _without_nulls(other)
    if isinstance(value, dict) and isinstance(other, dict) and value != other:
        fields = {key: each for key, each in value.items() if other.get(key) != each}
        shown = {key: _differing(each, other.get(key))[0] for key, each in fields.items()}
        return shown, 0
    text, theirs = json.dumps(value, ensure_ascii=False), json.dumps(other, ensure_ascii=False)
    common = next((i for i, (a, b) in enumerate(zip(text, theirs, strict=False)) if a != b), 0)
    return value, common


def _without_nulls(value: Any) -> Any:
    """Most fields of a plan are not set."""
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each not in (None, [], "")}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value
