"""What a profile writes down of each function that a program calls, beside when, for how long and where from.

Looked up for every call of a program that is profiled, so it is a table of small functions of arguments and result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pie_engine.protocol.profile import NO_TOKENS

Of = Callable[[Sequence[Any], Any], Any]


class Noted(NamedTuple):
    """Of one function. `tokens` and `detail` are not asked for where the call has failed."""

    gives: bool = False
    """Its result is a future."""
    takes: bool = False
    """Its first argument is one."""
    has_context: bool = False
    """Its first argument is one."""
    makes: Of | None = None
    """The context that it makes."""
    tokens: Of | None = None
    """How many it takes or gives, or `NO_TOKENS`."""
    detail: Of | None = None
    """A dict of what else hints need to know of it."""
    reads_prompt: bool = False


def _result(_arguments: Sequence[Any], result: Any) -> Any:
    return result


def _opened(_arguments: Sequence[Any], result: Any) -> int:
    return 0 if result is None else int(result.ctx)


def _child(_arguments: Sequence[Any], result: Any) -> dict[str, Any]:
    return {"child": result}


def _num_given(arguments: Sequence[Any], _result: Any) -> int:
    return len(arguments[1])


def _num_packed(arguments: Sequence[Any], _result: Any) -> int:
    return len(arguments[1]) * 3 // 16  # base64 of four bytes each


def _plan(arguments: Sequence[Any], _result: Any) -> dict[str, Any]:
    kinds = {key: arguments[1].get(key) for key in ("grammar", "speculation")}
    return {key: value["kind"] for key, value in kinds.items() if value}


def _num_taken(_arguments: Sequence[Any], result: Any) -> int:
    return NO_TOKENS if result is None else len(result.ids)


def _finish(_arguments: Sequence[Any], result: Any) -> dict[str, Any]:
    return {"finish": result.finish} if result is not None and result.finish else {}


def _sent(arguments: Sequence[Any], _result: Any) -> dict[str, Any]:
    return {"chars": len(arguments[0])}


def _received(_arguments: Sequence[Any], result: Any) -> dict[str, Any]:
    return {"chars": len(result)}


NOTHING = Noted()
_OF_CONTEXT = Noted(has_context=True)
_GIVES = Noted(gives=True)
_TAKES = Noted(takes=True)
_STARTS = Noted(gives=True, has_context=True)
_READS = _STARTS._replace(reads_prompt=True)
NOTED: dict[str, Noted | None] = {
    # By name, as `context.append-text`. None: the call is not the program's own. `NOTHING` of those that are not here.
    # Only starting and watching call these.
    "runtime.store-code": None,
    "runtime.at": None,
    "context.create": Noted(makes=_result),
    "context.append": Noted(has_context=True, tokens=_num_given),
    "context.place": Noted(has_context=True, tokens=_num_given),
    "context.append-packed": Noted(has_context=True, tokens=_num_packed),
    "context.append-text": Noted(has_context=True, tokens=_result),
    "context.encode": _OF_CONTEXT,
    "context.flush": _READS,
    "context.finish-flush": _TAKES,
    "context.fork": Noted(has_context=True, detail=_child),
    "context.truncate": _OF_CONTEXT,
    "context.drop": _OF_CONTEXT,
    "context.slide": _OF_CONTEXT,
    "context.release": _OF_CONTEXT,
    "context.save": _STARTS,
    "context.finish-save": _TAKES,
    "context.open": Noted(makes=_opened),
    "context.length": _OF_CONTEXT,
    "context.tokens": _OF_CONTEXT,
    "forward.start": _READS._replace(tokens=_num_given),
    "forward.finish": _TAKES,
    "generate.start": _READS._replace(detail=_plan),
    "generate.next": Noted(takes=True, tokens=_num_taken, detail=_finish),
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
    "session.finish-receive": Noted(takes=True, detail=_received),
    "session.drain": _GIVES,
    "session.finish-drain": _TAKES,
    "futures.forget": _TAKES,
}
