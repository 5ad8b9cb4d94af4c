"""Where profiles come from: the `trace` events of a process, or a trace file that holds them."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import msgspec

from pie_engine.errors import InvalidInput, NotFound
from pie_engine.protocol.profile import VERSION, AnyEntry, Head, decode

KEY = "pieProfile"
"""Of a trace file: what it was made of, for `pie profile`. Other programs ignore it."""
PAGE, TRACE = ".html", ".json"
"""How names of files end, which say what is wanted."""
MAX_BYTES = 1 << 30
"""Uncompressed, of one payload."""


class Collected:
    """The payloads of a profile, as they come."""

    def __init__(self) -> None:
        self.payloads: list[str] = []
        """base64 of zlib of MessagePack."""
        self.full_mb: float | None = None
        """The limit at which it was cut off, if it was for that."""

    def take(self, data: dict[str, Any]) -> None:
        """The data of one `trace` event; those of other taps are passed over. Raises `InvalidInput`."""
        if data["tap"] != "profile":
            return
        if data["version"] != VERSION:
            raise InvalidInput(
                f"the profile has version {data['version']}, and this Pie reads version {VERSION}",
                hint="look at it with the Pie that made it",
            )
        if data.get("full_mb") is not None:
            self.full_mb = float(data["full_mb"])
        elif data["data"]:
            self.payloads.append(str(data["data"]))

    def entries(self) -> list[AnyEntry]:
        """All there are. Raises `InvalidInput` when they are none, or no profile."""
        found = [entry for payload in self.payloads for entry in _unpacked(payload)]
        if not found or not isinstance(found[0], Head):
            raise InvalidInput("the profile has no beginning", hint="`pie run --trace FILE PROGRAM` makes one")
        return found

    def embedded(self) -> dict[str, Any]:
        """As a trace file holds it."""
        return {"version": VERSION, "payloads": self.payloads, "full_mb": self.full_mb}


def read_trace(path: Path) -> Collected:
    """The profile in a file of `pie run --trace`. Raises `NotFound`, or `InvalidInput` saying what is wrong."""
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}", hint="`pie run --trace FILE PROGRAM` makes one") from None
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise _no_trace(path) from error
    held = document.get(KEY) if isinstance(document, dict) else None
    if not isinstance(held, dict):
        raise _no_trace(path)
    collected = Collected()
    for payload in held.get("payloads", ()):
        collected.take({"tap": "profile", "version": held.get("version"), "data": payload})
    collected.full_mb = held.get("full_mb")
    return collected


def _no_trace(path: Path) -> InvalidInput:
    return InvalidInput(f"{path} is no trace of Pie's", hint="`pie run --trace FILE PROGRAM` makes one")


def _unpacked(payload: str) -> list[AnyEntry]:
    try:
        return decode(zlib.decompressobj().decompress(base64.b64decode(payload), MAX_BYTES))
    except (ValueError, zlib.error, msgspec.DecodeError) as error:
        raise InvalidInput(f"the profile is damaged: {error}") from error
