"""The pass tier under the stopwatch: one pass a token, and a message as often as a plan has chunks."""

import time

from inferlet import Context, Sampler, session

REPORT_EVERY_S = 0.02


async def main(prompt: list[int], max_tokens: int, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0) -> int:
    """Sample `max_tokens` tokens after `prompt`, one pass each; returns how many there were."""
    ctx = Context(seed=seed)
    sampler = Sampler.temperature(temperature, top_p=top_p)
    tokens, num_reported, report_at = list(prompt), 0, 0.0
    for num_tokens in range(1, max_tokens + 1):
        output = await ctx.forward(tokens, sampler)
        tokens = [output.token]
        now = time.monotonic()
        if now >= report_at or num_tokens == max_tokens:
            session.send(num_tokens - num_reported)
            num_reported, report_at = num_tokens, now + REPORT_EVERY_S
    return num_reported
