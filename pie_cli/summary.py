"""What one run took, as the command line saw it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pie_engine.protocol.http import ProcessUsage

OUTPUT_KINDS = frozenset({"message", "stdout", "return"})


class Timing:
    """Stamps of one run: asked for, first output, end."""

    def __init__(self, *, is_typed: bool = False) -> None:
        """is_typed: the program waited for a person, whose pace tells nothing of the engine's."""
        self._is_typed = is_typed
        self._asked = time.perf_counter()
        self._first_output: float | None = None
        self._ended = self._asked

    def saw(self, kind: str) -> None:
        """An event has come."""
        self._ended = time.perf_counter()
        if kind in OUTPUT_KINDS and self._first_output is None:
            self._first_output = self._ended

    @property
    def ttft_s(self) -> float | None:
        """From the launch to the first output."""
        return None if self._first_output is None else self._first_output - self._asked

    @property
    def wall_s(self) -> float:
        return self._ended - self._asked

    def line(self, usage: ProcessUsage | None) -> str:
        """`41 tokens (after 120, 96 of them cached; 20 of 24 guesses right), TTFT 120 ms, 35 tokens/s, 9 credits, 1 s`.

        Tokens are those generated, over the whole run.
        """
        parts = []
        num_tokens = usage.tokens if usage else 0
        if usage and num_tokens:
            parts.append(f"{num_tokens} tokens{_details(usage)}")
        if self.ttft_s is not None and not self._is_typed:
            parts.append(f"TTFT {self.ttft_s * 1000:.0f} ms")
        if num_tokens and self.wall_s > 0 and not self._is_typed:
            parts.append(f"{num_tokens / self.wall_s:.1f} tokens/s")
        if usage and usage.spent:
            from pie_engine.protocol.credits import counted, shown

            parts.append(counted(shown(usage.spent)))
        return ", ".join([*parts, f"{self.wall_s:.2f} s"])


def _details(usage: ProcessUsage) -> str:
    """What was there before the tokens, and how many of them were guessed."""
    parts = []
    if usage.prompt_tokens:
        cached = f", {usage.cached_tokens} of them cached" if usage.cached_tokens else ""
        parts.append(f"after {usage.prompt_tokens}{cached}")
    if usage.drafted_tokens:
        parts.append(f"{usage.accepted_tokens} of {usage.drafted_tokens} guesses right")
    return f" ({'; '.join(parts)})" if parts else ""
