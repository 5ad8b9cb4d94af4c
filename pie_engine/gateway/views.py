"""What is answered to who looks: health, models, numbers, processes."""

from __future__ import annotations

import os
import time
from functools import cached_property
from pathlib import Path

from pie_engine.config import EngineConfig
from pie_engine.gateway.activity import activity_of
from pie_engine.gateway.exchange import Exchange
from pie_engine.gateway.hosts import HostPool
from pie_engine.gateway.process import Process
from pie_engine.gateway.table import ProcessTable
from pie_engine.protocol.http import Health, HealthStatus, MemberView, ProcessView
from pie_engine.protocol.to_daemon import Member
from pie_engine.protocol.to_gateway import CoreStats
from pie_engine.protocol.version import PROTOCOL_VERSION, pie_version
from pie_engine.store.store import Store


class Views:
    """Snapshots of the engine for people and programs that watch it."""

    def __init__(
        self, config: EngineConfig, exchange: Exchange, hosts: HostPool, table: ProcessTable, store: Store
    ) -> None:
        self._exchange = exchange
        self._hosts = hosts
        self._table = table
        self._store = store
        self.daemon_began = _daemon_start(config.paths.daemon_lock)
        """In seconds since the epoch."""
        self._daemon_os_pid = os.getppid()

    def health(self) -> Health:
        members = self._exchange.members
        return Health(
            status=status_of(members, self._exchange.incidents, bool(self._hosts.boot_ids)),
            version=self._version,
            protocol=PROTOCOL_VERSION,
            os_pid=os.getpid(),
            daemon_os_pid=self._daemon_os_pid,
            uptime_s=time.time() - self.daemon_began,
            members=[_view(member) for member in members],
            incidents=self._exchange.incidents,
        )

    @cached_property
    def _version(self) -> str:
        return pie_version()

    def process(self, process: Process) -> ProcessView:
        usage = self._exchange.usage_of(process.pid)
        own = self._hosts.activity(process.host_boot, process.pid)
        return process.view(usage, activity_of(process, own, usage.state if usage else "", time.time()))

    def processes(self, user: str, with_ended: bool, limit: int) -> list[ProcessView]:
        """Those alive in the order of their launch, or, with the ended ones, everything with the newest first."""
        alive = [self.process(process) for process in self._table.alive if process.record.user == user]
        if not with_ended:
            return alive
        ended = [Process(record).view() for record in self._store.ended(user, limit)]
        return sorted(alive + ended, key=lambda view: view.created, reverse=True)[:limit]

    def models(self) -> list[dict[str, object]]:
        """What each core says of itself, with its newest numbers."""
        models = []
        for member in self._exchange.members:
            if member.role == "core":
                stats = self._exchange.numbers.get(member.boot_id)
                pages = {} if stats is None else _page_numbers(stats)
                models.append({"name": member.name, "ready": member.is_ready, **member.detail, **pages})
        return models


def status_of(members: list[Member], incidents: list[str], has_host: bool) -> HealthStatus:
    """`ok`: everybody is there and a program can be launched. `degraded`: somebody has died or cannot start."""
    if any("failed" in member.detail for member in members):
        return "degraded"
    # A host for components comes and goes as it is needed.
    if members and has_host and all(member.is_ready for member in members if not member.user):
        return "ok"
    return "degraded" if incidents else "starting"


def _page_numbers(stats: CoreStats) -> dict[str, object]:
    device = ("num_pages", "num_free_pages", "num_cached_pages", "num_page_hits", "num_page_misses")
    host = ("num_host_pages", "num_used_host_pages", "num_page_returns")
    return {name: getattr(stats, name) for name in (*device, *host)}


def _view(member: Member) -> MemberView:
    # Whoever asks for hosts means those that run any program.
    role = "components" if member.user else member.role
    return MemberView(role, member.name, member.is_ready, member.os_pid, member.detail)


def _daemon_start(lock: Path) -> float:
    """The daemon wrote its lock file when it started."""
    try:
        return lock.stat().st_mtime
    except OSError:
        return time.time()
