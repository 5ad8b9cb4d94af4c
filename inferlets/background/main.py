"""Two kinds of work in one program: summaries that can wait, at a low bid, and answers that somebody waits for."""

import asyncio
from dataclasses import dataclass

from inferlet import Context, scheduling, session


@dataclass
class Result:
    """What was written, and what it took."""

    answers: list[str]
    summaries: list[str]
    spent: float
    """Credits: pages made, and rent for pages that others wanted, less dividends."""


async def main(
    documents: list[str],
    questions: list[str] = [],  # noqa: B006 (it is only read)
    max_tokens: int = 64,
    low: float = 0.0,
    high: float = 1.0,
) -> Result:
    """Answer questions at once, and summarise documents meanwhile.

    Args:
        documents: What to summarise.
        questions: What to answer, one after the other.
        max_tokens: Most tokens of each text.
        low: Bid for the summaries, in credits for a page and a step; 0 takes only what nobody else wants.
        high: Bid for the answers. It is the most that is paid: while everything fits, nothing is.
    """
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(write(f"Summarise:\n{text}", low, max_tokens)) for text in documents]
        answers = []
        for question in questions:
            answers.append(await write(question, high, max_tokens))
            session.send(answers[-1])
    market = await scheduling()
    return Result(answers, [task.result() for task in waiting], market.spent)


async def write(prompt: str, bid: float, max_tokens: int) -> str:
    """One text, at this bid."""
    with Context() as ctx:
        ctx.bid(bid)
        ctx.user(prompt)
        return await ctx.generate(max_tokens=max_tokens)
