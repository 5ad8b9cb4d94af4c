"""The seam through which the calls of one process are watched: recordings and profiles are taps.

A process without one pays for a look at `owner.tap` in each call, and for nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

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

    name: str = field(init=False)
    """`context.append-text`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"{self.interface}.{self.function}")


class Called(msgspec.Struct, frozen=True, gc=False):
    """The guest has called a function. Times are those of `time.monotonic_ns`."""

    function: Import
    arguments: Sequence[Any]
    result: Any
    error: BaseException | None
    """With one there is no result."""
    began_ns: int
    ended_ns: int


class Waited(msgspec.Struct, frozen=True, gc=False):
    """A `futures.wait-any` is over; it took no time if something was ready."""

    timeout_us: int | None
    ready: Sequence[int]
    """Handles of futures."""
    error: BaseException | None
    """It was refused."""
    began_ns: int
    ended_ns: int


class Tap(Protocol):
    """Who watches. Nothing may be raised, nothing changed or kept alive."""

    def called(self, call: Called) -> None: ...

    def waited(self, wait: Waited) -> None: ...

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
        tap.called(Called(function, arguments, None, error, began_ns, time.monotonic_ns()))
        raise
    tap.called(Called(function, arguments, result, None, began_ns, time.monotonic_ns()))
    return result


class Taps:
    """Several at once."""

    def __init__(self, taps: Sequence[Tap]) -> None:
        self._taps = taps

    def called(self, call: Called) -> None:
        for tap in self._taps:
            tap.called(call)

    def waited(self, wait: Waited) -> None:
        for tap in self._taps:
            tap.waited(wait)

    def piped(self, text: str) -> None:
        for tap in self._taps:
            tap.piped(text)

    def ended(self, ending: Ending) -> None:
        for tap in self._taps:
            tap.ended(ending)
