"""Where models are, and from what one types to the folder: shipped, a path, a name given by `pie model pull`, or a hub
id in the local cache.

A name is a symbolic link in the folder `models` of Pie's home, so registering takes no space and is atomic. The cache
is the one that the Hugging Face libraries share: `models--ORG--NAME` with `blobs`, `refs` and `snapshots`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pie_engine.config import EngineConfig, Paths, hub_cache
from pie_engine.errors import InvalidInput, ModelError, NotFound, Unsupported

PIE_TINY = "pie-tiny"
"""The small model that comes with Pie."""

MAIN = "main"
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_NAME = re.compile(r"\w[\w.-]*")
_REVISION = re.compile(r"[\w.-]+(/[\w.-]+)*")


@dataclass(frozen=True, slots=True)
class HubId:
    """`ORG/NAME` or `ORG/NAME@REVISION`."""

    repository: str
    revision: str = MAIN

    @classmethod
    def parse(cls, text: str) -> HubId | None:
        """None when it cannot be a hub id."""
        repository, at, revision = text.partition("@")
        if not _HUB_ID.fullmatch(repository) or (at and not _is_revision(revision)):
            return None
        return cls(repository, revision or MAIN)

    def __str__(self) -> str:
        return self.repository if self.revision == MAIN else f"{self.repository}@{self.revision}"

    @property
    def folder(self) -> Path:
        """Where the cache keeps it, whether it is there or not."""
        return hub_cache() / f"models--{self.repository.replace('/', '--')}"


def resolve(model: str, paths: Paths | None = None) -> Path:
    """The folder of `model`: `pie-tiny`, a path, a name that was given, or a hub id that is in the local cache.

    A GGUF file is unpacked to a folder in the cache of `paths`, by default the user's. Raises `NotFound`, `ModelError`
    or `Unsupported` with what to do.
    """
    paths = paths or EngineConfig().paths
    if model == PIE_TINY:
        return _shipped()
    path = Path(model).expanduser()
    if path.exists():
        return _folder_at(path, paths)
    if is_name(model) and (link := paths.names / model).is_symlink():
        return _folder_at(_linked(link), paths)
    hub_id = HubId.parse(model)
    if hub_id is None:
        raise NotFound(f"model folder {path} does not exist", hint="check the path")
    return _folder_at(cached_snapshot(hub_id), paths)


def is_name(text: str) -> bool:
    """Whether a model can be called so."""
    return bool(_NAME.fullmatch(text)) and text != PIE_TINY


def named(names: Path) -> dict[str, Path]:
    """The names that were given, with what they lead to, whether it still exists or not."""
    if not names.is_dir():
        return {}
    return {path.name: Path(os.readlink(path)) for path in sorted(names.iterdir()) if path.is_symlink()}


def give_name(names: Path, name: str, target: Path) -> None:
    """Let `name` lead to `target`. Raises `InvalidInput` when it is no name or leads elsewhere."""
    if name == PIE_TINY:
        raise InvalidInput(
            f"`{name}` is the name of the model that Pie brings along", hint="choose another with --name"
        )
    if not is_name(name):
        raise InvalidInput(f"`{name}` cannot be the name of a model", hint="letters, digits, `_`, `.` and `-`")
    target = target.absolute()
    known = named(names).get(name)
    if known is not None and known != target:
        raise InvalidInput(
            f"`{name}` is already the name of {known}",
            hint=f"choose another with --name, or `pie model remove {name}`, which keeps the files",
        )
    if known is None:
        names.mkdir(parents=True, exist_ok=True, mode=0o700)
        (names / name).symlink_to(target)


def cached_ids() -> Iterator[HubId]:
    """Every model with a snapshot in the cache, once for each branch or tag that leads to one, `main` first."""
    cache = hub_cache()
    for folder in sorted(cache.glob("models--*")) if cache.is_dir() else []:
        refs, snapshots = refs_of(folder), folder / "snapshots"
        commits = {path.name for path in snapshots.iterdir() if path.is_dir()} if snapshots.is_dir() else set()
        revisions = [name for name in sorted(refs, key=lambda name: (name != MAIN, name)) if refs[name] in commits]
        repository = folder.name.removeprefix("models--").replace("--", "/")
        yield from (HubId(repository, revision) for revision in [*revisions, *sorted(commits - set(refs.values()))])


def refs_of(folder: Path) -> dict[str, str]:
    """Branches and tags of a cached repository, and the commit of each."""
    refs = folder / "refs"
    if not refs.is_dir():
        return {}
    files = [path for path in refs.rglob("[!.]*") if path.is_file()]
    return {str(path.relative_to(refs)): path.read_text("utf-8").strip() for path in files}


def cached_snapshot(hub_id: HubId) -> Path:
    """The newest snapshot of a cached model, or that of the revision. Raises `NotFound`."""
    snapshots = hub_id.folder / "snapshots"
    commit = refs_of(hub_id.folder).get(hub_id.revision, hub_id.revision)
    if (pinned := snapshots / commit).is_dir():
        return pinned
    found = [path for path in snapshots.iterdir() if path.is_dir()] if snapshots.is_dir() else []
    if found and hub_id.revision == MAIN:
        return max(found, key=lambda path: path.stat().st_mtime)
    what = f"revision `{hub_id.revision}` of model {hub_id.repository!r} is not"
    raise NotFound(
        f"{what} in the local cache {hub_cache()}"
        if found
        else f"model {str(hub_id)!r} is neither a folder nor in the local cache {hub_cache()}",
        hint=f"fetch it first: `pie model pull {hub_id}`, or use {PIE_TINY}",
    )


def _is_revision(text: str) -> bool:
    return bool(_REVISION.fullmatch(text)) and ".." not in text


def _folder_at(path: Path, paths: Paths) -> Path:
    """The folder itself; of a GGUF file, also as the only model in a folder, the one that is made of it."""
    if path.is_dir():
        files = sorted(path.glob("*.gguf"))
        if not files or (path / "config.json").is_file():
            return path
        if len(files) > 1:
            raise ModelError(f"{path} holds {len(files)} GGUF files", hint=f"name one: {files[0]}")
        path = files[0]
    if path.suffix != ".gguf":
        raise ModelError(f"{path} is a file, not a model folder", hint=f"give the folder: {path.parent}")
    try:
        from pie_engine.model.gguf_file.folder import folder_for
    except ImportError as error:
        raise Unsupported("GGUF files need Pie's extra `engine`", hint=str(error)) from error
    return folder_for(path, paths.cache)


def _shipped() -> Path:
    from pie_engine.model import checkpoint

    folder = Path(checkpoint.__file__).parent / "tiny" / "weights"
    if not folder.is_dir():
        raise NotFound(
            "the bundled model pie-tiny is not installed",
            hint="reinstall pie with its package data, or name a model folder",
        )
    return folder


def _linked(link: Path) -> Path:
    target = Path(os.readlink(link))
    if not target.exists():
        raise NotFound(
            f"model `{link.name}` leads to {target}, which does not exist",
            hint=f"`pie model remove {link.name}`, then pull it again",
        )
    return target
