import asyncio
from dataclasses import dataclass

from inferlet import Context, session

from library import open_library


@dataclass
class Answer:
    question: str
    text: str
    tokens_from_cache: int
    """Of the prompt, those that did not have to be read again."""
    tokens_read: int


async def main(questions: str, max_tokens: int = 200) -> list[Answer]:
    """Answer questions about the documents.

    Args:
        questions: One a line; they are answered side by side.
        max_tokens: Most tokens of one answer.
    """
    asked = [line.strip() for line in questions.splitlines() if line.strip()]
    with await open_library() as library:
        return await asyncio.gather(*(answer(library.fork(), question, max_tokens) for question in asked))


async def answer(ctx: Context, question: str, max_tokens: int) -> Answer:
    """One answer. `ctx` is a fork of the library, so the documents are there already."""
    with ctx:
        stream = ctx.user(question).generate(max_tokens=max_tokens)
        text = await stream
    session.send(f"{question}\n{text}\n")
    usage = stream.usage
    assert usage is not None  # it has ended
    return Answer(question, text, usage.cached_tokens, usage.prompt_tokens - usage.cached_tokens)
