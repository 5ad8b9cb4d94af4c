"""What a core holds in memory: weights, the KV pages that have been used, and the rest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from pie_cli.checks.finding import Finding, title_of
from pie_engine.config import MIB, Paths
from pie_engine.protocol.http import MemberView

REST_BYTES = 400 * MIB
"""What interpreter, libraries and work may take."""
_ENTRY_BYTES = 8
_PRESENT = 0x80
"""Bit 63 of an entry of `/proc/PID/pagemap` (https://docs.kernel.org/admin-guide/mm/pagemap.html)."""


def check(member: MemberView, paths: Paths, proc: Path = Path("/proc")) -> Finding | None:
    """None where the system does not tell, on macOS say, and of what holds no KV."""
    detail: dict[str, Any] = member.detail
    try:
        regions = msgspec.json.decode(paths.kv_regions(member.os_pid).read_bytes(), type=list[tuple[int, int]])
        resident = _resident_bytes(proc / str(member.os_pid))
        touched = sum(_touched_bytes(proc / str(member.os_pid), start, size) for start, size in regions)
    except (OSError, ValueError, IndexError, msgspec.DecodeError):
        return None
    if not regions:
        return None
    weights, reserved = int(detail.get("weight_bytes", 0)), sum(size for _, size in regions)
    rest = resident - weights - touched
    text = (
        f"{title_of(member.role, member.name)} holds {resident // MIB} MiB of memory: {weights // MIB} weights, "
        f"{touched // MIB} of {reserved // MIB} for KV pages, {rest // MIB} for the rest"
    )
    if rest > REST_BYTES:
        return Finding("memory", "warning", f"{text}, which is more than {REST_BYTES // MIB}")
    return Finding("memory", "ok", text)


def _resident_bytes(process: Path) -> int:
    return int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _touched_bytes(process: Path, start: int, size: int) -> int:
    """How much of a region of its memory is there: pages that nothing has been written to take no memory."""
    page_size = os.sysconf("SC_PAGE_SIZE")
    first, last = start // page_size, -(-(start + size) // page_size)
    with (process / "pagemap").open("rb") as file:
        file.seek(first * _ENTRY_BYTES)
        entries = file.read((last - first) * _ENTRY_BYTES)
    return page_size * sum(byte & _PRESENT != 0 for byte in entries[_ENTRY_BYTES - 1 :: _ENTRY_BYTES])
