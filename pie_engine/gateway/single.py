"""One gateway at a time writes to a home."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pie_engine.errors import Busy
from pie_engine.locks import try_lock

PATIENCE_S = 15.0
POLL_S = 0.02


class SingleGateway:
    """Held as long as this process lives.

    After the daemon was killed, its gateway needs a moment to notice. What it still promised to clients in that moment
    must be in the database before the next one reads there what was lost.
    """

    def __init__(self, path: Path) -> None:
        """Waits for an earlier gateway to end. Raises `Busy` when it does not."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        end = time.monotonic() + PATIENCE_S
        while not try_lock(self._descriptor):
            if time.monotonic() > end:
                os.close(self._descriptor)
                raise Busy(f"another gateway holds {path}", hint="end it, or set another PIE_HOME")
            time.sleep(POLL_S)

    def release(self) -> None:
        os.close(self._descriptor)
