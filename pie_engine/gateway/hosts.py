"""The hosts that have registered, and who gets the next process."""

from __future__ import annotations

from pie_engine.protocol.to_gateway import HostStats


class Host:
    def __init__(self, boot_id: str, name: str) -> None:
        self.boot_id = boot_id
        self.name = name
        self.pids: set[str] = set()
        """What it was given and has not ended, as far as is stored."""
        self.stats: HostStats | None = None


class HostPool:
    """Registered hosts by boot id."""

    def __init__(self, max_processes_per_host: int) -> None:
        self._max_processes = max_processes_per_host
        self._hosts: dict[str, Host] = {}

    def __contains__(self, boot_id: str) -> bool:
        return boot_id in self._hosts

    @property
    def boot_ids(self) -> list[str]:
        return list(self._hosts)

    @property
    def all(self) -> list[Host]:
        return list(self._hosts.values())

    def get(self, boot_id: str) -> Host | None:
        return self._hosts.get(boot_id)

    def add(self, boot_id: str, name: str) -> Host:
        return self._hosts.setdefault(boot_id, Host(boot_id, name))

    def remove(self, boot_id: str) -> None:
        self._hosts.pop(boot_id, None)

    def least_loaded(self) -> Host | None:
        return min(self._hosts.values(), key=lambda host: len(host.pids), default=None)

    def pick(self) -> Host | None:
        """The least loaded host that has room; None: wait in the queue."""
        host = self.least_loaded()
        return host if host is not None and len(host.pids) < self._max_processes else None

    def release(self, boot_id: str | None, pid: str) -> None:
        host = self._hosts.get(boot_id or "")
        if host is not None:
            host.pids.discard(pid)
