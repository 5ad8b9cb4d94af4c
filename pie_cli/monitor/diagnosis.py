"""What the monitor sees in the numbers: rules, each a pure function from a view to a sentence or nothing.

Every rule has a section in docs/monitor.md, under its code, that says what to do. A rule that names a program does so
with the one to blame first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from statistics import median

from pie_cli.monitor.format import age, milliseconds, percent, plural
from pie_cli.monitor.series import History
from pie_cli.monitor.text import cut
from pie_cli.monitor.view import Finding, ModelView, Row, View
from pie_cli.sizes import bytes_text

STARVED_BUSY = 0.5
"""Of the time, the part in which a core works, below which it starves if programs wait for other things."""
HOG_SHARE = 0.6
"""Of the tokens of all batches, the part that makes one program hold them."""
LOW_PAGES = 0.05
"""Of all pages, the part that is free under pressure."""
LOOP_SHARE = 0.3
"""Of the time of a step, the part between two steps that is too much."""
MANY_FORKS, NEW_FORKS = 32, 8
MANY_SAVED, NEW_SAVED = 32, 8
GROWING_S = 300.0
"""Nobody saves any more when none has come for so long; how many there are is on the page of the parts."""
IDLE_SHARE = 0.25
"""Of all pages, the part that an idle program holds."""
SLOWER = 1.5
"""How much longer a step takes than it did."""
LOW_ACCEPT, MANY_DRAFTS = 0.2, 256
NO_FAILURES = frozenset({"cancelled", "daemon_stopped"})
"""Codes of programs that somebody has ended, alone or with all others."""
FAILED_SHARE, MANY_FAILURES = 0.1, 3
LONG_QUEUE_S = 5.0
LONG_AWAY_S = 3.0
"""From here on a program that is at something else is not so for a moment."""
AWAY = {
    "waiting: client": ("waits for its client", "wait for their clients"),
    "waiting: children": ("waits for its children", "wait for their children"),
    "waiting: timer": ("waits for a timer", "wait for timers"),
    "waiting: consumer": ("does not take its reply", "do not take their replies"),
    "waiting: disk": ("waits for the disk", "wait for the disk"),
    "waiting: grammar": ("waits for its grammar", "wait for their grammars"),
    "computing": ("computes", "compute"),
    "starting": ("starts", "start"),
    "paused": ("is paused", "are paused"),
    "idle": ("asks for nothing", "ask for nothing"),
}
"""What one program does, and what several do, by their state."""
NUM_NAMED = 3
"""Programs that a sentence names."""
MAX_NAME = 32
"""Cells of the name of a program in a sentence."""

Rule = Callable[[View], Iterator[Finding]]


def findings(view: View) -> list[Finding]:
    """What all rules see."""
    return [finding for rule in RULES for finding in rule(view)]


def gravest_first(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Alerts, then the others."""
    return tuple(sorted(found, key=lambda finding: not finding.is_alert))


def core_down(view: View) -> Iterator[Finding]:
    for model in view.models:
        if not model.now.ready:
            rows = _of(view, model)
            waiting = f"; {plural(len(rows), 'program')} on it" if rows else ""
            yield Finding(
                "core-down", True, f"{model.now.name} is not ready: it starts, or cannot{waiting}", _pids(rows)
            )
    if view.snapshot.models and not view.hosts:
        yield Finding("core-down", True, "there is no host: no program can start")


def failures(view: View) -> Iterator[Finding]:
    service = view.service
    errors = {code: number for code, number in service.new_errors.items() if code not in NO_FAILURES}
    number = sum(errors.values())
    if number >= MANY_FAILURES and number >= FAILED_SHARE * max(service.num_ended, 1):
        code, most = max(errors.items(), key=lambda item: item[1])
        of_them = "all" if most == number else f"{most:,}"
        sentence = (
            f"{number:,} of the last {plural(service.num_ended, 'program')} failed, {of_them} of them with `{code}`"
        )
        yield Finding("failures", True, sentence)


