"""Is a model whole: its files by their checksums, its tensors, its tokenizer and its chat template."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from pie_engine.errors import PieError
from pie_engine.hub import checksum
from pie_engine.hub.facts import has_chat_template
from pie_engine.hub.fetch import Progress
from pie_engine.model.checkpoint import Checkpoint

SAMPLE_TEXT = "Hello, world! Straße 東京 🙂\n  x = 1"
_CHUNK_BYTES = 1 << 22

Severity = Literal["ok", "note", "problem"]


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of `pie model check`."""

    check: str
    severity: Severity
    message: str
    fix: str = ""


def check_model(folder: Path, progress: Progress) -> Iterator[Result]:
    """Each check as it is done; the later ones also when an earlier one found a problem."""
    yield _guarded("tensors", lambda: _tensors(folder))
    yield from _files(folder, progress)
    yield _guarded("tokenizer", lambda: _tokenizer(folder))
    yield _guarded("template", lambda: _template(folder))


def _guarded(check: str, run: Callable[[], Result]) -> Result:
    try:
        return run()
    except PieError as error:
        return Result(check, "problem", error.message, error.hint)
    except OSError as error:
        return Result(check, "problem", f"{error.filename or 'a file'} cannot be read: {error.strerror}")


def _tensors(folder: Path) -> Result:
    checkpoint = Checkpoint.open(folder)
    config, num_files = checkpoint.config, len({info.file for info in checkpoint.tensors.values()})
    return Result(
        "tensors",
        "ok",
        f"{config.architecture}: {len(checkpoint.tensors)} tensors, {checkpoint.num_parameters:,} parameters in "
        f"{num_files} {'file' if num_files == 1 else 'files'}, shapes as config.json says",
    )


def _files(folder: Path, progress: Progress) -> Iterator[Result]:
    """By their checksums where the cache knows them; otherwise they are read to the end."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    known = {path: checksum_of(path) for path in paths}
    wrong = [path for path in paths if known[path] and not _has(path, known[path], progress)]
    if wrong:
        names = ", ".join(path.name for path in wrong)
        yield Result("files", "problem", f"the checksum of {names} is not the hub's", "pull the model again")
        return
    unknown = [path for path in paths if not known[path]]
    for path in unknown:
        if path.suffix == ".safetensors":
            result = _guarded("files", lambda path=path: _read(path, progress))  # type: ignore[misc]
            if result.severity != "ok":
                yield result
                return
    kinds = [checksum.kind_of(text) for text in known.values() if text]
    if kinds:
        text = f"{kinds.count('sha256')} files have the hub's SHA-256, {kinds.count('git')} its Git hash"
    else:
        text = "all of them can be read to their ends; there are no checksums to compare them with"
    yield Result("files", "ok", text)


def checksum_of(path: Path) -> str:
    """What the hub said, which is the name of the file in the cache; empty where it is not known."""
    name = os.path.basename(os.readlink(path)) if path.is_symlink() else ""
    return name if checksum.kind_of(name) else ""


def _has(path: Path, wanted: str, progress: Progress) -> bool:
    done, size = 0, max(path.stat().st_size, 1)

    def count(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        progress(f"checking {path.name}", done / size)

    return checksum.compute(path, checksum.kind_of(wanted), count) == wanted


def _read(path: Path, progress: Progress) -> Result:
    done, size = 0, max(path.stat().st_size, 1)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            done += len(chunk)
            progress(f"reading {path.name}", done / size)
    return Result("files", "ok", path.name)


def _tokenizer(folder: Path) -> Result:
    from pie_engine.model.config import read_config
    from pie_engine.model.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(folder)
    num_logits = read_config(folder).vocab_size
    ids = tokenizer.encode(SAMPLE_TEXT)
    if ids and max(ids) >= num_logits:
        return Result(
            "tokenizer",
            "problem",
            f"the tokenizer gives token {max(ids)}, the model knows {num_logits}",
            "tokenizer.json and config.json belong to different models",
        )
    what = f"{tokenizer.vocab_size:,} tokens"
    if not tokenizer.eos_ids:
        return Result("tokenizer", "note", f"{what}, but no end-of-sequence token: only limits end a text")
    if tokenizer.decode(ids).strip() != SAMPLE_TEXT.strip():
        return Result("tokenizer", "note", f"{what}; it does not give every text back as it was")
    return Result("tokenizer", "ok", f"{what}, {len(tokenizer.special_ids)} of them special; texts come back whole")


def _template(folder: Path) -> Result:
    from pie_engine.model.chat import ChatTemplate

    if not has_chat_template(folder):
        return Result("template", "note", "no chat template: a base model, to be prompted with plain text")
    text = ChatTemplate.load(folder).render([{"role": "user", "content": "Hello!"}])
    if "Hello!" not in text:
        return Result("template", "problem", "the chat template loses the user's message")
    return Result("template", "ok", "the chat template renders")
