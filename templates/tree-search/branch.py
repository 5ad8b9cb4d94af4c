"""A branch of the tree: a context, and how good the model finds what it has written there."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean

from inferlet import Context, Sampler


@dataclass(eq=False)
class Branch:
    """Has a context of its own until it is pruned."""

    ctx: Context
    text: str = ""
    logprobs: list[float] = field(default_factory=list)
    is_done: bool = False

    @property
    def score(self) -> float:
        """Mean log-probability of the tokens, 0 is certainty. A judge of your own (a test, a rule) goes here."""
        return fmean(self.logprobs) if self.logprobs else 0.0

    async def grow(self, sampler: Sampler, num_tokens: int) -> Branch:
        """A child that has written so much more. It shares the pages of what was there."""
        ctx = self.ctx.fork()
        stream = ctx.generate(sampler, max_tokens=num_tokens, logprobs=True)
        text = await stream
        return Branch(ctx, self.text + text, [*self.logprobs, *stream.logprobs], stream.finish != "length")

    def prune(self) -> None:
        """Its pages are free from here on."""
        self.ctx.release()
