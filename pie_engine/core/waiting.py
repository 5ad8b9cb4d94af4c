"""Who waits for KV pages, and who has to hear of it."""

from __future__ import annotations

NOTICE_AFTER_S = 1.0
"""A shorter wait is nobody's business."""
NOTICE_EVERY_S = 60.0
"""Programs that take turns on the same pages wait all the time: one notice in so long says it."""


class PageWait:
    """Of one process."""

    __slots__ = ("_is_told", "_since", "_told_at")

    def __init__(self) -> None:
        self._since: float | None = None
        self._is_told = False
        self._told_at = -NOTICE_EVERY_S

    def is_news(self, num_needed: int, now: float) -> bool:
        """Whether its host has to hear that it waits for `num_needed` pages; 0: it does not. Once for each wait, and
        not for the next ones of a minute."""
        if not num_needed:
            self._since, self._is_told = None, False
            return False
        if self._since is None:
            self._since = now
        if self._is_told or now - self._since < NOTICE_AFTER_S or now - self._told_at < NOTICE_EVERY_S:
            return False
        self._is_told, self._told_at = True, now
        return True
