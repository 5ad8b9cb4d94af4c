from inferlet import Context, PieError, parse_calls, session

from tools import TOOLS


async def main(question: str, max_steps: int = 5, max_tokens: int = 256) -> str:
    """Answer a question with the help of tools.

    Args:
        question: What to find out.
        max_steps: How many times the model may call tools.
        max_tokens: Most tokens of one reply.
    """
    with Context(tools=TOOLS) as ctx:
        ctx.user(question)
        for _ in range(max_steps):
            reply = await ctx.generate(max_tokens=max_tokens)
            calls = parse_calls(reply)
            if not calls:
                return reply
            for call in calls:
                result = await call.result(TOOLS)  # a wrong call gives its error, for the model to read
                session.send({"tool": result})
                ctx.tool(result)
    raise PieError(f"no answer within {max_steps} steps", hint="allow more with `max_steps`")
