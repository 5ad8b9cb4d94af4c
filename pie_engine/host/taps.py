"""Which taps there are, by the names that launches know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pie_engine.host.profiling import ProfileTap
from pie_engine.host.recording import RecordTap
from pie_engine.host.tap import Tap, Taps
from pie_engine.protocol.to_host import TraceKind

if TYPE_CHECKING:
    from pie_engine.host.process import Process

MAKERS: dict[TraceKind, Callable[[Process], Tap]] = {"record": RecordTap, "profile": ProfileTap}


def make_tap(process: Process, kinds: Sequence[TraceKind]) -> Tap | None:
    """One for all of `kinds`; None for none."""
    taps = [MAKERS[kind](process) for kind in dict.fromkeys(kinds)]
    if len(taps) > 1:
        return Taps(taps)
    return taps[0] if taps else None
