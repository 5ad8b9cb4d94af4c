"""A context that one program saves and another one opens, also after the daemon was started again."""

from __future__ import annotations

from pie_client import PieClient
from tests.e2e.test_programs import program, value_of

SAVE = """
from inferlet import Context

async def main() -> list:
    ctx = Context()
    ctx.user("Tell me a story about a fox and a crow, and make it long enough for some pages.")
    await ctx.generate(max_tokens=24)
    await ctx.save("story")
    return [ctx.tokens, [saved.name for saved in Context.list()]]
"""
OPEN = """
from inferlet import Context, NotFound

async def main() -> list:
    ctx = Context.open("story")
    tokens, messages = ctx.tokens, len(ctx.messages)
    stream = ctx.generate(max_tokens=4)
    await stream
    Context.delete("story")
    try:
        Context.open("story")
    except NotFound:
        return [tokens, messages, stream.usage.prompt_tokens - stream.usage.cached_tokens]
"""


async def test_a_saved_context_survives_the_daemon(fresh):
    fresh.start()
    async with PieClient(home=fresh.home) as client:
        tokens, names = await value_of(client, program(SAVE))
    fresh.stop()
    fresh.start()
    async with PieClient(home=fresh.home) as client:
        opened, num_messages, num_run = await value_of(client, program(OPEN))
    assert names == ["story"]
    assert opened == tokens
    assert num_messages == 1
    # The last token alone: its logits say what comes next.
    assert num_run == 1
