from dataclasses import asdict

from inferlet import Context, InvalidInput, Sampler, session

from api import Choice, Chunk, ChunkChoice, Completion, Delta, FinishReason, Message, Usage


async def main(
    messages: list[Message],
    max_tokens: int = 256,
    temperature: float = 0.7,
    top_p: float = 1.0,
    stop: list[str] | None = None,
    stream: bool = True,
    timeout_s: float = 60.0,
) -> Completion:
    """Complete a conversation.

    Args:
        messages: The conversation; the last message is the user's.
        max_tokens: Most tokens of the reply.
        temperature: 0 is the likeliest reply; around 1 is livelier.
        top_p: Draw from the likeliest tokens that have this probability together.
        stop: Texts that end the reply and are not part of it.
        stream: Send the reply while it is written.
        timeout_s: After so many seconds it ends with what there is, as at `max_tokens`.
    """
    check(messages)
    sampler = Sampler(temperature=temperature, top_p=top_p)
    with Context() as ctx:
        for message in messages:
            say = {"system": ctx.system, "user": ctx.user, "assistant": ctx.assistant}[message.role]
            say(message.content)
        reply = ctx.generate(sampler, max_tokens=max_tokens, stop=stop or (), timeout=timeout_s)
        async for chunk in reply:
            if stream and chunk.text:
                send(chunk.text)
        finish: FinishReason = "stop" if reply.finish == "stop" else "length"
        if stream:
            send("", finish)
        assert reply.usage is not None  # it has ended
        num_read, num_written = reply.usage.prompt_tokens, reply.usage.completion_tokens
        return Completion(
            model=ctx.model.name,
            choices=[Choice(Message("assistant", ctx.last_text), finish)],
            usage=Usage(num_read, num_written, num_read + num_written),
        )


def check(messages: list[Message]) -> None:
    """What types cannot say. The client gets code, message and hint."""
    if not messages:
        raise InvalidInput("`messages` is empty", hint='[{"role": "user", "content": "Hello!"}]')
    if messages[-1].role != "user":
        raise InvalidInput(
            f"the last of `messages` is of the {messages[-1].role}", hint="the user has to have the last word"
        )


def send(text: str, finish: FinishReason | None = None) -> None:
    session.send(asdict(Chunk([ChunkChoice(Delta(text), finish)])))
