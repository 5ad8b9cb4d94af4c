"""Programs that arrive at an engine: drawn from a seed, or recorded.

The file form is a line of JSON for each program, sorted by `at` or not; the fields are those of `Arrival`, and all but
`at` may be left out. A recording of an engine is made from its snapshots (`GET /v1/stats/stream`), a line each.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
from common import BenchError

from pie_engine.protocol.credits import CREDIT
from pie_engine.protocol.stats import ProgramState, Snapshot


class Arrival(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A program: `rounds` times a prompt, then replies on `forks` contexts, then `think_s` in which it is away."""

    at: float
    """Seconds since the begin."""
    prompt: int = 128
    """Tokens of each round. What is forked shares them."""
    output: int = 128
    """Tokens of each reply."""
    rounds: int = 1
    forks: int = 1
    think_s: float = 0.0
    is_away: bool = False
    """It bids nothing while it thinks (`ctx.idle()`)."""
    bid: float | None = None
    """Credits for a page and a step; None: the default."""
    endowment: float = 1000.0
    """Credits."""
    priority: int = 0
    kind: str = "program"
    """Programs of a kind are counted together."""


def poisson(rng: random.Random, num: int, rate: float) -> list[Arrival]:
    """Chats, one after the other, `rate` a second."""
    return [_chat(rng, at) for at in _times(rng, num, lambda: rng.expovariate(rate))]


def bursty(rng: random.Random, num: int, rate: float) -> list[Arrival]:
    """The same, but 40 at a time."""
    return [
        _chat(rng, at) for at in _times(rng, num, lambda: rng.expovariate(rate / 40) if rng.random() < 1 / 40 else 0)
    ]


def heavy(rng: random.Random, num: int, rate: float) -> list[Arrival]:
    """Prompts and replies with heavy tails (Pareto, 1.3): most are short, a few have most of the tokens."""

    def draw(least: int, most: int) -> int:
        return min(int(least * rng.paretovariate(1.3)), most)

    times = _times(rng, num, lambda: rng.expovariate(rate))
    found = [Arrival(at, draw(40, 12_000), draw(30, 3000)) for at in times]
    return [
        msgspec.structs.replace(each, kind="long" if each.prompt + each.output > 1000 else "short") for each in found
    ]


def agents(rng: random.Random, num: int, rate: float) -> list[Arrival]:
    """Half chats, half agents that call tools, away in between with a context that grows; a quarter of them says so."""
    found: list[Arrival] = []
    for at in _times(rng, num, lambda: rng.expovariate(rate)):
        if rng.random() < 0.5:
            found.append(_chat(rng, at))
            continue
        is_away = rng.random() < 0.25
        kind = "agent, says that it is away" if is_away else "agent"
        found.append(
            Arrival(at, rng.randint(300, 900), rng.randint(40, 120), rounds=6, think_s=4.0, is_away=is_away, kind=kind)
        )
    return found


def adversarial(rng: random.Random, num: int, rate: float) -> list[Arrival]:
    """Chats, and eight programs with a hundred forks each that bid everything they have, for ever."""
    hogs = [
        Arrival(0.01 * number, 64, 2_000_000, forks=100, bid=1e6, endowment=1e5, priority=9, kind="hog")
        for number in range(8)
    ]
    return hogs + [msgspec.structs.replace(each, at=each.at + 1) for each in poisson(rng, num, rate)]


def bidders(rng: random.Random, num: int, rate: float) -> list[Arrival]:
    """Equal chats whose bids are 1, 2, 4, … 64 thousandths of a credit."""
    found = []
    for number, at in enumerate(_times(rng, num, lambda: rng.expovariate(rate))):
        power = number % 7
        found.append(Arrival(at, 256, 128, bid=2**power / 1000, priority=power, kind=f"bid {2**power}"))
    return found


SCENARIOS: dict[str, tuple[Callable[[random.Random, int, float], list[Arrival]], float]] = {
    "poisson": (poisson, 34.0),
    "bursty": (bursty, 30.0),
    "heavy": (heavy, 60.0),
    "agents": (agents, 2.0),
    "adversarial": (adversarial, 10.0),
    "bidders": (bidders, 42.0),
}
"""And how many programs arrive in a second where the engine of `market_engine` is a little too small for them."""


def drawn(name: str, num: int, seed: int, load: float = 1.0) -> list[Arrival]:
    """`num` programs of a scenario, `load` times as fast as it says."""
    make, rate = SCENARIOS[name]
    return make(random.Random(f"{name} {seed}"), num, rate * load)


def read(path: Path) -> list[Arrival]:
    """Programs, or snapshots, of a file. Raises `BenchError` with the line that is wrong."""
    lines = path.read_text("utf-8").splitlines()
    found, snapshots = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            if "programs" in msgspec.json.decode(line):
                snapshots.append(msgspec.json.decode(line, type=Snapshot))
            else:
                found.append(_checked(msgspec.json.decode(line, type=Arrival)))
        except (msgspec.DecodeError, TypeError, ValueError) as error:
            raise BenchError(f"{path.name}, line {number}: {error}") from error
    found += recorded(snapshots)
    if not found:
        raise BenchError(f"{path.name} has no programs")
    return sorted(found, key=lambda each: each.at)


def write(path: Path, arrivals: Iterable[Arrival]) -> None:
    path.write_text("".join(msgspec.json.encode(each).decode() + "\n" for each in arrivals), "utf-8")


def recorded(snapshots: Iterable[Snapshot]) -> list[Arrival]:
    """The programs of snapshots, each as it was seen last: its tokens, its contexts, its bid and its endowment."""
    last: dict[str, ProgramState] = {}
    for snapshot in snapshots:
        for program in snapshot.programs:
            if program.num_generated:
                last[program.pid] = program
    begin = min((each.created for each in last.values()), default=0.0)
    return [_of_program(each, begin) for each in last.values()]


def _of_program(program: ProgramState, begin: float) -> Arrival:
    forks = max(program.num_contexts, 1)
    return Arrival(
        at=program.created - begin,
        prompt=max(program.num_prompt, 1),
        output=max(program.num_generated // forks, 1),
        forks=forks,
        bid=program.bid / CREDIT if program.bid else None,
        endowment=program.endowment / CREDIT or 1000.0,
        kind=program.program or "program",
    )


def _checked(arrival: Arrival) -> Arrival:
    least = {"at": 0, "prompt": 1, "output": 1, "rounds": 1, "forks": 1, "think_s": 0, "endowment": 0}
    for name, value in least.items():
        if getattr(arrival, name) < value:
            raise ValueError(f"`{name}` must be {value} or more, not {getattr(arrival, name)}")
    if arrival.bid is not None and arrival.bid < 0:
        raise ValueError(f"`bid` must be 0 or more, not {arrival.bid}")
    return arrival


def _times(rng: random.Random, num: int, gap: Callable[[], float]) -> Iterator[float]:
    at = 0.0
    for _ in range(num):
        at += gap()
        yield at


def _chat(rng: random.Random, at: float) -> Arrival:
    return Arrival(at, min(int(rng.lognormvariate(5.5, 0.8)), 4000), min(int(rng.lognormvariate(4.8, 0.6)) + 1, 1500))
