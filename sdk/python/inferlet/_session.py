"""The client at the other end."""

from __future__ import annotations

import json
import sys
from collections import deque
from typing import Any

from inferlet import _transport
from inferlet._loop import Signal, finished, host_loop
from inferlet._plain_json import dump_json
from inferlet.errors import InvalidInput


class Session:
    """Messages to and from the client. Values are what JSON has: text, numbers, lists, dicts.

    >>> session.send({"progress": 0.5})
    >>> answer = await session.receive()
    >>> async for message in session: ...  # until the client sends `null`
    """

    def __init__(self) -> None:
        self._asked: deque[Signal] = deque()

    def send(self, value: Any) -> None:
        """Append a message to the process's event log and go on; an absent client gets it when it comes back.

        Raises `InvalidInput` for a value that JSON does not have, `LimitExceeded` at the output limit.
        """
        sys.stdout.flush()
        _transport.call(_transport.host.session.send, _dump(value))

    async def receive(self) -> Any:
        """The next message of the client; waits until there is one. A cancelled `receive` loses no message.

        None is what `pie run` sends at the end of its input.
        """
        loop = host_loop()
        wire = _transport.host.session
        signal = self._asked.popleft() if self._asked else loop.watch(_transport.call(wire.receive))
        try:
            await signal.wait()
        except BaseException:
            self._asked.append(signal)
            raise
        loop.unwatch(signal.handle)
        return json.loads(_transport.call(wire.finish_receive, signal.handle))

    async def drain(self) -> None:
        """Wait until a client has received everything sent so far."""
        sys.stdout.flush()
        wire = _transport.host.session
        await finished(_transport.call(wire.drain), wire.finish_drain)

    def __aiter__(self) -> Session:
        return self

    async def __anext__(self) -> Any:
        message = await self.receive()
        if message is None:
            raise StopAsyncIteration
        return message

    def __repr__(self) -> str:
        return "session"


def _dump(value: Any) -> str:
    try:
        return dump_json(value)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"session.send: {error}") from None


session = Session()
