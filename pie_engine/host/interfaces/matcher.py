"""`matcher`: grammars in the pass tier. Masks stay in the core."""

from __future__ import annotations

from typing import Any

from pie_engine.host.imports import Function
from pie_engine.host.matchers import LookOperation, Matcher
from pie_engine.host.process import Process
from pie_engine.protocol.plan import Grammar
from pie_engine.protocol.to_host import Looked


def create(process: Process, ctx: int, grammar: dict[str, Any]) -> int:
    return process.keep_matcher(Matcher.create(process.context(ctx), Grammar(**grammar)))


def fork(process: Process, matcher: int, ctx: int) -> int:
    return process.keep_matcher(process.matcher(matcher).fork(process.context(ctx)))


def advance(process: Process, matcher: int, tokens: list[int]) -> None:
    process.matcher(matcher).advance(tokens)


def rollback(process: Process, matcher: int, count: int) -> None:
    process.matcher(matcher).rollback(count)


def look(process: Process, matcher: int, tokens: list[int]) -> int:
    return process.futures.add(LookOperation(process.matcher(matcher), tokens))


def finish_look(process: Process, done: int) -> Looked:
    return process.futures.get(done, LookOperation).finish()


def release(process: Process, matcher: int) -> None:
    process.release_matcher(matcher)


FUNCTIONS: dict[str, Function] = {
    "create": create,
    "fork": fork,
    "advance": advance,
    "rollback": rollback,
    "look": look,
    "finish-look": finish_look,
    "release": release,
}
