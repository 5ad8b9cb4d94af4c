"""The market among many programs, by the simulator of benches/; and the simulator itself."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import market_sim
import msgspec
import pytest
from common import BenchError
from line_chart import Line, Panel, svg, ticks
from market_arrivals import SCENARIOS, Arrival, drawn, read, recorded, write
from market_engine import Context, Engine, Machine, Program
from market_sim import figures_of, jain, simulate, slowdown_of

from pie_engine.market.book import Standing
from pie_engine.market.ledger import Ledger
from pie_engine.market.policy import POLICIES, TURN_STEPS, MarketPolicy
from pie_engine.protocol.credits import CREDIT
from pie_engine.protocol.stats import ProgramState, Snapshot
from tests.thoroughness import count

SMALL = Machine(num_pages=200, max_rows=8, max_tokens=256)
ENDLESS = 10**6
MAX_WAIT_STEPS = 64


def run_for(engine: Engine, num_steps: int) -> None:
    while engine.step_number < num_steps:
        engine.step()


def engine_with(
    *arrivals: Arrival, machine: Machine = SMALL, policy: str = "market", max_wait_steps: int = 64
) -> Engine:
    chosen = POLICIES[policy](Ledger(16), num_pages=machine.num_pages, max_wait_steps=max_wait_steps)
    engine = Engine(machine, chosen, check_every=50)
    engine.add(arrivals)
    return engine


def by_kind(engine: Engine, kind: str) -> list[Program]:
    return [each for each in engine.programs if each.arrival.kind == kind]


# What the market promises.


def test_while_everything_fits_nobody_pays_rent():
    engine, _ = simulate(drawn("poisson", 40, seed=1, load=0.05), "market", Machine())
    assert engine.num_contended == 0
    assert engine.policy.ledger.rent == 0
    assert all(each.ended_at is not None for each in engine.programs)


@pytest.mark.parametrize("policy", ["market", "priority"])
@pytest.mark.parametrize("machine", [Machine(num_pages=400, max_rows=1), Machine(num_pages=12, max_rows=8)])
def test_two_equal_programs_get_equal_service(policy, machine):
    # Short of rows, or short of pages: each of them needs nearly all there are.
    pair = [Arrival(0.0, 64, 90, rounds=1) for _ in range(2)]
    engine = engine_with(*pair, machine=machine, policy=policy)
    num_ended = 0
    while num_ended < count(7, 60):
        engine.step()
        ended = sum(each.ended_at is not None for each in engine.programs)
        if ended > num_ended:
            engine.add(Arrival(engine.now, 64, 90) for _ in range(ended - num_ended))
            num_ended = ended
    tokens = [sum(each.num_tokens for each in engine.programs[first::2]) for first in (0, 1)]
    assert abs(tokens[0] - tokens[1]) <= 154 + 0.05 * sum(tokens)


def test_one_program_with_many_forks_gets_as_much_as_one_with_a_single_context():
    engine = engine_with(Arrival(0, 1, ENDLESS, forks=60), Arrival(0, 1, ENDLESS), machine=Machine(max_rows=2))
    run_for(engine, 300)
    forks, single = (each.num_tokens for each in engine.programs)
    assert single == pytest.approx(forks, rel=0.05)


def test_nobody_starves_whatever_an_adversary_bids():
    hogs = [Arrival(0, 16, ENDLESS, forks=12, bid=1e6, endowment=1e6, priority=9, kind="hog") for _ in range(4)]
    num_chats = count(4, 30)
    chats = [Arrival(0.1 + number / 20, 200, 8, endowment=0, kind="chat") for number in range(num_chats)]
    engine = engine_with(*hogs, *chats)
    awaited = by_kind(engine, "chat")
    while awaited[-1].ended_at is None or any(each.ended_at is None for each in awaited):
        engine.step()
        # Each has its prompt and one token in its first turn, and the others in the next ones.
        assert engine.step_number < 4 * bound_of(engine, 200) + 100
    assert max(each.longest_wait for each in engine.programs) <= bound_of(engine, 200)


def bound_of(engine: Engine, most_prompt: int) -> int:
    """Steps, as `market.policy` states it."""
    longest_prompt = 1 + most_prompt // (engine.machine.max_tokens - engine.machine.max_rows)
    return MAX_WAIT_STEPS + len(engine.programs) * (TURN_STEPS + longest_prompt)


def test_who_is_in_debt_still_gets_on():
    rich = [Arrival(0, 64, ENDLESS, bid=1.0, endowment=1e6, kind="rich") for _ in range(6)]
    machine = Machine(num_pages=80, max_rows=4)
    engine = engine_with(*rich, Arrival(0.2, 300, 40, endowment=0, kind="poor"), machine=machine)
    poor = by_kind(engine, "poor")[0]
    while poor.ended_at is None:
        engine.step()
        if poor.pid in engine.policy.ledger:
            assert engine.policy.ledger.account(poor.pid).balance >= -16 * CREDIT
        assert engine.step_number < 2000
    assert poor.num_tokens > 16 * 16


def test_a_higher_bid_means_a_shorter_wait():
    means = bids_and_slowdowns(drawn("bidders", 84, seed=3), Machine(max_rows=16))
    assert means[64] < 0.5 * means[1]
    assert means[64] <= means[8] <= means[1]


def bids_and_slowdowns(arrivals: list[Arrival], machine: Machine) -> dict[int, float]:
    engine, _ = simulate(arrivals, "market", machine)
    means = {}
    for power in range(7):
        slowdowns = [slowdown_of(each, engine) for each in by_kind(engine, f"bid {2**power}")]
        means[2**power] = sum(slowdowns) / len(slowdowns)
    return means


class WatchedEngine(Engine):
    """Sees who loses its pages while an idle context that bids nothing holds some."""

    num_wrong = num_away = 0

    def _put_back(self, context: Context) -> None:
        book = self.policy.book

        def is_away(each: Context) -> bool:
            return book.standing[each.row] == Standing.IDLE and self.policy.bid_of(each.row, self.step_number) == 0

        if is_away(context):
            self.num_away += 1
        elif any(each.num_pages and is_away(each) for each in self._contexts.values()):
            self.num_wrong += 1
        super()._put_back(context)


def test_who_is_away_loses_its_pages_before_anybody_who_runs():
    policy = MarketPolicy(num_pages=300)
    engine = WatchedEngine(Machine(num_pages=300), policy)
    engine.add(drawn("agents", 60, seed=2, load=2.0))
    run_for(engine, 700)
    assert engine.num_away > 5
    assert engine.num_wrong == 0


def test_long_prompts_do_not_stall_decoders():
    prompts = [Arrival(0.1, 6000, 4, kind="long", bid=9.0) for _ in range(8)]
    engine = engine_with(
        *[Arrival(0, 16, 600, kind="chat") for _ in range(4)], *prompts, machine=Machine(num_pages=4000)
    )
    while not engine.is_over:
        engine.step()
    machine = engine.machine
    most_s = machine.step_s + machine.max_tokens * machine.prompt_token_s + machine.num_pages * machine.page_s
    assert engine.longest_gap_s <= most_s + 12 * machine.decode_s
    assert max(each.longest_wait for each in by_kind(engine, "chat")) == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_thousands_of_programs_end_and_no_credit_is_lost(scenario):
    machine = Machine(num_pages=market_sim.PAGES.get(scenario, Machine.num_pages))
    num_programs = {"agents": 600, "adversarial": 1000}.get(scenario, 3000)
    engine, _ = simulate(drawn(scenario, num_programs, seed=5), "market", machine, max_steps=60_000, check_every=50)
    awaited = [each for each in engine.programs if each.arrival.kind != market_sim.ENDLESS]
    assert all(each.ended_at is not None for each in awaited)
    if scenario != "adversarial":
        assert len(engine.policy.ledger) == 0
        assert engine.num_free == machine.num_pages


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_curve_of_bids_and_latencies_falls():
    means = bids_and_slowdowns(drawn("bidders", 2800, seed=7), Machine())
    values = [means[2**power] for power in range(7)]
    assert all(later <= 1.1 * earlier for earlier, later in pairwise(values)), values
    assert values[-1] < 0.3 * values[0]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scenario", ["poisson", "bursty", "heavy"])
def test_the_market_makes_as_many_tokens_as_fcfs(scenario):
    arrivals, machine = drawn(scenario, 1000, seed=0), Machine(num_pages=market_sim.PAGES.get(scenario, 2000))
    market, fcfs = (simulate(arrivals, name, machine)[1].tokens_per_s_arriving for name in ("market", "fcfs"))
    assert market > 0.95 * fcfs


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_adversary_hurts_less_than_without_a_market():
    arrivals, machine = drawn("adversarial", 400, seed=9), Machine()
    market, fcfs = (figures_of(*simulate(arrivals, name, machine, max_steps=20_000)) for name in ("market", "fcfs"))
    assert market["unfinished"] < fcfs["unfinished"] / 10
    num_programs = 408
    assert market["longest_wait_steps"] <= 256 + num_programs * (TURN_STEPS + 4)


# The simulator.


@pytest.mark.parametrize(
    "arrival", [Arrival(0, 3000, 50), Arrival(0, 40, 200), Arrival(0, 64, 32, rounds=3, think_s=2.0)]
)
def test_a_program_alone_takes_as_long_as_it_does_alone(arrival):
    engine, _ = simulate([arrival], "market", Machine())
    assert slowdown_of(engine.programs[0], engine) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_scenario_runs_and_gives_the_same_figures_again(policy):
    for name in SCENARIOS:
        machine = Machine(num_pages=800, max_rows=16)
        arrivals = [each for each in drawn(name, 14, seed=1) if machine.pages_for(each.prompt + each.output) < 800]
        figures = [figures_of(*simulate(arrivals, policy, machine, max_steps=150, check_every=20)) for _ in range(2)]
        assert figures[0] == figures[1]
        assert 0 < figures[0]["programs"] <= len(arrivals)


def test_what_can_never_fit_is_refused_with_the_numbers():
    with pytest.raises(BenchError, match="needs 63 pages; the machine has 12"):
        simulate([Arrival(0, 1000, 1)], "market", Machine(num_pages=12))


def test_jains_index():
    assert jain([3, 3, 3]) == pytest.approx(1)
    assert jain([5, 0, 0, 0]) == pytest.approx(0.25)
    assert jain([0, 0]) == 1


def test_arrivals_are_read_as_they_were_written(tmp_path):
    arrivals = drawn("agents", 20, seed=4)
    write(tmp_path / "a.jsonl", arrivals)
    assert read(tmp_path / "a.jsonl") == arrivals


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"at": 1, "promt": 3}', "line 2: .*promt"),
        ('{"at": 1, "prompt": 0}', "line 2: `prompt` must be 1 or more, not 0"),
        ('{"at": 1, "bid": -2}', "line 2: `bid` must be 0 or more"),
        ('{"prompt": 4}', "line 2: .*at"),
        ("7", "line 2"),
        ("{", "line 2"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, says):
    (tmp_path / "a.jsonl").write_text('{"at": 0}\n' + line + "\n")
    with pytest.raises(BenchError, match=says):
        read(tmp_path / "a.jsonl")


def test_an_empty_file_is_no_recording(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(BenchError, match=r"a\.jsonl has no programs"):
        read(tmp_path / "a.jsonl")


def seen(pid: str, num_generated: int, **more: object) -> ProgramState:
    state = ProgramState(pid, "ann", "chat", "1", "running", 100.0 + int(pid), num_generated=num_generated)
    return msgspec.structs.replace(state, **more)


def test_snapshots_of_an_engine_are_a_recording(tmp_path):
    first = Snapshot(1.0, "b", 1.0, "0", programs=(seen("0", 5), seen("1", 0)))
    last = Snapshot(
        2.0, "b", 2.0, "0", programs=(seen("0", 90, num_prompt=40, num_contexts=3, bid=CREDIT, endowment=7 * CREDIT),)
    )
    expected = Arrival(0.0, 40, 30, forks=3, bid=1.0, endowment=7.0, kind="chat")
    assert recorded([first, last]) == [expected]
    (tmp_path / "r.jsonl").write_bytes(msgspec.json.encode(first) + b"\n" + msgspec.json.encode(last) + b"\n")
    assert read(tmp_path / "r.jsonl") == [expected]


def test_the_command_writes_figures_and_pictures(tmp_path, monkeypatch, capsys):
    options = ["--programs", "12", "--scenarios", "poisson", "bidders", "--json-out", str(tmp_path / "r.json")]
    monkeypatch.setattr(sys, "argv", ["market_sim.py", *options, "--pictures", str(tmp_path / "pictures")])
    market_sim.main()
    result = json.loads((tmp_path / "r.json").read_text())
    assert [(each["scenario"], each["policy"]) for each in result["results"]][:3] == [
        ("poisson", "market"),
        ("poisson", "fcfs"),
        ("poisson", "priority"),
    ]
    assert len(capsys.readouterr().out.splitlines()) == 7
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {"market-latency.svg", "market-fairness.svg", "market-price.svg", "market-bids.svg"}
    for path in (tmp_path / "pictures").iterdir():
        assert ET.parse(path).getroot().tag.endswith("svg")


def test_the_command_says_what_is_wrong_with_a_file(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text("{}\n")
    monkeypatch.setattr(sys, "argv", ["market_sim.py", "--arrivals", str(tmp_path / "a.jsonl")])
    with pytest.raises(SystemExit, match=r"market_sim: a\.jsonl, line 1"):
        market_sim.main()


# The documentation.


def test_every_promise_in_the_documentation_has_its_test():
    root = Path(__file__).resolve().parents[2]
    named = set(re.findall(r"`(test_\w+|Test\w+)`", (root / "docs" / "market.md").read_text("utf-8")))
    tests = "".join(path.read_text("utf-8") for path in (root / "tests" / "unit").glob("test_market_*.py"))
    assert len(named) > 15
    assert sorted(name for name in named if not re.search(rf"^(def )?{name}\b", tests, re.MULTILINE)) == []


# Charts.


def test_ticks_are_round():
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(0, 0.07) == [0, 0.02, 0.04, 0.06]
    assert ticks(3, 3) == [3]


def test_a_chart_takes_anything():
    lines = [
        Line("a <b>", [(0, 1), (1, float("nan")), (2, 3)]),
        Line("none", []),
        Line("long", [(x, x) for x in range(999)]),
    ]
    panels = [
        Panel("t & t", "x", "y", lines),
        Panel("log", "x", "y", lines, is_log=True, x_is_log=True),
        Panel("", "", "", []),
    ]
    root = ET.fromstring(svg(panels, columns=2))
    texts = [each.text for each in root.iter() if each.tag.endswith("text")]
    assert "a <b>" in texts
    paths = [each.attrib["d"] for each in root.iter() if each.tag.endswith("path")]
    assert all("nan" not in path for path in paths)
    assert max(path.count("L") for path in paths) <= 240
