"""The plan tier under the stopwatch: the client learns how many tokens came, when they come."""

from inferlet import Context, Sampler, session


async def main(prompt: list[int], max_tokens: int, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0) -> int:
    """Generate exactly `max_tokens` tokens after `prompt`; returns how many there were."""
    ctx = Context(seed=seed)
    ctx.append(prompt)
    num_tokens = 0
    sampler = Sampler.temperature(temperature, top_p=top_p)
    async for chunk in ctx.generate(sampler, max_tokens=max_tokens, ignore_eos=True):
        num_tokens += len(chunk.ids)
        session.send(len(chunk.ids))
    return num_tokens
