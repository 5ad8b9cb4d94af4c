"""What users may have of the market: credits of their processes, and how many of these at once."""

from __future__ import annotations

from collections.abc import Iterable

from pie_engine.config import SchedulingSection
from pie_engine.errors import InvalidInput, LimitExceeded
from pie_engine.gateway.process import Process
from pie_engine.protocol.credits import CREDIT, endowment_of, shown


class Quotas:
    """As configured."""

    def __init__(self, scheduling: SchedulingSection) -> None:
        self._scheduling = scheduling

    def endowment(self, user: str, wish: float | None) -> int:
        """Micro-credits of a process of `user` that is launched with `wish` credits; None: what all get.

        Raises `InvalidInput` with the numbers for more than the user may have, and for what is no amount.
        """
        quota = self._scheduling.quota_of(user)
        endowment = endowment_of(quota.endowment if wish is None else wish)
        self._check(user, endowment)
        return endowment

    def more(self, process: Process, amount: int) -> int:
        """Micro-credits of the process with `amount` more. Raises `InvalidInput` as above."""
        if amount < 0:
            raise InvalidInput(f"credits can be given, not taken: {shown(amount)} is less than 0")
        self._check(process.record.user, process.endowment + amount)
        return process.endowment + amount

    def _check(self, user: str, endowment: int) -> None:
        most = self._scheduling.quota_of(user).max_endowment
        if endowment > most * CREDIT:
            raise InvalidInput(
                f"an endowment of {endowment / CREDIT:.10g} credits is more than the {most:.10g} that a process of "
                f"`{user}` may have",
                hint="ask for less, or raise `scheduling.max_endowment`, or that of the user, in the configuration",
            )

    def priority(self, user: str) -> int:
        return self._scheduling.quota_of(user).priority

    def check_room(self, user: str, alive: Iterable[Process]) -> None:
        """For one process more. Raises `LimitExceeded` with the numbers."""
        most = self._scheduling.quota_of(user).max_processes
        if not most:
            return
        num_alive = sum(process.record.user == user for process in alive)
        if num_alive >= most:
            raise LimitExceeded.of(
                "queue_limit",
                f"{num_alive} processes of `{user}` are running or queued, and {most} is the most",
                hint=f"try again when some have ended, or raise `scheduling.users.{user}.max_processes`",
            )
