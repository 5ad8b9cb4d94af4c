"""The scheduling policies of Pie on an engine without a model: thousands of programs in seconds.

    python benches/market_sim.py [--scenarios poisson bursty …] [--policies market fcfs priority] [--programs 1000]
                                 [--arrivals FILE] [--json-out FILE] [--pictures DIR]

The policies are the core's own (`pie_engine/market`); the engine around them is `market_engine`, a small GPU whose
steps take as long as their tokens and pages. Programs are drawn from a seed (`market_arrivals`), or come from a file: a
line of JSON for each program, or for each snapshot of an engine.

Of each scenario and policy: how much longer programs took than alone (slowdown), the time to the first token, tokens a
second as long as programs arrive, the longest wait in steps, Jain's index of fairness, who lost pages, and what was
paid.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from common import BenchError
from line_chart import Line, Panel, svg
from market_arrivals import SCENARIOS, Arrival, drawn, read
from market_engine import Engine, Machine, Program
from options import bench_parser
from report import save

from pie_engine.market.ledger import Ledger
from pie_engine.market.policy import POLICIES
from pie_engine.protocol.credits import CREDIT

QUOTA_PAGES = 64
MAX_STEPS = 20_000
"""Default of `--steps`: whoever has not ended by then is counted as unfinished, as slow as it is until then."""
SAMPLE_EVERY_STEPS = 50
PAGES = {"agents": 900, "heavy": 1500}
"""Of the machine, in scenarios that are about pages."""
ENDLESS = "hog"
"""Programs of this kind are not waited for."""


class Series:
    """What is drawn over time, of one run."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tokens: dict[Program, int] = {}
        self._last_arrival = max((each.arrival.at for each in engine.programs), default=0.0)
        self.tokens_per_s_arriving = 0.0
        """Until the last program has come: in the time after it batches empty, whoever runs last."""
        self.price: list[tuple[float, float]] = []
        self.jain: list[tuple[float, float]] = []
        self.waiting: list[tuple[float, float]] = []
        self.balances: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def sample(self, active: Iterable[Program]) -> None:
        engine, now = self._engine, self._engine.now
        if now and (now <= self._last_arrival or not self.tokens_per_s_arriving):
            self.tokens_per_s_arriving = sum(each.num_tokens for each in engine.programs) / now
        self.price.append((now, engine.policy.price / CREDIT))
        self.waiting.append((now, engine.num_waiting))
        by_kind: dict[str, list[float]] = defaultdict(list)
        tokens, shares = {}, []
        for program in active:
            by_kind[program.arrival.kind].append(engine.policy.ledger.account(program.pid).balance / CREDIT)
            if program.num_running:
                tokens[program] = program.num_tokens
                if program in self._tokens:
                    shares.append(program.num_tokens - self._tokens[program])
        self._tokens = tokens
        if len(shares) > 1 and any(shares):
            self.jain.append((now, jain(shares)))
        for kind, balances in by_kind.items():
            self.balances[kind].append((now, sum(balances) / len(balances)))


