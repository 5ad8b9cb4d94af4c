"""How much memory this process has to itself."""

from __future__ import annotations

from pathlib import Path


def private_kb() -> int:
    """What no file stands behind: of compiled code and libraries, more comes in whenever they are first used."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:")]
    return int(line.split()[1])
