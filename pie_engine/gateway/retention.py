"""How long what has ended is kept, and what becomes of its place on the disk."""

from __future__ import annotations

import asyncio
import logging
import time

from pie_engine.gateway.programs import Programs
from pie_engine.gateway.table import ProcessTable
from pie_engine.protocol.http import Collected
from pie_engine.store.store import PRUNE_BATCH, Store

log = logging.getLogger(__name__)

DAY_S = 86400.0
BREATH_S = 0.05
"""Between two batches, for those who run."""


class Retention:
    """Deletes ended processes with their events, and the programs that nothing refers to any more."""

    def __init__(self, store: Store, table: ProcessTable, programs: Programs, days: float) -> None:
        self._store = store
        self._table = table
        self._programs = programs
        self._days = days

    async def keep(self, delay_s: float) -> None:
        """At the start and then daily, for as long as the gateway lives."""
        await asyncio.sleep(delay_s)
        while True:
            try:
                await self._prune(time.time() - self._days * DAY_S)
            except Exception:
                log.exception("cannot delete old processes")
            await asyncio.sleep(DAY_S)

    async def collect(self, older_than_s: float, *, is_dry: bool) -> Collected:
        """On request. The file gives its room back where no process is alive; else it is used again from within."""
        before = time.time() - older_than_s
        num_processes = self._store.num_ended(before)
        size = self._store.num_bytes
        if not is_dry:
            await self._prune(before)
            if self._table.is_empty:
                self._store.shrink()
        return Collected(num_processes, size, size if is_dry else self._store.num_bytes)

    async def _prune(self, before: float) -> None:
        while self._store.prune(before) == PRUNE_BATCH:
            await asyncio.sleep(BREATH_S)
        self._programs.forget_cached()
