"""Results for people and for programs, the same from every bench."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import describe_machine


def print_rounds(results: dict[str, Any]) -> None:
    """One line for each engine; each figure is the median over the rounds."""
    print(f"{results['workload']['name']:12} {'tokens/s':>9} {'wall s':>8} ", end="")
    print(f"{'TTFT p50':>9} {'p99':>8} {'TPOT p50':>9} {'p99':>8}   (ms)")
    for name, rounds in results["runs"].items():
        rate, wall = (median_of(rounds, key) for key in ("output_tokens_per_s", "elapsed_s"))
        cells = [median_of(rounds, metric, point) for metric in ("ttft_ms", "tpot_ms") for point in ("p50", "p99")]
        print(f"{name:12} {rate:9.1f} {wall:8.2f} ", end="")
        print(f"{cells[0]:9.2f} {cells[1]:8.2f} {cells[2]:9.3f} {cells[3]:8.3f}")
        if "worst_gap_ms" in rounds[0]:
            print_interference(rounds)
        if floor := results.get("floor"):
            print_floor(floor, cells[2])


def print_interference(rounds: list[dict[str, Any]]) -> None:
    worst, before, late = (median_of(rounds, key) for key in ("worst_gap_ms", "worst_gap_before_ms", "late_ttft_ms"))
    print(f"worst gap of the decoders {worst:.1f} ms ({before:.1f} before), first token of the late one {late:.0f} ms")
    if not all(run["outlasted"] for run in rounds):
        print("some decoders ended before the late one had its first token: raise --output-len")


def print_floor(floor: dict[str, Any], tpot_ms: float) -> None:
    """TPOT at batch 1 beside what the memory allows."""
    weights, speed = f"{floor['weight_bytes'] / 1e6:.0f} MB of weights", f"{floor['bytes_per_s'] / 1e9:.1f} GB/s"
    print(
        f"floor {floor['tpot_ms']:.2f} ms = {weights} / {speed} ({floor['num_threads']} threads): "
        f"TPOT is {tpot_ms / floor['tpot_ms']:.2f}×"
    )


def median_of(rounds: list[dict[str, Any]], *keys: str) -> float:
    """The median of a figure over the rounds that have it; NaN when none does."""
    values = [value for run in rounds if (value := _at(run, keys)) is not None]
    return statistics.median(values) if values else math.nan


def _at(run: dict[str, Any], keys: tuple[str, ...]) -> float | None:
    value: Any = run
    for key in keys:
        value = value.get(key) if value else None
    return value


def write_json(path: Path | None, results: list[dict[str, Any]]) -> None:
    """One result as an object, several as a list."""
    if path:
        path.write_text(json.dumps(results[0] if len(results) == 1 else results, indent=2) + "\n")


def save(path: Path | None, result: dict[str, Any]) -> None:
    """`result` and the machine that it comes from; None: nowhere."""
    write_json(path, [{**result, "machine": describe_machine()}])


def cells_of(result: dict[str, Any], parts: Sequence[str]) -> str:
    """The figures of each part (`least_median_mean`), as they are printed."""
    return "  ".join(f"{part} {' / '.join(f'{figure:.0f}' for figure in result[part].values())}" for part in parts)
