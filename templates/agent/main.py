from inferlet import Context, InvalidInput, PieError, parse_calls, session

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
            results = await call_tools(reply)
            if not results:
                return reply
            for result in results:
                session.send({"tool": result})
                ctx.tool(result)
    raise PieError(f"no answer within {max_steps} steps", hint="allow more with `max_steps`")


async def call_tools(reply: str) -> list[str]:
    """The results of the tool calls in a reply. A wrong call gives its error, for the model to read."""
    try:
        return [await call.run(TOOLS) for call in parse_calls(reply)]
    except InvalidInput as error:
        return [f"error: {error.message}"]
