"""What events look like on stdout and stderr."""

from __future__ import annotations

import json
import re

import pytest

from pie_cli import console
from pie_cli.commands.ps import HEADER, _table, accept_rate, age, balance_of, bid_of, state_of
from pie_cli.render import JsonPrinter, Printer, TextPrinter
from pie_cli.summary import Timing
from pie_engine.protocol.http import ProcessUsage, ProcessView
from pie_engine.protocol.plan import Usage

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _closed_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_line_is_open", {"stdout": False, "stderr": False})


def show(printer: Printer, *events: tuple[str, object]) -> None:
    for kind, value in events:
        printer.show(kind, value)
    printer.finish()


def test_text_messages_are_written_as_they_are_and_the_last_line_is_ended(capsys: Capture) -> None:
    show(TextPrinter(), ("message", "Hel"), ("message", "lo"), ("return", None))
    assert capsys.readouterr().out == "Hello\n"


def test_other_messages_are_json_lines(capsys: Capture) -> None:
    show(TextPrinter(), ("message", "text"), ("message", {"é": 1}), ("message", [1, 2]))
    assert capsys.readouterr().out == 'text\n{"é": 1}\n[1, 2]\n'


def test_a_return_value_that_was_streamed_is_not_repeated(capsys: Capture) -> None:
    show(TextPrinter(), ("message", "a"), ("message", "b"), ("return", "ab"))
    assert capsys.readouterr().out == "ab\n"


def test_another_return_value_has_its_own_line(capsys: Capture) -> None:
    show(TextPrinter(), ("message", "a"), ("return", "b"))
    show(TextPrinter(), ("return", {"score": 1.5}))
    assert capsys.readouterr().out == 'a\nb\n{"score": 1.5}\n'


def test_output_of_the_program_keeps_its_streams(capsys: Capture) -> None:
    show(TextPrinter(), ("stdout", "out\n"), ("stderr", "err\n"), ("log", {"level": "info", "message": "logged"}))
    captured = capsys.readouterr()
    assert captured.out == "out\n"
    assert captured.err == "err\ninfo: logged\n"


def test_an_exception_is_the_users_traceback_and_nothing_else(capsys: Capture) -> None:
    traceback = 'Traceback (most recent call last):\n  File "main.py", line 2, in main\nValueError: no\n'
    show(TextPrinter(), ("error", {"code": "exception", "message": "ValueError: no", "traceback": traceback}))
    assert capsys.readouterr().err == traceback


def test_another_error_says_what_to_do(capsys: Capture) -> None:
    show(TextPrinter(), ("error", {"code": "memory_limit", "message": "more than 256 MiB", "hint": "raise memory_mb"}))
    assert capsys.readouterr().err == "error: more than 256 MiB\nhint: raise memory_mb\n"


def test_json_shows_every_event(capsys: Capture) -> None:
    events: list[tuple[str, object]] = [("started", {"program": "p"}), ("message", "é\n"), ("return", None)]
    show(JsonPrinter(), *events)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["event"], line["value"]) for line in lines] == events


def test_the_summary_leaves_out_what_was_not_seen() -> None:
    timing = Timing()
    assert "tokens" not in timing.line(None)
    timing.saw("started")
    assert timing.ttft_s is None
    timing.saw("message")
    line = timing.line(ProcessUsage(0, 12, 0, "ended"))
    assert line.startswith("12 tokens, TTFT ")
    assert "tokens/s" in line


def test_the_pace_of_who_types_is_not_the_engines() -> None:
    timing = Timing(is_typed=True)
    timing.saw("message")
    assert re.fullmatch(r"12 tokens, \d+\.\d\d s", timing.line(ProcessUsage(0, 12, 0, "ended")))


@pytest.mark.parametrize(
    ("usage", "words"),
    [
        (ProcessUsage(0, 12, 0, "ended", prompt_tokens=40), "12 tokens (after 40), "),
        (ProcessUsage(0, 12, 0, "ended", prompt_tokens=40, cached_tokens=32), "(after 40, 32 of them cached), "),
        (ProcessUsage(0, 9, 0, "ended", 40, 0, 8, 6), "9 tokens (after 40; 6 of 8 guesses right), "),
    ],
)
def test_the_summary_says_what_was_read_and_guessed(usage: ProcessUsage, words: str) -> None:
    assert words in Timing().line(usage)


