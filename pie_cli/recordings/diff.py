"""The work of `pie diff`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from pie_cli import console, exits
from pie_cli.recordings.compare import Pair, Seen, compare, texts
from pie_cli.recordings.words import MAX_CHARS, fitted_call_text, value_text
from pie_engine.protocol.recording import Call, Recording, read_recording

SAME, OTHER, RESULT, LEFT, RIGHT = " ", "!", "~", "<", ">"
MIN_COLUMNS = 100
"""For two recordings side by side."""
MAX_TEXT_CHARS = 300


def diff(first: Path, second: Path, *, everything: bool) -> int:
    """Returns the exit code. Raises `NotFound` and `InvalidInput`."""
    left, right = read_recording(first.expanduser()), read_recording(second.expanduser())
    pairs = compare(left, right)
    console.table(("", str(first), str(second)), _facts(left, right))
    differing = [pair for pair in pairs if not pair.is_same]
    departed = [pair for pair in pairs if not pair.is_same_call]
    has_same_end = _ending(left) == _ending(right)
    if departed:
        console.data_line("")
        console.data_line(f"they first depart at call {_number(departed[0])}")
    if shown := pairs if everything else differing:
        console.data_line("")
        for line in _side_by_side(shown) if _num_columns() >= MIN_COLUMNS else _one_below_the_other(shown):
            console.data_line(line)
    for line in _text_lines(texts(left), texts(right)):
        console.data_line(line)
    if not differing and has_same_end:
        console.data_line("the calls, their results and the end are the same")
    return exits.OK if not departed and has_same_end else exits.PROGRAM_FAILED


def _facts(left: Recording, right: Recording) -> Iterator[tuple[str, str, str]]:
    columns = [_facts_of(recording) for recording in (left, right)]
    for (name, one), (_, other) in zip(*columns, strict=True):
        yield name if one == other else f"{name} {OTHER}", one, other


def _facts_of(recording: Recording) -> list[tuple[str, str]]:
    head, end = recording.head, recording.end
    usage = None if end is None else end.usage
    took_s = recording.entries[-1].at / 1e6 if end is not None else 0.0  # type: ignore[union-attr]
    return [
        ("program", f"{head.program}@{head.version}"),
        ("digest", head.digest[:12]),
        ("input", _shortened(" ".join(head.arguments))),
        ("end", _ending(recording)),
        ("calls", str(len(recording.calls))),
        ("time", f"{took_s:.3f} s" if end is not None else ""),
        ("prompt tokens", "" if usage is None else f"{usage.prompt_tokens} ({usage.cached_tokens} cached)"),
        ("tokens", "" if usage is None else str(usage.completion_tokens)),
    ]


def _ending(recording: Recording) -> str:
    end = recording.end
    if end is None:
        return "cut off"
    if end.kind == "return":
        return f"returned {value_text(msgspec.json.decode(end.value))}"
    error = msgspec.json.decode(end.value)
    return f"{error['code']}: {error['message']}"


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS - 1]}…"


def _number(pair: Pair) -> int:
    seen = pair.first or pair.second
    assert seen is not None
    return seen.number


# Calls.


def _side_by_side(pairs: Sequence[Pair]) -> Iterator[str]:
    """Two columns as wide as the terminal has room for."""
    width = (_num_columns() - 3) // 2
    for pair in pairs:
        first, second = _cell(pair.first, pair.second, width), _cell(pair.second, pair.first, width)
        yield f"{first} {_mark(pair)} {second}".rstrip()
        if pair.is_same_call and not pair.is_same:
            yield f"{_result(pair.first, width)} {RESULT} {_result(pair.second, width)}".rstrip()
    yield f"{SAME} same  {OTHER} another call  {RESULT} another result  {LEFT}{RIGHT} only on one side"


def _one_below_the_other(pairs: Sequence[Pair]) -> Iterator[str]:
    """For terminals in which half a line shows nothing of a call."""
    width = _num_columns() - 2
    for pair in pairs:
        both = (LEFT, pair.first, pair.second), (RIGHT, pair.second, pair.first)
        if not pair.is_same_call:
            yield from (f"{mark} {_cell(seen, other, width)}".rstrip() for mark, seen, other in both if seen)
            continue
        yield f"{SAME} {_cell(pair.first, pair.second, width)}".rstrip()
        if not pair.is_same:
            yield from (f"{mark} {_result(seen, width)}".rstrip() for mark, seen, _ in both)
    yield f"{SAME} both  {LEFT} the first recording  {RIGHT} the second one"


def _num_columns() -> int:
    return shutil.get_terminal_size((120, 24)).columns


def _mark(pair: Pair) -> str:
    if pair.first is None or pair.second is None:
        return RIGHT if pair.first is None else LEFT
    return SAME if pair.is_same_call else OTHER


def _cell(seen: Seen | None, other: Seen | None, width: int) -> str:
    if seen is None:
        return " " * width
    place = seen.call.place.partition(" ")[0]
    start = f"{seen.number:>4} {place} "
    is_like = other is not None and other.call.function == seen.call.function
    theirs = other.arguments if other is not None and is_like else ()
    text = fitted_call_text(seen.call.function, seen.arguments, theirs, width - len(start))
    return _cut(start + text, width)


def _result(seen: Seen | None, width: int) -> str:
    assert seen is not None
    failed = "" if isinstance(seen.call, Call) else "failed: "
    return _cut(f"     = {failed}{value_text(seen.result, max_chars=width)}", width)


def _cut(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"


# Texts.


def _text_lines(left: Sequence[str], right: Sequence[str]) -> Iterator[str]:
    """The replies that differ, one below the other."""
    for index in range(max(len(left), len(right))):
        one, other = (texts[index] if index < len(texts) else None for texts in (left, right))
        if one != other:
            yield ""
            yield f"reply {index + 1}:"
            for mark, text in ((LEFT, one), (RIGHT, other)):
                yield f"{mark} {'(none)' if text is None else value_text(text, max_chars=MAX_TEXT_CHARS)}"
