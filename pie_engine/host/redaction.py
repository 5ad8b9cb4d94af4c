"""Secrets of a process, and texts without them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import msgspec


class Redaction:
    """Replaces the values of secrets by `[secret NAME]` in JSON texts, and in plain ones."""

    def __init__(self, values: Mapping[str, str]) -> None:
        forms = {form: name for name, value in values.items() for form in _forms(value)}
        # The longest first: one value may begin another.
        ordered = sorted(forms, key=len, reverse=True)
        self._names = forms
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, text: str) -> str:
        return text if self._pattern is None else self._pattern.sub(self._name, text)

    def _name(self, found: re.Match[str]) -> str:
        return f"[secret {self._names[found[0]]}]"


def _forms(value: str) -> set[str]:
    """As it is, and as JSON writes it inside a text, with and without escapes for what is not ASCII."""
    return {value, json.dumps(value)[1:-1], msgspec.json.encode(value).decode()[1:-1]}
