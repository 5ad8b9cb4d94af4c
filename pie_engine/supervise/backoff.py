"""When a child that died is started again."""

from __future__ import annotations

from collections import deque

DELAYS_S = (0.0, 0.5, 1.0, 2.0)
"""After the first death, the second, …; one more within the window and it stays down."""
WINDOW_S = 60.0


class Backoff:
    """Counts deaths within a sliding window."""

    def __init__(self) -> None:
        self._deaths: deque[float] = deque()

    @property
    def num_deaths(self) -> int:
        """Within the window, as of the last death."""
        return len(self._deaths)

    def delay_after_death(self, now: float) -> float | None:
        """Seconds to wait before the next start; None: give up."""
        self._deaths.append(now)
        while self._deaths[0] <= now - WINDOW_S:
            self._deaths.popleft()
        return DELAYS_S[self.num_deaths - 1] if self.num_deaths <= len(DELAYS_S) else None
