"""Chat: one question, or a conversation that goes on for as long as the client sends messages."""

from inferlet import Context, Sampler, session


async def main(
    prompt: str,
    system: str = "You are a helpful assistant.",
    max_tokens: int = 256,
    temperature: float = 0.0,
    talk: bool = False,
) -> str:
    """Answer a question; with `talk`, go on with the next message of the client until an empty one.

    Args:
        prompt: What to ask.
        system: Who the assistant is.
        max_tokens: Most tokens of one answer.
        temperature: 0 is the likeliest answer; around 1 is livelier.
        talk: Wait for another message after each answer.
    """
    sampler = Sampler.temperature(temperature)
    with Context() as ctx:
        ctx.system(system)
        while prompt:
            ctx.user(prompt)
            async for chunk in ctx.generate(sampler, max_tokens=max_tokens):
                session.send(chunk.text)
            prompt = await session.receive() if talk else ""
        return ctx.last_text
