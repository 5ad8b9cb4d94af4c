"""What a core holds in memory: weights, the KV pages that have been used, and the rest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pie_cli.checks.finding import Finding, title_of
from pie_engine.config import MIB, EngineConfig, Paths
from pie_engine.protocol.http import MemberView

REST_BYTES = 400 * MIB
"""What interpreter, libraries and work may take."""
_ENTRY_BYTES = 8
_PRESENT = 0x80
"""Bit 63 of an entry of `/proc/PID/pagemap` (https://docs.kernel.org/admin-guide/mm/pagemap.html)."""


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """All in bytes."""

    resident: int
    weights: int
    touched: int
    """Of what is reserved for KV pages: pages that nothing has been written to take no memory."""
    reserved: int

    @classmethod
    def of(cls, os_pid: int, weights: int, regions: Sequence[tuple[int, int]], proc: Path = Path("/proc")) -> MemoryUse:
        """`regions`: address and bytes of each part of the KV. Raises `OSError` where the system does not tell."""
        process = proc / str(os_pid)
        touched = sum(_touched_bytes(process, start, size) for start, size in regions)
        return cls(_resident_bytes(process), weights, touched, sum(size for _, size in regions))

    @property
    def rest(self) -> int:
        return self.resident - self.weights - self.touched


def limits(member: MemberView, config: EngineConfig) -> Finding | None:
    """How many KV pages a core has room for; None: it holds none, or is not there yet."""
    detail: dict[str, Any] = member.detail
    if not {"num_pages", "num_host_pages", "page_bytes"} <= detail.keys():
        return None
    num_pages, num_slots, page_bytes = detail["num_pages"], detail["num_host_pages"], detail["page_bytes"]
    text = (
        f"{title_of(member.role, member.name)} has room for {num_pages} KV pages "
        f"({num_pages * page_bytes // MIB} MiB), and for {num_slots} more in host memory "
        f"({num_slots * page_bytes // MIB} MiB)"
    )
    asked = next((each.offload_memory_mb for each in config.models if each.label == member.name), 0)
    if num_slots < asked * MIB // page_bytes:
        message = f"{text}: less than `offload_memory_mb` = {asked}, to leave half of what was free when it started"
        return Finding("memory", "note", message, "free some memory and `pie stop`; the next start takes more")
    return Finding("memory", "ok", text)


def check(member: MemberView, paths: Paths, proc: Path = Path("/proc")) -> Finding | None:
    """None where the system does not tell, on macOS say, and of what holds no KV."""
    try:
        regions = msgspec.json.decode(paths.kv_regions(member.os_pid).read_bytes(), type=list[tuple[int, int]])
        use = MemoryUse.of(member.os_pid, _weight_bytes(member.detail), regions, proc)
    except (OSError, msgspec.DecodeError):
        return None
    if not regions:
        return None
    text = (
        f"{title_of(member.role, member.name)} holds {use.resident // MIB} MiB of memory: "
        f"{use.weights // MIB} weights, {use.touched // MIB} of {use.reserved // MIB} for KV pages, "
        f"{use.rest // MIB} for the rest"
    )
    if use.rest > REST_BYTES:
        fix = "`pie stop --drain` gives it back; please report it where it comes again"
        return Finding("memory", "warning", f"{text}, which is more than {REST_BYTES // MIB}", fix)
    return Finding("memory", "ok", text)


def _weight_bytes(detail: dict[str, Any]) -> int:
    """Of the model and its draft model."""
    return sum(int(model.get("weight_bytes", 0)) for model in (detail, detail.get("draft_model", {})))


def _resident_bytes(process: Path) -> int:
    return int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _touched_bytes(process: Path, start: int, size: int) -> int:
    """How much of a region of its memory is there."""
    page_size = os.sysconf("SC_PAGE_SIZE")
    first, last = start // page_size, -(-(start + size) // page_size)
    with (process / "pagemap").open("rb") as file:
        file.seek(first * _ENTRY_BYTES)
        entries = file.read((last - first) * _ENTRY_BYTES)
    return page_size * sum(byte & _PRESENT != 0 for byte in entries[_ENTRY_BYTES - 1 :: _ENTRY_BYTES])
