"""What two recordings have in common. Handles are numbered anew in each, since hosts count them over all programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import msgspec

from pie_cli.recordings.words import Handle
from pie_engine.protocol.recording import WAIT, Call, Fail, Recording

MAX_ALIGNED = 2000
"""Calls of either recording that differ, up to which those that fit each other are looked for."""
UNCOMPARED = frozenset({WAIT, "generate.next", "context.release", "matcher.release", "futures.forget"})
"""When something came, in how many pieces, and when it was given back, is the machine's business."""
SAYS_TEXT = frozenset({"session.send", "log.write"})
GIVES_HANDLE = frozenset(
    {
        "context.create",
        "context.fork",
        "context.flush",
        "context.save",
        "forward.start",
        "generate.start",
        "generate.search",
        "matcher.create",
        "matcher.fork",
        "matcher.look",
        "scheduling.look",
        "session.receive",
        "session.drain",
        "runtime.launch",
    }
)
TAKES_HANDLES = {"matcher.fork": (0, 1), "forward.start": (0, 5), "futures.forget": (0,)}
TAKES_HANDLES |= {f"runtime.{name}": (0,) for name in ("next-of-child", "send-to-child", "terminate-child")}
"""Positions of handles among the arguments, where it is not the first one of `context`, `generate`, …"""
WITHOUT_HANDLE = frozenset(
    {"context.create", "context.open", "context.delete", "context.list-saved", "scheduling.look"}
)
WITH_HANDLE = frozenset({"context", "generate", "forward", "matcher", "scheduling"})


class Seen(msgspec.Struct, frozen=True):
    """A call as it is compared."""

    call: Call | Fail
    number: int
    arguments: list[Any]
    result: Any


@dataclass(frozen=True, slots=True)
class Pair:
    """Calls that fit each other; None: the other recording has none."""

    first: Seen | None
    second: Seen | None

    @property
    def is_same_call(self) -> bool:
        return self.first is not None and self.second is not None and _key(self.first) == _key(self.second)

    @property
    def is_same(self) -> bool:
        """The result included."""
        return self.is_same_call and _outcome(self.first) == _outcome(self.second)


def compare(first: Recording, second: Recording) -> list[Pair]:
    """Both from their beginnings to their ends: what they did, not how long it took."""
    by_line = _has_lines(first) and _has_lines(second)
    left, right = seen_calls(first, by_line), seen_calls(second, by_line)
    num_begin = _num_common(left, right)
    num_end = _num_common(left[num_begin:][::-1], right[num_begin:][::-1])
    middle = list(_aligned(left[num_begin : len(left) - num_end], right[num_begin : len(right) - num_end]))
    begin = map(Pair, left[:num_begin], right[:num_begin])
    end = map(Pair, left[len(left) - num_end :], right[len(right) - num_end :])
    return [*begin, *middle, *end]


def seen_calls(recording: Recording, by_line: bool = True) -> list[Seen]:
    """Those that count, with handles numbered in the order in which they came, and texts in pieces put together.

    `by_line`: only the pieces of one line of the program. Standalone components do not say which line that is.
    """
    handles: dict[int, Handle] = {}
    calls: list[Seen] = []
    for number, call in enumerate(recording.calls, 1):
        if call.function in UNCOMPARED:
            continue
        arguments = list(call.arguments)
        for position in _positions(call.function):
            arguments[position] = handles.get(arguments[position], arguments[position])
        result: Any = call.result if isinstance(call, Call) else list(call.error)
        if isinstance(call, Call) and call.function in GIVES_HANDLE:
            result = handles.setdefault(result, Handle(f"#{len(handles) + 1}"))
        elif isinstance(call, Call) and call.function == "context.open":
            result = {**result, "ctx": handles.setdefault(result["ctx"], Handle(f"#{len(handles) + 1}"))}
        seen = Seen(call, number, arguments, result)
        if calls and (whole := _joined(calls[-1], seen, by_line)) is not None:
            calls[-1] = whole
        else:
            calls.append(seen)
    return calls


def _has_lines(recording: Recording) -> bool:
    return any(call.place for call in recording.calls)


def _joined(before: Seen, seen: Seen, by_line: bool) -> Seen | None:
    """Two texts that are sent or printed in a row, as one: a reply comes in pieces of the machine's choice."""
    function = seen.call.function
    pieces = (before.arguments, seen.arguments)
    if function not in SAYS_TEXT or (before.call.function, before.result) != (function, None):
        return None
    if by_line and before.call.place != seen.call.place:
        return None
    if function == "log.write" and pieces[0][0] == pieces[1][0]:
        return msgspec.structs.replace(before, arguments=[pieces[0][0], pieces[0][1] + pieces[1][1]])
    if function == "session.send" and all(text.startswith('"') for (text,) in pieces):
        return msgspec.structs.replace(before, arguments=[pieces[0][0][:-1] + pieces[1][0][1:]])
    return None


def texts(recording: Recording) -> list[str]:
    """What models wrote, a reply after the other in the order in which they were asked for."""
    replies: dict[int, str] = {}
    for call in recording.calls:
        if not isinstance(call, Call):
            continue
        if call.function in ("generate.start", "generate.search"):
            replies[call.result] = ""
        elif call.function == "generate.next" and call.result is not None:
            replies[call.arguments[0]] += call.result["text"]
        elif call.function == "generate.finish-search" and call.result["hypotheses"]:
            replies[call.arguments[0]] = call.result["hypotheses"][0]["text"]
    return list(replies.values())


def _positions(function: str) -> Sequence[int]:
    if function in TAKES_HANDLES:
        return TAKES_HANDLES[function]
    interface, _, name = function.partition(".")
    takes = interface in WITH_HANDLE and function not in WITHOUT_HANDLE
    return (0,) if takes or (interface == "session" and name.startswith("finish-")) else ()


def _key(seen: Seen | None) -> str:
    assert seen is not None
    return json.dumps([seen.call.function, seen.arguments], sort_keys=True)


def _outcome(seen: Seen | None) -> str:
    assert seen is not None
    return json.dumps([isinstance(seen.call, Call), seen.result], sort_keys=True)


def _num_common(left: Sequence[Seen], right: Sequence[Seen]) -> int:
    """How many calls are the same from the start on."""
    num = 0
    for one, other in zip(left, right, strict=False):
        if _key(one) != _key(other):
            break
        num += 1
    return num


def _aligned(left: Sequence[Seen], right: Sequence[Seen]) -> Iterator[Pair]:
    if max(len(left), len(right)) > MAX_ALIGNED:
        yield from _side_by_side(left, right)
        return
    matcher = SequenceMatcher(None, [_key(seen) for seen in left], [_key(seen) for seen in right], autojunk=False)
    for _, i, i_end, j, j_end in matcher.get_opcodes():
        yield from _side_by_side(left[i:i_end], right[j:j_end])


def _side_by_side(left: Sequence[Seen], right: Sequence[Seen]) -> Iterator[Pair]:
    for index in range(max(len(left), len(right))):
        yield Pair(
            left[index] if index < len(left) else None,
            right[index] if index < len(right) else None,
        )
