"""Which daemon of a home lives, as its lock file tells."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path


def holder(lock: Path) -> int | None:
    """The process id of the daemon that holds this lock file; None: none does."""
    try:
        os_pid: int = json.loads(lock.read_text())["os_pid"]
        os.kill(os_pid, 0)
        file = lock.open()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # Tried only when its writer is there: a daemon that is just starting must not find the lock taken by us. The
    # process alone says too little: a dead one stays in the table until its parent has looked.
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os_pid
    return None
