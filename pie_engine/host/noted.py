"""What a profile writes down of each function that a program calls, beside when, for how long and where from.

Looked up for every call of a program that is profiled, so it is a table of small functions of arguments and result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pie_engine.protocol.profile import NO_TOKENS

Of = Callable[[Sequence[Any], Any], Any]


Row = tuple[int, int, int]
"""Future and context, 0 where there is none, and how many tokens are taken or given, or `NO_TOKENS`."""


class Noted(NamedTuple):
    """Of one function. Where the call has failed there is no result, and nobody asks for `row` and `detail`."""

    row: Callable[[Sequence[Any], Any], Row]
    detail: Of | None = None
    """A dict of what else hints need to know of it."""
    reads_prompt: bool = False
    takes: bool = False
    """Its first argument is a future."""
    has_context: bool = False
    """Its first argument is a context."""

    def failed_row(self, arguments: Sequence[Any]) -> Row:
        return arguments[0] if self.takes else 0, arguments[0] if self.has_context else 0, NO_TOKENS


def _of_context(arguments: Sequence[Any], _result: Any) -> Row:
    return 0, arguments[0], NO_TOKENS


def _given(arguments: Sequence[Any], _result: Any) -> Row:
    return 0, arguments[0], len(arguments[1])


def _given_packed(arguments: Sequence[Any], _result: Any) -> Row:
    return 0, arguments[0], len(arguments[1]) * 3 // 16  # base64 of four bytes each


def _given_text(arguments: Sequence[Any], result: Any) -> Row:
    return 0, arguments[0], result


def _created(_arguments: Sequence[Any], result: Any) -> Row:
    return 0, result, NO_TOKENS


def _opened(_arguments: Sequence[Any], result: Any) -> Row:
    return 0, 0 if result is None else int(result.ctx), NO_TOKENS


def _started(arguments: Sequence[Any], result: Any) -> Row:
    return result, arguments[0], NO_TOKENS


def _asked(_arguments: Sequence[Any], result: Any) -> Row:
    return result, 0, NO_TOKENS


def _taken(arguments: Sequence[Any], _result: Any) -> Row:
    return arguments[0], 0, NO_TOKENS


def _passed(arguments: Sequence[Any], result: Any) -> Row:
    return result, arguments[0], len(arguments[1])


def _next(arguments: Sequence[Any], result: Any) -> Row:
    return arguments[0], 0, NO_TOKENS if result is None else len(result.ids)


def _nothing(_arguments: Sequence[Any], _result: Any) -> Row:
    return 0, 0, NO_TOKENS


def _child(_arguments: Sequence[Any], result: Any) -> dict[str, Any]:
    return {"child": result}


def _plan(arguments: Sequence[Any], _result: Any) -> dict[str, Any]:
    kinds = {key: arguments[1].get(key) for key in ("grammar", "speculation")}
    return {key: value["kind"] for key, value in kinds.items() if value}


def _finish(_arguments: Sequence[Any], result: Any) -> dict[str, Any]:
    return {"finish": result.finish} if result is not None and result.finish else {}


def _sent(arguments: Sequence[Any], _result: Any) -> dict[str, Any]:
    return {"chars": len(arguments[0])}


def _received(_arguments: Sequence[Any], result: Any) -> dict[str, Any]:
    return {"chars": len(result)}


NOTHING = Noted(_nothing)
_OF_CONTEXT = Noted(_of_context, has_context=True)
_GIVES = Noted(_asked)
_TAKES = Noted(_taken, takes=True)
_STARTS = Noted(_started, has_context=True)
_READS = _STARTS._replace(reads_prompt=True)
NOTED: dict[str, Noted] = {
    # By name, as `context.append-text`; `NOTHING` of those that are not here.
    "context.create": Noted(_created),
    "context.append": _OF_CONTEXT._replace(row=_given),
    "context.place": _OF_CONTEXT._replace(row=_given),
    "context.append-packed": _OF_CONTEXT._replace(row=_given_packed),
    "context.append-text": _OF_CONTEXT._replace(row=_given_text),
    "context.encode": _OF_CONTEXT,
    "context.flush": _READS,
    "context.finish-flush": _TAKES,
    "context.fork": _OF_CONTEXT._replace(detail=_child),
    "context.truncate": _OF_CONTEXT,
    "context.drop": _OF_CONTEXT,
    "context.slide": _OF_CONTEXT,
    "context.release": _OF_CONTEXT,
    "context.save": _STARTS,
    "context.finish-save": _TAKES,
    "context.open": Noted(_opened),
    "context.length": _OF_CONTEXT,
    "context.tokens": _OF_CONTEXT,
    "forward.start": _READS._replace(row=_passed),
    "forward.finish": _TAKES,
    "generate.start": _READS._replace(detail=_plan),
    "generate.next": _TAKES._replace(row=_next, detail=_finish),
    "generate.stop": _TAKES,
    "generate.draft": _TAKES,
    "generate.rewind": _TAKES,
    "generate.inject": _TAKES,
    "generate.pipe": _TAKES,
    "generate.search": _READS,
    "generate.finish-search": _TAKES,
    "matcher.create": _OF_CONTEXT,
    "matcher.look": _GIVES,
    "matcher.finish-look": _TAKES,
    "scheduling.look": _GIVES,
    "scheduling.finish-look": _TAKES,
    "runtime.launch": _GIVES,
    "runtime.next-of-child": _TAKES,
    "runtime.send-to-child": _TAKES,
    "runtime.terminate-child": _TAKES,
    "session.send": NOTHING._replace(detail=_sent),
    "session.receive": _GIVES,
    "session.finish-receive": _TAKES._replace(detail=_received),
    "session.drain": _GIVES,
    "session.finish-drain": _TAKES,
    "futures.forget": _TAKES,
}
