"""The table of all engines: per shape and workload the median, the spread, and how far Pie is ahead."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Rounds = Sequence[Mapping[str, Any]]
"""The figures of one workload, by round."""


@dataclass(frozen=True)
class Metric:
    """What of a workload's figures is compared."""

    workload: str
    label: str
    path: tuple[str, ...]
    """Where it is in the figures of a round."""
    higher_is_better: bool = False

    def samples(self, rounds: Rounds) -> list[float]:
        """One a round, of those that have it."""
        found = []
        for figures in rounds:
            value: Any = figures
            for key in self.path:
                value = value.get(key) if value else None
            if value is not None:
                found.append(float(value))
        return found

    def ratio(self, pie: float, peer: float) -> float:
        """Above 1: Pie is ahead, by this factor."""
        return pie / peer if self.higher_is_better else peer / pie


TPOT = Metric("single", "single stream: TPOT, ms", ("tpot_ms", "p50"))
METRICS = (
    Metric("single", "single stream: TTFT, ms", ("ttft_ms", "p50")),
    TPOT,
    Metric("batch", "64 requests, 16 at a time: tokens/s", ("output_tokens_per_s",), higher_is_better=True),
    Metric("prefix", "32 with a shared prefix: wall, s", ("elapsed_s",)),
    Metric("fork", "8-way fork: wall, s", ("elapsed_s",)),
    Metric("interference", "long prompt while 8 decode: worst gap, ms", ("worst_gap_ms",)),
    Metric("interference", "… and its own TTFT, ms", ("late_ttft_ms",)),
)


def markdown_table(results: Mapping[str, Mapping[str, Mapping[str, Rounds]]], engines: Sequence[str]) -> str:
    """One row for each shape and metric. `results`: shape, engine, workload, then the rounds.

    A cell is `median (least–most)`, and for a peer how far Pie is ahead: 2.00× means twice as good, below 1 behind.
    """
    peers = [engine for engine in engines if engine != "pie"]
    lines = [
        "| shape | workload | Pie | " + "".join(f"{peer} | Pie is ahead | " for peer in peers),
        "|---|---|--:|" + "--:|--:|" * len(peers),
    ]
    for shape, by_engine in results.items():
        for metric in METRICS:
            samples = {name: metric.samples(by_engine.get(name, {}).get(metric.workload, [])) for name in engines}
            if any(samples.values()):
                cells = [shape, metric.label, _spread(samples.get("pie", []))]
                for peer in peers:
                    cells += [_spread(samples[peer]), _ahead(metric, samples.get("pie", []), samples[peer])]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(line.rstrip() for line in lines)


def floor_lines(floors: Mapping[str, Mapping[str, Any]], results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """For each shape the memory-bandwidth floor, and Pie's time per token at batch 1 beside it."""
    lines = []
    for shape, floor in floors.items():
        tpot = TPOT.samples(results.get(shape, {}).get("pie", {}).get("single", []))
        beside = f"; Pie's TPOT is {statistics.median(tpot) / floor['tpot_ms']:.2f}× that" if tpot else ""
        lines.append(
            f"{shape}: memory-bandwidth floor {floor['tpot_ms']:.2f} ms per token "
            f"({floor['weight_bytes'] / 1e6:.0f} MB of weights at {floor['bytes_per_s'] / 1e9:.1f} GB/s){beside}"
        )
    return lines


def _spread(samples: Sequence[float]) -> str:
    if not samples:
        return "–"
    middle = _number(statistics.median(samples))
    return middle if len(samples) == 1 else f"{middle} ({_number(min(samples))}–{_number(max(samples))})"


def _ahead(metric: Metric, pie: Sequence[float], peer: Sequence[float]) -> str:
    if not pie or not peer:
        return "–"
    return f"{metric.ratio(statistics.median(pie), statistics.median(peer)):.2f}×"


def _number(value: float) -> str:
    """Three significant digits, and all those before the point."""
    digits = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:.{min(max(digits, 0), 3)}f}"
