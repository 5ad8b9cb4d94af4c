"""What the user has chosen, kept between runs in Pie's home: columns, order, theme."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from pie_cli.monitor.columns import BY_KEY, DEFAULT

FILE_NAME = "monitor.json"


class Preferences(msgspec.Struct, frozen=True):
    columns: tuple[str, ...] = DEFAULT
    sort: str = "rate"
    is_reversed: bool = False
    is_grouped: bool = False
    zoom: int = 0
    theme: str = ""
    """Empty: as the terminal's background is taken to be, dark."""


def load(home: Path) -> Preferences:
    """Those of a file that is not there, or holds something else, are the defaults."""
    try:
        found = msgspec.json.decode((home / FILE_NAME).read_bytes(), type=Preferences)
    except (OSError, msgspec.DecodeError):
        return Preferences()
    columns = tuple(key for key in found.columns if key in BY_KEY)
    sort = found.sort if found.sort in BY_KEY else Preferences().sort
    return msgspec.structs.replace(found, columns=columns or DEFAULT, sort=sort, zoom=min(max(found.zoom, 0), 2))


def save(home: Path, preferences: Preferences) -> None:
    """In one step. A folder that cannot be written to is no reason to disturb anybody."""
    path = home / FILE_NAME
    beside = path.with_suffix(f".{os.getpid()}")
    try:
        home.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(msgspec.json.encode(preferences))
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
