"""What the monitor says about the numbers: each rule when it holds, and silence when it does not."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from pie_cli.monitor import diagnosis
from pie_cli.monitor.panels import parts
from pie_cli.monitor.state import Reducer
from pie_cli.monitor.text import plain
from pie_cli.monitor.view import Finding
from pie_engine.protocol.http import ContextView
from pie_engine.protocol.stats import Requests, Snapshot
from tests.loads import Engine
from tests.unit.test_monitor_state import MODEL, PROGRAM, ran, snapshot

replace = msgspec.structs.replace
DOCS = Path(__file__).parents[2] / "docs" / "monitor.md"


def findings(*snapshots: Snapshot) -> dict[str, Finding]:
    reducer = Reducer()
    for each in snapshots:
        view = reducer.apply(each)
    return {finding.code: finding for finding in view.findings}


def programs(*states: str, **fields: object) -> tuple[object, ...]:
    return tuple(replace(PROGRAM, pid=f"p{i}", state=state, **fields) for i, state in enumerate(states))


def test_nothing_stands_out_where_nothing_is_wrong() -> None:
    assert findings(snapshot(1000), snapshot(1020, models=(ran(1900),))) == {}
    assert findings(Snapshot(1000, "gw", 1, "0.1.0")) == {}


def test_a_core_that_is_not_ready() -> None:
    found = findings(snapshot(1000, models=(replace(MODEL, ready=False),)))
    assert found["core-down"].is_alert
    assert found["core-down"].sentence == "m is not ready: it starts, or cannot; 1 program on it"
    assert "core-down" in findings(snapshot(1000, hosts=()))


def test_failures() -> None:
    good = Requests(num_returned=10)
    bad = Requests(num_returned=20, num_failed=6, errors={"trap": 4, "cpu_limit": 2})
    found = findings(snapshot(1000, requests=good), snapshot(1010, requests=bad))
    assert found["failures"].sentence == "6 of the last 16 programs failed, 4 of them with `trap`"
    alike = replace(bad, errors={"trap": 6})
    found = findings(snapshot(1000, requests=good), snapshot(1010, requests=alike))
    assert found["failures"].sentence == "6 of the last 16 programs failed, all of them with `trap`"
    ended = replace(bad, errors={"cancelled": 2, "daemon_stopped": 4})
    assert findings(snapshot(1000, requests=good), snapshot(1010, requests=ended)) == {}
    few = replace(bad, num_returned=500)
    assert findings(snapshot(1000, requests=good), snapshot(1010, requests=few)) == {}


def test_pages_run_short() -> None:
    low = replace(MODEL, pages=replace(MODEL.pages, num_free=2))
    rows = (
        replace(PROGRAM, pid="big", program="tree", num_pages=60),
        replace(PROGRAM, pid="small", num_pages=5),
        replace(PROGRAM, pid="waits", state="waiting: pages"),
    )
    found = findings(snapshot(1000, models=(low,), programs=rows))["kv-pressure"]
    assert found.is_alert
    assert found.pids == ("big", "small")
    assert found.sentence == (
        "KV is short on m: 2 of 100 pages are free; 1 program waits for pages; most are held by tree (big), "
        "chat (small)"
    )
    # Full, but nobody feels it.
    assert findings(snapshot(1000, models=(low,))) == {}
    moved = replace(low, pages=replace(low.pages, num_preemptions=3))
    found = findings(snapshot(1000, models=(low,)), snapshot(1005, models=(moved,)))
    assert not found["kv-pressure"].is_alert


def test_pressure_says_that_steps_take_longer() -> None:
    low = replace(MODEL, pages=replace(MODEL.pages, num_free=2))
    waits = (replace(PROGRAM, state="waiting: pages"),)
    reducer = Reducer()
    step_s = num_steps = 0.0
    for i in range(200):
        num_steps += 10
        step_s += 10 * (0.01 if i < 150 else 0.04)
        batches = replace(low.batches, num_steps=int(num_steps), step_s=step_s)
        view = reducer.apply(snapshot(1000 + i, models=(replace(low, batches=batches),), programs=waits))
    assert "a step takes 40 ms, it was 10 ms" in view.findings[0].sentence


def test_idle_programs_hold_pages_that_others_want() -> None:
    waits = replace(PROGRAM, pid="waits", state="waiting: pages")
    for state, why in (
        ("waiting: client", "waits for its client"),
        ("waiting: consumer", "does not take its reply"),
        ("computing", "computes"),
        ("paused", "is paused"),
    ):
        lazy = replace(PROGRAM, pid="lazy", state=state, num_pages=40)
        found = findings(snapshot(1000, programs=(lazy, waits)))["idle-holders"]
        assert found.sentence == f"programs that do not use them hold 40% of the pages: chat (lazy), which {why}"
        assert found.pids == ("lazy",)
        assert "idle-holders" not in findings(snapshot(1000, programs=(lazy,)))
    running = replace(PROGRAM, pid="busy", num_pages=40)
    assert "idle-holders" not in findings(snapshot(1000, programs=(running, waits)))


def test_what_comes_and_goes_can_be_read() -> None:
    waits, runs = (replace(PROGRAM, state="waiting: pages", balance=5),), (PROGRAM,)
    reducer = Reducer()
    for seconds in range(20):
        view = reducer.apply(snapshot(1000 + seconds, programs=runs if seconds % 4 else waits))
        assert [finding.code for finding in view.findings] == ["kv-pressure"], seconds
    assert not reducer.apply(snapshot(1000 + 21, programs=runs)).findings


def test_one_program_holds_the_batch() -> None:
    waits = replace(PROGRAM, pid="waits", state="waiting: batch")
    before = snapshot(1000, programs=(PROGRAM, waits))
    greedy = replace(PROGRAM, num_batch_tokens=700)
    found = findings(before, snapshot(1010, programs=(greedy, waits), models=(ran(100),)))["batch-hog"]
    assert found.pids == ("p1",)
    assert found.sentence == "chat (p1) takes 88% of the batches, while 1 program waits for a place"
    # Alone it may.
    assert findings(before, snapshot(1010, programs=(greedy,), models=(ran(100),))) == {}


def starving(*rows: object, num_steps: int = 100, seconds: float = 10) -> Finding | None:
    """What is said after some seconds with so many steps of 10 ms."""
    return findings(
        snapshot(1000, programs=rows), snapshot(1000 + seconds, programs=rows, models=(ran(num_steps),))
    ).get("starved")


def test_the_engine_starves_and_it_is_said_by_what_its_programs_are_blocked() -> None:
    rows = programs(
        *("waiting: client",) * 4, *("waiting: timer",) * 3, *("computing",) * 2, "waiting: grammar", "idle", "running"
    )
    found = starving(*rows)
    assert found is not None
    assert found.sentence == (
        "m starves: its batches are empty 90% of the time; of 12 programs 4 wait for their clients, 3 wait for timers, "
        "2 compute in turns in host-0, 1 waits for its grammar, 1 asks for nothing"
    )
    assert found.pids == ("p0", "p1", "p2")
    assert starving(*rows, num_steps=900) is None


@pytest.mark.parametrize(
    ("state", "does"),
    [
        ("waiting: client", "1 waits for its client"),
        ("waiting: timer", "1 waits for a timer"),
        ("waiting: consumer", "1 does not take its reply"),
        ("waiting: disk", "1 waits for the disk"),
        ("waiting: grammar", "1 waits for its grammar"),
        ("computing", "1 computes"),
        ("starting", "1 starts"),
        ("paused", "1 is paused"),
        ("idle", "1 asks for nothing"),
    ],
)
def test_each_thing_that_starves_it_is_named(state: str, does: str) -> None:
    found = starving(*programs(state))
    assert found is not None
    assert found.sentence.endswith(f"; of 1 program {does}")


@pytest.mark.parametrize("state", ["running", "queued", "waiting: batch", "waiting: pages", "waiting: credits"])
def test_who_wants_the_model_does_not_starve_it(state: str) -> None:
    assert starving(*programs(state)) is None


def test_the_engine_starves_where_its_programs_have_not_even_asked_it_yet() -> None:
    found = starving(*programs("waiting: client", "waiting: client", model=""))
    assert found is not None
    assert found.sentence.endswith("; of 2 programs 2 wait for their clients")


def test_the_engine_does_not_starve_for_a_moment_or_a_few() -> None:
    away = programs("waiting: client", "computing", "idle")
    assert starving(*away, seconds=2) is None, "between two calls each program is at something else"
    assert starving(*programs("waiting: client", "running", "running")) is None


def test_programs_that_compute_in_hosts_of_their_own_do_not_take_turns() -> None:
    rows = tuple(replace(row, host=f"host-{i}") for i, row in enumerate(programs("computing", "computing")))
    found = starving(*rows)
    assert found is not None
    assert found.sentence.endswith("; of 2 programs 2 compute")


def test_launches_wait_for_a_host() -> None:
    rows = tuple(replace(row, created=1000.0) for row in programs("queued", "queued"))
    assert "queue" not in findings(snapshot(1000, programs=rows), snapshot(1003, programs=rows))
    found = findings(snapshot(1000, programs=rows), snapshot(1009, programs=rows))["queue"]
    assert found.sentence == "2 launches have waited up to 9 s for a host"
    assert "queue" in findings(snapshot(1100, programs=rows)), "also of those that were there before it looked"


def test_contexts_pile_up() -> None:
    many = replace(PROGRAM, num_contexts=90, num_pages=400)
    found = findings(snapshot(1000), snapshot(1005, programs=(many,)))["forks"]
    assert "90, 90 more than some seconds ago, with 400 pages" in found.sentence
    assert findings(snapshot(1000, programs=(many,)), snapshot(1005, programs=(many,))) == {}


def test_saved_contexts_pile_up() -> None:
    def saved(*numbers: int) -> list[ContextView]:
        return [ContextView(f"turn-{i}", "m", bytes=1 << 20, saved=900.0 + i) for i in numbers]

    reducer = Reducer()
    reducer.note_saved(saved(*range(30)))
    assert not reducer.apply(snapshot(1000)).findings
    reducer.note_saved(saved(*range(40)))
    found = reducer.apply(snapshot(1002)).findings
    assert [each.sentence for each in found] == [
        "saved contexts pile up: 40 with 40.0 MiB on the disk, 10 of them new since you look (the last 1m03s ago), "
        "none deleted; the newest is `turn-39`"
    ]
    # An old one that is saved again and again is no new one.
    reducer.note_saved([*saved(*range(39)), ContextView("turn-39", "m", bytes=1 << 20, saved=1230.0)])
    assert reducer.apply(snapshot(1230)).findings
    assert not reducer.apply(snapshot(1240)).findings, "nobody saves any more"
    parts_page = [plain(each) for each in parts.lines(reducer.apply(snapshot(1241)), 100, 20)]
    assert parts_page[-1] == "40 saved contexts with 40.0 MiB  10 new and 0 deleted since you look"
    reducer.note_saved(saved(*range(340)))
    assert [each.code for each in reducer.apply(snapshot(1242)).findings] == ["saved-contexts"]
    # Whoever deletes some knows of them.
    reducer.note_saved(saved(*range(1, 60)))
    assert not reducer.apply(snapshot(1250)).findings


def test_programs_that_have_spent_their_credits() -> None:
    found = findings(
        snapshot(1000, programs=programs("waiting: credits")), snapshot(1004, programs=programs("waiting: credits"))
    )
    assert found["debts"].sentence == "1 program has spent the credits and waits: chat (p0)"
    poor, rich = (
        programs("waiting: pages", balance=-5)[0],
        replace(PROGRAM, pid="rich", state="waiting: pages", balance=5),
    )
    assert findings(snapshot(1000, programs=(poor, rich)))["debts"].pids == ("p0",)
    fcfs = replace(MODEL, market=replace(MODEL.market, policy="fcfs"))
    assert "debts" not in findings(snapshot(1000, programs=(poor,), models=(fcfs,)))


def test_the_loop_takes_too_much() -> None:
    slow = ran(500)
    slow = replace(slow, batches=replace(slow.batches, gap_s=slow.batches.step_s))
    found = findings(snapshot(1000), snapshot(1010, models=(slow,)))["loop"]
    assert found.sentence == "m loses 50% of its time between steps: 10 ms beside steps of 10 ms"


def test_drafts_that_are_wrong() -> None:
    wrong = replace(PROGRAM, num_drafted=1000, num_accepted=90)
    found = findings(snapshot(1000, programs=(wrong,)))["drafts"]
    assert "only 9% are right" in found.sentence


def test_alerts_come_first_and_every_code_is_known() -> None:
    codes = set()
    for load in ("idle", "contended"):
        reducer = Reducer()
        for each in Engine(load, 24).stream(100, 0.5):
            found = reducer.apply(each).findings
            codes |= {finding.code for finding in found}
            alerts = [finding.is_alert for finding in found]
            assert alerts == sorted(alerts, reverse=True)
    assert {"kv-pressure", "starved"} <= codes <= set(diagnosis.CODES)


@pytest.mark.parametrize("code", diagnosis.CODES)
def test_the_docs_have_a_section_for_each(code: str) -> None:
    assert re.search(rf"^### `{code}`$", DOCS.read_text("utf-8"), re.MULTILINE)


def test_sentences_change_once_a_second_at_most() -> None:
    reducer = Reducer()
    waits = snapshot(1000, programs=programs("waiting: credits"))
    (first,) = reducer.apply(waits).findings
    more = {"programs": programs("waiting: credits", "waiting: credits")}
    assert reducer.apply(snapshot(1000.5, **more)).findings == (first,)
    (second,) = reducer.apply(snapshot(1001.2, **more)).findings
    assert second.sentence.startswith("2 programs have")
