"""What a core says of itself, and how often it may take the time for that."""

from __future__ import annotations

import itertools
import statistics
import sys
from types import SimpleNamespace

import pytest

from pie_engine.core.device_use import device_meter, physical_name
from pie_engine.core.reports import EVERY_S, MAX_SHARE, Reports
from pie_engine.protocol.plan import Speculation
from pie_engine.protocol.to_core import OpenProcess
from tests.unit.core_rig import Rig


def test_batches_say_what_ran_and_how_long_it_took():
    rig = Rig(reply="hello")
    one, two = rig.context("abcdef"), rig.context("xyz")
    rig.generate(one, max_tokens=3)
    rig.generate(two, max_tokens=5)
    rig.run()
    done = rig.core.stats().batches
    assert (done.num_prefill_tokens, done.num_decode_tokens, done.num_sequences, done.peak_sequences) == (9, 6, 8, 2)
    assert (done.max_tokens, done.max_sequences) == (64, 32)
    assert rig.core.stats().batches.peak_sequences == 0, "a new peak has begun"
    assert rig.core.stats().processes[0].num_batch_tokens == 15


def test_the_gap_between_steps_counts_while_something_could_run():
    rig = Rig(reply="hello")
    rig.generate(rig.context("abcdef"), max_tokens=3)
    rig.step()
    rig.step(after_s=0.25)
    assert rig.core.stats().batches.gap_s == pytest.approx(0.25)
    rig.step(after_s=0.25)
    rig.step(4, after_s=5.0)  # it has ended
    rig.generate(rig.context("abcdef"), max_tokens=1)
    rig.step(after_s=5.0)
    assert rig.core.stats().batches.gap_s == pytest.approx(0.5)


def test_latencies_of_generations():
    rig = Rig(reply="hello there")
    rig.generate(rig.context("abcdef"), max_tokens=5)
    rig.step(after_s=0.3)
    rig.step(4, after_s=0.03)
    stats = rig.core.stats()
    assert (sum(stats.ttft_s.counts), stats.ttft_s.sum) == (1, pytest.approx(0.3))
    assert (sum(stats.tpot_s.counts), stats.tpot_s.sum) == (1, pytest.approx(0.03))
    assert stats.ttft_s.counts[stats.ttft_s.bounds.index(0.5)] == 1


def test_drafts_count_as_a_kind_of_their_own():
    rig = Rig(reply="abababababababab")
    rig.generate(rig.context("ababab"), max_tokens=8, speculation=Speculation("lookup"))
    rig.run()
    stats = rig.core.stats()
    assert stats.batches.num_draft_tokens == stats.processes[0].num_drafted > 0


def test_pages_that_other_programs_hold_as_well():
    rig = Rig()
    rig.send(OpenProcess("p2", "other"))
    text = "abcd" * 40 + "x"
    first = rig.context(text)
    rig.flush(first)
    rig.run()
    fork = rig.fork(first, len(text) - 1)
    alone, _ = rig.core.stats().processes
    assert (alone.num_pages, alone.num_shared_pages) == (41, 0), "what its own contexts share is its own"
    own = rig.core.contexts_of("p1")
    assert [(context.ctx, context.parent, context.num_shared_pages) for context in own] == [
        (first, None, 40),
        (fork, first, 40),
    ]
    rig.flush(rig.context(text, pid="p2"))
    rig.run()
    for usage in rig.core.stats().processes:
        assert (usage.num_pages, usage.num_shared_pages) == (41, 40), usage.pid
    assert rig.core.contexts_of("nobody") == []


def test_many_programs_are_looked_at_less_often_than_the_core_itself():
    rig = Rig()
    now, spent = [10.0], [0.0]

    def slow_clock() -> float:
        spent[0] += 0.0015
        return spent[0]

    reports = Reports(rig.core, clock=lambda: now[0], spent=slow_clock)
    reports.set_interval(0.1)
    sent = []
    for _ in range(100):
        reports.take(sent.append)
        now[0] += 0.1
    with_processes = [stats for stats in sent if stats.processes is not None]
    assert len(sent) == 100
    assert len(with_processes) == pytest.approx(10 / (0.0015 / MAX_SHARE), abs=10)
    reports.begin()
    reports.take(sent.append)
    assert sent[-1].processes is not None, "another gateway knows nothing yet"
    assert reports.next_at == pytest.approx(now[0] + EVERY_S)


def test_programs_are_looked_at_with_every_report_while_that_costs_little_enough():
    """One that costs 3 ms may be taken every 0.4 s: with each report of half a second, or with every fourth."""
    rig = Rig()
    now, spent = [10.0], [0.0]

    def clock() -> float:
        spent[0] += 0.4 * MAX_SHARE
        return spent[0]

    def gaps(interval_s: float) -> list[float]:
        reports = Reports(rig.core, clock=lambda: now[0], spent=clock)
        reports.set_interval(interval_s)
        looked: list[float] = []
        for _ in range(1000):
            now[0] += 0.0103  # steps of a model take their time
            reports.take(lambda stats: looked.append(now[0]) if stats.processes is not None else None)
        return [later - before for before, later in itertools.pairwise(looked[2:])]

    assert statistics.mean(gaps(0.5)) == pytest.approx(0.5, rel=0.05)
    assert statistics.mean(gaps(0.1)) == pytest.approx(0.4, rel=0.05)
    assert max(gaps(0.5)) < 0.53
    assert max(gaps(0.1)) < 0.53


def test_a_look_at_all_programs_asks_the_market_once(monkeypatch):
    rig = Rig()
    for _ in range(3):
        rig.fork(rig.context("abc"), 2)
    policy, asked = rig.core._scheduler.claims.policy, []
    bids = policy.bids
    monkeypatch.setattr(policy, "bids", lambda step: asked.append(step) or bids(step))
    assert rig.core.stats().processes[0].num_contexts == 6
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("visible", "name"), [(None, "1"), ("", "1"), ("4,6", "6"), ("GPU-a, GPU-b", "GPU-b"), ("4", "1")]
)
def test_names_of_devices(visible, name):
    assert physical_name(1, visible) == name


def test_nvml_says_how_busy_the_device_is(monkeypatch):
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=87),
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=5),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    meter = device_meter("cuda:0")
    meter.close()
    assert (meter.use, meter.memory_bytes) == (0.87, 5)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert device_meter("cuda:0") is None
    assert device_meter("cpu") is None
