"""Line charts as SVG: text, no dependency, the same bytes for the same figures.

Lines differ in their dashes as well as in colour, and are named in a legend; text and axes take the colour of the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, PANEL_HEIGHT = 760, 230
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 46, 40
COLOURS = ("#3b7dd8", "#d1603d", "#3f9e6b", "#9a62c7", "#b08a1e", "#5f7a8a")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "1 2")
MAX_POINTS = 240
"""Of a line; longer ones are thinned."""


@dataclass(frozen=True)
class Line:
    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    is_log: bool = False
    """The vertical axis has equal steps for equal factors; values of 0 and less are left out."""
    y_range: tuple[float, float] | None = None
    """None: what the lines need."""
    x_is_log: bool = False


def svg(panels: Sequence[Panel], columns: int = 1) -> str:
    """One picture, the panels in rows of `columns`."""
    rows = math.ceil(len(panels) / columns)
    width, height = WIDTH * columns, PANEL_HEIGHT * rows
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        "<style>svg{color:#222;background:#fff}@media(prefers-color-scheme:dark){svg{color:#ddd;background:#1b1d22}}"
        "text{fill:currentColor}.axis{stroke:currentColor;fill:none}.grid{stroke:currentColor;opacity:.15}</style>",
    ]
    for place, panel in enumerate(panels):
        row, column = divmod(place, columns)
        parts += [f'<g transform="translate({column * WIDTH} {row * PANEL_HEIGHT})">', *_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from `low` to `high`: 1, 2 or 5 times a power of ten apart."""
    if not high > low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    while (high - low) / step > most:
        for factor in (2, 5, 10):
            if (high - low) / (step * factor) <= most:
                step *= factor
                break
        else:
            step *= 10
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _panel(panel: Panel) -> list[str]:
    lines = [Line(line.name, _thinned(_drawable(line.points, panel))) for line in panel.lines]
    x_axis = _Axis([x for line in lines for x, _ in line.points], LEFT, WIDTH - RIGHT, panel.x_is_log)
    values = list(panel.y_range or ()) or [y for line in lines for _, y in line.points]
    y_axis = _Axis(values, PANEL_HEIGHT - BOTTOM, TOP, panel.is_log, from_zero=panel.y_range is None)
    parts = [f'<text x="{LEFT}" y="16" font-weight="600">{escape(panel.title)}</text>']
    for value, y in y_axis.ticks():
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(value)}</text>')
    for value, x in x_axis.ticks():
        parts.append(f'<text x="{x:.1f}" y="{PANEL_HEIGHT - BOTTOM + 16}" text-anchor="middle">{_short(value)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{PANEL_HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    middle = (TOP + PANEL_HEIGHT - BOTTOM) / 2
    centre = f'x="{(LEFT + WIDTH - RIGHT) / 2}" y="{PANEL_HEIGHT - 6}" text-anchor="middle"'
    upright = f'transform="translate(12 {middle}) rotate(-90)" text-anchor="middle"'
    parts.append(f"<text {centre}>{escape(panel.x_label)}</text><text {upright}>{escape(panel.y_label)}</text>")
    at = LEFT
    for number, line in enumerate(lines):
        look = f'stroke="{COLOURS[number % len(COLOURS)]}" stroke-width="1.8" fill="none"'
        if dash := DASHES[number % len(DASHES)]:
            look += f' stroke-dasharray="{dash}"'
        path = "L".join(f"{x_axis.at(x):.1f} {y_axis.at(y):.1f}" for x, y in line.points)
        if path:
            parts.append(f'<path d="M{path}" {look}/>')
        parts.append(f'<path d="M{at} 30h26" {look}/><text x="{at + 31}" y="34">{escape(line.name)}</text>')
        at += 48 + 7 * len(line.name)
    return parts


class _Axis:
    """From values to places in the picture."""

    def __init__(
        self, values: Sequence[float], start: float, end: float, is_log: bool, *, from_zero: bool = False
    ) -> None:
        low, high = min(values, default=float(is_log)), max(values, default=1.0)
        if from_zero and not is_log:
            low, high = min(low, 0.0), high * 1.05
        if low == high:
            high = low + 1.0 if not is_log else low * 10
        self._low, self._high, self._start, self._end, self._is_log = low, high, start, end, is_log

    def at(self, value: float) -> float:
        low, high = self._low, self._high
        if self._is_log:
            value, low, high = (math.log10(each) for each in (value, low, high))
        return self._start + (value - low) / (high - low) * (self._end - self._start)

    def ticks(self) -> list[tuple[float, float]]:
        if not self._is_log:
            values = ticks(self._low, self._high)
        else:
            powers = range(math.floor(math.log10(self._low)), math.ceil(math.log10(self._high)) + 1)
            found = [[factor * 10.0**power for power in powers for factor in factors] for factors in ((1,), (1, 2, 5))]
            inside = [[value for value in each if self._low <= value <= self._high] for each in found]
            values = inside[0] if len(inside[0]) > 2 else inside[1]
        return [(value, self.at(value)) for value in values]


def _drawable(points: Sequence[tuple[float, float]], panel: Panel) -> list[tuple[float, float]]:
    found = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    return [(x, y) for x, y in found if (y > 0 or not panel.is_log) and (x > 0 or not panel.x_is_log)]


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    every = math.ceil(len(points) / MAX_POINTS)
    return points if every <= 1 else [*points[:-1:every], points[-1]]


def _short(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:.3g}"
