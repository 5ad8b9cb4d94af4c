"""Slow patterns that a profile shows, each with the lines that cause it and the way out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from pie_cli.profiles.awaits import awaits
from pie_cli.profiles.model import Operation, Profile
from pie_engine.protocol.profile import Call

FIRST_TOKENS = 32
"""The first of the beginnings that are digested; each of the others is twice as long."""
MIN_AGAIN_TOKENS = 64
MIN_AGAIN_SHARE = 0.25
"""Of all that was prefilled."""
MIN_FORK_TOKENS = 16
MIN_CLIENT_TRIPS = 3
MIN_SHARE = 0.05
"""Of the wall time; what takes less is no reason to change a program."""
MIN_PAGE_WAIT_US = 20_000
MIN_DRAFTED = 12
"""Of one line; who guesses badly soon guesses less."""
LOW_ACCEPT_RATE = 0.3
MAX_PLACES = 4


@dataclass(frozen=True)
class Hint:
    """One pattern."""

    name: str
    what: str
    places: list[str]
    """Lines of the program, those that cost most first."""
    remedy: str


def hints(profile: Profile) -> list[Hint]:
    """Those that this profile shows."""
    found = (check(profile) for check in CHECKS)
    return [hint for hint in found if hint is not None]


# Prefilled again.


def _prefilled_again(profile: Profile) -> Hint | None:
    """Prompts that begin as an earlier one did, of a context that is no fork of it, and were not found in the cache."""
    again: dict[str, int] = defaultdict(int)
    num_turns = 0
    seen: set[int] = set()
    forked = {fork.child for fork in profile.forks}
    for operation in _in_order(profile):
        beginnings = operation.start.detail.get("beginnings", [])
        num_shared = max((FIRST_TOKENS << i for i, digest in enumerate(beginnings) if digest in seen), default=0)
        seen.update(beginnings)
        num_tokens = max((each.prompt for each in operation.times), default=0) or _appended(profile, operation)
        num_again = min(operation.num_prefill - max(num_tokens - num_shared, 0), num_shared)
        if num_shared and num_again > 0 and operation.start.ctx not in forked:
            again[operation.start.place] += num_again
            num_turns += 1
    total, num_all = sum(again.values()), sum(each.num_prefill for each in profile.operations.values())
    if total < max(MIN_AGAIN_TOKENS, MIN_AGAIN_SHARE * num_all):
        return None
    what = f"the same beginning was prefilled again {num_turns} times: at least {total} of {num_all} prefilled tokens"
    remedy = (
        "keep one Context over all turns and append what is new; `ctx.fork()` where turns must not see one another, "
        "`ctx.save(name)` where another run goes on"
    )
    return Hint("prefill-again", what, _places(again), remedy)


def _in_order(profile: Profile) -> list[Operation]:
    return sorted(profile.operations.values(), key=lambda operation: operation.start.at)


def _appended(profile: Profile, operation: Operation) -> int:
    """Tokens that calls have added to its context until it began."""
    ctx, until = operation.start.ctx, operation.start.at
    return sum(_tokens(call) for call in profile.calls if call.ctx == ctx and call.at <= until)


def _tokens(call: Call) -> int:
    if call.function.startswith(("context.", "forward.")):
        return int(call.detail.get("tokens") or 0)
    return 0


# Forks of what was not computed.


def _forked_unflushed(profile: Profile) -> Hint | None:
    """Each of several forks computed what its parent had not."""
    calls = {call.detail.get("child"): call for call in profile.calls if call.function == "context.fork"}
    wasted: dict[str, int] = defaultdict(int)
    num_forks = num_copies = 0
    by_parent: dict[int, list[int]] = defaultdict(list)
    for fork in profile.forks:
        first = _first_of(profile, fork.child)
        # The last token runs in every fork that goes on from it: its logits are wanted there.
        num_avoidable = fork.num_uncomputed - 1
        if first is None or num_avoidable <= 0 or fork.child not in calls:
            continue
        own = sum(
            _tokens(call) for call in profile.calls if call.ctx == fork.child and fork.at <= call.at <= first.start.at
        )
        extra = min(num_avoidable, max(first.num_prefill - own, 0))
        by_parent[fork.ctx].append(extra)
        num_copies += sum(each.num_copies for each in first.times)
        # One of them would have had to in any case.
        if len(by_parent[fork.ctx]) > 1:
            wasted[calls[fork.child].place] += min(extra, *by_parent[fork.ctx])
            num_forks += 1
    total = sum(wasted.values())
    if total < MIN_FORK_TOKENS:
        return None
    copies = f", and {num_copies} working pages were copied" if num_copies else ""
    what = (
        f"{num_forks + sum(len(each) > 1 for each in by_parent.values())} forks of contexts that were not computed: "
        f"{total} tokens ran in more than one of them{copies}"
    )
    return Hint("fork-unflushed", what, _places(wasted), "`await ctx.flush()` before the first `ctx.fork()`")


def _first_of(profile: Profile, ctx: int) -> Operation | None:
    found = (each for each in _in_order(profile) if each.start.ctx == ctx and each.times)
    return next(found, None)


# Tools through the client.


def _client_trips(profile: Profile) -> Hint | None:
    """The program stood still while a client answered, again and again."""
    took: dict[str, int] = defaultdict(int)
    trips = [
        each
        for each in awaits(profile)
        if profile.operations[each.handle].start.function == "session.receive" and _said_before(profile, each.at)
    ]
    for each in trips:
        took[each.place] += each.took
    total = sum(took.values())
    if len(trips) < MIN_CLIENT_TRIPS or total < MIN_SHARE * profile.wall_us:
        return None
    what = (
        f"{len(trips)} round trips to the client, {total / 1e6:.2f} s in all "
        f"(median {median(each.took for each in trips) / 1e3:.1f} ms)"
    )
    remedy = (
        "ask for several things in one message, or at once with `asyncio.gather`; go on generating in a fork "
        "meanwhile; what needs no network can be a function of the program"
    )
    return Hint("client-trips", what, _places(took), remedy)


def _said_before(profile: Profile, at: int) -> bool:
    """A first message that it waits for is its input, not an answer."""
    first = next((call.at for call in profile.calls if call.function == "session.send"), None)
    return first is not None and first <= at


# Guesses.


def _bad_guesses(profile: Profile) -> Hint | None:
    """Tokens were guessed ahead and thrown away, under a constraint in most cases."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for operation in profile.operations.values():
        drafted = sum(each.drafted for each in operation.times)
        if drafted:
            of_line = counts[operation.start.place]
            of_line[0] += drafted
            of_line[1] += sum(each.accepted for each in operation.times)
            of_line[2] += "grammar" in operation.start.detail
    bad = {
        place: each[0] - each[1]
        for place, each in counts.items()
        if each[0] >= MIN_DRAFTED and each[1] < LOW_ACCEPT_RATE * each[0]
    }
    if not bad:
        return None
    drafted, accepted = (sum(counts[place][i] for place in bad) for i in (0, 1))
    is_constrained = any(counts[place][2] for place in bad)
    under = " under a constraint" if is_constrained else ""
    what = f"only {accepted} of {drafted} guesses were right{under}"
    remedy = (
        "leave `speculate` out there; or let the constraint be as free as the model's own words (spaces and the order "
        "of keys as it would write them), or ask for that form in the prompt"
        if is_constrained
        else "leave `speculate` out there, or give `draft=` what the reply will repeat"
    )
    return Hint("bad-guesses", what, _places(bad), remedy)


