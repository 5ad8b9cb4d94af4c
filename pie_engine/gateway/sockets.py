"""The listening sockets: the user's Unix socket, and TCP on loopback if it is asked for."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from pie_engine.errors import InvalidConfig
from pie_engine.protocol.listen import listen_address

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
    host, port = listen_address(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise InvalidConfig(f"cannot listen on {listen}: {error}", hint="set another `gateway.listen`") from error
    listening.listen(BACKLOG)
    return listening
