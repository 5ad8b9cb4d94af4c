"""Who waits for KV pages, and who has to hear of it."""

from __future__ import annotations

NOTICE_AFTER_S = 1.0
"""A shorter wait is nobody's business."""


class PageWait:
    """Of one process."""

    __slots__ = ("_is_told", "_since")

    def __init__(self) -> None:
        self._since: float | None = None
        self._is_told = False

    def is_news(self, num_needed: int, now: float) -> bool:
        """Whether its host has to hear, once for each wait, that it waits for `num_needed` pages; 0: it does not."""
        if not num_needed:
            self._since, self._is_told = None, False
            return False
        if self._since is None:
            self._since = now
        if self._is_told or now - self._since < NOTICE_AFTER_S:
            return False
        self._is_told = True
        return True
