"""A place in the engine that one child after the other fills: the gateway, a host, a core."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pie_engine.errors import ErrorInfo
from pie_engine.protocol.to_daemon import Member, Progress, Role
from pie_engine.supervise.backoff import Backoff
from pie_engine.supervise.child import ChildProcess
from pie_engine.supervise.logs import RotatingLog

STARTING = Progress("starting")


class Seat:
    """What stays the same from one child to the next, and what is known of the one that is there."""

    def __init__(self, role: Role, name: str, command: Sequence[str], log: RotatingLog, user: str = "") -> None:
        """`user`: as in `Birth`."""
        self.role: Role = role
        self.name = name
        self.user = user
        self.command = command
        self.log = log
        self.backoff = Backoff()
        self.child: ChildProcess | None = None
        self.start_at: float | None = 0.0
        """When the next child is due; None: one is there, or none will come."""
        self.failed: ErrorInfo | None = None
        self.is_ready = False
        self._detail: dict[str, object] = {}

    def fill(self, child: ChildProcess) -> None:
        self.child, self.start_at = child, None
        self.is_ready = False
        self.show_progress(STARTING)

    def call(self) -> None:
        """Somebody is needed here: what had kept its children from starting may be gone."""
        if self.child is None and self.start_at is None:
            self.failed, self.backoff, self.start_at = None, Backoff(), 0.0

    def vacate(self) -> None:
        self.child = None
        self.is_ready = False
        self._detail = {}

    def show_progress(self, progress: Progress) -> None:
        self._detail = {"progress": {"text": progress.text, "fraction": progress.fraction}}

    def show_ready(self, detail: dict[str, object]) -> None:
        self.is_ready, self._detail = True, detail

    def member(self) -> Member:
        """As the others see it. Without a child it has no boot id, so nobody takes it for one that is alive."""
        child = self.child
        detail = self._detail if self.failed is None else {"failed": msgspec.to_builtins(self.failed)}
        if child is None:
            return Member(self.role, self.name, "", "", False, 0, detail, self.user)
        return Member(
            self.role, self.name, child.boot_id, child.address, self.is_ready, child.os_pid, detail, self.user
        )
