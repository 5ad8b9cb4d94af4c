"""A profile as text, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pie_cli.profiles.awaits import Line, lines
from pie_cli.profiles.hints import hints
from pie_cli.profiles.model import Profile
from pie_cli.profiles.phases import MEANINGS, phases
from pie_cli.profiles.totals import Totals, series, totals

NUM_AWAITS = 5
BAR_CHARS = 20
LEVELS = "▁▂▃▄▅▆▇█"


def report(profile: Profile) -> Iterator[str]:
    """Line by line."""
    yield _title(profile)
    yield ""
    yield "where the time went"
    for name, took in phases(profile).items():
        if took >= 0.5:
            yield _phase(name, took, profile.wall_us)
    yield ""
    yield from counts(profile)
    yield from (f"  {line}" for line in courses(profile))
    slowest = lines(profile)[:NUM_AWAITS]
    if slowest:
        yield ""
        yield "slowest awaits"
        yield from (_await(line, profile.wall_us) for line in slowest)
    for hint in hints(profile):
        yield ""
        yield f"slow: {hint.what}"
        yield from (f"  at {place}" for place in hint.places)
        yield f"  remedy: {hint.remedy}"
    if not profile.is_whole:
        yield ""
        why = "it was still running, or was lost"
        if profile.full_mb is not None:
            why = f"it has reached its limit of {profile.full_mb:g} MiB (`trace_mb` under [host])"
        yield f"the profile ends before the program: {why}"


def duration(us: float) -> str:
    """`12.3 ms`, `1.23 s`"""
    return f"{us / 1e6:.2f} s" if us >= 1e6 else f"{us / 1e3:.1f} ms"


def spark(values: Sequence[float]) -> str:
    """One sign for each value."""
    most = max(values, default=0.0)
    if not most:
        return LEVELS[0] * len(values)
    return "".join(LEVELS[min(int(value / most * (len(LEVELS) - 1) + 0.5), len(LEVELS) - 1)] for value in values)


def _title(profile: Profile) -> str:
    num_tasks = len(profile.tasks)
    tasks = f"{num_tasks} tasks" if num_tasks > 1 else "1 task"
    ended = "" if profile.outcome in ("return", "") else f", ended with {profile.outcome}"
    return f"profile of {profile.program}@{profile.version}: {duration(profile.wall_us)}, {tasks}{ended}"


def _phase(name: str, took: float, wall_us: int) -> str:
    share = took / max(wall_us, 1)
    bar = "█" * round(share * BAR_CHARS)
    return f"  {name:<18}{duration(took):>10}{share * 100:>5.0f} %  {bar:<{BAR_CHARS}}  {MEANINGS[name]}"


def counts(profile: Profile) -> Iterator[str]:
    """Tokens, guesses and pages, in all."""
    total = totals(profile)
    yield f"tokens    {_tokens(total, profile)}"
    if total.drafted:
        yield f"guesses   {total.accepted} of {total.drafted} right, {_percent(total.accepted, total.drafted)}"
    if total.num_pages:
        copied = f", {total.num_copies} copied because they were shared" if total.num_copies else ""
        yield f"KV pages  at most {total.max_held_pages} of {total.num_pages}, never less than " + (
            f"{total.least_free_pages} free{copied}"
        )


def courses(profile: Profile) -> Iterator[str]:
    """Tokens and pages over time, in columns."""
    if profile.steps:
        over = series(profile)
        yield f"prefill {spark(over.prefill)}  up to {max(over.prefill):.0f} tokens/s"
        yield f"decode  {spark(over.decode)}  up to {max(over.decode):.0f} tokens/s"
        yield f"pages   {spark(over.held_pages)}  up to {max(over.held_pages):.0f}"


def _tokens(total: Totals, profile: Profile) -> str:
    parts = [f"{total.generated} generated"]
    if total.generated and profile.wall_us:
        per_s = total.generated / (profile.wall_us / 1e6)
        parts.append(f"{per_s:.{0 if per_s >= 100 else 1}f} tokens/s over all")
    if total.prompt:
        parts.append(f"prompts of {total.prompt}, {total.cached} cached ({_percent(total.cached, total.prompt)})")
    if total.prefilled:
        parts.append(f"{total.prefilled} prefilled")
    return ", ".join(parts)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"


def _await(line: Line, wall_us: int) -> str:
    tasks = f" in {len(line.tasks)} tasks, {duration(line.took_us)} in all" if len(line.tasks) > 1 else ""
    times = "once" if line.count == 1 else f"{line.count} times{tasks}, longest {duration(line.longest_us)}"
    detail = line.phases_text()
    place = line.place or "(no line of the program)"
    return f"  {duration(line.wall_us):>9}{100 * line.wall_us / max(wall_us, 1):>5.0f} %  {place}  {times}" + (
        f"; {detail}" if detail else ""
    )
