from inferlet import Context, Sampler, session


async def main(prompt: str = "", max_tokens: int = 256, temperature: float = 0.7) -> str | None:
    """Answer one question; or, given none, talk: answer each message, until no more come.

    Args:
        prompt: What to ask.
        max_tokens: Most tokens of an answer.
        temperature: 0 is the likeliest answer; around 1 is livelier.
    """
    ctx = Context()
    ctx.system("You are a helpful assistant.")

    async def answer(message: str) -> str:
        ctx.user(message)
        async for chunk in ctx.generate(Sampler.temperature(temperature), max_tokens=max_tokens):
            session.send(chunk.text)
        return ctx.last_text

    if prompt:
        return await answer(prompt)
    async for message in session:
        await answer(message)
        session.send("\n")
    return None
