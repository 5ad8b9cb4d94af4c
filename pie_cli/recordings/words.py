"""Calls of recordings in words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

MAX_CHARS = 60
"""Of one argument."""


def call_text(function: str, arguments: Sequence[Any], max_chars: int = MAX_CHARS) -> str:
    """`context.append-text(3, "Write a …", true)`"""
    return f"{function}({', '.join(value_text(value, max_chars) for value in arguments)})"


def value_text(value: Any, max_chars: int = MAX_CHARS) -> str:
    """JSON, on one line, shortened in its middle."""
    text = json.dumps(_without_nulls(value), ensure_ascii=False)
    if len(text) <= max_chars:
        return text
    half = (max_chars - 3) // 2
    return f"{text[:half]} … {text[-half:]}"


def place_text(place: str) -> str:
    return place or "(no line of the program)"


def _without_nulls(value: Any) -> Any:
    """Most fields of a plan are not set."""
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each not in (None, [], "")}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value
