"""Which files of a repository a model needs: configuration, tokenizer, chat templates and one set of weights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from pie_engine.errors import InvalidInput, ModelError, NotFound, Unsupported

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_SMALL = frozenset(
    {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "chat_template.jinja",
        "chat_template.json",
    }
)
_TEMPLATES = re.compile(r"additional_chat_templates/[\w.-]+\.jinja")
_GGUF_SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


def small_files(paths: Iterable[str], *, repository: str) -> list[str]:
    """What says what the model is; fetched first. Raises when the repository holds no model that Pie loads."""
    paths = list(paths)
    if "config.json" not in paths:
        if "adapter_config.json" in paths:
            raise Unsupported(f"{repository} is an adapter, not a model", hint="pull the model that it belongs to")
        raise ModelError(f"{repository} has no config.json", hint="is it a text-generation model?")
    if SINGLE not in paths and INDEX not in paths:
        has_others = any(path.endswith((".bin", ".pt", ".pth")) for path in paths)
        raise Unsupported(
            f"{repository} has no safetensors weights" + (", only pickled ones" if has_others else ""),
            hint="look for a repository with safetensors; pickled files can run any code, so Pie does not read them",
        )
    wanted = [path for path in paths if path in _SMALL or _TEMPLATES.fullmatch(path)]
    return wanted if SINGLE in paths else [*wanted, INDEX]


def weight_files(paths: Sequence[str], index: bytes | None, *, repository: str) -> list[str]:
    """The safetensors files: the single one, or those that the index names. Raises `ModelError` when one is missing."""
    if SINGLE in paths:
        return [SINGLE]
    try:
        names = sorted(set(json.loads(index or b"")["weight_map"].values()))
        is_sound = all(PurePosixPath(name).name == name for name in names)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{INDEX} of {repository} is damaged: {error}") from error
    missing = [name for name in names if name not in paths]
    if missing or not is_sound:
        raise ModelError(f"{INDEX} of {repository} names files that are not there: {', '.join(missing or names)}")
    return names


def gguf_file(paths: Iterable[str], wanted: str, *, repository: str) -> str:
    """The one GGUF file that `wanted` says: its name, or a part of it such as `Q4_K_M`."""
    files = sorted(path for path in paths if path.endswith(".gguf"))
    found = [path for path in files if wanted in (path, PurePosixPath(path).name)]
    found = found or [path for path in files if wanted.lower() in PurePosixPath(path).name.lower()]
    if not found:
        hint = f"it has: {', '.join(files)}" if files else "it has no GGUF files: leave --gguf out"
        raise NotFound(f"{repository} has no GGUF file `{wanted}`", hint=hint)
    if len(found) > 1:
        raise InvalidInput(f"`{wanted}` fits {len(found)} GGUF files of {repository}", hint=", ".join(found))
    if _GGUF_SPLIT.search(found[0]):
        raise Unsupported(f"{found[0]} is one part of a split GGUF file", hint="choose a file that is whole")
    return found[0]


def has_only_gguf(paths: Iterable[str]) -> bool:
    paths = list(paths)
    return any(path.endswith(".gguf") for path in paths) and SINGLE not in paths and INDEX not in paths
