"""Profiles that were recorded, or made by hand: what is read out of them, and how it is shown."""

from __future__ import annotations

import base64
import json
import re
import xml.etree.ElementTree as ET
import zlib
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_cli.main import invoke
from pie_cli.profiles.awaits import lines
from pie_cli.profiles.chrome import trace_events, trace_text
from pie_cli.profiles.hints import hints
from pie_cli.profiles.model import Profile, build
from pie_cli.profiles.page import page
from pie_cli.profiles.phases import DECODE, GRAMMAR, PAGES, PREFILL, QUEUE, parts_of, phases, shares
from pie_cli.profiles.read import KEY, Collected, read_trace
from pie_cli.profiles.text import duration, report, spark
from pie_cli.profiles.totals import series, totals
from pie_engine.errors import InvalidInput, NotFound
from pie_engine.protocol.profile import (
    NO_TOKENS,
    VERSION,
    AnyEntry,
    Batch,
    Call,
    Core,
    End,
    Head,
    OperationTimes,
    Ran,
    StepTimes,
    Wait,
)

FOLDER = Path(__file__).parent / "profiles"
RECORDED = FOLDER / "agent.json"
"""Forks, three new contexts, a round trip to the client, a sleep; on the fake driver."""
HEAD = Head(1000, "p", "1.0", "pid", 0.0)
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def recorded() -> Profile:
    collected = read_trace(RECORDED)
    return build(collected.entries(), collected.full_mb)


def made(*entries: AnyEntry) -> Profile:
    """Of entries whose times begin at 0, like that of the launch."""
    return build([Head(0, "p", "1.0", "pid", 0.0), *entries])


def plan(op: int = 7, place: str = "main.py:3 in main", **times: object) -> list[AnyEntry]:
    """A program that waits for one plan: asked for at 100, taken at 1000."""
    fields = {"queued": 150, "begun": 160, "admitted": 300, "prefilled": 500, "ended": 950, "num_prefill": 50}
    detail = times.pop("detail", {})
    operation = OperationTimes(op, 1, "plan", **{**fields, "completion": 9, "prompt": 50, **times})  # type: ignore[arg-type]
    return [
        Ran(50, 60, 60),
        Call(100, 10, place, "Task-1", "generate.start", op, 1, detail),  # type: ignore[arg-type]
        Wait(110, 890, False, 1),
        Core("fake", 64, 16, [operation]),
        Call(1000, 10, place, "Task-1", "generate.next", op, 0, {"tokens": 9, "finish": "stop"}),
        Ran(1000, 100, 90),
        End(1100, "return"),
    ]


# The report.


def test_the_report_of_a_recorded_profile(recorded):
    assert list(report(recorded)) == (FOLDER / "agent.txt").read_text().splitlines()


def test_phases_add_up_to_the_wall_time(recorded):
    assert sum(phases(recorded).values()) == pytest.approx(recorded.wall_us)


def test_a_wait_is_divided_by_what_its_operation_was_in():
    found = phases(made(*plan()))
    assert {name: took for name, took in found.items() if took} == {
        "queue": 150,
        "prefill": 200,
        "decode": 450,
        "Python": 140,
        "host": 110,
        "start": 50,
    }


def test_waiting_for_pages_is_apart_wherever_it_lies():
    found = phases(made(*plan(page_waits=[(200, 280), (600, 700)])))
    assert (found[QUEUE], found[PREFILL], found[DECODE], found[PAGES]) == (70, 200, 350, 180)


def test_a_grammar_that_is_compiled_is_no_queue():
    found = phases(made(*plan(compiling=160, begun=240)))
    assert (found[QUEUE], found[GRAMMAR], found[PREFILL]) == (10 + 60, 80, 200)
    found = phases(made(*plan(compiling=160, begun=0, admitted=0, prefilled=0)))
    assert (found[QUEUE], found[GRAMMAR]) == (10, 790), "it ended before its grammar was there"


def test_a_prompt_that_the_cache_had_is_no_prefill():
    found = phases(made(*plan(num_prefill=1)))
    assert (found[PREFILL], found[DECODE]) == (0, 650)


