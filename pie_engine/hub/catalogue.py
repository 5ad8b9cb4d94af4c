"""The models that are at hand: shipped, named, in the hub cache, and configured."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from pie_engine.config import EngineConfig
from pie_engine.errors import PieError
from pie_engine.hub import facts
from pie_engine.hub.places import PIE_TINY, cached_ids, named, resolve


class Entry(msgspec.Struct, frozen=True):
    """One model, as `pie model list` tells of it."""

    name: str
    """What `pie serve --model` takes."""
    source: str
    """`shipped`, `named`, `cached` or `configured`."""
    folder: str
    size_bytes: int = 0
    architecture: str = ""
    dtype: str = ""
    is_configured: bool = False
    problem: str = ""
    """Why it cannot be looked at."""


def catalogue(config: EngineConfig) -> list[Entry]:
    """Every model once under each of its names."""
    sections = [section for section in config.models if section.driver != "fake"]
    paths = {path for section in sections for path in (section.path, section.draft_model) if path}
    entries = {name: _entry(name, source, config, name in paths) for name, source in _known(config)}
    for path in sorted(paths - entries.keys()):
        entries[path] = _entry(path, "configured", config, True)
    return list(entries.values())


def _known(config: EngineConfig) -> Iterator[tuple[str, str]]:
    yield PIE_TINY, "shipped"
    yield from ((name, "named") for name in named(config.paths.names))
    yield from ((str(hub_id), "cached") for hub_id in cached_ids())


def _entry(name: str, source: str, config: EngineConfig, is_configured: bool) -> Entry:
    folder = ""
    try:
        path = resolve(name, config.paths)
        folder = str(path)
        raw = facts.read_raw(path)
    except PieError as error:
        return Entry(name, source, folder, is_configured=is_configured, problem=error.message)
    return Entry(
        name=name,
        source=source,
        folder=folder,
        size_bytes=facts.size_of(path),
        architecture=facts.architecture_of(raw),
        dtype=facts.dtype_of(raw),
        is_configured=is_configured,
    )
