"""An hour of snapshots in a minute, and memory that stays flat."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import pytest

from tests.tui.monitor_rig import shown

HOUR_S = 3600


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_an_hour_leaves_no_memory_behind(tmp_path: Path) -> None:
    """60 programs that come and go, a snapshot a second, each drawn. All histories are full after the first hour."""
    async with shown(tmp_path, "contended", programs=60, size=(200, 60), snapshots=HOUR_S) as rig:
        sizes = []
        tracemalloc.start()
        for _ in range(6):
            for _ in range(HOUR_S // 60):
                await rig.feed(10, every_s=1.0)
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    grown = sizes[-1] - sizes[1]
    assert grown < 2 << 20, f"{sizes} bytes after each ten minutes"
