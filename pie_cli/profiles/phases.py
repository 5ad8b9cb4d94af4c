"""Where the time of a program went: each moment between its launch and its end belongs to one phase, or is shared.

While the program runs, its time is Python's or the host's. While it waits, the operations that are under way say what
for; where several are, each has an equal share of the moment. A child counts only where no model works for the program
itself, a client only where no child runs, and a timer only where nobody does anything.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from pie_cli.profiles.model import Operation, Profile
from pie_engine.protocol.profile import OperationTimes, Span, Wait

DECODE, PREFILL, PAGES, QUEUE, GRAMMAR = "decode", "prefill", "waiting for pages", "queue", "grammar"
CHILDREN, CLIENT, SLEEP, PYTHON, HOST, START = "children", "client", "sleep", "Python", "host", "start"
PHASES = (PREFILL, DECODE, QUEUE, GRAMMAR, PAGES, CHILDREN, CLIENT, SLEEP, PYTHON, HOST, START)
MODEL_PHASES = frozenset({DECODE, PREFILL, PAGES, QUEUE, GRAMMAR})
MEANINGS = {
    PREFILL: "reading prompts",
    DECODE: "generating",
    QUEUE: "behind others, before the first step",
    GRAMMAR: "compiled at its first use",
    PAGES: "no KV pages were free, or others bid more for them",
    CHILDREN: "programs that it has launched",
    CLIENT: "tools and messages, outside of the engine",
    SLEEP: "timers",
    PYTHON: "the program's own code",
    HOST: "calls to the engine, and their way there and back",
    START: "before the first line ran",
}

Part = tuple[int, int, str]
"""From, to, phase."""


def parts_of(operation: Operation, wall_us: int) -> list[Part]:
    """What was done for an operation, in order; between the parts its news were under way."""
    if operation.is_of_client or operation.is_child:
        call = operation.start
        phase = CHILDREN if operation.is_child else CLIENT
        return [(call.at + call.took, wall_us if operation.end is None else operation.end.at, phase)]
    parts: list[Part] = []
    for times in operation.times:
        ended = times.ended or wall_us
        admitted = times.admitted or ended
        if times.num_prefill > 1 or not times.completion:
            middle = min(times.prefilled or ended, ended)
        else:
            middle = admitted  # a step like any other of its reply
        stages = [(admitted, middle, PREFILL), (middle, ended, DECODE)]
        if times.kind in ("flush", "save", "look"):
            stages = stages[:1]
        elif times.kind == "pass" and times.num_prefill <= 1:
            stages = [(admitted, ended, DECODE)]
        for begin, end, phase in [*_before(times, admitted), *stages]:
            parts += _with_page_waits(begin, end, phase, times.page_waits)
    return parts


def _before(times: OperationTimes, admitted: int) -> list[Part]:
    """What went on before its first step."""
    if not times.compiling:
        return [(times.queued, admitted, QUEUE)]
    begun = min(times.begun or admitted, admitted)
    return [(times.queued, times.compiling, QUEUE), (times.compiling, begun, GRAMMAR), (begun, admitted, QUEUE)]


def _with_page_waits(begin: int, end: int, phase: str, page_waits: Iterable[Span]) -> list[Part]:
    parts: list[Part] = []
    for first, last in page_waits:
        first, last = max(first, begin), min(last, end)
        if first < last:
            parts += [(begin, first, phase), (first, last, PAGES)]
            begin = last
    return [part for part in [*parts, (begin, end, phase)] if part[0] < part[1]]


def phases(profile: Profile) -> dict[str, float]:
    """Microseconds by phase, in the order of `PHASES`; they add up to the wall time."""
    found = dict.fromkeys(PHASES, 0.0)
    parts = sorted(part for operation in profile.operations.values() for part in parts_of(operation, profile.wall_us))
    _add_waits(found, profile.waits, parts)
    num_run = sum(run.took for run in profile.runs)
    num_called = sum(call.took for call in profile.calls)
    found[PYTHON] = max(num_run - num_called, 0)
    found[START] = min(profile.runs[0].at, profile.wall_us) if profile.runs else float(profile.wall_us)
    rest = profile.wall_us - sum(found.values())
    if rest < 0:  # clocks of a slice and of the calls in it differ by microseconds
        found[PYTHON] = max(found[PYTHON] + rest, 0)
        rest = 0
    found[HOST] += rest
    return found


def _add_waits(found: dict[str, float], waits: Sequence[Wait], parts: Sequence[Part]) -> None:
    begins = [begin for begin, _, _ in parts]
    longest = max((end - begin for begin, end, _ in parts), default=0)
    for wait in waits:
        end = wait.at + wait.took
        first = bisect_right(begins, wait.at - longest - 1)
        last = bisect_right(begins, end)
        inside = [
            (max(begin, wait.at), min(stop, end), phase)
            for begin, stop, phase in parts[first:last]
            if begin < end and stop > wait.at
        ]
        for phase, took in shares(wait.at, end, inside, SLEEP if wait.has_timeout else HOST).items():
            found[phase] += took


def shares(begin: int, end: int, parts: Sequence[Part], otherwise: str) -> dict[str, float]:
    """How the time between two moments divides among what goes on in it."""
    edges: list[tuple[int, int, str]] = []
    for first, last, phase in parts:
        edges += [(max(first, begin), 1, phase), (min(last, end), -1, phase)]
    edges.sort(key=lambda edge: edge[0])
    found: dict[str, float] = {}
    running: dict[str, int] = {}
    now = begin
    for time, change, phase in [*edges, (end, 0, otherwise)]:
        if time > now:
            for name, share in _split(running, otherwise):
                found[name] = found.get(name, 0.0) + share * (time - now)
            now = time
        running[phase] = running.get(phase, 0) + change
    return found


def _split(running: dict[str, int], otherwise: str) -> list[tuple[str, float]]:
    models = {phase: count for phase, count in running.items() if count and phase in MODEL_PHASES}
    if models:
        num_all = sum(models.values())
        return [(phase, count / num_all) for phase, count in models.items()]
    for phase in (CHILDREN, CLIENT):
        if running.get(phase):
            return [(phase, 1.0)]
    return [(otherwise, 1.0)]
