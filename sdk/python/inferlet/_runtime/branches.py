"""`asyncio.gather` says which of its branches failed, and which others did, of which Python's own tells nothing."""

from __future__ import annotations

import asyncio
import functools
from typing import Any


def install() -> None:
    """Once, while the runtime is built."""
    original = asyncio.gather

    @functools.wraps(original)
    def gather(*awaitables: Any, return_exceptions: bool = False) -> Any:
        outer = original(*awaitables, return_exceptions=return_exceptions)
        if not return_exceptions and len(awaitables) > 1:
            outer.add_done_callback(_note)
        return outer

    asyncio.gather = asyncio.tasks.gather = gather  # type: ignore[assignment]


def _note(outer: Any) -> None:
    if outer.cancelled() or outer.exception() is None:
        return
    error = outer.exception()
    children = outer._children
    failed = {number: child for number, child in enumerate(children, 1) if _has_failed(child)}
    own = next((number for number, child in failed.items() if child.exception() is error), 0)
    if own:
        error.add_note(f"in branch {own} of {len(children)} of a gather: {_name(children[own - 1])}")
    for number, child in failed.items():
        if number != own and child.exception() is not error:
            error.add_note(f"branch {number} has failed, too: {_name(child)}: {_text(child.exception())}")


def _has_failed(child: asyncio.Future[Any]) -> bool:
    return child.done() and not child.cancelled() and child.exception() is not None


def _name(child: asyncio.Future[Any]) -> str:
    """What runs there: its coroutine, and the task's name where somebody gave it one."""
    if not isinstance(child, asyncio.Task):
        return type(child).__name__
    coroutine = getattr(child.get_coro(), "__qualname__", "")
    name = child.get_name()
    return f"{coroutine} ({name})" if not name.startswith("Task-") else coroutine


def _text(error: BaseException) -> str:
    """With the line where it was raised."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    place = f", {last.tb_frame.f_code.co_filename}:{last.tb_lineno}" if last is not None else ""
    return f"{type(error).__name__}: {error}{place}"
