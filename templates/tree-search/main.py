import asyncio
from dataclasses import dataclass

from inferlet import Context, InvalidInput, Sampler, session

from branch import Branch


@dataclass
class Result:
    text: str
    score: float
    num_branches: int
    """How many were grown, over all steps."""


async def main(
    prompt: str, keep: int = 2, width: int = 3, steps: int = 8, step_tokens: int = 16, temperature: float = 0.8
) -> Result:
    """Search for a good answer: beginnings are grown side by side, scored and pruned, step by step.

    Args:
        prompt: What to ask.
        keep: How many branches live on after each step.
        width: How many children each of them has.
        steps: Most steps.
        step_tokens: How many tokens a step adds.
        temperature: The higher, the more the children differ.
    """
    if min(keep, width, steps, step_tokens) < 1:
        raise InvalidInput("`keep`, `width`, `steps` and `step_tokens` have to be 1 or more")
    sampler = Sampler.temperature(temperature)
    root = Branch(Context().user(prompt))
    await root.ctx.flush()  # read once, shared by all
    branches, num_branches = [root], 0
    for step in range(1, steps + 1):
        growing = [branch for branch in branches if not branch.is_done]
        if not growing:
            break
        children = await asyncio.gather(
            *(branch.grow(sampler, step_tokens) for branch in growing for _ in range(width))
        )
        num_branches += len(children)
        finished = [branch for branch in branches if branch.is_done]
        branches = best([*finished, *children], keep)
        for branch in [*growing, *children]:
            if branch not in branches:
                branch.prune()
        session.send({"step": step, "grown": len(children), "scores": [round(each.score, 3) for each in branches]})
    return Result(branches[0].text, branches[0].score, num_branches)


def best(branches: list[Branch], keep: int) -> list[Branch]:
    """The best first; of those that wrote the same, one."""
    different = {branch.text: branch for branch in branches}
    return sorted(different.values(), key=lambda branch: branch.score, reverse=True)[:keep]
