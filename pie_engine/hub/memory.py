"""Memory that a model needs, and what this machine has."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pie_engine.config import MIB
from pie_engine.errors import ModelError

WORK_BYTES = 256 * MIB
"""For activations and the rest of the core, besides weights and KV pages."""


@dataclass(frozen=True, slots=True)
class Need:
    """Memory of a loaded model, in bytes."""

    weights: int
    kv: int
    draft: int = 0
    """Weights and KV pages of its draft model."""

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.draft + WORK_BYTES

    def fits(self, available: int) -> bool:
        return self.total <= available

    def __str__(self) -> str:
        weights, kv, work = mib(self.weights), mib(self.kv), WORK_BYTES // MIB
        draft = f"{mib(self.draft)} for the draft model, " if self.draft else ""
        return f"{mib(self.total)} MiB ({weights} for weights, {kv} for KV pages, {draft}{work} for the work)"


def check_fits(label: str, need: Need, available: int, *, dtype: str, smaller: tuple[str, ...] = ()) -> None:
    """Raises `ModelError` with the numbers when it does not fit; `smaller` are settings that need less for weights."""
    if need.fits(available):
        return
    ways = list(smaller)
    left = available - need.weights - need.draft - WORK_BYTES
    if left >= MIB:
        ways.insert(0, f"kv_memory_mb = {left // MIB} or less")
    if need.draft:
        ways.append('draft_model = ""')
    raise ModelError(
        f"{label} needs {need} in {dtype}; {available // MIB} MiB are available",
        hint=f"set {', or '.join(ways)}" if ways else "use a smaller model, or free memory",
    )


def mib(num_bytes: int) -> int:
    """Rounded up."""
    return -(-num_bytes // MIB)


def available_bytes(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory that can be had without swapping, within the container's limit; all of it where no one tells."""
    return int(min(_machine_bytes(meminfo), _container_bytes(cgroup)))


def _machine_bytes(meminfo: Path) -> int:
    if meminfo.is_file():
        return _fields(meminfo)["MemAvailable:"] << 10
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _container_bytes(cgroup: Path) -> float:
    """What the cgroup (v2) of this process may still take; its cached files can be dropped."""
    limit = cgroup / "memory.max"
    if not limit.is_file() or (most := limit.read_text().strip()) == "max":
        return float("inf")
    used = int((cgroup / "memory.current").read_text()) - _fields(cgroup / "memory.stat")["inactive_file"]
    return max(int(most) - used, 0)


def _fields(path: Path) -> dict[str, int]:
    return {words[0]: int(words[1]) for words in map(str.split, path.read_text().splitlines()) if len(words) > 1}
