"""Recordings side by side, and calls in words."""

from __future__ import annotations

import json

import pytest

from pie_cli.recordings.compare import compare, seen_calls, texts
from pie_cli.recordings.diff import diff
from pie_cli.recordings.words import Handle, call_text, fitted_call_text, value_text
from pie_engine.protocol.program import Bundle, Limits, Manifest
from pie_engine.protocol.recording import (
    MAGIC,
    VERSION,
    WAIT,
    Call,
    End,
    Entry,
    Fail,
    Full,
    Head,
    Recording,
    pack,
    write_frame,
)

HEAD = Head("p", "1.0", "d" * 32, "pid", Bundle(Manifest(name="p")), ['{"n": 1}'], 0.0, Limits())


def call(function: str, *arguments: object, result: object = None) -> Call:
    return Call(1, 2, "main.py:3 in main", function, list(arguments), result)


def chat(first: int, text: str, *more: Entry, temperature: float = 0.0) -> Recording:
    """A reply in two pieces, in a context and a stream whose handles begin at `first`."""
    half = len(text) // 2
    entries = [
        call("context.create", "", None, "", result=first),
        call("context.append-text", first, "Hi", True, result=3),
        call("generate.start", first, {"sampler": {"temperature": temperature}, "stop": []}, result=first + 1),
        call(WAIT, None, result=[first + 1]),
        call("generate.next", first + 1, result={"text": text[:half]}),
        call("generate.next", first + 1, result=None),
        call("generate.next", first + 1, result={"text": text[half:]}),
        call("context.release", first),
        *more,
        End(9, "return", f'"{text}"'),
    ]
    return Recording(HEAD, entries)


def test_handles_and_timing_are_no_difference():
    pairs = compare(chat(1, "Hello there"), chat(70, "Hello there"))
    assert all(pair.is_same for pair in pairs)
    assert [seen.call.function for seen in seen_calls(chat(1, "x"))] == [
        "context.create",
        "context.append-text",
        "generate.start",
    ]


def test_a_text_that_is_sent_or_printed_in_other_pieces_is_the_same():
    pieces = [call("session.send", '"He"'), call("session.send", '"llo"'), call("log.write", "stdout", "a")]
    whole = [call("session.send", '"Hello"'), call("log.write", "stdout", "a")]
    assert all(pair.is_same for pair in compare(Recording(HEAD, pieces), Recording(HEAD, whole)))
    values = [call("session.send", "1"), call("session.send", '"2"'), call("session.send", "[3]")]
    assert len(seen_calls(Recording(HEAD, values))) == 3
    streams = [call("log.write", "stdout", "a"), call("log.write", "stderr", "b")]
    assert len(seen_calls(Recording(HEAD, streams))) == 2


def test_texts_of_two_lines_are_two_unless_a_recording_knows_no_lines():
    def sent(*pieces: tuple[str, str]) -> Recording:
        return Recording(HEAD, [Call(1, 2, line, "session.send", [text], None) for text, line in pieces])

    two_lines = sent(('"He"', "main.py:1"), ('"llo"', "main.py:2"))
    one_line = sent(('"Hello"', "main.py:1"))
    component = sent(('"H"', ""), ('"ello"', ""))
    assert not all(pair.is_same for pair in compare(two_lines, one_line))
    assert all(pair.is_same for pair in compare(two_lines, component))


def test_what_models_wrote_is_put_together():
    assert texts(chat(5, "Hello there")) == ["Hello there"]
    found = call("generate.finish-search", 4, result={"hypotheses": [{"text": "best"}, {"text": "second"}]})
    assert texts(Recording(HEAD, [call("generate.search", 1, {}, result=4), found])) == ["best"]


def test_calls_that_fit_each_other_stand_side_by_side():
    extra = call("session.send", "1")
    pairs = compare(chat(1, "a", extra, call("session.send", "2")), chat(1, "a", call("session.send", "2")))
    assert [(pair.first is not None, pair.second is not None) for pair in pairs][-2:] == [(True, False), (True, True)]
    other = compare(chat(1, "a"), chat(1, "a", temperature=1.0))
    assert [pair.is_same_call for pair in other] == [True, True, False]


def test_the_same_call_with_another_result_is_told_apart():
    good, bad = call("context.length", 1, result=5), Fail(1, 2, "", "context.length", [1], ("busy", "no", True))
    (pair,) = compare(Recording(HEAD, [good]), Recording(HEAD, [bad]))
    assert (pair.is_same_call, pair.is_same) == (True, False)


