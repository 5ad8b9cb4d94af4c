"""Bring a model from a hub into the cache, or register a folder that is here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pie_engine.config import MIB
from pie_engine.errors import InvalidInput, PullFailed, Unsupported
from pie_engine.hub import checksum, selection
from pie_engine.hub.facts import TOKENIZERS
from pie_engine.hub.fetch import Blobs, Progress
from pie_engine.hub.places import MAIN, HubId
from pie_engine.hub.remote import RemoteFile, RemoteModel, look_up, translated
from pie_engine.model.config import parse_config, read_json

_KEPT_FREE_BYTES = 64 * MIB


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull has done."""

    folder: Path
    """The snapshot, or the GGUF file in it."""
    commit: str
    num_files: int
    num_fetched: int
    num_bytes: int
    """Of all files."""
    num_sha256: int
    """Files checked by SHA-256; the others by their Git hash."""


def pull(hub_id: HubId, progress: Progress, *, endpoint: str = "", gguf: str = "") -> Pulled:
    """Fetch what the model needs and check every file, also those that are here already.

    `gguf` names one GGUF file instead of safetensors. What was fetched stays when this is interrupted, and the next
    call goes on from there; the model appears in the cache when all of it is there. Raises `NotFound`, `Unsupported`,
    `ModelError` or `PullFailed`.
    """
    progress(f"looking up {hub_id}", None)
    model = look_up(hub_id, endpoint)
    blobs = Blobs(model, progress)
    if gguf:
        paths, num_fetched = _fetch_gguf(model, blobs, gguf)
    else:
        paths, num_fetched = _fetch_safetensors(model, blobs)
    folder = _publish(model, [model.files[path] for path in paths], blobs)
    files = [model.files[path] for path in paths]
    return Pulled(
        folder=folder / paths[0] if gguf else folder,
        commit=model.commit,
        num_files=len(files),
        num_fetched=num_fetched,
        num_bytes=sum(file.size for file in files),
        num_sha256=sum(checksum.kind_of(file.checksum) == "sha256" for file in files),
    )


def _fetch_gguf(model: RemoteModel, blobs: Blobs, wanted: str) -> tuple[list[str], int]:
    path = selection.gguf_file(model.files, wanted, repository=str(model.hub_id))
    return [path], _fetch_all(model, blobs, [path])


def _fetch_safetensors(model: RemoteModel, blobs: Blobs) -> tuple[list[str], int]:
    """Configuration and tokenizer first: a model that Pie cannot run costs no gigabytes."""
    repository = str(model.hub_id)
    if selection.has_only_gguf(model.files):
        files = ", ".join(sorted(path for path in model.files if path.endswith(".gguf")))
        raise InvalidInput(f"{repository} holds GGUF files only", hint=f"say which with --gguf: {files}")
    small = selection.small_files(model.files, repository=repository)
    num_fetched = _fetch_all(model, blobs, small)
    config = blobs.path(model.files["config.json"])
    parse_config(read_json(config), eos_ids=(), where=f"config.json of {repository}")
    if not any(name in small for name in TOKENIZERS):
        raise Unsupported(
            f"{repository} has neither {' nor '.join(TOKENIZERS)}",
            hint="convert its tokenizer with Transformers (`save_pretrained`)",
        )
    index = blobs.path(model.files[selection.INDEX]).read_bytes() if selection.INDEX in small else None
    weights = selection.weight_files(list(model.files), index, repository=repository)
    return [*small, *weights], num_fetched + _fetch_all(model, blobs, weights)


def _fetch_all(model: RemoteModel, blobs: Blobs, paths: Sequence[str]) -> int:
    """How many had to be fetched."""
    files = [model.files[path] for path in paths]
    _check_room(model.hub_id, sum(blobs.missing_bytes(file) for file in files))
    return sum(blobs.fetch(file) for file in files)


def _check_room(hub_id: HubId, needed: int) -> None:
    cache = hub_id.folder.parent
    free = shutil.disk_usage(next(path for path in (cache, *cache.parents) if path.exists())).free
    if needed and needed + _KEPT_FREE_BYTES > free:
        raise PullFailed(
            f"{hub_id} needs {-(-needed // MIB)} MiB more, {free // MIB} MiB are free for {cache}",
            hint="make room (`pie model remove`), or set HF_HOME to another disk",
        )


def _publish(model: RemoteModel, files: Sequence[RemoteFile], blobs: Blobs) -> Path:
    """Let the snapshot lead to the files, then the revision to the snapshot."""
    repository = model.hub_id.folder
    snapshot = repository / "snapshots" / model.commit
    with translated(model.hub_id, model.endpoint):
        for file in files:
            _point(snapshot / file.path, blobs.path(file))
        if model.hub_id.revision != model.commit:
            ref = repository / "refs" / (model.hub_id.revision or MAIN)
            ref.parent.mkdir(parents=True, exist_ok=True)
            temporary = ref.with_name(f".{ref.name}.{os.getpid()}")
            temporary.write_text(model.commit)
            os.replace(temporary, ref)
    return snapshot


def _point(pointer: Path, blob: Path) -> None:
    pointer.parent.mkdir(parents=True, exist_ok=True)
    target = os.path.relpath(blob, pointer.parent)
    if pointer.is_symlink() and os.readlink(pointer) == target:
        return
    temporary = pointer.with_name(f".{pointer.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, pointer)
