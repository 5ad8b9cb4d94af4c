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

    def news(self, num_needed: int, now: float) -> int | None:
        """What its host has to hear: the pages that it waits for, 0 when it waits no longer; None: nothing new.

        `num_needed`: that it waits for now; 0: it does not wait.
        """
        if not num_needed:
            was_told, self._since, self._is_told = self._is_told, None, False
            return 0 if was_told else None
        if self._since is None:
            self._since = now
        if self._is_told or now - self._since < NOTICE_AFTER_S:
            return None
        self._is_told = True
        return num_needed
