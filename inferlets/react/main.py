"""ReAct: the model thinks, acts with a tool, observes the result, and goes on until it knows the answer.

The whole loop is one reply of the model (Yao et al. 2022, https://arxiv.org/abs/2210.03629). Where it would make up an
observation, the program stops it and writes the real one: nothing is sent back, nothing is read twice.
"""

import re

from tools import TOOLS

from inferlet import Context, PieError, session

RULES = "Use Thought, Action: tool[input], Observation and Final Answer."
ACTION = re.compile(r"Action:\s*(\w+)\[(.*)\]")
ANSWER = re.compile(r"Final Answer:\s*(.*)", re.DOTALL)


async def main(question: str, max_steps: int = 6, max_tokens: int = 128) -> str:
    """Answer a question with the help of tools.

    Args:
        question: What to find out.
        max_steps: How many times it may act.
        max_tokens: Most tokens of one step.
    """
    listing = "\n".join(f"- {tool.name}: {tool.description}" for tool in TOOLS.values())
    with Context() as ctx:
        ctx.system(f"{RULES}\nTools:\n{listing}")
        ctx.user(question)
        for _ in range(max_steps):
            step = await ctx.generate(max_tokens=max_tokens, stop="\nObservation:")
            session.send(step)
            if answer := ANSWER.search(step):
                return answer[1].strip()
            observation = f"\nObservation: {observe(step)}\n"
            session.send(observation)
            ctx.append(observation)
    raise PieError(f"no answer within {max_steps} steps", hint="allow more with `max_steps`")


def observe(step: str) -> str:
    """The result of the action in `step`, or what is wrong with it, for the model to read."""
    action = ACTION.search(step)
    if action is None:
        return "write an Action: tool[input]"
    name, argument = action.groups()
    if name not in TOOLS:
        return f"there is no tool {name}"
    try:
        return str(TOOLS[name](argument))
    except (ValueError, SyntaxError, ArithmeticError) as error:
        return f"error: {error}"
