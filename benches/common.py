"""What every bench shares: the machine, percentiles, stamps, and the figures of a round."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import signal
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

from workloads import Workload

PACKAGES = ("torch", "wasmtime", "componentize-py", "pyzmq", "msgspec", "uvicorn", "httpx", "tokenizers")


class BenchError(Exception):
    """What was measured is not what was asked for; or nothing could be measured."""


def exit_on_sigterm() -> None:
    """Leave by `SystemExit`, so that whatever was started is ended too."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def describe_machine() -> dict[str, object]:
    """The machine and the versions; nothing that names its owner."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load_1m": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def percentile(samples: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: a value that was measured."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def least_median_mean(samples: Sequence[float]) -> dict[str, float]:
    return {"least": min(samples), "median": statistics.median(samples), "mean": statistics.fmean(samples)}


def median_within(samples: Sequence[float]) -> tuple[float, float, float]:
    """The median, between two samples that hold the true one in 95 of 100 cases (David and Nagaraja, Order Statistics,
    2003, 7.1); fewer than six samples cannot tell that, and give their ends."""
    ordered, count = sorted(samples), len(samples)
    before = max(0, math.floor(count / 2 - 0.98 * math.sqrt(count)) - 1)
    return ordered[before], statistics.median(ordered), ordered[count - 1 - before]


def summary_ms(samples_s: Iterable[float]) -> dict[str, float]:
    """Mean and percentiles of durations in seconds, in milliseconds."""
    samples = [1e3 * sample for sample in samples_s]
    if not samples:
        return {}
    points = {f"p{percent}": percentile(samples, percent) for percent in (50, 90, 99)}
    figures = {"mean": statistics.fmean(samples), **points, "min": min(samples), "max": max(samples)}
    return {name: round(value, 3) for name, value in figures.items()}


def spread_ms(samples_s: Sequence[float]) -> dict[str, float]:
    """Median, least and most of durations in seconds, in milliseconds."""
    in_ms = [1e3 * sample for sample in samples_s]
    return {"median_ms": statistics.median(in_ms), "min_ms": min(in_ms), "max_ms": max(in_ms), "num": len(in_ms)}


@dataclass
class Stamps:
    """When one request was sent and when its tokens came, by one clock, in seconds."""

    sent: float
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    """(time, how many tokens)."""

    def add(self, now: float, num_tokens: int) -> None:
        if num_tokens:
            self.arrivals.append((now, num_tokens))

    @property
    def num_tokens(self) -> int:
        return sum(count for _, count in self.arrivals)

    @property
    def first(self) -> float:
        return self.arrivals[0][0]

    @property
    def last(self) -> float:
        return self.arrivals[-1][0]

    @property
    def ttft_s(self) -> float:
        return self.first - self.sent

    @property
    def tpot_s(self) -> float:
        """Time per token after the first arrival."""
        return self.tpot_between(self.first, self.last)

    def tpot_between(self, start: float, end: float) -> float:
        """Time per token over the arrivals within the window; NaN when fewer than two lie in it."""
        within = [(time, count) for time, count in self.arrivals if start <= time <= end]
        num_tokens = sum(count for _, count in within[1:])
        return (within[-1][0] - within[0][0]) / num_tokens if num_tokens else math.nan


Wave = list[Stamps]
"""What was in flight together."""
Item = TypeVar("Item")


def waves_of(items: Sequence[Item], concurrency: int, in_waves: bool) -> list[Sequence[Item]]:
    """Waves that each start when the last one has ended, or all of them in one."""
    size = concurrency if in_waves else max(1, len(items))
    return [items[start : start + size] for start in range(0, len(items), size)]


def flat(waves: Iterable[Wave]) -> Wave:
    return [stamps for wave in waves for stamps in wave]


def tpot_of_full_batch_s(wave: Sequence[Stamps]) -> float:
    """Time per token while every request of the wave was decoding, the mean over its requests; NaN when never.

    Who starts a little later or ends a little earlier does not count, so waves that were started differently compare.
    """
    start, end = max(stamps.first for stamps in wave), min(stamps.last for stamps in wave)
    samples = [stamps.tpot_between(start, end) for stamps in wave]
    return statistics.fmean(samples) if samples else math.nan


def worst_gap_s(decoders: Iterable[Stamps], start: float, end: float) -> float:
    """The longest that any decoder waited between two arrivals, of the waits that overlap the time from start to end.

    NaN when none does.
    """
    gaps = [
        later - earlier
        for stamps in decoders
        for (earlier, _), (later, _) in pairwise(stamps.arrivals)
        if later > start and earlier < end
    ]
    return max(gaps, default=math.nan)


def require_exact_counts(waves: Sequence[Wave], workload: Workload) -> None:
    """A bench that lost or made up tokens has measured something else. Raises `BenchError` with the numbers."""
    decoders, late = waves_without_late(waves, workload)
    streams = flat(decoders)
    wrong = [stamps.num_tokens for stamps in streams if stamps.num_tokens != workload.output_len]
    wrong += [stamps.num_tokens for stamps in late if stamps.num_tokens != workload.late_output_len]
    if wrong or len(streams) != workload.num_streams:
        raise BenchError(
            f"{len(streams)} of {workload.num_streams} continuations were answered, {len(wrong)} with a wrong number "
            f"of tokens: {sorted(set(wrong))}"
        )


def require_room(workload: Workload, max_context_tokens: int) -> None:
    """Raises `BenchError` when a context of the workload would not fit the model."""
    if workload.context_len > max_context_tokens:
        raise BenchError(
            f"workload {workload.name} needs contexts of {workload.context_len} tokens, "
            f"the model has {max_context_tokens}"
        )


def waves_without_late(waves: Sequence[Wave], workload: Workload) -> tuple[Sequence[Wave], Wave]:
    """The waves that were asked for first, and the late request's."""
    return (waves[:-1], waves[-1]) if workload.late_input_len else (waves, [])


