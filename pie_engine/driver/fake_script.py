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

    It goes on as long as the context holds what was asked and what of it has been said; see `fake_replies`.
    """

    text: str = ""
    match: str | None = None
    """Regular expression, searched in the whole decoded prompt with its special tokens; null matches all."""
    once: bool = False
    """Whether it is for one prompt only, so that of several the next one is for the next."""
    tokens: tuple[str | dict[str, float], ...] = ()
    """Instead of `text`: piece by piece. A table is for one token: what it may be, with the share of each; an empty
    text is the end of the reply."""


class Fault(_Part, frozen=True):
    """A failure at one step."""

    step: int
    """Counted from 0 over the calls of `execute`."""
    row: int | None = None
    """The row that fails alone; null: the whole step raises, as if the device had failed."""
    message: str = "scripted failure"
    code: str = "internal"
    """Of the error of that row."""


class FakeScript(_Part, frozen=True):
    """The behaviour of the fake driver. Without replies it writes a pseudo text that depends on every token so far."""

    replies: tuple[Reply, ...] = ()
    strict: bool = False
    """Whether a prompt without a reply, and a reply that a grammar does not let through, are errors."""
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
