"""Is there room, and are the folders the user's own?"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from pie_cli.checks.finding import Finding
from pie_cli.daemon import running_daemon
from pie_engine.config import MIB, EngineConfig, Paths

LOW_BYTES = 512 * MIB
COLLECT = ("collect", "")
FULL_BYTES = 32 * MIB
"""With less the daemon refuses to start."""


def check(config: EngineConfig) -> list[Finding]:
    paths = config.paths
    return [_space(paths.home, "PIE_HOME"), *_cache(paths), *_folders(paths), *_left_behind(paths)]


def _space(folder: Path, variable: str) -> Finding:
    free = shutil.disk_usage(_existing(folder)).free
    text = f"{free // MIB} MiB free for {folder}"
    if free < FULL_BYTES:
        fix = f"make room, `pie gc` say, or set {variable} to another disk"
        return Finding("disk", "problem", f"the disk is full: {text}", fix, COLLECT)
    if free < LOW_BYTES:
        return Finding("disk", "warning", f"the disk is nearly full: {text}", "make room, `pie gc` say", COLLECT)
    return Finding("disk", "ok", text)


def _cache(paths: Paths) -> list[Finding]:
    """Whether things can be built there; its disk where that is another one."""
    place = _existing(paths.cache)
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        message = f"nothing can be written to the cache folder {paths.cache}"
        return [Finding("folders", "problem", message, "set PIE_CACHE to a folder of your own")]
    is_same = place.stat().st_dev == _existing(paths.home).stat().st_dev
    return [] if is_same else [_space(paths.cache, "PIE_CACHE")]


def _folders(paths: Paths) -> list[Finding]:
    """Home, sockets and logs belong to this user, and nobody else looks in."""
    return [finding for folder in (paths.home, paths.run, paths.logs) if (finding := _folder(folder))]


def _folder(folder: Path) -> Finding | None:
    if not folder.exists():
        return None
    if not folder.is_dir():
        return Finding("folders", "problem", f"{folder} is not a folder", "set PIE_HOME to a folder")
    status = folder.stat()
    if status.st_uid != os.getuid():
        return Finding(
            "folders", "problem", f"{folder} belongs to another user", "set PIE_HOME to a folder of your own"
        )
    private = ("make_private", str(folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding("folders", "problem", f"{folder} cannot be written", f"chmod u+rwx {folder}", private)
    if stat.S_IMODE(status.st_mode) & 0o077:
        return Finding("folders", "warning", f"others can look into {folder}", f"chmod go= {folder}", private)
    return None


def _left_behind(paths: Paths) -> list[Finding]:
    """A socket without a daemon: one that was killed. The next start clears it away."""
    if not paths.api_socket.exists() or running_daemon(paths) is not None:
        return []
    message = f"a killed daemon left {paths.api_socket}; the next start removes it"
    return [Finding("socket", "note", message, repair=("remove_socket", str(paths.api_socket)))]


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())
