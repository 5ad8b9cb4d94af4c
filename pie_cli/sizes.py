"""Amounts for people."""

from __future__ import annotations


def bytes_text(num_bytes: float) -> str:
    """`812 B`, `7.9 MiB`, `14.2 GiB`."""
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "B" or num_bytes >= 100 else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} GiB"


def count_text(count: float) -> str:
    """`987`, `4.1 M`, `7.2 B`: as the field counts parameters."""
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= limit:
            return f"{count / limit:.1f} {unit}"
    return f"{count:.0f}"
