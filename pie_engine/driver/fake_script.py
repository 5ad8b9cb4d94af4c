"""What the fake driver is told to do, as data: a JSON file, or the same in Python."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from pie_engine.errors import InvalidConfig


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Unknown keys are refused."""


class Reply(_Part, frozen=True):
    """What to answer: the first reply whose `match` is found in the prompt.

    How far a reply has come is read off the sequence: a prompt that is another prompt and the beginning of its reply is
    answered with the rest of that reply.
    """

    text: str
    match: str | None = None
    """Regular expression, searched in the whole decoded prompt with its special tokens; null matches all."""


class Fault(_Part, frozen=True):
    """A failure at one step."""

    step: int
    """Counted from 0 over the calls of `execute`."""
    row: int | None = None
    """The row that fails alone; null: the whole step raises, as if the device had failed."""
    message: str = "scripted failure"


class FakeScript(_Part, frozen=True):
    """The behaviour of the fake driver. Without replies it writes a pseudo text that depends on every token so far."""

    replies: tuple[Reply, ...] = ()
    step_delay_ms: float = 0.0
    """How long a step takes, whatever is in it."""
    token_delay_ms: float = 0.0
    """What each token of a step adds."""
    faults: tuple[Fault, ...] = ()
    mean_length: int = 0
    """After how many tokens, on average, the pseudo text ends. 0: never."""
    max_context_tokens: int = 4096
    window: int = 0
    """How many positions each token sees, itself included, as if all layers had a sliding window. 0: all."""
    max_pages: int = 1 << 20
    """Allocating more is refused as out of memory."""
    page_bytes: int = 16384
    """What a KV page pretends to take."""

    @classmethod
    def read(cls, path: str | Path) -> FakeScript:
        """From a JSON file; raises `InvalidConfig` naming the file and the field."""
        try:
            script = msgspec.json.decode(Path(path).read_bytes(), type=cls)
        except (OSError, msgspec.DecodeError) as error:
            raise InvalidConfig(f"fake script {path}: {error}", hint="see FakeScript for its fields") from error
        for reply in script.replies:
            _check_pattern(reply, path)
        return script


def _check_pattern(reply: Reply, path: str | Path) -> None:
    try:
        re.compile(reply.match or "")
    except re.error as error:
        raise InvalidConfig(f"fake script {path}: {reply.match!r} is not a regular expression: {error}") from error