def test_who_is_not_over_counts_to_the_end():
    entries = [entry for entry in plan(ended=0, prefilled=0) if not isinstance(entry, End)]
    profile = made(*entries[:4])
    assert not profile.is_whole
    assert profile.outcome == ""
    assert list(report(profile))[-1].startswith("the profile ends before the program")


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100), st.sampled_from([DECODE, PREFILL, "client"]))))
@settings(max_examples=50)
def test_shares_of_a_time_are_all_of_it(spans):
    parts = [(min(a, b), max(a, b), phase) for a, b, phase in spans if a != b]
    assert sum(shares(0, 100, parts, "host").values()) == pytest.approx(100)


def test_a_client_counts_only_where_no_model_works():
    assert shares(0, 100, [(0, 100, "client"), (20, 60, DECODE)], "host") == {"client": 60, DECODE: 40}


def test_totals_and_their_course(recorded):
    total = totals(recorded)
    assert (total.prompt, total.cached, total.generated) == (889, 683, 78)
    over = series(recorded, 10)
    assert len(over.decode) == len(over.held_pages) == 10
    assert max(over.held_pages) == total.max_held_pages == 16


def test_tokens_of_a_step_are_spread_over_its_time():
    step = StepTimes(1, 150, 200, 30, 1, 2, 60, 3, [(7, 30), (8, 1)])
    profile = made(Ran(0, 10, 10), Core("fake", 64, 16, [], [step]), End(400, "return"))
    over = series(profile, 4)
    assert [round(each * 100 / 1e6, 6) for each in over.prefill] == [0, 7.5, 15, 7.5]
    assert sum(over.decode) * 100 / 1e6 == pytest.approx(1)
    assert over.held_pages == [0, 3, 3, 3]


def test_a_line_counts_while_at_least_one_task_waits_there():
    place, entries = "m.py:3 in f", list[AnyEntry]()
    for op, (begin, end) in enumerate([(100, 500), (200, 400), (450, 700), (900, 1000)], 1):
        task = f"Task-{op}"
        entries += [
            Call(begin - 10, 10, place, task, "forward.start", op, op),
            Call(end, 1, place, task, "forward.finish", op),
        ]
    calls = sorted(entries, key=lambda call: call.at)
    profile = made(*calls, Wait(90, 920, False, 1), End(1100, "return"))
    (line,) = lines(profile)
    assert (line.wall_us, line.took_us, line.count, len(line.tasks)) == (700, 950, 4, 4)
    assert any("64 %  m.py:3 in f  4 times in 4 tasks, 0.9 ms in all" in text for text in report(profile))


def test_tasks_without_a_name_are_numbered(recorded):
    assert recorded.tasks == ["task 2", "task 3", "task 4", "task 5"]  # of a time when `main` had no name either


def test_a_main_that_only_gathers_gives_its_name_to_nobody():
    calls = [
        Call(i * 10, 2, "m.py:1 in f", task, "context.length") for i, task in enumerate(["Task-8", "mine", "Task-9"])
    ]
    assert made(*calls).tasks == ["task 2", "mine", "task 3"]
    assert made(*calls, Call(50, 2, "m.py:9 in main", "main", "context.length")).tasks[-1] == "main"


def test_times_and_curves_in_words():
    assert (duration(1_234_000), duration(12_345)) == ("1.23 s", "12.3 ms")
    assert (spark([0, 1, 2]), spark([0, 0])) == ("▁▅█", "▁▁")


# Hints.


def test_bad_guesses_name_the_constraint():
    (hint,) = hints(made(*plan(drafted=40, accepted=3, detail={"grammar": "regex", "speculation": "lookup"})))
    assert (hint.name, hint.places) == ("bad-guesses", ["main.py:3 in main"])
    assert "only 3 of 40 guesses were right under a constraint" in hint.what
    assert hints(made(*plan(drafted=40, accepted=30))) == []
    assert hints(made(*plan(drafted=8, accepted=0))) == [], "too few to tell"
    assert "constraint" not in hints(made(*plan(drafted=40, accepted=3)))[0].what


def test_a_short_wait_for_pages_is_nobody_s_business():
    assert hints(made(*plan(page_waits=[(200, 280)]))) == []


def test_the_lines_that_cost_most_come_first(recorded):
    assert [(hint.name, hint.places) for hint in hints(recorded)] == [("fork-unflushed", ["main.py:13 in main"])]


# The trace file.


def test_a_trace_file_holds_what_it_was_made_of(recorded, tmp_path):
    collected = read_trace(RECORDED)
    file = tmp_path / "t.json"
    file.write_text(trace_text(recorded, collected))
    again = read_trace(file)
    assert list(report(build(again.entries()))) == list(report(recorded))


