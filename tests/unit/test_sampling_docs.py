"""docs/sampling.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from inferlet.sampler import _DEFAULTS
from pie_engine.protocol.sampling import RANGES

PAGE = (Path(__file__).parents[2] / "docs" / "sampling.md").read_text("utf-8")
ROW = re.compile(r"^\|[^|]*\| `(\w+)` \| ([^|]+) \| ([^|]+) \|", re.MULTILINE)
ROWS = {name: (allowed, default) for name, allowed, default in ROW.findall(PAGE)}


def test_every_parameter_is_there_with_its_range_and_default():
    assert set(ROWS) == set(_DEFAULTS)
    for name, allowed in RANGES.items():
        assert ROWS[name] == (str(allowed), f"{_DEFAULTS[name]:g}")
