"""How a program ended, in words: from what its guest gave to a value or an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pie_engine.errors import Cancelled, ErrorInfo, InvalidInput, LimitExceeded
from pie_engine.host.events import one_line, without_surrogates
from pie_engine.host.limits import GrantedLimits
from pie_engine.host.runner import Outcome

if TYPE_CHECKING:
    from pie_engine.host.process import Ending, Process

_decode_info = msgspec.json.Decoder(ErrorInfo).decode
STACK_TRAP = "call stack exhausted"


def ending_of(process: Process, outcome: Outcome) -> Ending:
    """What its guest's outcome means."""
    return process.doom.info if process.doom is not None else outcome_ending(outcome, process.limits)


def outcome_ending(outcome: Outcome, limits: GrantedLimits) -> Ending:
    """The same of a guest that has ended by itself."""
    if outcome.is_trap:
        return _trap(limits, outcome)
    try:
        if outcome.is_ok:
            return one_line(outcome.text, "the value that the program returned")
        return _named(limits, _decoded_info(outcome.text))
    except InvalidInput as error:
        return ErrorInfo("invalid_program", error.message, error.hint)
    except msgspec.DecodeError as error:
        return ErrorInfo("invalid_program", f"the program ended with something that is not JSON: {error}")


def cancelled() -> ErrorInfo:
    return Cancelled("the program was terminated").info


def _decoded_info(text: str) -> ErrorInfo:
    """The error in the guest's words, also where they hold what is no character."""
    try:
        return _decode_info(text)
    except msgspec.DecodeError:
        return _decode_info(without_surrogates(text))


def _named(limits: GrantedLimits, info: ErrorInfo) -> ErrorInfo:
    """The guest does not know its limits."""
    if info.code != "memory_limit":
        return info
    limit = _memory_limit(limits)
    return ErrorInfo(limit.code, limit.message, limit.hint, traceback=info.traceback)


def _memory_limit(limits: GrantedLimits) -> LimitExceeded:
    return limits.exceeded(
        "memory_mb",
        f"the program used more than its {limits.memory_mb} MB of memory",
        otherwise="hold less at once",
    )


def _trap(limits: GrantedLimits, outcome: Outcome) -> ErrorInfo:
    """The guest broke off: it left by `os._exit`, ran out of stack or memory, or its interpreter gave up."""
    text = outcome.text
    if STACK_TRAP in text:
        message, hint = "the program used up its stack", "recurse less deeply"
        return ErrorInfo("exception", message, hint, traceback=outcome.traceback)
    if outcome.is_out_of_memory or "memory" in text:
        limit = _memory_limit(limits)
        return ErrorInfo(limit.code, limit.message, limit.hint, traceback=outcome.traceback)
    if outcome.traceback:
        return ErrorInfo("exception", f"the program broke off: {text}", traceback=outcome.traceback)
    hint = (
        f"it ran out of its {limits.memory_mb} MB of memory where Python could not say so, or it ended the "
        "interpreter itself, as os._exit() and os.abort() do"
    )
    return ErrorInfo("exception", f"the program broke off: {text}", hint)
