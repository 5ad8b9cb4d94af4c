"""The client that every command uses."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pie_client import PieClient

T = TypeVar("T")


def new_client() -> PieClient:
    """A client of the user's daemon."""
    from pie_client import PieClient

    return PieClient()


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run what a command does. Ctrl-C then cancels it, and is raised as `KeyboardInterrupt`."""
    try:
        import asyncio

        with interruptible():
            return asyncio.run(work)
    finally:
        # Ctrl-C may have come before anything of it ran.
        work.close()


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside, Ctrl-C raises `KeyboardInterrupt`; elsewhere it ends the command at once."""
    import signal

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
