"""Percentiles out of histograms."""

from __future__ import annotations

from collections.abc import Sequence

from pie_cli.monitor.view import Percentiles
from pie_engine.protocol.stats import Histogram


def since(now: Histogram | None, before: Histogram | None) -> Histogram | None:
    """What came between two states of one histogram; None where nothing did."""
    if now is None:
        return None
    if before is None or before.bounds != now.bounds:
        return now if any(now.counts) else None
    counts = tuple(new - old for new, old in zip(now.counts, before.counts, strict=True))
    return Histogram(now.bounds, counts, now.sum - before.sum) if any(count > 0 for count in counts) else None


def percentiles(histogram: Histogram | None) -> Percentiles | None:
    """Of the values of a histogram; None where it has none."""
    if histogram is None or sum(histogram.counts) <= 0:
        return None
    p50, p90, p99 = (_quantile(histogram.bounds, histogram.counts, part) for part in (0.5, 0.9, 0.99))
    return Percentiles(p50, p90, p99)


def _quantile(bounds: Sequence[float], counts: Sequence[int], part: float) -> float:
    """Values are taken to be spread evenly between two bounds, as Prometheus' `histogram_quantile` does.

    What lies above the last bound counts as being there.
    """
    rank = part * sum(counts)
    seen = 0.0
    for i, bound in enumerate(bounds):
        if seen + counts[i] >= rank and counts[i] > 0:
            low = bounds[i - 1] if i else 0.0
            return low + (bound - low) * (rank - seen) / counts[i]
        seen += counts[i]
    return bounds[-1] if bounds else 0.0