def test_long_ones_that_differ_everywhere_are_compared_in_time():
    left = Recording(HEAD, [call("session.send", str(i)) for i in range(10_000)])
    right = Recording(HEAD, [call("session.send", str(-i - 1)) for i in range(10_000)])
    assert len(compare(left, right)) == 10_000


# Words.


def test_arguments_are_shortened_to_what_differs():
    long = "x" * 500
    shown = call_text("context.append-text", [Handle("#1"), long + "cat"], [Handle("#1"), long + "dog"])
    assert shown.startswith("context.append-text(#1, …x")
    assert shown.endswith('cat")')
    plan, other = (
        {"max_tokens": 8, "stop": [], "sampler": {"a": 1, "b": 2}},
        {"max_tokens": 9, "sampler": {"a": 1, "b": 2}},
    )
    assert call_text("generate.start", [1, plan], [1, other]) == 'generate.start(1, {"max_tokens": 8})'
    assert call_text("generate.start", [1, plan]) == 'generate.start(1, {"max_tokens": 8, "sampler": {"a": 1, "b": 2}})'
    assert value_text("ä" * 100) == '"' + "ä" * 59 + "…"


@pytest.mark.parametrize("num_chars", [40, 60, 100])
def test_what_differs_is_seen_in_a_short_line_too(num_chars):
    same, long = [{"role": "system", "content": "s" * 300}], "x" * 300
    left, right = (["", json.dumps([*same, {"content": word}]), long, True] for word in ("cats", "dogs"))
    shown = fitted_call_text("model.render-chat", left, right, num_chars)
    assert "cats" in shown
    assert shown.startswith("model.render-chat(…, …")
    assert shown.endswith(", …, …)")
    assert len(shown) <= num_chars + 12
    plan, other = ({"sampler": {"temperature": heat, "seed": 1, "words": long}} for heat in (1.0, 0.5))
    assert fitted_call_text("f", [Handle("#1"), plan], [Handle("#1"), other], 36) == "f(#1, {sampler.temperature: 1.0})"
    assert fitted_call_text("session.send", ['"a\\nb"'], [], 80) == 'session.send("a\\nb")'
    assert fitted_call_text("session.send", ["[secret KEY]"], [], 80) == 'session.send("[secret KEY]")'


# The command.


def file_of(path, recording: Recording):
    with path.open("wb") as file:
        file.write(MAGIC + bytes([VERSION]))
        write_frame(file, pack([recording.head, *recording.entries]))
    return path


@pytest.mark.parametrize(
    ("other", "code", "lines"),
    [
        (chat(9, "Hello"), 0, ["the calls, their results and the end are the same"]),
        (chat(9, "World"), 1, ["reply 1:", '< "Hello"', '> "World"', "end !"]),
        (
            chat(9, "Hello", temperature=1.0),
            1,
            ["they first depart at call 3", "main.py:3 generate.start(#1, {sampler.temp"],
        ),
        (Recording(HEAD, [*chat(9, "Hello").entries[:-1], Full(1.0)]), 1, ["cut off"]),
    ],
    ids=["same", "text", "call", "cut"],
)
@pytest.mark.parametrize("num_columns", [60, 120])
def test_two_are_shown_side_by_side(tmp_path, capfd, monkeypatch, other, code, lines, num_columns):
    monkeypatch.setenv("COLUMNS", str(num_columns))
    first, second = file_of(tmp_path / "a", chat(1, "Hello")), file_of(tmp_path / "b", other)
    assert diff(first, second, everything=False) == code
    shown = capfd.readouterr().out
    for line in lines:
        assert line in shown


def test_where_half_a_line_shows_nothing_they_are_one_below_the_other(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    first = file_of(tmp_path / "a", chat(1, "Hello"))
    assert diff(first, file_of(tmp_path / "b", chat(9, "Hello", temperature=1.0)), everything=True) == 1
    shown = capfd.readouterr().out.splitlines()
    starts = [line.partition("(")[0] for line in shown if ".py:" in line]
    assert "<    3 main.py:3 generate.start" in starts
    assert starts.index(">    3 main.py:3 generate.start") == starts.index("<    3 main.py:3 generate.start") + 1
    assert all(start[0] == " " for start in starts if "generate.start" not in start)
    assert max(len(line) for line in shown if ".py:" in line) <= 70
