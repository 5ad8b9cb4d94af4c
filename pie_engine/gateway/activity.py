"""What a process does or waits for, out of what its host and its cores say of it."""

from __future__ import annotations

from pie_engine.gateway.process import Process
from pie_engine.protocol.to_gateway import Activity, ActivityState

IDLE, CONSUMER = "idle", "waiting: consumer"
"""States of a process in a core that are no whole answer: what its program does meanwhile is."""
UNITS_S = (("h", 3600), ("min", 60), ("s", 1))
MANY = 2
"""So many of a unit are said in it."""
INSTEAD: dict[ActivityState, str] = {
    "computing": "which computes",
    "waiting: children": "which waits for its children",
    "waiting: client": "which waits for the client",
    "waiting: timer": "which waits for a timer",
}
"""What the consumer does, which is its program, instead of taking what was generated for it."""


def activity_of(process: Process, own: Activity, core_state: str, now: float) -> str:
    """One of the states of `stats.ProgramState`, with the reason in brackets where there is one.

    own: what its host says. core_state: what a core says; empty where the process has used none. now: in seconds since
    the epoch.
    """
    if process.state != "running":
        return process.state
    if core_state.startswith(CONSUMER):
        return _with_reason(core_state, _joined(INSTEAD.get(own.state, ""), _left(own, now)))
    if own.state and core_state in ("", IDLE):
        return _with_reason(own.state, _joined(own.why, _left(own, now)))
    return core_state or process.state


def _with_reason(state: str, why: str) -> str:
    return f"{state} ({why})" if why else state


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _left(activity: Activity, now: float) -> str:
    """Until a timer lets it go on."""
    seconds = 0.0 if activity.until is None else activity.until - now
    texts = (f"{seconds / size:.0f} {unit} left" for unit, size in UNITS_S if seconds >= MANY * size)
    return next(texts, "")
