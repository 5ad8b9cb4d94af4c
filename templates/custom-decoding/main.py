import asyncio
from dataclasses import dataclass

from inferlet import Context, session

from decoding import Reply, choose

NUM_CANDIDATES = 20


@dataclass
class Result:
    text: str
    num_tokens: int
    num_changed: int
    """Tokens that plain greedy decoding would have chosen otherwise."""


async def main(
    question: str,
    facts: str = "Ann is in room 214. Ben comes from Rome. The lamp costs 35 dollars.",
    weight: float = 0.5,
    max_tokens: int = 100,
) -> Result:
    """Answer from a text rather than from what the model believes to know.

    The question is asked twice, with the text and without. Token by token, what the text makes likelier wins.

    Args:
        question: What to ask.
        facts: The text.
        weight: How much more the text counts; 0 is plain greedy decoding.
        max_tokens: Most tokens of the answer.
    """
    with Context() as informed, Context() as blind:
        informed.user(f"Context: {facts}\n\nQuestion: {question}")
        blind.user(f"Question: {question}")
        reply, num_changed = Reply(informed.model), 0
        step: list[int] = []
        while len(reply.ids) < max_tokens:
            seen, prior = await asyncio.gather(  # both in one batch
                informed.forward(step, top_k=NUM_CANDIDATES), blind.forward(step, logits=True)
            )
            token = choose(seen.top, prior.logits or [], weight)
            num_changed += token != seen.top[0][0]
            if token in informed.model.info.stop_tokens:
                break
            session.send(reply.add(token))
            step = [token]
    return Result(reply.text, len(reply.ids), num_changed)
