"""Chat: one question, or a conversation that goes on for as long as the client sends messages."""

from inferlet import Context, Sampler, session


async def main(
    prompt: str = "",
    system: str = "You are a helpful assistant.",
    max_tokens: int = 256,
    temperature: float = 0.0,
) -> str | None:
    """Answer one question; or, given none, talk: answer each message of the client, until no more come.

    Args:
        prompt: What to ask.
        system: Who the assistant is.
        max_tokens: Most tokens of an answer.
        temperature: 0 is the likeliest answer; around 1 is livelier.
    """
    sampler = Sampler.temperature(temperature)
    with Context() as ctx:
        ctx.system(system)

        async def answer(message: str) -> str:
            ctx.user(message)
            async for chunk in ctx.generate(sampler, max_tokens=max_tokens):
                session.send(chunk.text)
            return ctx.last_text

        if prompt:
            return await answer(prompt)
        async for message in session:
            await answer(message)
            session.send("\n")
    return None