@pytest.mark.parametrize(
    ("spent", "words"),
    [
        (11_250_000, ", 11.25 credits, "),
        (-500_000, ", -0.5 credits, "),
        (1_000_000, ", 1 credit, "),
        (0, " tokens/s, 0."),
    ],
)
def test_the_summary_says_what_was_spent(spent: int, words: str) -> None:
    timing = Timing()
    timing.saw("message")
    assert words in timing.line(ProcessUsage(0, 9, 0, "ended", spent=spent))


def test_bids_and_balances_of_processes() -> None:
    usage = ProcessUsage(0, 9, 0, "running", bid=2500, balance=-1_500_000, endowment=1)
    assert (bid_of(usage), balance_of(usage)) == ("0.0025", "-1.5")
    assert (bid_of(ProcessUsage(0, 9, 0, "ended")), balance_of(ProcessUsage(0, 9, 0, "ended"))) == ("-", "-")
    left = ProcessUsage.of(Usage(spent=2_500_000, endowment=10_000_000), pages=0, contexts=0, state="ended")
    assert (bid_of(left), balance_of(left)) == ("-", "7.5"), "what it had when it ended"


@pytest.mark.parametrize(
    ("width", "left_out"),
    [
        (None, set()),
        (200, set()),
        (80, {"ACCEPTED"}),
        (74, {"ACCEPTED", "BID"}),
        (60, {"ACCEPTED", "BID", "TOKENS", "BALANCE"}),
        (20, {"ACCEPTED", "BID", "TOKENS", "BALANCE"}),
    ],
)
def test_a_narrow_terminal_has_fewer_columns(width: int | None, left_out: set[str]) -> None:
    row = ("0123456789abcdef", "-", "chat", "waiting: batch", "12", "1234", "76%", "0.0025", "998.5", "4.2s")
    header, *lines = _table([row], width)
    assert set(HEADER) - set(header.split()) == left_out | {"PARENT"}, "nobody has one"
    assert all(len(line) <= (width or 999) for line in (header, *lines)) or width == 20


def test_parents_are_shown_where_a_process_has_one_and_there_is_room() -> None:
    parent, child = "0123456789abcdef", "fedcba9876543210"
    rest = ("chat", "running", "12", "1234", "76%", "0.0025", "998.5", "4.2s")
    rows = [(parent, "-", *rest), (child, parent, *rest)]
    assert [line.split()[:3] for line in _table(rows, 120)] == [
        ["PID", "PARENT", "PROGRAM"],
        *(list(row[:3]) for row in rows),
    ]
    assert "PARENT" not in _table(rows, 40)[0]


def test_who_is_queued_is_shown_with_how_many_are_before_it() -> None:
    process = ProcessView("p", "chat", "1", "d", "queued", None, 20.0, None, None, 0, None)
    assert state_of(process, [20.0, 30.0]) == "queued (no host has room, it is next)"
    assert state_of(process, [3.0, 4.0, 20.0, 30.0]) == "queued (no host has room, 2 before it)"


def test_the_accept_rate_of_a_process() -> None:
    assert accept_rate(ProcessUsage(0, 9, 0, "running", 40, 0, 8, 6)) == "75%"
    assert accept_rate(ProcessUsage(0, 9, 0, "running")) == "-"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.25, "4.2s"), (192, "3m12s"), (7500, "2h05m"), (3 * 86400 + 4 * 3600, "3d04h"), (-1, "0.0s")],
)
def test_ages_are_short(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_a_table_is_aligned(capsys: Capture) -> None:
    console.table(("NAME", "PAGES"), [("a", "1"), ("longer", "12")], right=frozenset({1}))
    assert capsys.readouterr().out == "NAME    PAGES\na           1\nlonger     12\n"


def test_no_colour_without_a_terminal() -> None:
    assert console.paint("text", console.RED) == "text"


def test_long_work_without_a_terminal_is_a_line_a_step(capsys: Capture) -> None:
    with console.steps() as steps:
        for fraction in (0.1, 0.5, 0.9):
            steps.show("building the Python runtime", fraction)
        steps.show("loading pie-tiny")
    assert capsys.readouterr().err == "building the Python runtime …\nloading pie-tiny …\n"
