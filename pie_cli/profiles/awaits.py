"""What a program waited for, by the line that did."""

from __future__ import annotations

from dataclasses import dataclass, field

from pie_cli.profiles.model import ENDS_WAIT, Profile
from pie_cli.profiles.phases import HOST, parts_of, shares

MIN_US = 20
"""What takes less was there already."""


@dataclass
class Await:
    """One `await` of a task."""

    at: int
    took: int
    place: str
    task: str
    handle: int


@dataclass
class Line:
    """All awaits of one line."""

    place: str
    wall_us: int = 0
    """While at least one task waited there."""
    took_us: int = 0
    """Of all tasks together, which may wait at the same time."""
    count: int = 0
    longest_us: int = 0
    tasks: set[str] = field(default_factory=set)
    phases: dict[str, float] = field(default_factory=dict)
    """Microseconds by phase, of all tasks together."""
    waited_until: int = 0
    """The end of what is in `wall_us`."""

    def add(self, each: Await) -> None:
        """One that began no earlier than those before."""
        end = each.at + each.took
        self.wall_us += max(end - max(each.at, self.waited_until), 0)
        self.waited_until = max(self.waited_until, end)
        self.took_us += each.took
        self.count += 1
        self.longest_us = max(self.longest_us, each.took)
        self.tasks.add(each.task)

    def phases_text(self) -> str:
        """`decode 82 %, prefill 12 %`: what makes up most of it."""
        most = sorted(self.phases.items(), key=lambda item: -item[1])
        shown = [(name, round(100 * took / max(self.took_us, 1))) for name, took in most]
        return ", ".join(f"{name} {share} %" for name, share in shown[:3] if share >= 5)


def awaits(profile: Profile) -> list[Await]:
    """From the last call of a task to the one that takes what it has waited for."""
    found = []
    left: dict[str, int] = {}
    """When each task has last come back from a call."""
    for call in profile.calls:
        operation = profile.operations.get(call.handle)
        if operation is not None and call.function in ENDS_WAIT and call is not operation.start:
            start = operation.start
            # A task that was made for it has called nothing before.
            began = max(left.get(call.task, 0), start.at + start.took)
            if call.at - began >= MIN_US and _has_waited(profile, began, call.at):
                found.append(Await(began, call.at - began, call.place or start.place, call.task, call.handle))
        left[call.task] = call.at + call.took
    return found


def lines(profile: Profile) -> list[Line]:
    """Those first in which the program waited longest."""
    found: dict[str, Line] = {}
    for each in sorted(awaits(profile), key=lambda each: each.at):
        line = found.setdefault(each.place, Line(each.place))
        line.add(each)
        parts = [
            (begin, end, phase)
            for begin, end, phase in parts_of(profile.operations[each.handle], profile.wall_us)
            if begin < each.at + each.took and end > each.at
        ]
        for phase, took in shares(each.at, each.at + each.took, parts, HOST).items():
            line.phases[phase] = line.phases.get(phase, 0.0) + took
    return sorted(found.values(), key=lambda line: -line.wall_us)


def _has_waited(profile: Profile, begin: int, end: int) -> bool:
    """Whether the program stood still meanwhile; else what it took was there."""
    lo, hi = 0, len(profile.waits)
    while lo < hi:  # the first wait that ends after `begin`
        middle = (lo + hi) // 2
        wait = profile.waits[middle]
        lo, hi = (middle + 1, hi) if wait.at + wait.took <= begin else (lo, middle)
    return lo < len(profile.waits) and profile.waits[lo].at < end
