"""Forks under the stopwatch: the prompt is read once, and each fork writes a continuation of its own."""

import asyncio

from inferlet import Context, Sampler, session


async def main(
    prompt: list[int], num_forks: int, max_tokens: int, temperature: float = 1.0, top_p: float = 1.0, seed: int = 0
) -> int:
    """Generate `num_forks` times exactly `max_tokens` tokens after `prompt`; returns how many there were in all."""
    ctx = Context(seed=seed)
    ctx.append(prompt)
    await ctx.flush()
    sampler = Sampler.temperature(temperature, top_p=top_p)

    async def write(index: int, fork: Context) -> int:
        num_tokens = 0
        async for chunk in fork.generate(sampler, max_tokens=max_tokens, ignore_eos=True):
            num_tokens += len(chunk.ids)
            session.send([index, len(chunk.ids)])
        return num_tokens

    return sum(await asyncio.gather(*(write(index, ctx.fork()) for index in range(num_forks))))
