"""Take a model away: its name, or what the cache holds of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pie_engine.errors import Busy, InvalidInput, ModelError, NotFound
from pie_engine.hub.places import PIE_TINY, HubId, is_name, named, refs_of
from pie_engine.model.gguf_file.index import INDEX, read_index


@dataclass(frozen=True, slots=True)
class Removal:
    """What would go away. Nothing has, until `remove`."""

    label: str
    folder: Path
    """That of the model, or of all its revisions."""
    doomed: tuple[Path, ...]
    """Files, links and folders."""
    num_bytes: int

    def remove(self) -> None:
        for path in self.doomed:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def plan_removal(model: str, names: Path) -> Removal:
    """What removing `model` means: a name loses its link only, a hub id its files in the cache.

    Raises `InvalidInput` for what is not ours to remove and `NotFound` for what is not there.
    """
    if model == PIE_TINY:
        raise InvalidInput(f"{PIE_TINY} comes with Pie and cannot be removed")
    if is_name(model) and (names / model).is_symlink():
        return Removal(f"the name {model}", named(names)[model], (names / model,), 0)
    hub_id = HubId.parse(model)
    if hub_id is not None and hub_id.folder.is_dir():
        return _of_cache(hub_id, has_revision="@" in model)
    if Path(model).expanduser().exists():
        raise InvalidInput(f"{model} is a folder of yours", hint="remove it yourself if you mean it")
    raise NotFound(f"there is no model `{model}`", hint="`pie model list` shows which there are")


def refuse_in_use(removal: Removal, in_use: Iterable[tuple[str, str]]) -> None:
    """Raises `Busy` when one of the folders that a daemon uses, by the name of its core, would go."""
    for core, folder in in_use:
        used = _source(Path(folder)).absolute()
        if removal.folder.resolve() == used.resolve() or any(used.is_relative_to(p.absolute()) for p in removal.doomed):
            raise Busy(f"{removal.label} is in use by the running daemon (core {core})", hint="`pie stop` first")


def _source(folder: Path) -> Path:
    """The folder, or the GGUF file that it was made of."""
    try:
        return read_index(folder)[0] if (folder / INDEX).is_file() else folder
    except ModelError:
        return folder


def _of_cache(hub_id: HubId, *, has_revision: bool) -> Removal:
    """One revision with the files that no other needs, or everything."""
    refs, snapshots = refs_of(hub_id.folder), hub_id.folder / "snapshots"
    if not has_revision:
        return _whole(hub_id)
    commit = refs.get(hub_id.revision, hub_id.revision)
    if not (snapshots / commit).is_dir():
        raise NotFound(f"revision `{hub_id.revision}` of {hub_id.repository} is not in the cache")
    others = [path for path in snapshots.iterdir() if path.name != commit]
    if not others:
        return _whole(hub_id)
    needed = {blob for other in others for blob in _blobs(other)}
    blobs = sorted(_blobs(snapshots / commit) - needed)
    heads = [hub_id.folder / "refs" / name for name, target in refs.items() if target == commit]
    doomed = (*heads, snapshots / commit, *blobs)
    return Removal(str(hub_id), snapshots / commit, doomed, _total_bytes(blobs))


def _whole(hub_id: HubId) -> Removal:
    locks = hub_id.folder.parent / ".locks" / hub_id.folder.name
    files = [path for path in hub_id.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    doomed = (hub_id.folder, locks) if locks.is_dir() else (hub_id.folder,)
    return Removal(hub_id.repository, hub_id.folder, doomed, _total_bytes(files))


def _blobs(snapshot: Path) -> set[Path]:
    """The files that a snapshot leads to."""
    links = [path for path in snapshot.rglob("*") if path.is_symlink()]
    return {Path(os.path.normpath(path.parent / os.readlink(path))) for path in links}


def _total_bytes(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files if path.is_file())
