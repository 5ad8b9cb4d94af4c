"""On which line of a TOML file a setting stands, for messages; the parser does not say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import tomli

_INDEX = re.compile(r"\[\d+\]")


def line_of(text: str, key: str) -> int | None:
    """Of `key`, like `host.num_hosts` or `models[1].path`, else of the table around it; None: nowhere.

    Without an index the first entry of a list is meant that has the key.
    """
    places: dict[str, int] = {}
    for number, path in _places(text):
        places.setdefault(path, number)
        places.setdefault(_INDEX.sub("", path), number)
    while key and key not in places:
        key = _INDEX.sub("", key) if key.endswith("]") else key.rpartition(".")[0]
    return places.get(key)


def _places(text: str) -> Iterator[tuple[int, str]]:
    """Each header and each key, in their order."""
    table, entries = "", dict[str, int]()
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("["):
            path, is_entry = _path_of(line)
            if is_entry:
                entries[path] = entries.get(path, -1) + 1
            head, dot, rest = path.partition(".")
            table = f"{head}[{entries[head]}]{dot}{rest}" if head in entries else path
            yield number, table
        elif "=" in line and (key := _path_of(line.partition("=")[0] + "= 0")[0]):
            yield number, f"{table}.{key}" if table else key


def _path_of(line: str) -> tuple[str, bool]:
    """The names in it, with dots between, and whether it begins an entry of a list; no names where it is no TOML."""
    try:
        value: Any = tomli.loads(line)
    except tomli.TOMLDecodeError:
        return "", False
    names = []
    while isinstance(value, dict) and value:
        name, value = next(iter(value.items()))
        names.append(name)
    return ".".join(names), isinstance(value, list)
