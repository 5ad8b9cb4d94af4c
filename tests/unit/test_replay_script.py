"""What a recording answers, and where it says that a program has departed; no sandbox."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_engine.errors import PieError
from pie_engine.protocol.program import Bundle, Limits, Manifest
from pie_engine.protocol.recording import WAIT, Call, End, Fail, Head, Piped, Reads, Recording
from pie_engine.replay.script import Script, Stop
from tests import thoroughness

HEAD = Head("p", "1.0", "d", "pid", Bundle(Manifest(name="p")), ["{}"], 7.0, Limits())
READS = st.builds(
    Reads,
    st.lists(st.integers(0, 10**9), max_size=3),
    st.lists(st.integers(0, 2**62), max_size=2),
    st.binary(max_size=4),
)


def _call(function: str, *arguments: object, result: object = None, reads: Reads = Reads()) -> Call:  # noqa: B008
    return Call(0, 0, "main.py:1", function, list(arguments), result, reads)


STRICT = st.one_of(
    st.builds(lambda n, r: _call("context.length", n, result=n, reads=r), st.integers(0, 9), READS),
    st.builds(
        lambda n, r: Fail(0, 0, "", "generate.next", [n], ("not-found", "no", False), r), st.integers(0, 9), READS
    ),
    st.builds(
        lambda ready, r: _call(WAIT, None, result=ready, reads=r), st.lists(st.integers(1, 9), max_size=2), READS
    ),
)
LOOSE = st.one_of(
    st.builds(lambda r: _call("context.release", 1, reads=r), READS),
    st.builds(lambda r: _call(WAIT, 0, result=[], reads=r), READS),
    st.builds(lambda text: Piped(0, text), st.text(max_size=3)),
)
OUTPUT = st.builds(lambda n, r: _call("session.send", str(n), reads=r), st.integers(0, 9), READS)
ENTRIES = st.lists(st.one_of(STRICT, STRICT, LOOSE, OUTPUT), max_size=12)
END = End(0, "return", "1")


class Played:
    """A program that makes the calls that it is given."""

    def __init__(self, recording: Recording) -> None:
        self.shown: list[tuple[str, object]] = []
        self.script = Script(recording, lambda kind, value: self.shown.append((kind, value)))

    def make(self, entry: object) -> None:
        if isinstance(entry, Piped):
            return
        assert isinstance(entry, Call | Fail)
        surroundings = self.script.surroundings
        before = [surroundings.monotonic_ns() for _ in entry.reads.monotonic]
        assert before == sorted(before)
        assert [surroundings.wall_ns() for _ in entry.reads.wall] == entry.reads.wall
        assert surroundings.random_bytes(len(entry.reads.random)) == entry.reads.random
        self.call(entry)

    def call(self, entry: Call | Fail) -> None:
        assert self._outcome(entry) == (entry.result if isinstance(entry, Call) else entry.error)

    def _outcome(self, entry: Call | Fail) -> object:
        try:
            if entry.function == WAIT:
                return self.script.wait(entry.arguments[0])
            return self.script.answer(entry.function, entry.arguments)
        except PieError as error:
            return error.code, error.message, error.retry


@settings(max_examples=thoroughness.count(60, 600), deadline=None)
@given(ENTRIES)
def test_the_same_calls_get_the_same_results_time_and_chance(entries):
    played = Played(Recording(HEAD, [*entries, END]))
    for entry in entries:
        played.make(entry)
    assert played.script.end("return", 1) == ("return", 1)
    assert played.script.departures == []
    assert played.script.surroundings.num_extra == 0
    assert [value for kind, value in played.shown if isinstance(value, str)] == [
        entry.text for entry in entries if isinstance(entry, Piped)
    ]


@settings(max_examples=thoroughness.count(60, 600), deadline=None)
@given(ENTRIES, STRICT, st.data())
def test_one_call_more_ends_the_run_there_and_names_the_recorded_one(entries, more, data):
    entries = [entry for entry in entries if isinstance(entry, Call | Fail) and entry.arguments != [0]]
    at = data.draw(st.integers(0, len(entries)))
    strict = [entry for entry in entries[at:] if entry.function not in ("context.release", "session.send")]
    same = bool(strict) and (strict[0].function, strict[0].arguments) == (more.function, more.arguments)
    played = Played(Recording(HEAD, [*entries, END]))
    for entry in entries[:at]:
        played.make(entry)
    if same:
        played.call(strict[0])
        assert all(departure.kind == "output" for departure in played.script.departures)
        return
    with pytest.raises(Stop):
        played.call(more)
    (departure,) = played.script.departures
    assert departure.made == (more.function, more.arguments)
    if departure.recorded is None:
        assert departure.number == len(entries) + 1
    else:
        assert departure.recorded is entries[departure.number - 1]
        assert departure.number > at
    assert played.script.has_stopped


@settings(max_examples=thoroughness.count(40, 400), deadline=None)
@given(ENTRIES)
def test_a_recording_that_was_cut_off_ends_in_no_departure(entries):
    played = Played(Recording(HEAD, entries))
    for entry in entries:
        played.make(entry)
    with pytest.raises(Stop):
        played.script.answer("context.length", [77])
    assert (played.script.departures, played.script.has_stopped) == ([], True)


def test_what_is_read_less_often_is_past_after_the_next_call():
    reads = Reads([100, 5, 5], [1, 2], b"abcd")
    entries = [
        _call("context.length", 1, result=1, reads=reads),
        _call("context.length", 2, result=2, reads=Reads([10])),
    ]
    script = Script(Recording(HEAD, [*entries, END]), lambda *_: None)
    assert script.surroundings.monotonic_ns() == 100
    assert script.surroundings.random_bytes(2) == b"ab"
    script.answer("context.length", [1])
    assert script.surroundings.monotonic_ns() == 120
    first = script.surroundings.monotonic_ns()
    assert first > 120, "and it goes on when it is looked at more often"
    assert len(script.surroundings.random_bytes(3)) == 3
    assert script.surroundings.wall_ns() > 7_000_000_000
    assert script.surroundings.num_extra == 3


def test_a_long_recording_is_read_as_the_program_goes_on_and_forgotten_behind_it():
    calls = [_call("context.length", n, result=n) for n in range(1000)]
    num_read = 0

    class Streamed:
        head, end, limit_mb = HEAD, END, None

        def events(self):
            nonlocal num_read
            for entry in [*calls, END]:
                num_read += 1
                yield entry

    script = Script(Streamed(), lambda *_: None)
    for done, entry in enumerate(calls):
        assert num_read <= done + 2
        assert script.answer("context.length", entry.arguments) == done
    assert script.end("return", 1) == ("return", 1)
    assert (script.departures, script.num_calls) == ([], 1000)


def test_a_departure_where_a_future_is_taken_is_on_the_line_that_asked_for_it():
    asked = [_call("forward.start", 1, [5], result=n) for n in (7, 8)]
    taken = [_call("forward.finish", n, result=None) for n in (7, 8)]
    script = Script(Recording(HEAD, [*asked, *taken, END]), lambda kind, value: None)
    for line, call in enumerate(asked, 1):
        script.places.now = f"main.py:{line} in f", f"task {line}"
        script.answer(call.function, call.arguments)
    with pytest.raises(Stop):
        script.answer("forward.finish", [8])  # the recorded one took the first
    assert [departure.place for departure in script.departures] == ["main.py:2 in f"]
    script.answer("forward.finish", [7])
    assert script.place == "main.py:1 in f"