# Pages.


def _page_waits(profile: Profile) -> Hint | None:
    """Operations could not run for want of KV pages."""
    took: dict[str, int] = defaultdict(int)
    num_waits = 0
    for operation in profile.operations.values():
        waits = [end - begin for each in operation.times for begin, end in each.page_waits]
        if waits:
            took[operation.start.place] += sum(waits)
            num_waits += 1
    total = sum(took.values())
    if total < max(MIN_PAGE_WAIT_US, MIN_SHARE * profile.wall_us):
        return None
    what = f"{num_waits} operations waited for KV pages, {total / 1e6:.2f} s in all"
    remedy = (
        "release contexts that are done (`with Context() as ctx:`), run fewer at once (`asyncio.Semaphore`), fork "
        "instead of repeating a prompt, set `max_tokens`, `ctx.idle()` where the program waits; where others have the "
        "pages, bid more (`ctx.bid`, `--endowment`); or raise `num_pages` or `kv_memory_mb` of the model"
    )
    return Hint("page-waits", what, _places(took), remedy)


def _places(costs: dict[str, int]) -> list[str]:
    places: Iterable[str] = sorted(costs, key=lambda place: -costs[place])
    return [place or "(no line of the program)" for place in list(places)[:MAX_PLACES]]


CHECKS: tuple[Callable[[Profile], Hint | None], ...] = (
    _prefilled_again,
    _forked_unflushed,
    _client_trips,
    _bad_guesses,
    _page_waits,
)
