"""Best of n: read the prompt once, write n answers at the same time, keep the one that the model is surest of."""

import asyncio
from dataclasses import dataclass
from statistics import fmean

from inferlet import Context, Sampler


@dataclass
class Answer:
    """A candidate and how sure the model was of it."""

    text: str
    score: float
    """Mean log-probability of its tokens; 0 is certainty."""


@dataclass
class Result:
    """The best answer first of all; the others for those who want to look."""

    text: str
    candidates: list[Answer]


async def main(prompt: str, n: int = 4, max_tokens: int = 128, temperature: float = 0.9) -> Result:
    """Answer with the best of several candidates.

    Args:
        prompt: What to ask.
        n: How many answers to write.
        max_tokens: Most tokens of each.
        temperature: The higher, the more the answers differ.
    """
    sampler = Sampler.temperature(temperature)
    with Context() as ctx:
        ctx.user(prompt)
        await ctx.flush()  # the forks share the pages of the prompt
        candidates = await asyncio.gather(*(write(ctx.fork(), sampler, max_tokens) for _ in range(n)))
    candidates.sort(key=lambda answer: answer.score, reverse=True)
    return Result(candidates[0].text, candidates)


async def write(ctx: Context, sampler: Sampler, max_tokens: int) -> Answer:
    """One candidate."""
    with ctx:
        stream = ctx.generate(sampler, max_tokens=max_tokens, logprobs=True)
        text = await stream
    return Answer(text, fmean(stream.logprobs) if stream.logprobs else -1e9)
