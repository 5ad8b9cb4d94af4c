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


UNTAPPED = frozenset({"runtime.store-code", "runtime.at"})
"""Functions of which taps are not told: they say nothing about the run."""
ASK = frozenset({"forward.start", "context.flush", "context.save", "generate.search", "session.drain", "matcher.look"})
ASK |= {"scheduling.look"}
"""Functions that give a future which is waited for in the same `await`."""
TAKE = frozenset({"forward.finish", "context.finish-flush", "context.finish-save", "generate.finish-search"})
TAKE |= {"session.finish-drain", "matcher.finish-look", "scheduling.finish-look", "futures.forget"}
"""Functions that are done with it. Guests do not say where they are for these: where they asked."""

Place = tuple[str, str]
"""Line of the program, as `main.py:12 in main`, and task; empty where none is known."""


class Places:
    """Where the calls of one program come from. Only known of runs that are watched."""

    __slots__ = ("asked", "now")

    def __init__(self) -> None:
        self.now: Place = ("", "")
        """As the guest has said."""
        self.asked: dict[int, Place] = {}
        """By future."""

    def of(self, name: str, arguments: Sequence[Any]) -> Place:
        """Of a call that is made. Once for each call."""
        return self.asked.pop(arguments[0], self.now) if name in TAKE else self.now

    def answered(self, name: str, result: Any) -> None:
        """A call has gone well."""
        if name in ASK:
            self.asked[result] = self.now


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
    asks: bool = field(init=False)
    """See `ASK`."""
    takes: bool = field(init=False)
    """See `TAKE`."""

    def __post_init__(self) -> None:
        name = f"{self.interface}.{self.function}"
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "asks", name in ASK)
        object.__setattr__(self, "takes", name in TAKE)


class Called(msgspec.Struct, frozen=True, gc=False):
    """The guest has called a function. Times are those of `time.monotonic_ns`."""

    function: Import
    arguments: Sequence[Any]
    result: Any
    error: BaseException | None
    """With one there is no result."""
    place: Place
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

    @property
    def places(self) -> Places: ...


def call(function: Import, body: Callable[..., Any], owner: TapOwner, arguments: Sequence[Any]) -> Any:
    """`body(owner, *arguments)`, with the owner's tap told of it."""
    tap, places = owner.tap, owner.places
    assert tap is not None
    # As `Places` has it, without a call.
    place = places.asked.pop(arguments[0], places.now) if function.takes else places.now
    began_ns = time.monotonic_ns()
    try:
        result = body(owner, *arguments)
    except BaseException as error:
        tap.called(Called(function, arguments, None, error, place, began_ns, time.monotonic_ns()))
        raise
    ended_ns = time.monotonic_ns()
    if function.asks:
        places.asked[result] = place
    tap.called(Called(function, arguments, result, None, place, began_ns, ended_ns))
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
