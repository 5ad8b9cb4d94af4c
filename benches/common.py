"""What every bench shares: the machine, percentiles, stamps, and a workload of exact sizes."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

PACKAGES = ("torch", "wasmtime", "componentize-py", "pyzmq", "msgspec", "uvicorn", "httpx", "tokenizers")


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


def summary_ms(samples_s: Iterable[float]) -> dict[str, float]:
    """Mean and percentiles of durations in seconds, in milliseconds."""
    samples = [1e3 * sample for sample in samples_s]
    if not samples:
        return {}
    points = {f"p{percent}": percentile(samples, percent) for percent in (50, 90, 99)}
    figures = {"mean": statistics.fmean(samples), **points, "min": min(samples), "max": max(samples)}
    return {name: round(value, 3) for name, value in figures.items()}


@dataclass(frozen=True)
class Workload:
    """Requests of random token ids and a fixed number of tokens to generate, the same for everybody."""

    num_requests: int
    concurrency: int
    input_len: int
    output_len: int
    temperature: float = 0.0
    seed: int = 0

    def prompt(self, index: int, vocab_size: int) -> list[int]:
        """Prompt `index`; reproducible, and different from every other one."""
        draw = random.Random(f"{self.seed}/{index}")
        return [draw.randrange(vocab_size) for _ in range(self.input_len)]


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


def tpot_of_full_batch_s(wave: Sequence[Stamps]) -> float:
    """Time per token while every request of the wave was decoding, the mean over its requests; NaN when never.

    Who starts a little later or ends a little earlier does not count, so waves that were started differently compare.
    """
    start, end = max(stamps.first for stamps in wave), min(stamps.last for stamps in wave)
    samples = [stamps.tpot_between(start, end) for stamps in wave]
    return statistics.fmean(samples) if samples else math.nan


def require_exact_counts(all_stamps: Sequence[Stamps], workload: Workload) -> None:
    """A bench that lost or made up tokens has measured something else."""
    wrong = [stamps.num_tokens for stamps in all_stamps if stamps.num_tokens != workload.output_len]
    if wrong or len(all_stamps) != workload.num_requests:
        raise SystemExit(
            f"{len(all_stamps)} of {workload.num_requests} requests were answered, {len(wrong)} of them with another "
            f"number of tokens than {workload.output_len}: {sorted(set(wrong))}"
        )


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
