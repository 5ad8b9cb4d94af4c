"""Tokens and pages of a profile: in all, and over time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pie_cli.profiles.model import Profile
from pie_engine.protocol.profile import StepTimes

NUM_BINS = 40


@dataclass(frozen=True)
class Totals:
    """Of all operations that are over."""

    prompt: int
    cached: int
    prefilled: int
    """Tokens that ran before the first one of a reply."""
    generated: int
    drafted: int
    accepted: int
    max_held_pages: int
    least_free_pages: int
    num_pages: int
    num_copies: int


@dataclass(frozen=True)
class Series:
    """Over the time of the process, in `NUM_BINS` equal parts."""

    prefill: list[float]
    """Tokens per second of this process, in rows of several. Those of a step are spread over the time that it took."""
    decode: list[float]
    """In rows of one."""
    held_pages: list[float]
    """The most of each part; what was last seen where there were no steps."""


def totals(profile: Profile) -> Totals:
    times = [each for operation in profile.operations.values() for each in operation.times]
    steps = [step for each in profile.steps.values() for step in each]
    num_pass_tokens = sum(
        call.function == "forward.finish" and "error" not in call.detail for call in profile.calls if call.handle
    )
    return Totals(
        sum(each.prompt for each in times),
        sum(each.cached for each in times),
        sum(each.num_prefill for each in times),
        sum(each.completion for each in times) + num_pass_tokens,
        sum(each.drafted for each in times),
        sum(each.accepted for each in times),
        max((step.num_held_pages for step in steps), default=0),
        min((step.num_free_pages for step in steps), default=0),
        sum(profile.num_pages.values()),
        sum(each.num_copies for each in times),
    )


def series(profile: Profile, num_bins: int = NUM_BINS) -> Series:
    width = max(profile.wall_us / num_bins, 1.0)
    prefill, decode = [0.0] * num_bins, [0.0] * num_bins
    held: list[float | None] = [None] * num_bins
    for steps in profile.steps.values():
        for step in steps:
            num_decode = sum(count == 1 for _, count in step.mine)
            num_prefill = sum(count for _, count in step.mine) - num_decode
            for index, share in _bins_of(step, width, num_bins):
                prefill[index] += share * num_prefill / width * 1e6
                decode[index] += share * num_decode / width * 1e6
                held[index] = max(held[index] or 0, step.num_held_pages)
    return Series(prefill, decode, _filled(held))


def _bins_of(step: StepTimes, width: float, num_bins: int) -> Iterator[tuple[int, float]]:
    """Those that a step lies in, and how much of it lies there."""
    begin, end = step.at, step.at + max(step.took, 1)
    first, last = (min(max(int(at / width), 0), num_bins - 1) for at in (begin, end))
    for index in range(first, last + 1):
        inside = min(end, (index + 1) * width) - max(begin, index * width)
        yield index, 1.0 if first == last else max(inside, 0.0) / (end - begin)


def _filled(values: list[float | None]) -> list[float]:
    found, last = [], 0.0
    for value in values:
        last = last if value is None else value
        found.append(last)
    return found
