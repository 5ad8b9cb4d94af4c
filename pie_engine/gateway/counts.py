"""What clients have asked for and got, since this gateway began."""

from __future__ import annotations

from collections import Counter

from pie_engine.ipc.tally import Tally


class Counts:
    """Grow only."""

    def __init__(self) -> None:
        self.num_launched = self.num_returned = 0
        self.errors: Counter[str] = Counter()
        """Processes that failed, by the code of their error."""
        self.queue = Tally()
        """Seconds from a launch to the start of its program."""

    def launched(self) -> None:
        self.num_launched += 1

    def started(self, after_s: float) -> None:
        self.queue.add(max(after_s, 0.0))

    def ended(self, outcome: str | None) -> None:
        """`return`, or the code of the error."""
        if outcome == "return":
            self.num_returned += 1
        else:
            self.errors[outcome or "error"] += 1