def test_the_trace_is_in_chrome_s_form(recorded):
    document = json.loads(trace_text(recorded, read_trace(RECORDED)))
    events = document["traceEvents"]
    assert events == json.loads(json.dumps(trace_events(recorded)))
    for event in events:
        assert event["ph"] in "XMCbe"
        assert {"X": {"ts", "dur", "tid", "name"}, "M": {"args"}, "C": {"ts", "args"}}.get(event["ph"], {"id"}) <= set(
            event
        )
    names = {event["args"]["name"] for event in events if event["name"] in ("process_name", "thread_name")}
    assert "outside of tasks" not in names, "nothing was called there"
    assert {"program", "task 2", "task 3", "task 4", "task 5", "model fake", "steps"} <= names
    assert sum(event.get("cat") == "step" for event in events) == sum(len(each) for each in recorded.steps.values())
    assert sum(event["ph"] == "b" for event in events) == sum(event["ph"] == "e" for event in events) > 0


def test_slices_of_a_track_lie_beside_or_within_one_another(recorded):
    tracks: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for event in trace_events(recorded):
        if event["ph"] == "X":
            tracks.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["ts"] + event["dur"]))
    for spans in tracks.values():
        spans.sort(key=lambda span: (span[0], -span[1]))
        open_ends: list[int] = []
        for begin, end in spans:
            while open_ends and open_ends[-1] <= begin:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1] + 1, (begin, end)  # a microsecond is lost in rounding
            open_ends.append(end)


# The page.


