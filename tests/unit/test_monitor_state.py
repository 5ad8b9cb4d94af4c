"""The monitor's reducer: snapshots in, views out."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_cli.monitor.panels.header import CONNECTED, status_line
from pie_cli.monitor.percentiles import percentiles, since
from pie_cli.monitor.series import Marks, Series, chart, sparkline
from pie_cli.monitor.state import NUM_HAPPENINGS, Reducer
from pie_cli.monitor.text import plain
from pie_cli.monitor.tracks import NUM_PHASES
from pie_engine.protocol.stats import (
    Batches,
    Histogram,
    HostState,
    ModelState,
    Pages,
    ProgramState,
    Requests,
    Snapshot,
)
from tests.loads import Engine
from tests.thoroughness import count

replace = msgspec.structs.replace
MODEL = ModelState("m", "core-1", True, batches=Batches(max_tokens=100, max_sequences=8), pages=Pages(16, 100, 100))
PROGRAM = ProgramState("p1", "ada", "chat", "1.0", "running", 990.0, "m", "host-0")


def snapshot(at: float, *, boot: str = "gw", **fields: object) -> Snapshot:
    fields = {"models": (MODEL,), "programs": (PROGRAM,), "hosts": (HostState("host-0", "h-1"),), **fields}
    return Snapshot(at, boot, at, "0.1.0", **fields)  # type: ignore[arg-type]


def ran(num_steps: int, *, rows: int = 2, model: ModelState = MODEL) -> ModelState:
    """`model` after that many steps of 10 ms, each of 6 prefilled and 2 decoded tokens."""
    batches = Batches(
        num_steps, 6 * num_steps, 2 * num_steps, 0, rows * num_steps, rows, 0.01 * num_steps, 0.001 * num_steps, 100, 8
    )
    return replace(model, batches=batches, num_looked_tokens=batches.num_tokens)


def test_rates_are_over_the_last_one_to_two_seconds() -> None:
    reducer = Reducer()
    for i in range(41):
        # Ten steps a second, and from the second second on fifty.
        steps = i if i <= 10 else 10 + 5 * (i - 10)
        view = reducer.apply(snapshot(1000 + i / 10, models=(ran(steps),)))
    rates = view.models[0].rates
    assert rates.steps_s == pytest.approx(50)
    assert (rates.prefill, rates.decode, rates.tokens, rates.sequences) == pytest.approx((6, 2, 8, 2))
    assert rates.step_s == pytest.approx(0.01)
    assert rates.gap_s == pytest.approx(0.001)
    assert rates.busy == pytest.approx(0.5)
    assert rates.tokens_s == pytest.approx(400)


def test_a_first_snapshot_has_no_rates_and_nothing_that_runs_has_none_either() -> None:
    reducer = Reducer()
    assert reducer.apply(snapshot(1000, models=(ran(500),))).models[0].rates.steps_s == 0
    view = reducer.apply(snapshot(1002, models=(ran(500),)))
    assert view.models[0].rates.tokens == 0
    assert view.rows[0].batch_share is None


def test_a_core_that_started_again_counts_from_its_new_beginning() -> None:
    reducer = Reducer()
    reducer.apply(snapshot(1000, models=(ran(1000),)))
    reducer.apply(snapshot(1001, models=(ran(1100),)))
    anew = replace(ran(3), boot="core-2")
    view = reducer.apply(snapshot(1002, models=(anew,)))
    assert view.models[0].rates.steps_s == 0
    assert [each.text for each in view.log] == ["core m started again"]
    view = reducer.apply(snapshot(1003, models=(replace(ran(13), boot="core-2"),)))
    assert view.models[0].rates.steps_s == pytest.approx(10)
    # The picture of before stays.
    assert len(view.models[0].history.tokens_s.levels[0].points()) >= 4


def test_a_gateway_and_a_host_that_started_again_are_in_the_log() -> None:
    reducer = Reducer()
    requests = Requests(num_launched=50, num_returned=40)
    reducer.apply(snapshot(1000, requests=requests))
    view = reducer.apply(
        snapshot(1001, boot="gw-2", hosts=(HostState("host-0", "h-2"),), requests=Requests(num_launched=1))
    )
    assert [each.kind for each in view.log] == ["gateway", "host"]
    assert view.service.launches_s == 0
    assert view.service.num_ended == 0


def test_a_snapshot_that_came_already_changes_nothing() -> None:
    reducer = Reducer()
    reducer.apply(snapshot(1000))
    view = reducer.apply(snapshot(1001, models=(ran(10),)))
    assert reducer.apply(snapshot(1001, models=(ran(99),))) is view
    assert reducer.apply(snapshot(1000.5, models=(ran(99),))) is view


def test_shares_and_tokens_of_programs() -> None:
    reducer = Reducer()
    other = replace(PROGRAM, pid="p2")
    reducer.apply(snapshot(1000, programs=(PROGRAM, other)))
    one = replace(PROGRAM, num_generated=30, num_batch_tokens=60, num_prompt=40, num_cached=10)
    two = replace(other, num_generated=10, num_batch_tokens=20, num_drafted=8, num_accepted=6, rent=500)
    view = reducer.apply(snapshot(1001, programs=(one, two), models=(ran(10),)))
    first, second = view.rows
    assert (first.batch_share, second.batch_share) == (0.75, 0.25)
    assert (first.tokens_s, second.tokens_s) == (30, 10)
    assert first.cache_hit == 0.25
    assert first.accept_rate is None
    assert second.accept_rate == 0.75
    assert second.rent_s == 500
    assert first.age_s == 11


def test_shares_are_over_the_same_span_whenever_a_program_began_and_however_old_its_numbers_are() -> None:
    """Two programs take turns of a second. The core says what it has run ten times a second, and what ran for whom once
    a second."""
    reducer = Reducer()
    looked, programs = 0, (PROGRAM,)
    for i in range(100):
        if i % 10 == 0:
            first, second = 80 * (i // 20) + 8 * min(i % 20, 10), 80 * (i // 20) + 8 * max(i % 20 - 10, 0)
            looked = 8 * i
            programs = (replace(PROGRAM, num_batch_tokens=first), replace(PROGRAM, pid="p2", num_batch_tokens=second))
            programs = programs if i >= 15 else programs[:1]
        model = replace(ran(i), num_looked_tokens=looked)
        view = reducer.apply(snapshot(1000 + i / 10, programs=programs, models=(model,)))
        shares = [row.batch_share for row in view.rows]
        if i >= 20:
            assert shares in ([0.5, 0.5], [1, 0], [0, 1]), "between two looks the numbers stay"
            assert sum(row.slow_share for row in view.rows) == pytest.approx(1)
    # Nothing runs any more, and the core has looked once again.
    for i in range(4):
        view = reducer.apply(snapshot(1011 + i, programs=programs, models=(replace(ran(99), num_looked_tokens=792),)))
    assert view.rows[0].batch_share is None


def test_who_comes_while_the_core_has_not_looked_again_has_no_part_yet() -> None:
    reducer = Reducer()
    reducer.apply(snapshot(1000, programs=(), models=(replace(MODEL, num_looked_tokens=0),)))
    # Nothing had run when it looked at the new one, so that this look cannot be told from the one before.
    more = replace(ran(3), num_looked_tokens=0)
    (row,) = reducer.apply(snapshot(1001, models=(more,))).rows
    assert (row.batch_share, row.slow_share) == (None, 0.0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 500), st.booleans(), st.floats(0.05, 1.5)), max_size=60))
@settings(max_examples=count(20, 1000), deadline=None)
def test_shares_of_a_picture_are_never_more_than_the_whole(steps: list[tuple[int, int, bool, float]]) -> None:
    """Programs begin with their first tokens, one in a hundred is launched anew; looks come now and then."""
    reducer = Reducer()
    counts: dict[str, int] = {}
    num_run, at = 0, 1000.0
    looked, programs = 0, ()
    for who, num_tokens, is_looked_at, seconds in steps:
        at, num_run = at + seconds, num_run + num_tokens
        pid = f"p{who}"
        counts[pid] = num_tokens if num_tokens % 100 == 1 else counts.get(pid, 0) + num_tokens
        if is_looked_at:
            looked = num_run
            programs = tuple(replace(PROGRAM, pid=pid, num_batch_tokens=number) for pid, number in counts.items())
        model = replace(MODEL, batches=Batches(num_prefill_tokens=num_run), num_looked_tokens=looked)
        rows = reducer.apply(snapshot(at, programs=programs, models=(model,))).rows
        assert sum(row.batch_share or 0.0 for row in rows) <= 1.0001
        assert sum(row.slow_share for row in rows) <= 1.0001


def test_a_program_on_two_models_is_two_rows() -> None:
    reducer = Reducer()
    second = replace(PROGRAM, model="n")
    view = reducer.apply(snapshot(1000, programs=(PROGRAM, second), models=(MODEL, replace(MODEL, name="n"))))
    assert [row.key for row in view.rows] == ["p1 m", "p1 n"]
    assert view.row_of("p1 n") is view.rows[1]
    assert view.row_of("p2") is None


def test_phases_are_when_the_state_changed() -> None:
    reducer = Reducer()
    states = ["queued", "queued", "running", "waiting: pages", "waiting: pages", "running"]
    for i, state in enumerate(states):
        view = reducer.apply(snapshot(1000 + i, programs=(replace(PROGRAM, state=state),)))
        # It was launched ten seconds before anybody looked.
        assert i or view.rows[0].in_state_s == 10
    phases = view.rows[0].history.phases
    assert [(phase.since, phase.state) for phase in phases] == [
        (990, "queued"),
        (1002, "running"),
        (1003, "waiting: pages"),
        (1005, "running"),
    ]
    assert view.rows[0].in_state_s == 0
    waiting = replace(view.rows[0], now=replace(PROGRAM, state="waiting: pages"))
    assert (waiting.is_waiting, waiting.waits_for_what) == (True, "pages")


def test_contexts_that_were_moved_out_are_in_the_log() -> None:
    reducer = Reducer()
    reducer.apply(snapshot(1000))
    reducer.apply(snapshot(1001, programs=(replace(PROGRAM, num_moved_out=1),)))
    view = reducer.apply(snapshot(1002, programs=(replace(PROGRAM, num_moved_out=4),)))
    assert [(each.kind, each.pid, each.text) for each in view.log] == [
        ("moved", "p1", "chat had a context moved out"),
        ("moved", "p1", "chat had 3 contexts moved out"),
    ]


def test_incidents_are_in_the_log_once() -> None:
    reducer = Reducer()
    reducer.apply(snapshot(1000, incidents=("old",)))
    reducer.apply(snapshot(1001, incidents=("old", "01:29:51 core m died")))
    view = reducer.apply(snapshot(1002, incidents=("old", "01:29:51 core m died")))
    assert [each.text for each in view.log] == ["core m died"]


def test_latencies_are_of_the_last_minutes_only() -> None:
    reducer = Reducer()
    bounds = (0.1, 1.0)
    for i in range(130):
        # All of the first minute are slow, and later ones fast.
        counts = (max(i - 62, 0), min(i, 62), 0)
        view = reducer.apply(snapshot(1000 + i, requests=Requests(ttft_s=Histogram(bounds, counts))))
    assert view.service.ttft is not None
    assert view.service.ttft.p90 < 0.1
    assert view.service.tpot is None


def test_percentiles_lie_between_the_bounds() -> None:
    values = percentiles(Histogram((1.0, 2.0, 4.0), (50, 40, 9, 1)))
    assert values is not None
    assert values.p50 == 1.0
    assert values.p90 == 2.0
    assert values.p99 == 4.0
    assert percentiles(None) is None
    assert percentiles(Histogram((1.0,), (0, 0))) is None
    assert since(Histogram((1.0,), (5, 1)), Histogram((1.0,), (5, 1))) is None
    assert since(Histogram((1.0,), (5, 1)), Histogram((2.0,), (5, 0))) == Histogram((1.0,), (5, 1))


def test_failures_are_counted_by_their_codes() -> None:
    reducer = Reducer()
    reducer.apply(snapshot(1000, requests=Requests(num_failed=2, errors={"trap": 2})))
    view = reducer.apply(snapshot(1001, requests=Requests(num_failed=5, errors={"trap": 2, "cpu_limit": 3})))
    assert view.service.new_errors == {"cpu_limit": 3}
    assert view.service.num_ended == 3


def test_what_is_remembered_is_bounded() -> None:
    """Programs that come and go for a long time leave nothing behind but bounded buffers."""
    reducer = Reducer()
    for i in range(700):
        state = ("running", "idle")[i % 2]
        programs = (replace(PROGRAM, state=state, num_moved_out=i), replace(PROGRAM, pid=f"short-{i}"))
        view = reducer.apply(snapshot(1000 + 15 * i, programs=programs))
    assert len(reducer._programs) == 2
    assert len(view.log) == NUM_HAPPENINGS
    assert len(view.rows[0].history.phases) == NUM_PHASES
    assert len(view.rows[0].history.balance) <= 150
    assert max(len(level) for level in view.history.tokens_s.levels) <= 240


@pytest.mark.parametrize("load", ["idle", "saturated", "contended"])
def test_the_same_stream_gives_the_same_views(load: str) -> None:
    def last() -> object:
        reducer = Reducer()
        for each in Engine(load, 12).stream(60):  # type: ignore[arg-type]
            view = reducer.apply(each)
        rows = [replace(row, history=None) for row in view.rows]  # type: ignore[arg-type]
        return rows, view.findings, list(view.log), view.service

    assert last() == last()


def test_a_series_is_means_of_stretches_with_gaps_that_are_known() -> None:
    series = Series(1.0, 5)
    for at, value in ((0.0, 1), (0.5, 3), (1.2, 4), (4.0, 8)):
        series.add(at, value)
    points = series.points()
    assert points[:2] == [2, 4]
    assert all(math.isnan(point) for point in points[2:4])
    assert points[4] == 8
    series.add(100, 1)
    assert len(series.points()) == 6
    series.add(3, 7)
    assert series.points()[-1] == 7, "a clock that was put back"


def test_marks_follow_at_a_distance_of_one_to_two_periods() -> None:
    marks = Marks(0.0, 0, 1.0)
    distances = []
    for i in range(1, 100):
        distances.append(i / 10 - marks.at)
        marks.move(i / 10, i)
    assert max(distances) <= 2.01
    assert min(distances[20:]) >= 0.99
    marks.move(-50, 7)
    marks.move(-49, 8)
    assert marks.at in (-50, 9.0, 9.9)


def test_charts_scale_and_leave_out_what_is_not_known() -> None:
    assert sparkline([0, 1, math.nan, 8], 6, 8) == "   ▁ █"
    assert chart([4, 8], 2, 2, 8) == [" █", "██"]
    assert chart([], 3, 1) == ["   "]
    assert sparkline([0.001], 1, 100) == "▁", "what is not nothing is seen"
    assert sparkline([500], 1, 100) == "█"


def test_programs_are_looked_at_twice_a_second_however_fast_snapshots_come() -> None:
    reducer = Reducer()
    views = [reducer.apply(snapshot(1000 + i / 10)) for i in range(21)]
    assert sorted({view.rows_at for view in views}) == [1000, 1000.5, 1001, 1001.5, 1002]
    assert views[4].rows is views[0].rows
    assert views[5].rows[0].age_s == 10.5
    assert reducer.apply(snapshot(990.0, boot="gw-2")).rows_at == 990, "a clock that was put back"


def test_who_was_in_the_batches_between_two_looks_has_not_waited_all_the_time() -> None:
    def waits(num_batch_tokens: int) -> ProgramState:
        return replace(PROGRAM, state="waiting: timer", num_batch_tokens=num_batch_tokens)

    reducer = Reducer()
    looks = ((1000, 10), (1008, 10), (1009, 30), (1012, 30))
    views = [reducer.apply(snapshot(at, programs=(waits(number),))) for at, number in looks]
    assert [view.rows[0].in_state_s for view in views] == [0, 8, 0, 3]


def test_a_program_that_somebody_has_ended_has_not_failed() -> None:
    ended = Requests(num_failed=6, errors={"cancelled": 2, "daemon_stopped": 3, "trap": 1})
    view = Reducer().apply(snapshot(1000, requests=ended))
    assert "  1 failed" in plain(status_line(view, 80, CONNECTED, is_frozen=False))