def jain(shares: Sequence[float]) -> float:
    """(Σx)² / (n Σx²): 1 when all are equal, 1/n when one has everything (Jain, Chiu and Hawe 1984)."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def simulate(
    arrivals: Sequence[Arrival],
    policy_name: str,
    machine: Machine,
    *,
    max_wait_steps: int = 256,
    max_steps: int = MAX_STEPS,
    check_every: int = 0,
) -> tuple[Engine, Series]:
    """Run until every program has ended that is not `ENDLESS`, or for `max_steps`. Raises `BenchError` for programs
    that can never fit."""
    for arrival in arrivals:
        num_pages = machine.pages_for(arrival.rounds * (arrival.prompt + arrival.output))
        if num_pages > machine.num_pages and arrival.kind != ENDLESS:
            raise BenchError(f"a program needs {num_pages} pages; the machine has {machine.num_pages}")
    policy = POLICIES[policy_name](Ledger(QUOTA_PAGES), num_pages=machine.num_pages, max_wait_steps=max_wait_steps)
    engine = Engine(machine, policy, check_every=check_every)
    engine.add(arrivals)
    series, awaited = Series(engine), [each for each in engine.programs if each.arrival.kind != ENDLESS]
    next_sample = 0
    while awaited and engine.step_number < max_steps:
        engine.step()
        if awaited[-1].ended_at is not None:
            awaited = [each for each in awaited if each.ended_at is None]
        if engine.step_number >= next_sample:
            next_sample = engine.step_number + SAMPLE_EVERY_STEPS
            series.sample(each for each in engine.programs if each.contexts and each.ended_at is None)
    engine.check()
    return engine, series


def figures_of(engine: Engine, series: Series) -> dict[str, Any]:
    programs = awaited_of(engine)
    by_kind: dict[str, list[Program]] = defaultdict(list)
    for program in programs:
        by_kind[program.arrival.kind].append(program)
    speeds = [1 / slowdown_of(each, engine) for each in programs]
    return {
        "programs": len(programs),
        "unfinished": sum(each.ended_at is None for each in programs),
        "steps": engine.step_number,
        "contended_steps": engine.num_contended,
        "seconds": rounded(engine.now),
        "tokens_per_s": rounded(sum(each.num_tokens for each in engine.programs) / engine.now),
        "tokens_per_s_arriving": rounded(series.tokens_per_s_arriving),
        "slowdown": points(slowdown_of(each, engine) for each in programs),
        "ttft_s": points(ttft_of(each, engine) for each in programs),
        "longest_wait_steps": max(each.longest_wait for each in programs),
        "longest_gap_s": rounded(engine.longest_gap_s),
        "jain_of_speeds": rounded(jain(speeds)),
        "jain_over_time": points([value for _, value in series.jain] or [1.0]),
        "moved_out": sum(each.num_moved_out for each in engine.programs),
        "price": points(value for _, value in series.price),
        "rent_credits": rounded(engine.policy.ledger.rent / CREDIT),
        "kinds": {kind: _kind(programs, engine) for kind, programs in sorted(by_kind.items())},
    }


def awaited_of(engine: Engine) -> list[Program]:
    """Programs that have come and end some time."""
    return [each for each in engine.programs if each.contexts and each.arrival.kind != ENDLESS]


def _kind(programs: Sequence[Program], engine: Engine) -> dict[str, Any]:
    return {
        "programs": len(programs),
        "slowdown": points(slowdown_of(each, engine) for each in programs),
        "ttft_s": points(ttft_of(each, engine) for each in programs),
        "longest_wait_steps": max(each.longest_wait for each in programs),
        "moved_out": rounded(sum(each.num_moved_out for each in programs) / len(programs)),
        "rent_credits": rounded(sum(each.rent for each in programs) / len(programs) / CREDIT),
    }


def slowdown_of(program: Program, engine: Engine) -> float:
    """How much longer it took than alone, or takes at least."""
    ended_at = engine.now if program.ended_at is None else program.ended_at
    return max(ended_at - program.arrival.at, 1e-9) / engine.machine.alone_s(program.arrival)


def ttft_of(program: Program, engine: Engine) -> float:
    """Seconds to its first token, or that it has waited for it."""
    return (engine.now if program.first_at is None else program.first_at) - program.arrival.at


def points(values: Iterable[float]) -> dict[str, float]:
    """Median, 99th percentile and mean."""
    found = sorted(values)
    return {
        "p50": rounded(found[len(found) // 2]),
        "p99": rounded(found[min(math.ceil(0.99 * len(found)), len(found) - 1)]),
        "mean": rounded(sum(found) / len(found)),
    }


def rounded(value: float) -> float:
    """To four significant digits: results are read by people and kept in a repository."""
    return float(f"{value:.4g}")


# Pictures.


def pictures(runs: dict[str, dict[str, tuple[Engine, Series]]]) -> dict[str, str]:
    """By file name."""
    found = {
        "market-latency.svg": svg([_latency(name, by_policy) for name, by_policy in runs.items()], columns=2),
        "market-fairness.svg": svg([_fairness(name, by_policy) for name, by_policy in runs.items()], columns=2),
    }
    with_market = {name: by_policy["market"] for name, by_policy in runs.items() if "market" in by_policy}
    if with_market:
        panels = [panel for name, run in with_market.items() for panel in (_price(name, run), _balances(name, run))]
        found["market-price.svg"] = svg(panels, columns=2)
    if "bidders" in runs:
        found["market-bids.svg"] = svg(_bids(runs["bidders"]), columns=2)
    return found


def _latency(name: str, by_policy: dict[str, tuple[Engine, Series]]) -> Panel:
    lines = []
    for policy, (engine, _) in by_policy.items():
        found = sorted(slowdown_of(each, engine) for each in awaited_of(engine))
        lines.append(Line(policy, [(value, (place + 1) / len(found)) for place, value in enumerate(found)]))
    return Panel(f"{name}: slowdown", "times as long as alone", "part of the programs", lines, x_is_log=True)


def _fairness(name: str, by_policy: dict[str, tuple[Engine, Series]]) -> Panel:
    lines = [Line(policy, smoothed(series.jain)) for policy, (_, series) in by_policy.items()]
    return Panel(f"{name}: fairness between programs", "s", "Jain's index", lines, y_range=(0, 1))


def _price(name: str, run: tuple[Engine, Series]) -> Panel:
    lines = [Line("price", [(at, 1000 * value) for at, value in run[1].price])]
    return Panel(f"{name}: price", "s", "thousandths of a credit", lines, is_log=True)


def _balances(name: str, run: tuple[Engine, Series]) -> Panel:
    lines = [Line(kind, values) for kind, values in sorted(run[1].balances.items())]
    return Panel(f"{name}: mean balance", "s", "credits", lines)


def _bids(by_policy: dict[str, tuple[Engine, Series]]) -> list[Panel]:
    """Latency against the bid."""
    found = []
    for title, of_program in (("slowdown", slowdown_of), ("seconds to the first token", ttft_of)):
        lines = []
        for policy, (engine, _) in by_policy.items():
            values: dict[float, list[float]] = defaultdict(list)
            for each in engine.programs:
                values[1000 * (each.arrival.bid or 0)].append(of_program(each, engine))
            lines.append(Line(policy, [(bid, points(each)["p50"]) for bid, each in sorted(values.items())]))
        found.append(Panel(f"median {title} by bid", "thousandths of a credit", title, lines, x_is_log=True))
    return found


def smoothed(values: Sequence[tuple[float, float]], most: int = 60) -> list[tuple[float, float]]:
    """Means of equally many neighbours."""
    size = max(math.ceil(len(values) / most), 1)
    parts = [values[start : start + size] for start in range(0, len(values), size)]
    return [(part[0][0], sum(value for _, value in part) / len(part)) for part in parts]


def print_figures(scenario: str, policy: str, figures: dict[str, Any]) -> None:
    slowdown, ttft = figures["slowdown"], figures["ttft_s"]
    print(
        f"{scenario:12} {policy:9} {slowdown['p50']:8.2f} {slowdown['p99']:8.1f} {ttft['p50']:8.2f} {ttft['p99']:8.2f} "
        f"{figures['tokens_per_s_arriving']:8.0f} {figures['longest_wait_steps']:6} "
        f"{figures['jain_over_time']['mean']:6.2f} "
        f"{figures['moved_out']:7} {figures['rent_credits']:10.0f} {figures['unfinished']:5} {figures['cpu_s']:6.1f}",
        flush=True,
    )


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="NAME")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--load", type=float, default=1.0, help="times as many programs a second as the scenario says")
    parser.add_argument("--max-wait-steps", type=int, default=256)
    parser.add_argument("--steps", type=int, default=MAX_STEPS)
    parser.add_argument("--pages", type=int, help="KV pages of the machine")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arrivals", type=Path, help="a file of programs or snapshots, instead of scenarios")
    parser.add_argument("--pictures", type=Path, help="a folder")
    args = parser.parse_args()
    try:
        run(args)
    except BenchError as error:
        raise SystemExit(f"market_sim: {error}") from error


def run(args: argparse.Namespace) -> None:
    chosen = {name: drawn(name, args.programs, args.seed, args.load) for name in args.scenarios}
    if args.arrivals:
        chosen = {args.arrivals.stem: read(args.arrivals)}
    head = ("slowdown", "p99", "TTFT s", "p99", "tokens/s", "wait", "Jain", "moved", "rent", "CPU s")
    print(f"{'':22} {head[0]:>8} {head[1]:>8} {head[2]:>8} {head[3]:>8} {head[4]:>8} {head[5]:>6} ", end="")
    print(f"{head[6]:>6} {head[7]:>7} {head[8]:>10} {'left':>5} {head[9]:>6}")
    runs: dict[str, dict[str, tuple[Engine, Series]]] = {}
    results = []
    for name, arrivals in chosen.items():
        machine = Machine(num_pages=args.pages or PAGES.get(name, Machine.num_pages))
        for policy in args.policies:
            began_at = time.process_time()
            engine, series = simulate(
                arrivals, policy, machine, max_wait_steps=args.max_wait_steps, max_steps=args.steps
            )
            figures = figures_of(engine, series) | {"cpu_s": rounded(time.process_time() - began_at)}
            print_figures(name, policy, figures)
            runs.setdefault(name, {})[policy] = engine, series
            results.append({"scenario": name, "policy": policy, **figures})
    whole = {"programs": args.programs, "load": args.load, "seed": args.seed, "steps": args.steps, "results": results}
    save(args.json_out, whole)
    if args.pictures:
        args.pictures.mkdir(parents=True, exist_ok=True)
        for file, text in pictures(runs).items():
            (args.pictures / file).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
