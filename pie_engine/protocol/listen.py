"""Where the API listens besides the Unix socket."""

from __future__ import annotations

import ipaddress

from pie_engine.errors import InvalidConfig


def listen_address(listen: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`. Raises `InvalidConfig` for anything but loopback."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not (port.isascii() and port.isdigit() and int(port) < 1 << 16) or not _is_loopback(host):
        raise InvalidConfig(
            f"`gateway.listen` is `{listen}`; it must be a loopback address and a port", hint="like `127.0.0.1:8080`"
        )
    return host, int(port)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