def figures_of_round(waves: Sequence[Wave], workload: Workload) -> dict[str, object]:
    """The figures of one round; with a late request, those of the others, and what it did to them."""
    first, late = waves_without_late(waves, workload)
    return figures(flat(first)) | (interference(flat(first), late[0]) if late else {})


def interference(decoders: Sequence[Stamps], late: Stamps) -> dict[str, object]:
    """What a long prompt did to those who were decoding, between its arrival and its first token."""
    decoding = max(stamps.first for stamps in decoders)
    undisturbed = [Stamps(stamps.sent, [at for at in stamps.arrivals if at[0] <= late.sent]) for stamps in decoders]
    return {
        "worst_gap_ms": _round_ms(worst_gap_s(decoders, late.sent, late.first)),
        "worst_gap_before_ms": _round_ms(worst_gap_s(undisturbed, decoding, late.sent)),
        "late_ttft_ms": _round_ms(late.ttft_s),
        "outlasted": all(stamps.last >= late.first for stamps in decoders),
    }


def _round_ms(seconds: float) -> float | None:
    return None if math.isnan(seconds) else round(1e3 * seconds, 3)


def figures(all_stamps: Sequence[Stamps]) -> dict[str, object]:
    """TTFT, TPOT, end-to-end times and rates of one run."""
    elapsed_s = max(stamps.last for stamps in all_stamps) - min(stamps.sent for stamps in all_stamps)
    num_tokens = sum(stamps.num_tokens for stamps in all_stamps)
    return {
        "num_requests": len(all_stamps),
        "num_output_tokens": num_tokens,
        "elapsed_s": round(elapsed_s, 3),
        "output_tokens_per_s": round(num_tokens / elapsed_s, 2),
        "requests_per_s": round(len(all_stamps) / elapsed_s, 3),
        "ttft_ms": summary_ms(stamps.ttft_s for stamps in all_stamps),
        "tpot_ms": summary_ms(stamps.tpot_s for stamps in all_stamps if not math.isnan(stamps.tpot_s)),
        "end_to_end_ms": summary_ms(stamps.last - stamps.sent for stamps in all_stamps),
    }
