"""How long generations take, as programs feel it."""

from __future__ import annotations

from pie_engine.ipc.tally import Tally


class Latencies:
    """Of all generations of a core."""

    def __init__(self) -> None:
        self.ttft = Tally()
        """Seconds from their arrival to their first token."""
        self.tpot = Tally()
        """Seconds between two tokens, over the whole length of each."""
