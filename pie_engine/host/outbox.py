"""What goes to the gateway, and what has to go there again when there is a new one."""

from __future__ import annotations

from collections import OrderedDict

from pie_engine.host.events import EventLog
from pie_engine.protocol.to_gateway import Described, Generations, HostReport, LaunchChild, Registered, Settled

MAX_REMEMBERED_PIDS = 100_000


class Outbox:
    """Event logs of every process that runs, or whose events are not all stored."""

    def __init__(self) -> None:
        self._logs: dict[str, EventLog] = {}
        self._changed: dict[str, EventLog] = {}
        self._past_pids: OrderedDict[str, None] = OrderedDict()
        self._answers: list[Described | Generations | LaunchChild | Settled] = []

    def knows(self, pid: str) -> bool:
        """Whether this process was launched here, whenever that was."""
        return pid in self._logs or pid in self._past_pids

    def open(self, log: EventLog) -> None:
        """From here on its events go out."""
        self._logs[log.pid] = self._changed[log.pid] = log

    def changed(self, log: EventLog) -> None:
        """It has something to say; if it was never opened, nobody listens."""
        if log.pid in self._logs:
            self._changed[log.pid] = log

    def answer(self, answer: Described | Generations | LaunchChild | Settled) -> None:
        """Before the events of this turn."""
        self._answers.append(answer)

    def take(self) -> list[HostReport]:
        """Everything that is new."""
        reports: list[HostReport] = [*self._answers]
        self._answers.clear()
        for log in self._changed.values():
            reports += log.take_unsent()
        self._changed.clear()
        return reports

    def start_anew(self, paused: list[str]) -> list[HostReport]:
        """For a new gateway: who is here, who of them is paused, and every event that the one before may not have."""
        self._answers.clear()  # to what the one before had asked
        events = [event for log in self._logs.values() for event in log.unstored()]
        self._changed.clear()
        return [Registered(list(self._logs), paused), *events]

    def stored(self, pid: str, seq: int) -> None:
        """The gateway has everything of this process up to `seq`."""
        log = self._logs.get(pid)
        if log is None:
            return
        log.stored(seq)
        if log.is_stored:
            del self._logs[pid]
            self._past_pids[pid] = None
            if len(self._past_pids) > MAX_REMEMBERED_PIDS:
                self._past_pids.popitem(last=False)
