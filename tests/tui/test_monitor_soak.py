"""An hour of snapshots in a minute, and memory that stays flat."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest
from rich import cells

from pie_cli.monitor import format
from tests.tui.monitor_rig import shown

HOUR_S = 3600
NUM_PARTS = 6


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_an_hour_leaves_no_memory_behind(tmp_path: Path) -> None:
    """60 programs that come and go, a snapshot a second, and pictures of them. All histories are full before it."""
    async with shown(tmp_path, "contended", programs=60, size=(200, 60), snapshots=HOUR_S) as rig:
        blocks = []
        for _ in range(NUM_PARTS):
            for _ in range(HOUR_S // NUM_PARTS // 10):
                await rig.feed(10, every_s=1.0)
            _empty_caches()
            blocks.append(sys.getallocatedblocks())
    grown = blocks[-1] - blocks[0]
    assert grown < 0.02 * blocks[0], f"{blocks} blocks of memory after each ten minutes"


def _empty_caches() -> None:
    """Those that are bounded, but take longer than an hour to fill: texts of numbers, and widths of texts."""
    for cached in (format.count, format.rate, format.percent, format.credits, cells.cached_cell_len):
        cached.cache_clear()
    gc.collect()
