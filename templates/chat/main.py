from inferlet import Context, Sampler, session


async def main(prompt: str, max_tokens: int = 256, temperature: float = 0.7) -> str:
    """Answer one question.

    Args:
        prompt: What to ask.
        max_tokens: Most tokens of the answer.
        temperature: 0 is the likeliest answer; around 1 is livelier.
    """
    ctx = Context()
    ctx.system("You are a helpful assistant.")
    ctx.user(prompt)
    async for chunk in ctx.generate(Sampler.temperature(temperature), max_tokens=max_tokens):
        session.send(chunk.text)
    return ctx.last_text
