"""What the cores say of themselves: the newest of each, put together of what came in parts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import msgspec

from pie_engine.protocol.stats import MAX_INTERVAL_MS, MIN_INTERVAL_MS
from pie_engine.protocol.to_gateway import CoreStats, ProcessUsage

_MAX_PEAKS = MAX_INTERVAL_MS // MIN_INTERVAL_MS + 1


class CoreNumbers:
    """By boot id of the core."""

    def __init__(self) -> None:
        self._newest: dict[str, CoreStats] = {}
        self._looked_tokens: dict[str, int] = {}
        """Tokens that each core had run when it looked at its processes."""
        self._peaks: dict[str, deque[tuple[float, int]]] = {}
        """When each of the last reports came, and most rows of a step since the one before."""
        self.on_new: Callable[[str], None] = lambda boot_id: None
        """Called when a core speaks for the first time."""

    def take(self, boot_id: str, stats: CoreStats, now: float) -> None:
        before = self._newest.get(boot_id)
        if stats.processes is None:
            stats = msgspec.structs.replace(stats, processes=[] if before is None else before.processes)
        else:
            self._looked_tokens[boot_id] = stats.batches.num_tokens
        self._newest[boot_id] = stats
        self._peaks.setdefault(boot_id, deque(maxlen=_MAX_PEAKS)).append((now, stats.batches.peak_sequences))
        if before is None:
            self.on_new(boot_id)

    def forget(self, boot_id: str) -> None:
        self._newest.pop(boot_id, None)
        self._looked_tokens.pop(boot_id, None)
        self._peaks.pop(boot_id, None)

    def get(self, boot_id: str) -> CoreStats | None:
        return self._newest.get(boot_id)

    def looked_tokens(self, boot_id: str) -> int:
        """Tokens of all kinds that had run when the newest numbers of its processes were made."""
        return self._looked_tokens.get(boot_id, 0)

    def peak_since(self, boot_id: str, since: float) -> int:
        """Most rows of a step that was reported after `since`; if nothing was, of the last report."""
        peaks = self._peaks.get(boot_id)
        if not peaks:
            return 0
        return max((peak for at, peak in peaks if at > since), default=peaks[-1][1])

    def usages(self) -> Iterator[tuple[str, ProcessUsage]]:
        """Of all processes, with the name of the model."""
        for stats in self._newest.values():
            for usage in stats.processes or ():
                yield stats.model, usage
