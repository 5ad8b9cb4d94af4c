"""What a profile writes down of each function that a program calls, beside when, for how long and where from.

Looked up for every call of a program that is profiled, so it is a table of small functions of arguments and result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Of = Callable[[Sequence[Any], Any], Any]


class Noted(NamedTuple):
    """Of one function."""

    handle: Of | None = None
    """The future that it gives or asks about."""
    ctx: Of | None = None
    detail: Of | None = None
    """A dict of what hints need to know of it; not asked for where the call has failed."""
    reads_prompt: bool = False


def noted_of(name: str) -> Noted | None:
    """`name`: as `context.append-text`. None: the call is not the program's own."""
    return NOTED.get(name, _NOTHING)


def _first(arguments: Sequence[Any], _result: Any) -> Any:
    return arguments[0]


def _result(_arguments: Sequence[Any], result: Any) -> Any:
    return result


def _opened(_arguments: Sequence[Any], result: Any) -> int:
    return 0 if result is None else int(result.ctx)


def _child(_arguments: Sequence[Any], result: Any) -> dict[str, Any]:
    return {"child": result}


def _num_given(arguments: Sequence[Any], _result: Any) -> dict[str, Any]:
    return {"tokens": len(arguments[1])}


def _num_packed(arguments: Sequence[Any], _result: Any) -> dict[str, Any]:
    return {"tokens": len(arguments[1]) * 3 // 16}  # base64 of four bytes each


def _num_encoded(_arguments: Sequence[Any], result: Any) -> dict[str, Any]:
    return {"tokens": result}


def _plan(arguments: Sequence[Any], _result: Any) -> dict[str, Any]:
    kinds = {key: arguments[1].get(key) for key in ("grammar", "speculation")}
    return {key: value["kind"] for key, value in kinds.items() if value}


def _chunk(_arguments: Sequence[Any], result: Any) -> dict[str, Any]:
    if result is None:
        return {}
    return {"tokens": len(result.ids), "finish": result.finish} if result.finish else {"tokens": len(result.ids)}


def _sent(arguments: Sequence[Any], _result: Any) -> dict[str, Any]:
    return {"chars": len(arguments[0])}


def _received(_arguments: Sequence[Any], result: Any) -> dict[str, Any]:
    return {"chars": len(result)}


_NOTHING = Noted()
_OF_CONTEXT = Noted(ctx=_first)
_GIVES = Noted(handle=_result)
_TAKES = Noted(handle=_first)
_STARTS = Noted(handle=_result, ctx=_first)
_READS = _STARTS._replace(reads_prompt=True)
NOTED: dict[str, Noted | None] = {
    # Only starting and watching call these.
    "runtime.store-code": None,
    "runtime.at": None,
    "context.create": Noted(ctx=_result),
    "context.append": Noted(ctx=_first, detail=_num_given),
    "context.place": Noted(ctx=_first, detail=_num_given),
    "context.append-packed": Noted(ctx=_first, detail=_num_packed),
    "context.append-text": Noted(ctx=_first, detail=_num_encoded),
    "context.encode": _OF_CONTEXT,
    "context.flush": _READS,
    "context.finish-flush": _TAKES,
    "context.fork": Noted(ctx=_first, detail=_child),
    "context.truncate": _OF_CONTEXT,
    "context.drop": _OF_CONTEXT,
    "context.slide": _OF_CONTEXT,
    "context.release": _OF_CONTEXT,
    "context.save": _STARTS,
    "context.finish-save": _TAKES,
    "context.open": Noted(ctx=_opened),
    "context.length": _OF_CONTEXT,
    "context.tokens": _OF_CONTEXT,
    "forward.start": _READS._replace(detail=_num_given),
    "forward.finish": _TAKES,
    "generate.start": _READS._replace(detail=_plan),
    "generate.next": Noted(handle=_first, detail=_chunk),
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
    "session.send": Noted(detail=_sent),
    "session.receive": _GIVES,
    "session.finish-receive": Noted(handle=_first, detail=_received),
    "session.drain": _GIVES,
    "session.finish-drain": _TAKES,
    "futures.forget": _TAKES,
}
