"""Panels repaint the lines that differ, and nothing of an earlier picture stays."""

from __future__ import annotations

from typing import Self

import pytest
from textual.geometry import Region, Size

from pie_cli.monitor.text import Line, line
from pie_cli.monitor.widgets.panel import Panel

WIDTH, HEIGHT = 30, 4


class Probe(Panel):
    """Without a screen: notes what it would have repainted."""

    def __init__(self) -> None:
        super().__init__()
        self.repainted: list[tuple[int, int]] = []

    @property
    def size(self) -> Size:
        return Size(WIDTH, HEIGHT)

    outer_size = size

    def _repaint(self, numbers: list[int]) -> None:
        self.compose_anew(numbers)

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Self:
        assert all((region.x, region.width) == (0, WIDTH) for region in regions), "lines are repainted whole"
        self.repainted = [(region.y, region.height) for region in regions]
        return self


@pytest.mark.parametrize(
    ("old", "new", "repainted"),
    [
        (["state waiting: pages 0s", "b"], ["state running 0s", "b"], [(0, 1)]),
        (["a", "b", "c", "d"], ["A", "B", "c", "D"], [(0, 2), (3, 1)]),
        (["a", "b"], ["a"], [(1, 1)]),
        (["a"], ["a", "b", "c", "d", "beyond"], [(1, 3)]),
        (["a", "b"], ["a", "b"], []),
        ([], ["日本語"], [(0, 1)]),
    ],
)
def test_lines_that_differ_are_repainted(old: list[str], new: list[str], repainted: list[tuple[int, int]]) -> None:
    panel = Probe()
    panel.show([line(text) for text in old])
    panel.repainted = []
    panel.show([line(text) for text in new])
    assert panel.repainted == repainted


def test_a_line_in_another_style_is_another_one() -> None:
    panel = Probe()
    lines: list[list[Line]] = [[line(("a", style))] for style in ("bold", "dim")]
    for each in lines:
        panel.show(each)
        assert panel.repainted == [(0, 1)]
