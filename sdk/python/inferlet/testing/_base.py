"""What all interfaces of the fake host stand on: handles that become ready, and a tokenizer."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from inferlet import errors
from inferlet._loop import TERMINATION

_handles = itertools.count(1)
"""Of all fake hosts: what is collected late, when another host is in its place, must not mean one of the other's."""
_sleep = time.sleep  # in the sandbox's build, before it is replaced by one that waits on the host
_SPECIAL = re.compile(r"<\|\w+\|>")
_FIRST_CHARACTER = 100
"""Smaller token ids are special tokens, in the order in which they are first seen."""


class FakeBase:
    """Without an interface but `futures`."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self._special: list[str] = []
        self._ready: list[int] = []
        self.futures = self._interface("futures", wait_any=self._wait_any, forget=lambda handle: None)

    def terminate(self) -> None:
        """Ask the program to end, as `pie stop` or a closing client does."""
        self._ready.append(TERMINATION)

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Token ids of the fake tokenizer."""
        ids, end = [], 0
        for match in _SPECIAL.finditer(text) if special else ():
            ids += _characters(text[end : match.start()])
            ids.append(self._special_id(match[0]))
            end = match.end()
        return ids + _characters(text[end:])

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        """The text of token ids of the fake tokenizer."""
        return "".join(
            chr(i - _FIRST_CHARACTER) if i >= _FIRST_CHARACTER else "" if skip_special else self._special[i - 1]
            for i in ids
        )

    def _special_id(self, token: str) -> int:
        if token not in self._special:
            self._special.append(token)
        return self._special.index(token) + 1

    def _interface(self, name: str, /, **functions: Callable[..., Any]) -> SimpleNamespace:
        return SimpleNamespace(**{key: self._counted(f"{name}.{key}", f) for key, f in functions.items()})

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            self.calls[name] = self.calls.get(name, 0) + 1
            return function(*args)

        return call

    def _new_handle(self, *, is_ready: bool = False) -> int:
        handle = next(_handles)
        if is_ready:
            self._ready.append(handle)
        return handle

    def _wait_any(self, timeout_us: int | None) -> list[int]:
        if not self._ready:
            if timeout_us is None:
                raise errors.InvalidInput("nothing that is under way can wake the program")
            _sleep(timeout_us / 1e6)
        ready, self._ready = self._ready, []
        return ready


def _characters(text: str) -> list[int]:
    return [ord(character) + _FIRST_CHARACTER for character in text]
