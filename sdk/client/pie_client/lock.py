"""Whether the daemon of a home lives, as its lock file tells."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path


def is_held(lock: Path) -> bool:
    """Whether a daemon that lives holds this lock file."""
    try:
        os.kill(json.loads(lock.read_text())["os_pid"], 0)
        file = lock.open()
    except (OSError, ValueError, KeyError, TypeError):
        return False
    # Tried only when its writer is there: a daemon that is just starting must not find the lock taken by us. The
    # process alone says too little: a dead one stays in the table until its parent has looked.
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
