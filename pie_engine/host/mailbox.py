"""Messages of the client to a program, and who waits for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from pie_engine.errors import Busy
from pie_engine.host.futures import Future


class Receive(Future):
    """One `session.receive`: claims the next message as soon as there is one."""

    kind = "a receive"
    of_client = "to send a message"

    def __init__(self, handle: int, mailbox: Mailbox) -> None:
        super().__init__(handle)
        self._mailbox = mailbox
        self.value: str | None = None

    def take(self) -> str:
        if self.value is None:
            raise Busy("no message has arrived", hint="wait for the future first")
        return self.value

    def forget(self) -> None:
        self._mailbox.give_back(self)


class Mailbox:
    """Messages in order; each goes to one receive, the oldest waiting first."""

    def __init__(self, notify: Callable[[int], None]) -> None:
        self._notify = notify
        self._messages: deque[str] = deque()
        self._waiting: deque[Receive] = deque()
        self._last_seq = 0

    def deliver(self, seq: int, value: str) -> None:
        """A message of the client; one that was delivered before is ignored."""
        if seq > self._last_seq:
            self._last_seq = seq
            self._messages.append(value)
            self._match()

    def post(self, value: str) -> None:
        """A message of the parent, which does not outlive this host either."""
        self._messages.append(value)
        self._match()

    def wait(self, receive: Receive) -> None:
        self._waiting.append(receive)
        self._match()

    def give_back(self, receive: Receive) -> None:
        """The program does not want it any more; what it had claimed is the next message again."""
        if receive.value is None:
            self._waiting.remove(receive)
        else:
            self._messages.appendleft(receive.value)
            self._match()

    def _match(self) -> None:
        while self._messages and self._waiting:
            receive = self._waiting.popleft()
            receive.value = self._messages.popleft()
            self._notify(receive.handle)


class Drain(Future):
    """One `session.drain`: ready when a client has seen everything up to `seq`."""

    kind = "a drain"
    of_client = "to read what was sent"

    def __init__(self, handle: int, seq: int) -> None:
        super().__init__(handle)
        self.seq = seq
        self.is_done = False
