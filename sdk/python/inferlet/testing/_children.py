"""The children of a program under the fake host: functions of the test."""

from __future__ import annotations

import inspect
import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from inferlet.errors import NotFound, PieError
from inferlet.testing._base import FakeBase
from inferlet.testing._records import ChildEvent, ChildEventKind

Program = Callable[..., Any]
"""Called with the input; its value is that of `main`. What a generator yields are its messages."""


class FakeChildren(FakeBase):
    """What `runtime` has for children."""

    def __init__(self) -> None:
        super().__init__()
        self.programs: dict[str, Program] = {}
        """By the name as it is launched."""
        self.launches: list[tuple[str, Any, float | None]] = []
        """Program, input and endowment of each."""
        self.told: list[tuple[str, Any]] = []
        """Process id of the child, and what was sent to it."""
        self.terminated: list[str] = []
        self._events: dict[int, deque[ChildEvent]] = {}
        self._pids: dict[int, str] = {}
        self._begun: set[int] = set()

    def _launch(self, program: str, input: str, endowment: float | None) -> int:
        if program not in self.programs:
            raise NotFound(f"no program `{program}`", hint=f'`children={{"{program}": …}}` of the test gives it')
        arguments = json.loads(input)
        self.launches.append((program, arguments, endowment))
        handle = self._new_handle(is_ready=True)
        self._pids[handle] = f"child-{len(self.launches):04}"
        self._events[handle] = deque([ChildEvent(ChildEventKind.LAUNCHED, self._pids[handle])])
        self._events[handle] += _events_of(self.programs[program], arguments)
        return handle

    def _next_of_child(self, handle: int) -> ChildEvent | None:
        """Its process id first, and the rest when it is looked for again: it has run meanwhile."""
        if handle in self._begun:
            return self._events[handle].popleft() if self._events[handle] else None
        if self._events[handle][0].kind is ChildEventKind.LAUNCHED:
            return self._events[handle].popleft()
        self._begun.add(handle)
        self._ready.append(handle)
        return None

    def _send_to_child(self, handle: int, value: str) -> None:
        self.told.append((self._pids[handle], json.loads(value)))

    def _terminate_child(self, handle: int) -> None:
        """It ends before it has said the rest."""
        self.terminated.append(self._pids[handle])
        error = {"code": "cancelled", "message": "the program was asked to end"}
        self._events[handle] = deque([ChildEvent(ChildEventKind.FAILED, json.dumps(error))])
        self._ready.append(handle)


def _events_of(program: Program, arguments: Mapping[str, Any]) -> list[ChildEvent]:
    """All that it says, to its end."""
    events = []
    try:
        value = program(**arguments)
        if inspect.isgenerator(value):
            while True:
                events.append(ChildEvent(ChildEventKind.MESSAGE, json.dumps(next(value))))
    except StopIteration as end:
        value = end.value
    except Exception as error:
        code = error.code if isinstance(error, PieError) else "exception"
        failure = {"code": code, "message": str(error)}
        return [*events, ChildEvent(ChildEventKind.FAILED, json.dumps(failure))]
    return [*events, ChildEvent(ChildEventKind.RETURNED, json.dumps(value))]
