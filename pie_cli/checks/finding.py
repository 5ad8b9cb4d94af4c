"""What a check finds."""

from __future__ import annotations

from typing import Literal

import msgspec

from pie_cli import console

Severity = Literal["ok", "note", "warning", "problem"]


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of `pie doctor`."""

    check: str
    severity: Severity
    message: str
    fix: str = ""
    """What to do about it."""
    repair: tuple[str, str] | None = None
    """What `--fix` does about it by itself, and to what: a name in `repairs`."""


def title_of(role: str, name: str) -> str:
    """A member of the daemon for people: `gateway`, `host-0`, `core pie-tiny`."""
    return name if name.startswith(role) else f"{role} {name}"


def show_finding(finding: Finding) -> None:
    """One finding on stdout, with what to do about it."""
    styles = {"ok": console.GREEN, "note": console.DIM, "warning": console.YELLOW, "problem": console.RED}
    label = console.paint_data(f"{finding.severity:>7}", styles[finding.severity])
    console.data_line(f"{label}  {finding.message}")
    if finding.fix:
        console.data_line(f"{'fix':>7}  {finding.fix}")
