"""The seam through which the calls of one process are watched: recordings and profiles are taps.

A process without one pays for a look at `owner.tap` in each call, and for nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pie_engine.host.process import Ending


@dataclass(frozen=True, slots=True)
class Import:
    """One function that guests import, with the names that the WIT gives it."""

    interface: str
    """As in `context`."""
    function: str
    """As in `append-text`."""
    plain: Callable[[Any], Any]
    """Makes plain data of a result: records become dicts under snake-case names."""

    @property
    def name(self) -> str:
        """`context.append-text`."""
        return f"{self.interface}.{self.function}"


class Tap(Protocol):
    """Who watches. Times are those of `time.monotonic_ns`; nothing may be raised, nothing changed or kept alive."""

    def call(
        self,
        function: Import,
        arguments: Sequence[Any],
        result: Any,
        error: BaseException | None,
        began_ns: int,
        ended_ns: int,
    ) -> None:
        """The guest has called `function`, which gave `result`, unless there is an `error`."""

    def waited(
        self, timeout_us: int | None, ready: Sequence[int], error: BaseException | None, began_ns: int, ended_ns: int
    ) -> None:
        """`futures.wait-any` is over; it took no time if something was ready. `error`: it was refused."""

    def piped(self, text: str) -> None:
        """Text of a stream went to the client without the program."""

    def ended(self, ending: Ending) -> None:
        """The process is over: its terminal event comes next."""


class TapOwner(Protocol):
    """Who is called on behalf of."""

    @property
    def tap(self) -> Tap | None: ...


def call(function: Import, body: Callable[..., Any], owner: TapOwner, arguments: Sequence[Any]) -> Any:
    """`body(owner, *arguments)`, with the owner's tap told of it."""
    tap = owner.tap
    assert tap is not None
    began_ns = time.monotonic_ns()
    try:
        result = body(owner, *arguments)
    except BaseException as error:
        tap.call(function, arguments, None, error, began_ns, time.monotonic_ns())
        raise
    tap.call(function, arguments, result, None, began_ns, time.monotonic_ns())
    return result


class Taps:
    """Several at once."""

    def __init__(self, taps: Sequence[Tap]) -> None:
        self._taps = taps

    def call(
        self,
        function: Import,
        arguments: Sequence[Any],
        result: Any,
        error: BaseException | None,
        began_ns: int,
        ended_ns: int,
    ) -> None:
        for tap in self._taps:
            tap.call(function, arguments, result, error, began_ns, ended_ns)

    def waited(
        self, timeout_us: int | None, ready: Sequence[int], error: BaseException | None, began_ns: int, ended_ns: int
    ) -> None:
        for tap in self._taps:
            tap.waited(timeout_us, ready, error, began_ns, ended_ns)

    def piped(self, text: str) -> None:
        for tap in self._taps:
            tap.piped(text)

    def ended(self, ending: Ending) -> None:
        for tap in self._taps:
            tap.ended(ending)
