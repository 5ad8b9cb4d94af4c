"""What a recording answers to a program that runs against it, and where the program does something else.

A program need not do everything as the recorded one did. What it says (`OUTPUTS`) gives nothing back, so a difference
there is noted and the run goes on; what it frees, and how often it looks for news without waiting, is not compared at
all. Everything else ends the run where it differs, since nobody knows what would have come of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import msgspec

from pie_engine.errors import ErrorInfo
from pie_engine.host.runner import GuestOver
from pie_engine.host.tap import UNTAPPED, Places
from pie_engine.protocol.departure import Departure, Made
from pie_engine.protocol.recording import WAIT, Call, End, Event, Fail, Full, Piped, Replayable
from pie_engine.replay.ahead import Ahead
from pie_engine.replay.surroundings import ReplayedSurroundings

OUTPUTS = frozenset({"session.send", "log.write", "log.emit"})
UNCOMPARED = UNTAPPED | {"context.release", "matcher.release", "futures.forget"}
OUTPUT_LIMIT = "output_limit"
OUTSIDE = frozenset(
    {
        "cancelled",
        "cpu_limit",
        "memory_limit",
        "wall_limit",
        OUTPUT_LIMIT,
        "core_lost",
        "host_lost",
        "host_recycled",
        "lost",
        "daemon_stopped",
    }
)
"""Errors with which programs are ended from outside, in the middle of whatever they do."""
MAX_IDLE_CALLS = 1000
"""Calls in a row that are no part of the recording, before a program counts as one that never ends."""


class Stop(GuestOver):
    """The run is over, for the reason that the script knows."""


@dataclass
class Script:
    """A recording, read from its beginning as the program goes on."""

    recording: Replayable
    show: Callable[[str, Any], None]
    """Is told of everything that the program says, as kind and value of an event."""
    departures: list[Departure] = field(default_factory=list)
    has_stopped: bool = False
    """The program would have gone on, and the recording says nothing of it."""
    num_calls: int = 0
    """Of the recording, that the program has made as well."""
    place: str = ""
    """Of the last call."""
    places: Places = field(default_factory=Places)

    def __post_init__(self) -> None:
        self._ahead = Ahead(self.recording.events())
        self._num_idle = 0
        self.surroundings = ReplayedSurroundings(self.recording.head.launched)
        self._go_on([])

    # What the program does.

    def answer(self, function: str, arguments: Sequence[Any]) -> Any:
        """What came of a call. Raises what the program gets, or `Stop`."""
        self.place, _task = self.places.of(function, arguments)
        result = self._answer(function, arguments)
        self.places.answered(function, result)
        return result

    def _answer(self, function: str, arguments: Sequence[Any]) -> Any:
        if function in UNCOMPARED:
            return self._free(function)
        made = function, list(arguments)
        if function in OUTPUTS:
            return self._say(made)
        return self._take(self._found(made, lambda entry: (entry.function, entry.arguments) == made))

    def wait(self, timeout_us: int | None) -> list[int]:
        """`futures.wait-any`"""
        made = WAIT, [timeout_us]
        if timeout_us == 0:
            return self._poll()
        return list(self._take(self._found(made, lambda entry: entry.function == WAIT)))

    def end(self, kind: str, value: Any) -> tuple[str, Any]:
        """The program has ended by itself, with a value or an `ErrorInfo`; how it counts as ended."""
        entry, missed = self._next_that(lambda _entry: False)
        if entry is not None:
            first = missed[0] if missed else entry
            self._note(Departure("ending", self._ahead.number_of(first), self.place, None, first, _ending(kind, value)))
            return kind, value
        self._miss(missed)
        end = self.recording.end
        self._pass(None)
        if end is None or (kind, _essence(kind, value)) == (end.kind, _essence(end.kind, decoded(end))):
            return kind, value
        recorded = decoded(end)
        if end.kind == "error" and recorded.code == OUTPUT_LIMIT:
            return end.kind, recorded  # whatever it makes of the refusal
        text = f"{_ending(kind, value)}; the recording {_ending(end.kind, recorded)}"
        self._note(Departure("ending", self._ahead.number_of(None), self.place, None, None, text))
        return kind, value

    # Comparing.

    def _free(self, function: str) -> None:
        entry = self._peek()
        if entry is not None and entry.function == function:
            self._take(entry)
        self._idle()

    def _poll(self) -> list[int]:
        """A look for news without waiting: it has some where the recorded program looked, too."""
        entry = self._peek(passing=_is_freed)
        if entry is None or entry.function != WAIT or entry.arguments != [0]:
            if entry is None:
                self._stop_outside()
            self._idle()
            return []
        return list(self._take(entry))

    def _say(self, made: Made) -> None:
        self._show(made)
        entry = self._peek(passing=_is_loose)
        if entry is None:
            self._stop_outside()
        if entry is None or entry.function != made[0]:
            self._idle()
            self._note(Departure("output", self._ahead.number_of(entry), self.place, made, entry))
            return
        if entry.arguments != made[1]:
            self._note(Departure("output", self._ahead.number_of(entry), self.place, made, entry))
        self._take(entry)

    def _found(self, made: Made, fits: Callable[[Call | Fail], bool]) -> Call | Fail:
        """The next call of the recording, which is what the program has `made`. Raises `Stop` when it is not."""
        entry, missed = self._next_that(fits)
        if entry is None:
            self._stop_outside()
        if entry is None or not fits(entry):
            raise self._departed(made, missed[0] if missed else entry)
        self._miss(missed)
        return entry

    def _next_that(self, fits: Callable[[Call | Fail], bool]) -> tuple[Call | Fail | None, list[Call | Fail]]:
        """The next call that fits or is no output, and the outputs before it."""
        missed: list[Call | Fail] = []
        for entry in self._ahead:
            if not isinstance(entry, Call | Fail) or (_is_loose(entry) and not fits(entry)):
                continue
            if fits(entry) or entry.function not in OUTPUTS:
                return entry, missed
            missed.append(entry)
        return None, missed

    def _miss(self, missed: list[Call | Fail]) -> None:
        """The program has not said these."""
        for entry in missed:
            self._note(Departure("output", self._ahead.number_of(entry), self.place, None, entry))

    def _peek(self, passing: Callable[[Call | Fail], bool] = lambda _entry: False) -> Call | Fail | None:
        for entry in self._ahead:
            if isinstance(entry, Call | Fail) and not passing(entry):
                return entry
        return None

    def _take(self, entry: Call | Fail) -> Any:
        self._pass(entry)
        self.num_calls += 1
        self._num_idle = 0
        if isinstance(entry, Fail):
            code, message, retry = entry.error
            raise ErrorInfo(code, message, retry=retry).raised()
        return objects(entry.result)

    def _pass(self, entry: Call | Fail | None) -> None:
        """The program is behind `entry`; None: behind everything."""
        passed = list(self._ahead.go_past(entry))
        for each in passed:
            if isinstance(each, Piped):
                self.show("message", each.text)
        self._go_on(passed)

    def _go_on(self, passed: Sequence[Event]) -> None:
        """What the program may see of time and chance goes up to its next call that counts."""
        ahead = []
        for entry in self._ahead:
            ahead.append(entry)
            if not _may_be_passed(entry):
                break
        self.surroundings.go_on(passed, ahead)

    # Ends.

    def _departed(self, made: Made, entry: Call | Fail | None) -> Stop:
        """It does something else, or goes on where the recording ends."""
        self._note(Departure("call", self._ahead.number_of(entry), self.place, made, entry))
        self.has_stopped = True
        return Stop("the program has departed from the recording")

    def _stop_outside(self) -> None:
        """Stop if the recorded program was ended from outside, or the recording was cut off."""
        end = self.recording.end
        if end is None or (end.kind == "error" and decoded(end).code in OUTSIDE):
            self.has_stopped = True
            self._pass(None)
            raise Stop("the recording ends here")

    def _idle(self) -> None:
        self._num_idle += 1
        if self._num_idle > MAX_IDLE_CALLS:
            raise self._departed((WAIT, [0]), self._peek())

    def _note(self, departure: Departure) -> None:
        self.departures.append(departure)

    def _show(self, made: Made) -> None:
        function, arguments = made
        if function == "session.send":
            self.show("message", msgspec.json.decode(arguments[0]))
        elif function == "log.write":
            self.show(arguments[0], arguments[1])
        else:
            self.show("log", {"level": arguments[0], "message": arguments[1]})


def objects(value: Any) -> Any:
    """A recorded result as host functions give it: records have attributes."""
    if isinstance(value, dict):
        return SimpleNamespace(**{name: objects(each) for name, each in value.items()})
    if isinstance(value, list) and value and not isinstance(value[0], int | float | str):
        return [objects(each) for each in value]
    return value


def decoded(end: End) -> Any:
    """The value, or the `ErrorInfo`."""
    if end.kind == "error":
        return msgspec.json.decode(end.value, type=ErrorInfo)
    return msgspec.json.decode(end.value)


def _essence(kind: str, value: Any) -> Any:
    """What counts of an ending: a traceback changes with every line that is added above."""
    return (value.code, value.message) if kind == "error" else value


def _ending(kind: str, value: Any) -> str:
    if kind == "error":
        return f"ended with the error {value.code}: {value.message}"
    return f"returned {msgspec.json.encode(value).decode()}"


def _is_freed(entry: Call | Fail) -> bool:
    return entry.function in UNCOMPARED


def _is_loose(entry: Call | Fail) -> bool:
    """Whether a program may leave it out."""
    is_empty_poll = entry.function == WAIT and entry.arguments == [0] and isinstance(entry, Call) and not entry.result
    return is_empty_poll or _is_freed(entry)


def _may_be_passed(entry: Event) -> bool:
    return isinstance(entry, Piped | Full) or (isinstance(entry, Call | Fail) and _is_loose(entry))
