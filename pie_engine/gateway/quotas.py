"""What users may have of the market: credits of their processes, and how many of these at once."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterable

from pie_engine.config import SchedulingSection
from pie_engine.errors import InvalidInput, LimitExceeded
from pie_engine.gateway.process import Process
from pie_engine.protocol.credits import CREDIT, endowment_of, shown

HOUR_S = 3600.0


class Quotas:
    """As configured, and what was given within the last hour."""

    def __init__(self, scheduling: SchedulingSection, given: Iterable[tuple[str, float, int]] = ()) -> None:
        """`given`: user, time and micro-credits of the launches so far, the oldest first."""
        self._scheduling = scheduling
        self._given: defaultdict[str, deque[tuple[float, int]]] = defaultdict(deque)
        for user, at, amount in given:
            self.give(user, amount, at)

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

    def give(self, user: str, amount: int, now: float | None = None) -> None:
        """The user's processes have got `amount` micro-credits."""
        if self._scheduling.quota_of(user).credits_per_hour:
            self._given[user].append((time.time() if now is None else now, amount))

    def check_room(self, user: str, endowment: int, alive: Iterable[Process]) -> None:
        """For one process more, with so many micro-credits. Raises `LimitExceeded` with the numbers."""
        quota = self._scheduling.quota_of(user)
        if quota.credits_per_hour:
            self.check_hour(user, endowment)
        if quota.max_processes:
            self._check_count(user, quota.max_processes, alive)

    def check_hour(self, user: str, amount: int) -> None:
        """Whether the user's processes may have `amount` micro-credits more now. Raises `LimitExceeded`."""
        most, given, now = (
            round(self._scheduling.quota_of(user).credits_per_hour * CREDIT),
            self._given[user],
            time.time(),
        )
        if not most:
            return
        while given and given[0][0] <= now - HOUR_S:
            given.popleft()
        total = sum(each for _, each in given)
        if total + amount <= most:
            return
        freed, wait_s = 0, HOUR_S
        for at, each in given:
            freed += each
            if total - freed + amount <= most:
                wait_s = at + HOUR_S - now
                break
        later = f"try again in {max(wait_s / 60, 1):.0f} min, " if amount <= most else ""
        raise LimitExceeded.of(
            "queue_limit",
            f"processes of `{user}` were given {shown(total)} credits within the last hour, and {shown(amount)} more "
            f"would be above {shown(most)}",
            hint=f"{shown(max(most - total, 0))} are left: ask for less, {later}or raise "
            f"`scheduling.users.{user}.credits_per_hour`",
        )

    def _check_count(self, user: str, most: int, alive: Iterable[Process]) -> None:
        num_alive = sum(process.record.user == user for process in alive)
        if num_alive >= most:
            raise LimitExceeded.of(
                "queue_limit",
                f"{num_alive} processes of `{user}` are running or queued, and {most} is the most",
                hint=f"try again when some have ended, or raise `scheduling.users.{user}.max_processes`",
            )
