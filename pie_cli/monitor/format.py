"""Numbers as the screen shows them: short, and with a unit where one is not plain."""

from __future__ import annotations

from functools import lru_cache

from pie_cli.commands import ps
from pie_engine.protocol.credits import CREDIT

NOTHING = "-"
"""Where there is no value."""
NUM_KEPT = 1024
"""Texts of each kind that are remembered: most numbers are the same in the next picture."""


@lru_cache(NUM_KEPT)
def count(value: float) -> str:
    """At most five characters: `7`, `1,234`, `12.3k`, `4.5M`."""
    if value < 10_000:
        return f"{value:,.0f}"
    for unit in "kMGT":
        value /= 1000
        if value < 999.5:
            return f"{value:.1f}{unit}" if value < 99.95 else f"{value:.0f}{unit}"
    return f"{value:,.0f}T"


@lru_cache(NUM_KEPT)
def rate(value: float) -> str:
    """Of something a second: `0`, `0.4`, `12.3`, `123`, `12.3k`."""
    if value < 0.05:
        return "0"
    return f"{value:.1f}" if value < 99.95 else count(value)


@lru_cache(NUM_KEPT)
def percent(value: float | None) -> str:
    """Of a fraction; one that is not nothing is not shown as `0%`."""
    if value is None:
        return NOTHING
    if 0 < value < 0.01:
        return "<1%"
    return f"{value:.0%}"


@lru_cache(NUM_KEPT)
def credits(micro: float) -> str:
    """Of micro-credits: `0`, `0.002`, `1.5`, `980`, `12.3k`; below a thousandth in micro-credits, `220µ`."""
    value = abs(micro) / CREDIT
    sign = "-" if micro < 0 else ""
    if value == 0:
        return "0"
    if value < 0.001:
        return f"{sign}{max(abs(micro), 1):.0f}µ"
    if value < 1:
        return f"{sign}{value:.3f}".rstrip("0").rstrip(".")
    if value < 99.95:
        return f"{sign}{value:.1f}".removesuffix(".0")
    return sign + count(value)


def milliseconds(seconds: float | None) -> str:
    """`0.42 ms`, `12 ms`, `1.3 s`."""
    if seconds is None:
        return NOTHING
    if seconds >= 1:
        return f"{seconds:.1f} s"
    value = seconds * 1000
    return f"{value:.2f} ms" if value < 9.995 else f"{value:.0f} ms"


def age(seconds: float) -> str:
    """As `pie ps` has it, but in whole units, so that it changes once a second at most."""
    return f"{max(int(seconds), 0)}s" if seconds < 60 else ps.age(seconds)


def plural(number: int, noun: str) -> str:
    """`1 program`, `3 programs`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
