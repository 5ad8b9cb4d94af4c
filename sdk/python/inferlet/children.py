"""Programs that a program launches: its children, which live no longer than it does."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

from inferlet import _checks, _transport
from inferlet._loop import host_loop
from inferlet._plain_json import dump_json
from inferlet.errors import ChildFailed, Failure, InvalidInput

_ENDS = frozenset({"RETURNED", "FAILED"})


class Child:
    """Another program that runs for this one. Made by `runtime.launch`.

    >>> child = await runtime.launch("worker", question="Why?")
    >>> answer = await child.result()

    At the end of an `async with` block it is asked to end, unless it has.
    """

    def __init__(self, program: str, handle: int) -> None:
        self.program = program
        """As it was launched: `name` or `name@version`."""
        self.pid = ""
        """Its process id, as `pie ps` shows it."""
        self._handle = handle
        self._loop = host_loop()
        self._signal = self._loop.watch(handle)
        self._messages: deque[Any] = deque()
        self._looking: asyncio.Future[None] | None = None
        """Done when the task that looks for news has looked."""
        self._is_over = False
        self._value: Any = None
        self._failure: Failure | None = None

    async def result(self) -> Any:
        """The value of its `main`, as soon as it has ended; also again. Messages stay for `messages`.

        Raises `ChildFailed` where it has ended with an error.
        """
        while not self._is_over:
            await self._look()
        if self._failure is not None:
            raise ChildFailed(self.program, self.pid, self._failure)
        return self._value

    async def messages(self) -> AsyncIterator[Any]:
        """What it sends with `session.send`, as it comes, each once. Raises `ChildFailed` if it ends in an error."""
        while self._messages or not self._is_over:
            if not self._messages:
                await self._look()
                continue
            yield self._messages.popleft()
        await self.result()

    def send(self, value: Any) -> None:
        """A message for its `session.receive`. One that has ended does not get it.

        Raises `InvalidInput` for a value that JSON does not have.
        """
        text = _json("child.send", value)
        if not self._is_over:
            _transport.call(_transport.host.runtime.send_to_child, self._handle, text)

    def terminate(self) -> None:
        """Ask it to end: its `main` is cancelled, and it ends with the error `cancelled`, unless it was faster."""
        if not self._is_over:
            _transport.call(_transport.host.runtime.terminate_child, self._handle)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.terminate()
        while not self._is_over:
            await self._look()

    def __repr__(self) -> str:
        return f"<Child {self.program} {self.pid}{' (ended)' if self._is_over else ''}>"

    # News.

    async def _look(self) -> None:
        """Wait for news and take them. One task looks for all that wait."""
        if self._looking is not None:
            await asyncio.shield(self._looking)
            return
        looking = self._looking = self._loop.create_future()
        try:
            await self._signal.wait()
            while not self._is_over and self._take():
                pass
        finally:
            self._looking = None
            looking.set_result(None)

    def _take(self) -> bool:
        """One event; whether there was one. Raises what has refused the launch."""
        event = _transport.call(_transport.host.runtime.next_of_child, self._handle)
        if event is None:
            return False
        kind = event.kind.name
        if kind == "LAUNCHED":
            self.pid = event.value
        elif kind == "MESSAGE":
            self._messages.append(json.loads(event.value))
        elif kind == "RETURNED":
            self._value = json.loads(event.value)
        else:
            self._failure = Failure(**json.loads(event.value))
        if kind in _ENDS:
            self._is_over = True
            self._loop.unwatch(self._handle)
        return True

    async def _launched(self) -> Self:
        """As soon as it has a process id. Raises what has refused the launch."""
        try:
            while not self.pid:
                await self._look()
        except BaseException:
            self._loop.unwatch(self._handle)
            _transport.call(_transport.host.futures.forget, self._handle)
            raise
        return self


async def launch(
    program: str, input: Mapping[str, Any] | None, endowment: float | None, arguments: Mapping[str, Any]
) -> Child:
    """See `Runtime.launch`."""
    name = _checks.text("program", program)
    credits = None if endowment is None else _checks.number("endowment", endowment)
    given = _json("the input of a child", {**_checked(input), **arguments})
    handle = _transport.call(_transport.host.runtime.launch, name, given, credits)
    return await Child(name, handle)._launched()


def _checked(input: Any) -> Mapping[str, Any]:
    if input is None:
        return {}
    if not isinstance(input, Mapping):
        raise InvalidInput(f"input has to be a dict of the arguments of `main`; got {type(input).__name__}")
    for key in input:
        _checks.text("a name in input", key)
    return input


def _json(what: str, value: Any) -> str:
    try:
        return dump_json(value)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{what}: {error}") from None