def kv_pressure(view: View) -> Iterator[Finding]:
    """Few pages are left, and somebody feels it."""
    for model in view.models:
        pages = model.now.pages
        rows = _of(view, model)
        waiting = [row for row in rows if row.waits_for_what == "pages"]
        is_low = pages.num_pages > 0 and pages.num_free < LOW_PAGES * pages.num_pages
        if not waiting and not (is_low and (model.num_preempted or model.num_moved_out)):
            continue
        holders = _most(rows, lambda row: row.now.num_pages)
        parts = [f"KV is short on {model.now.name}: {pages.num_free:,} of {pages.num_pages:,} pages are free"]
        if waiting:
            parts.append(f"{plural(len(waiting), 'program')} {_wait(waiting)} for pages")
        if slower := _slower(model.history.step_ms):
            parts.append(f"a step takes {milliseconds(slower[1])}, it was {milliseconds(slower[0])}")
        if holders:
            parts.append(f"most are held by {_named(holders)}")
        yield Finding("kv-pressure", bool(waiting), "; ".join(parts), _pids(holders))


def idle_holders(view: View) -> Iterator[Finding]:
    """Pages that nobody uses, while others want some."""
    for model in view.models:
        total = model.now.pages.num_pages
        rows = _of(view, model)
        if not any(row.waits_for_what == "pages" for row in rows):
            continue
        idle = [row for row in rows if row.is_elsewhere]
        held = sum(row.now.num_pages for row in idle)
        if total and held >= IDLE_SHARE * total:
            holders = _most(idle, lambda row: row.now.num_pages)
            named = ", ".join(f"{_name(row)}, {_why_elsewhere(row)}" for row in holders)
            sentence = f"programs that do not use them hold {percent(held / total)} of the pages: {named}"
            yield Finding("idle-holders", False, sentence, _pids(holders))


def batch_hog(view: View) -> Iterator[Finding]:
    for model in view.models:
        rows = _of(view, model)
        waiting = [row for row in rows if row.waits_for_what == "batch"]
        biggest = _most(rows, lambda row: row.slow_share)[:1]
        if waiting and biggest and biggest[0].slow_share >= HOG_SHARE:
            row = biggest[0]
            sentence = (
                f"{_name(row)} takes {percent(row.slow_share)} of the batches, while "
                f"{plural(len(waiting), 'program')} {_wait(waiting)} for a place"
            )
            yield Finding("batch-hog", False, sentence, (row.now.pid,))


def starved(view: View) -> Iterator[Finding]:
    """A device that could do more, and programs that are there but at something else."""
    for model in view.models:
        rows = [row for row in view.rows if row.now.model in (model.now.name, "") and row.now.state != "queued"]
        away = [row for row in rows if row.is_elsewhere or row.waits_for_what in ("disk", "grammar")]
        longest = _most(away, lambda row: row.in_state_s)
        # Between two calls of its model each program is at something else for a moment.
        is_lasting = bool(longest) and longest[0].in_state_s >= LONG_AWAY_S
        if model.now.ready and model.slow.busy < STARVED_BUSY and is_lasting and 2 * len(away) >= len(rows):
            sentence = (
                f"{model.now.name} starves: its batches are empty {percent(1 - model.slow.busy)} of the time; of "
                f"{plural(len(rows), 'program')} {_elsewhere(away)}"
            )
            yield Finding("starved", False, sentence, _pids(longest))


def _elsewhere(rows: list[Row]) -> str:
    """What those do that run nothing: `3 wait for their clients, 2 compute in turns in host-0`."""
    by_state = Counter(row.now.state for row in rows)
    hosts = sorted({row.now.host for row in rows if row.now.state == "computing"})
    turns = f" in turns in {' and '.join(hosts)}" if len(hosts) < by_state["computing"] else ""
    each = [f"{number} {AWAY[state][number > 1]}" for state, number in by_state.most_common()]
    return ", ".join(text + turns if text.endswith(AWAY["computing"][1]) else text for text in each)


def _why_elsewhere(row: Row) -> str:
    return f"which {AWAY[row.now.state][0]}"


def forks(view: View) -> Iterator[Finding]:
    """Contexts that only become more."""
    growing = [row for row in view.rows if row.now.num_contexts >= MANY_FORKS and row.num_new_contexts >= NEW_FORKS]
    for row in _most(growing, lambda row: row.now.num_contexts)[:1]:
        sentence = (
            f"contexts pile up in {_name(row)}: {row.now.num_contexts:,}, {row.num_new_contexts:,} more than some "
            f"seconds ago, with {row.now.num_pages:,} pages"
        )
        yield Finding("forks", False, sentence, (row.now.pid,))


