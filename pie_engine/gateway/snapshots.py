"""Makes `Snapshot`s: what cores and hosts have said last, beside what the gateway knows itself."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec

from pie_engine.gateway.activity import activity_of
from pie_engine.gateway.exchange import Exchange
from pie_engine.gateway.hosts import Host, HostPool
from pie_engine.gateway.process import Process
from pie_engine.gateway.table import ProcessTable
from pie_engine.protocol.stats import (
    Histogram,
    HostState,
    ModelState,
    Pages,
    ProgramState,
    Requests,
    Snapshot,
)
from pie_engine.protocol.to_daemon import Member
from pie_engine.protocol.to_gateway import CoreStats, ProcessUsage
from pie_engine.protocol.version import pie_version

PEAK_OF_S = 1.0
"""A single snapshot says the peak of the last second."""

Used = dict[str, list[tuple[str, ProcessUsage]]]
"""By pid: what it has in each model."""


class Snapshots:
    """Of the whole engine, for one user: others' programs are not in them."""

    def __init__(self, boot: str, began: float, exchange: Exchange, hosts: HostPool, table: ProcessTable) -> None:
        """`boot`: of the gateway. `began`: when the daemon did, in seconds since the epoch."""
        self._boot, self._began = boot, began
        self._exchange, self._hosts, self._table = exchange, hosts, table
        self._version = pie_version()

    def take(self, user: str, since: float | None = None) -> Snapshot:
        """How things are now. `since`: when the snapshot before was taken, for the peaks."""
        now = time.time()
        since = now - PEAK_OF_S if since is None else since
        numbers, members = self._exchange.numbers, self._exchange.members
        used: Used = defaultdict(list)
        for model, usage in numbers.usages():
            used[usage.pid].append((model, usage))
        alive = [process for process in self._table.alive if process.record.user == user]
        return Snapshot(
            at=now,
            boot=self._boot,
            uptime_s=now - self._began,
            pie=self._version,
            models=tuple(self._model(member, since) for member in members if member.role == "core"),
            hosts=tuple(_host(host) for host in self._hosts.all),
            programs=tuple(state for each in alive for state in self._programs(each, used.get(each.pid, ()), now)),
            requests=self._requests(),
            incidents=tuple(self._exchange.incidents),
        )

    def _model(self, member: Member, since: float) -> ModelState:
        detail, boot_id = member.detail, member.boot_id or ""
        state = ModelState(
            name=member.name,
            boot=boot_id,
            ready=member.is_ready,
            driver=str(detail.get("driver", "")),
            device=str(detail.get("device", "")),
            dtype=str(detail.get("dtype", "")),
        )
        stats = self._exchange.numbers.get(boot_id)
        if stats is None:
            return state
        peak = self._exchange.numbers.peak_since(boot_id, since)
        return msgspec.structs.replace(
            state,
            uptime_s=stats.uptime_s,
            cpu_s=stats.cpu_s,
            rss_bytes=stats.rss_bytes,
            device_use=stats.device_use,
            device_memory_bytes=stats.device_memory_bytes,
            batches=msgspec.structs.replace(stats.batches, peak_sequences=peak),
            num_looked_tokens=self._exchange.numbers.looked_tokens(boot_id),
            pages=_pages(stats, detail),
            market=stats.market,
        )

    def _programs(self, process: Process, used: Iterable[tuple[str, ProcessUsage]], now: float) -> list[ProgramState]:
        """One for each model that it uses."""
        record, own = process.record, self._hosts.activity(process.host_boot, process.pid)
        common = (process.pid, record.user, record.program, record.version)
        created, host, parent = record.created, process.host or "", record.parent or ""
        found = []
        for model, usage in used:
            state, why = _state_and_reason(activity_of(process, own, usage.state, now))
            found.append(
                ProgramState(
                    *common,
                    state=state,
                    created=created,
                    model=model,
                    host=host,
                    waits_for=why,
                    num_contexts=usage.num_contexts,
                    num_pages=usage.num_pages,
                    num_shared_pages=usage.num_shared_pages,
                    num_host_pages=usage.num_host_pages,
                    num_prompt=usage.num_prompt,
                    num_cached=usage.num_cached,
                    num_generated=usage.num_tokens,
                    num_drafted=usage.num_drafted,
                    num_accepted=usage.num_accepted,
                    num_batch_tokens=usage.num_batch_tokens,
                    bid=usage.bid,
                    balance=usage.balance,
                    endowment=usage.endowment,
                    rent=usage.rent,
                    dividends=usage.dividends,
                    num_made=usage.num_made,
                    num_moved_out=usage.num_moved_out,
                    parent=parent,
                )
            )
        if not found:
            state, why = _state_and_reason(activity_of(process, own, "", now))
            found.append(ProgramState(*common, state=state, created=created, host=host, waits_for=why, parent=parent))
        return found

    def _requests(self) -> Requests:
        counts = self._table.counts
        cores = [stats for member in self._exchange.members if (stats := self._exchange.numbers.get(member.boot_id))]
        states = [process.state for process in self._table.alive]
        return Requests(
            num_launched=counts.num_launched,
            num_queued=states.count("queued"),
            num_running=len(states) - states.count("queued"),
            num_returned=counts.num_returned,
            num_failed=counts.errors.total(),
            errors=dict(counts.errors),
            ttft_s=added(stats.ttft_s for stats in cores),
            tpot_s=added(stats.tpot_s for stats in cores),
            queue_s=counts.queue.histogram,
        )


def added(histograms: Iterable[Histogram | None]) -> Histogram | None:
    """Several with the same bounds as one; None: there is none."""
    found = [histogram for histogram in histograms if histogram is not None]
    if not found:
        return None
    counts = tuple(sum(column) for column in zip(*(each.counts for each in found), strict=True))
    return Histogram(found[0].bounds, counts, sum(each.sum for each in found))


def _pages(stats: CoreStats, detail: dict[str, Any]) -> Pages:
    return Pages(
        page_size=int(detail.get("page_size", 0)),
        num_pages=stats.num_pages,
        num_free=stats.num_free_pages,
        num_cached=stats.num_cached_pages,
        num_host=stats.num_host_pages,
        num_used_host=stats.num_used_host_pages,
        num_hits=stats.num_page_hits,
        num_misses=stats.num_page_misses,
        num_preemptions=stats.num_preemptions,
        num_returns=stats.num_page_returns,
    )


def _host(host: Host) -> HostState:
    state = HostState(host.name, host.boot_id)
    said = host.stats
    if said is None:
        return state
    return msgspec.structs.replace(
        state, num_running=said.num_running, num_warm=said.num_warm, cpu_s=said.cpu_s, rss_bytes=said.rss_bytes
    )


def _state_and_reason(activity: str) -> tuple[str, str]:
    state, _, why = activity.partition(" (")
    return state, why.removesuffix(")")
