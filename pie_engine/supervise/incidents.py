"""Deaths and what was done about them: one JSON object a line for `pie doctor`, one sentence for people."""

from __future__ import annotations

import time
from collections import deque

import msgspec

from pie_engine.supervise.logs import RotatingLog

NUM_RECENT = 20


class Incident(msgspec.Struct, frozen=True):
    """`reason` is like `killed by SIGKILL`, `exit status 1`; `action` like `started again`, `given up`."""

    time: float
    role: str
    name: str
    boot_id: str
    os_pid: int
    reason: str
    action: str
    stderr: list[str]
    code: str = ""
    """Of the error with which it could not start; empty: it did not say."""

    @property
    def sentence(self) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(self.time))
        return f"{clock} {self.role} {self.name} (process {self.os_pid}): {self.reason}; {self.action}"


class Incidents:
    """The file, and the newest ones in memory."""

    def __init__(self, log: RotatingLog) -> None:
        self._log = log
        self.recent: deque[str] = deque(maxlen=NUM_RECENT)

    def add(self, incident: Incident) -> None:
        self.recent.append(incident.sentence)
        self._log.write(msgspec.json.encode(incident) + b"\n")
