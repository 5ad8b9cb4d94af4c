"""Locks of files, which the system lets go of whatever way a process ends."""

from __future__ import annotations

import fcntl
from typing import IO


def try_lock(file: int | IO[str]) -> bool:
    """Hold the lock of an open file alone, for as long as it is open; False: somebody else has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
