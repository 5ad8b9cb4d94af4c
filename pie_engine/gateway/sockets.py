"""The listening sockets: the user's Unix socket, and TCP on loopback if it is asked for."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from pathlib import Path

from pie_engine.errors import InvalidConfig

BACKLOG = 2048


class ApiSocket:
    """The Unix socket that clients connect to. It appears at its path ready to be used, replacing what is there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        new = path.with_name(f"{path.name}.{os.getpid()}")
        new.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Between bind and chmod nobody else gets in: the folder is private, too.
        self.socket.bind(str(new))
        new.chmod(0o600)
        self.socket.listen(BACKLOG)
        self._inode = new.stat().st_ino
        new.replace(path)

    def remove(self) -> None:
        """Unless a successor has already replaced it."""
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()


def tcp_socket(listen: str) -> socket.socket:
    """Of `HOST:PORT`. Raises `InvalidConfig` for anything but loopback, and for a port that is taken."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdigit() or not _is_loopback(host):
        raise InvalidConfig(
            f"`gateway.listen` is `{listen}`; it must be a loopback address and a port", hint="like `127.0.0.1:8080`"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, int(port)))
    except (OSError, OverflowError) as error:
        listening.close()
        raise InvalidConfig(f"cannot listen on {listen}: {error}", hint="set another `gateway.listen`") from error
    listening.listen(BACKLOG)
    return listening


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
