"""The hosts that have registered, and who gets the next process.

Processes stand in lanes: all Python programs in one, the standalone components of each user in one of their own. What
runs in one lane cannot hold up another.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from pie_engine.protocol.program import Bundle, Manifest
from pie_engine.protocol.to_gateway import Activity, HostStats
from pie_engine.protocol.to_host import KEPT_COMPONENTS

PYTHON = ""
"""The lane of Python programs; the others are named by their user."""
NOTHING_SAID = Activity()


def lane_of(manifest: Manifest, user: str) -> str:
    return user if manifest.runtime == "component" else PYTHON


class Host:
    def __init__(self, boot_id: str, name: str, lane: str = PYTHON) -> None:
        self.boot_id = boot_id
        self.name = name
        self.lane = lane
        self.pids: set[str] = set()
        """What it was given and has not ended, as far as is stored."""
        self.stats: HostStats | None = None
        self.activities: dict[str, Activity] = {}
        """Of those of `pids` that it has said something of."""
        self._kept: OrderedDict[str, None] = OrderedDict()
        """Components that it keeps, the oldest first."""

    def take(self, stats: HostStats) -> None:
        """Its newest numbers; what it does not say of a process is as before."""
        self.stats = stats
        self.activities |= {pid: each for pid, each in stats.activities.items() if pid in self.pids}

    def parcel(self, digest: str, bundle: Bundle) -> Bundle:
        """What the host is sent next of a bundle: nothing but the manifest of a component that it keeps."""
        if bundle.manifest.runtime != "component":
            return bundle
        is_kept = digest in self._kept
        self._kept[digest] = None
        self._kept.move_to_end(digest)
        if len(self._kept) > KEPT_COMPONENTS:
            self._kept.popitem(last=False)
        return Bundle(bundle.manifest) if is_kept else bundle


class HostPool:
    """Registered hosts by boot id."""

    def __init__(self, max_processes_per_host: int) -> None:
        self._max_processes = max_processes_per_host
        self._hosts: dict[str, Host] = {}
        self.need: Callable[[str], None] = lambda lane: None
        """Called when a lane of components has no host."""

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

    def activity(self, boot_id: str | None, pid: str) -> Activity:
        """What a host has said last of a process."""
        host = self._hosts.get(boot_id or "")
        return NOTHING_SAID if host is None else host.activities.get(pid, NOTHING_SAID)

    def add(self, boot_id: str, name: str, lane: str = PYTHON) -> Host:
        return self._hosts.setdefault(boot_id, Host(boot_id, name, lane))

    def remove(self, boot_id: str) -> None:
        self._hosts.pop(boot_id, None)

    def least_loaded(self, lane: str = PYTHON) -> Host | None:
        """None: there is none yet; one has been asked for."""
        hosts = [host for host in self._hosts.values() if host.lane == lane]
        if not hosts and lane != PYTHON:
            self.need(lane)
        return min(hosts, key=lambda host: len(host.pids), default=None)

    def pick(self, lane: str = PYTHON) -> Host | None:
        """The least loaded host that has room; None: wait in the queue."""
        host = self.least_loaded(lane)
        return host if host is not None and self.has_room(host) else None

    def has_room(self, host: Host) -> bool:
        return len(host.pids) < self._max_processes

    def release(self, boot_id: str | None, pid: str) -> None:
        host = self._hosts.get(boot_id or "")
        if host is not None:
            host.pids.discard(pid)
            host.activities.pop(pid, None)
