"""The home folder: made, checked and locked before anything starts."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

import msgspec

from pie_engine.config import MIB, Paths
from pie_engine.errors import Busy, InvalidConfig
from pie_engine.locks import try_lock

MIN_FREE_BYTES = 32 * MIB


class Instance(msgspec.Struct, frozen=True):
    """What the daemon's lock file says about who holds it."""

    os_pid: int
    instance: str
    """Another for every daemon: tells a gateway that was started again from one of a new daemon."""


class DaemonLock:
    """Held as long as this process lives; the system lets go of it whatever way the process ends."""

    def __init__(self, path: Path) -> None:
        """Raises `Busy` when another daemon of this home is alive."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not try_lock(self._descriptor):
            os.close(self._descriptor)
            raise Busy(f"a daemon of {path.parent} is already running", hint="use it, or end it with `pie stop`")
        self.instance = Instance(os.getpid(), secrets.token_hex(8))
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, msgspec.json.encode(self.instance), 0)

    def release(self) -> None:
        os.close(self._descriptor)


def prepare_home(paths: Paths) -> None:
    """Makes the folders, for this user only. Raises `InvalidConfig` naming the folder and what is wrong with it."""
    for folder in (paths.home, paths.run, paths.logs):
        _make_private(folder)
    _check_writable(paths.home)
    free = shutil.disk_usage(paths.home).free
    if free < MIN_FREE_BYTES:
        raise InvalidConfig(
            f"the disk of {paths.home} is full: {free // MIB} MiB free, {MIN_FREE_BYTES // MIB} MiB needed",
            hint="make room, or set PIE_HOME to a folder on another disk",
        )


def remove_stale_files(paths: Paths) -> None:
    """What a daemon or a core that was killed left behind. Call it with the lock held."""
    for pattern in ("*.sock", "kv-regions-*.json"):
        for file in paths.run.glob(pattern):
            file.unlink(missing_ok=True)


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Sockets and logs are the user's own, also in a folder that was there before.
        folder.chmod(0o700)
    except OSError as error:
        raise _unusable(folder, error) from error
    if folder.stat().st_uid != os.getuid():
        raise InvalidConfig(f"{folder} belongs to another user", hint="set PIE_HOME to a folder of your own")


def _check_writable(folder: Path) -> None:
    probe = folder / f".probe-{os.getpid()}"
    try:
        probe.write_bytes(b"pie")
        probe.unlink()
    except OSError as error:
        raise _unusable(folder, error) from error


def _unusable(folder: Path, error: OSError) -> InvalidConfig:
    return InvalidConfig(
        f"cannot write to {folder}: {error.strerror or error}", hint="set PIE_HOME to a folder that you can write to"
    )
