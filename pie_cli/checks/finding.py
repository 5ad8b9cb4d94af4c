"""What a check finds."""

from __future__ import annotations

from typing import Literal

import msgspec

Severity = Literal["ok", "note", "warning", "problem"]


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of `pie doctor`."""

    check: str
    severity: Severity
    message: str
    fix: str = ""
    """What to do about it."""


def title_of(role: str, name: str) -> str:
    """A member of the daemon for people: `gateway`, `host-0`, `core pie-tiny`."""
    return name if name.startswith(role) else f"{role} {name}"