def debts(view: View) -> Iterator[Finding]:
    """Programs that cannot pay for what they want."""
    on_market = [row for model in view.models if model.now.market.policy == "market" for row in _of(view, model)]
    waiting = [
        row
        for row in on_market
        if row.waits_for_what == "credits" or (row.waits_for_what == "pages" and row.now.balance <= 0)
    ]
    if waiting:
        verb = "has" if len(waiting) == 1 else "have"
        named = _most(waiting, lambda row: 1 + row.in_state_s)
        sentence = f"{plural(len(waiting), 'program')} {verb} spent the credits and {_wait(waiting)}: {_named(named)}"
        yield Finding("debts", True, sentence, _pids(named))


def queue(view: View) -> Iterator[Finding]:
    queued = [row for row in view.rows if row.now.state == "queued" and row.in_state_s >= LONG_QUEUE_S]
    if queued:
        verb = "has" if len(queued) == 1 else "have"
        longest = max(row.in_state_s for row in queued)
        launches = f"{len(queued)} launches {verb}" if len(queued) > 1 else f"a launch {verb}"
        sentence = f"{launches} waited up to {longest:.0f} s for a host"
        yield Finding("queue", False, sentence, _pids(queued))


def saved_contexts(view: View) -> Iterator[Finding]:
    """Saved contexts that only become more. Which program saves them is not known; their names say it."""
    saved = view.saved
    if saved is None or view.at - saved.grown_at >= GROWING_S:
        return
    if saved.num_contexts >= MANY_SAVED and saved.num_new >= NEW_SAVED and not saved.num_deleted:
        sentence = (
            f"saved contexts pile up: {saved.num_contexts:,} with {bytes_text(saved.num_bytes)} on the disk, "
            f"{saved.num_new:,} of them new since you look (the last {age(view.at - saved.grown_at)} ago), none deleted"
            f"; the newest is `{saved.newest}`"
        )
        yield Finding("saved-contexts", False, sentence)


def loop_share(view: View) -> Iterator[Finding]:
    """The engine's own work between two steps, which is Pie's fault and no program's."""
    for model in view.models:
        whole = model.slow.step_s + model.slow.gap_s
        if model.slow.busy > 0.2 and whole and model.slow.gap_s >= LOOP_SHARE * whole:
            sentence = (
                f"{model.now.name} loses {percent(model.slow.gap_s / whole)} of its time between steps: "
                f"{milliseconds(model.slow.gap_s)} beside steps of {milliseconds(model.slow.step_s)}"
            )
            yield Finding("loop", False, sentence)


def drafts(view: View) -> Iterator[Finding]:
    wasted = [
        row
        for row in view.rows
        if row.now.num_drafted >= MANY_DRAFTS and row.accept_rate is not None and row.accept_rate < LOW_ACCEPT
    ]
    for row in _most(wasted, lambda row: row.now.num_drafted)[:1]:
        sentence = (
            f"of the drafts of {_name(row)} only {percent(row.accept_rate)} are right: they cost more than they give"
        )
        yield Finding("drafts", False, sentence, (row.now.pid,))


RULES: tuple[Rule, ...] = (
    core_down,
    failures,
    kv_pressure,
    debts,
    batch_hog,
    idle_holders,
    starved,
    queue,
    forks,
    saved_contexts,
    loop_share,
    drafts,
)
CODES = (
    "core-down",
    "failures",
    "kv-pressure",
    "debts",
    "batch-hog",
    "idle-holders",
    "starved",
    "queue",
    "forks",
    "saved-contexts",
    "loop",
    "drafts",
)
"""Of all findings that there can be."""


def _of(view: View, model: ModelView) -> list[Row]:
    return [row for row in view.rows if row.now.model == model.now.name]


def _most(rows: list[Row], value: Callable[[Row], float]) -> list[Row]:
    """Those with the most of something, at most as many as a sentence names."""
    return sorted((row for row in rows if value(row) > 0), key=value, reverse=True)[:NUM_NAMED]


def _pids(rows: list[Row]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.now.pid for row in rows[:NUM_NAMED]))


def _name(row: Row) -> str:
    return f"{cut(row.now.program, MAX_NAME)} ({row.now.pid[:8]})"


def _named(rows: list[Row]) -> str:
    return ", ".join(_name(row) for row in rows)


def _wait(rows: list[Row]) -> str:
    return "waits" if len(rows) == 1 else "wait"


def _slower(history: History) -> tuple[float, float] | None:
    """Seconds of a step some minutes ago and now, where that is much more."""
    points = [point for point in history.levels[1].points() if point > 0]
    if len(points) < 12:
        return None
    before, now = median(points[: len(points) // 2]) / 1000, median(points[-3:]) / 1000
    return (before, now) if now >= SLOWER * before else None
