"""The space that SentencePiece puts before a text (`▁`), and how to do without it where a text goes on.

Three settings of a `tokenizer.json` add it: the normalizer `Prepend`, the pre-tokenizer `Metaspace` by its
`prepend_scheme`, and the pre-tokenizer `ByteLevel` with `add_prefix_space`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import tokenizers
from tokenizers import normalizers, pre_tokenizers

PrefixScheme = Literal["none", "first", "each"]
"""Before nothing, before the text only, or before each part of it that stands between special tokens."""


def prefix_scheme(tokenizer: tokenizers.Tokenizer) -> PrefixScheme:
    """Where `tokenizer` adds a space that is not in the text."""
    schemes = {_scheme_of(step) for part in (tokenizer.normalizer, tokenizer.pre_tokenizer) for step in _steps(part)}
    return "each" if "each" in schemes else "first" if "first" in schemes else "none"


def drop_prefix(tokenizer: tokenizers.Tokenizer) -> None:
    """From now on it takes a text as it is."""
    if tokenizer.normalizer is not None:
        steps = [step for step in _steps(tokenizer.normalizer) if step["type"] != "Prepend"]
        tokenizer.normalizer = _restored(normalizers.Sequence([]), {"type": "Sequence", "normalizers": steps})
    if tokenizer.pre_tokenizer is not None:
        steps = [_without(step) for step in _steps(tokenizer.pre_tokenizer)]
        tokenizer.pre_tokenizer = _restored(pre_tokenizers.Sequence([]), {"type": "Sequence", "pretokenizers": steps})


def _scheme_of(step: dict[str, Any]) -> PrefixScheme:
    match step["type"]:
        case "Prepend":
            return "each"
        case "Metaspace":
            scheme: dict[str, PrefixScheme] = {"never": "none", "first": "first", "always": "each"}
            return scheme[step["prepend_scheme"]]
        case "ByteLevel" if step["add_prefix_space"]:
            return "each"
    return "none"


def _without(step: dict[str, Any]) -> dict[str, Any]:
    if step["type"] == "Metaspace":
        return {**step, "prepend_scheme": "never"}
    return {**step, "add_prefix_space": False} if step["type"] == "ByteLevel" else step


def _steps(part: Any) -> Iterator[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, as `tokenizer.json` writes them."""
    if part is not None:
        yield from _flat(json.loads(part.__getstate__()))


def _flat(raw: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if raw["type"] != "Sequence":
        yield raw
        return
    for step in raw.get("normalizers", raw.get("pretokenizers", ())):
        yield from _flat(step)


def _restored(empty: Any, raw: dict[str, Any]) -> Any:
    empty.__setstate__(json.dumps(raw).encode())
    return empty
