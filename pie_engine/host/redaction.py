"""Secrets of a process, and what it says without them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec


class Redaction:
    """Replaces the values of secrets by `[secret NAME]`."""

    def __init__(self, values: Mapping[str, str]) -> None:
        forms = {form: name for name, value in values.items() for form in _forms(value)}
        # The longest first: one value may begin another.
        ordered = sorted(forms, key=len, reverse=True)
        self._names = forms
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, text: str) -> str:
        """A text, which may have JSON in it, or be JSON that nobody reads again."""
        return text if self._pattern is None else self._pattern.sub(self._name, text)

    def in_json(self, text: str) -> str:
        """JSON, which it stays: texts and keys are replaced as they read, and a number that is a whole value."""
        if self._pattern is None:
            return text
        try:
            value = msgspec.json.decode(text)
            redacted = self.in_data(value, with_numbers=True)
        except (msgspec.DecodeError, RecursionError):
            return self(text)
        return text if redacted == value else msgspec.json.encode(redacted).decode()

    def in_data(self, value: Any, *, with_numbers: bool = False) -> Any:
        """The same for plain data."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, dict):
            return {
                self(key) if isinstance(key, str) else key: self.in_data(each, with_numbers=with_numbers)
                for key, each in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.in_data(each, with_numbers=with_numbers) for each in value]
        if with_numbers and isinstance(value, int | float) and str(value) in self._names:
            return self(str(value))
        return value

    def _name(self, found: re.Match[str]) -> str:
        return f"[secret {self._names[found[0]]}]"


def _forms(value: str) -> set[str]:
    """As it is, and as JSON writes it inside a text, with and without escapes for what is not ASCII."""
    return {value, json.dumps(value)[1:-1], msgspec.json.encode(value).decode()[1:-1]}