class Outline(HTMLParser):
    """What a page is made of, and whether its tags match."""

    VOID = frozenset({"meta", "br", "rect", "path", "!doctype"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID or tag in ("rect", "path"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag


def test_the_page_has_everything_without_a_script(recorded):
    text = page(recorded)
    outline = Outline(text)
    assert outline.tags.count("svg") == 1 + 4 + 1 + 2, "the program, its tasks, the steps, two curves"
    assert outline.tags.count("rect") > 80
    for shown in (
        "p@1.0",
        "Where the time went",
        "Slow patterns",
        "fork-unflushed",
        "main.py:13 in main",
        "generate.next",
    ):
        assert shown in text
    assert "{{" not in text
    assert "Awaits by line" in text
    assert "Awaits by line" not in page(made(End(10, "return"))), "a table without rows says nothing"


def test_the_page_needs_no_network(recorded):
    text = page(recorded)
    assert not re.search(r"https?://|url\(|@import", text)
    assert not {"src", "href"} & {name for name, _ in Outline(text).attributes}
    assert "default-src 'none'" in text


def test_names_of_the_program_are_text_in_the_page():
    text = page(made(*plan(place="<script>alert(1)</script>.py:1 in {{title}}")))
    Outline(text)
    assert text.count("<script>") == 1
    assert "{{title}}" in text


def test_drawings_are_well_formed_and_bounded():
    calls = [Call(i * 10, 2, "m.py:1 in f", "Task-1", "context.length") for i in range(30_000)]
    text = page(made(Ran(0, 10, 10), *calls, End(3_000_000, "return")))
    drawings = re.findall(r"<svg.*?</svg>", text, re.S)
    assert drawings
    for drawing in drawings:
        ET.fromstring(drawing)
    assert text.count("<rect") < 5_000


# What is no profile.


def test_files_that_are_no_profile_are_named(tmp_path):
    with pytest.raises(NotFound, match="there is no file"):
        read_trace(tmp_path / "none.json")
    for number, text in enumerate(("{", "[]", '{"traceEvents": []}')):
        file = tmp_path / f"{number}.json"
        file.write_text(text)
        with pytest.raises(InvalidInput, match="is no trace of Pie's"):
            read_trace(file)


def test_another_version_and_damage_are_told(tmp_path):
    file = tmp_path / "t.json"
    held = json.loads(RECORDED.read_text())[KEY]
    file.write_text(json.dumps({KEY: {**held, "version": VERSION + 1}}))
    with pytest.raises(InvalidInput, match="version"):
        read_trace(file)
    file.write_text(json.dumps({KEY: {**held, "payloads": ["AAAA"]}}))
    with pytest.raises(InvalidInput, match="damaged"):
        read_trace(file).entries()
    file.write_text(json.dumps({KEY: {**held, "payloads": []}}))
    with pytest.raises(InvalidInput, match="no beginning"):
        read_trace(file).entries()


SITES = [("main.py:3 in main", "Task-1", "forward.start"), ("", "", "runtime.secret")]


def of_batch(**fields: object) -> Collected:
    """What a host sends of one batch, besides the head."""
    rows = {"sites": SITES, "calls": [], "details": [], "waits": [], "runs": [], "cores": [], **fields}
    collected = Collected()
    packed = zlib.compress(msgspec.msgpack.encode([HEAD, Batch(**rows)]))  # type: ignore[arg-type]
    collected.take({"tap": "profile", "version": VERSION, "data": base64.b64encode(packed).decode()})
    return collected


def test_rows_of_numbers_become_entries_with_their_times():
    calls = [1100, 5, 0, 7, 1, 3, 40, 6, 1, 0, 0, NO_TOKENS]
    details = [(0, {"error": "busy"}), (0, {"beginnings": [9]})]
    core = Core("fake", 64, 16)
    collected = of_batch(
        calls=calls, details=details, waits=[1200, 9, 1, 2, 30, 8, 0, 0], runs=[1000, 50, 45], cores=[core]
    )
    assert collected.entries() == [
        HEAD,
        Call(1100, 5, *SITES[0], 7, 1, {"tokens": 3, "error": "busy", "beginnings": [9]}),
        Call(1140, 6, *SITES[1]),
        Wait(1200, 9, True, 2),
        Wait(1230, 8, False, 0),
        Ran(1000, 50, 45),
        core,
    ]


@pytest.mark.parametrize("fields", [{"calls": [1100, 5]}, {"calls": [1100, 5, 2, 7, 1, 3]}, {"runs": [1]}])
def test_rows_that_are_cut_off_or_of_no_site_are_damage(fields):
    with pytest.raises(InvalidInput, match="damaged"):
        of_batch(**fields).entries()


def test_a_profile_that_was_cut_off_says_at_which_limit(recorded):
    collected = read_trace(RECORDED)
    collected.take({"tap": "profile", "version": VERSION, "data": "", "full_mb": 2.5})
    collected.take({"tap": "record", "version": 9, "data": ""})
    entries = [entry for entry in collected.entries() if not isinstance(entry, End)]
    assert "limit of 2.5 MiB" in list(report(build(entries, collected.full_mb)))[-1]


def test_steps_and_times_begin_at_the_launch():
    step = StepTimes(1, 1500, 20, 3, 1, 2, 60, 4, [(7, 3)])
    core = Core("fake", 64, 16, [OperationTimes(7, 1, "plan", 1200)], [step])
    call = Call(1100, 5, "", "Task-4", "generate.start", 7, 1)
    profile = build([HEAD, call, core, End(3000, "cancelled")])
    assert (profile.wall_us, profile.calls[0].at, profile.steps["fake"][0].at) == (2000, 100, 500)
    assert parts_of(profile.operations[7], profile.wall_us)[0][0] == 200
    assert next(iter(report(profile))).endswith("ended with cancelled")


def test_only_events_of_profiles_are_taken():
    collected = Collected()
    collected.take({"tap": "record", "version": 1, "entries": 1, "data": "x"})
    assert collected.payloads == []


# The command.


def test_pie_profile_shows_a_trace_file_and_makes_pages_of_it(tmp_path, capsys: Capture):
    assert invoke(["profile", str(RECORDED)]) == 0
    assert capsys.readouterr().out == (FOLDER / "agent.txt").read_text()
    target, trace = tmp_path / "p.html", tmp_path / "t.json"
    assert invoke(["profile", str(RECORDED), str(target)]) == 0
    assert target.read_text().startswith("<!doctype html>")
    assert invoke(["profile", str(RECORDED), str(trace)]) == 0
    assert "traceEvents" in json.loads(trace.read_text())


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["none.json"], 4, "there is no file none.json"),
        ([str(RECORDED), "p.png"], 2, "neither a page nor a trace"),
        ([str(RECORDED), "no-such-folder/p.html"], 2, "there is no folder"),
    ],
)
def test_pie_profile_says_what_is_wrong(words: list[str], code: int, said: str, capsys: Capture):
    assert invoke(["profile", *words]) == code
    assert said in capsys.readouterr().err
