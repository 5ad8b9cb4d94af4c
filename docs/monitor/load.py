"""What the engine of the pictures runs: it tells stories, one after the other, and rests in between."""

from __future__ import annotations

import asyncio

from inferlet import Context, Sampler


async def main(max_tokens: int = 200, rest_s: float = 0.0, branches: int = 1, rounds: int = 1000) -> None:
    """Tell stories of `max_tokens` tokens until somebody ends it."""
    for _ in range(rounds):
        with Context() as ctx:
            ctx.user("Tell me a story about a fox.")
            await ctx.flush()
            forks = [ctx.fork() for _ in range(branches)]
            await asyncio.gather(*(_tell(fork, max_tokens) for fork in forks))
            await asyncio.sleep(rest_s)


async def _tell(ctx: Context, max_tokens: int) -> None:
    with ctx:
        await ctx.generate(Sampler.temperature(0.9), max_tokens=max_tokens, ignore_eos=True)
