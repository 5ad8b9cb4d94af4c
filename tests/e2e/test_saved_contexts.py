"""Contexts that one program saves and another one opens, also after the daemon was started again, or from a file.

On the fake driver, whose KV is the tokens: that of a real one comes back by tests/integration/test_context_files.py.
"""

from __future__ import annotations

from pie_client import PieClient
from tests.e2e.test_programs import program, value_of

SAVE = """
from inferlet import Context, Sampler

async def main() -> list:
    ctx = Context()
    ctx.user("Tell me a story about a fox and a crow, and make it long enough for some pages.")
    await ctx.generate(max_tokens=24)
    await ctx.save("story")
    await ctx.save("behind", durable=False)
    tokens = ctx.tokens
    stream = ctx.generate(Sampler.greedy(), max_tokens=6)
    await stream
    return [tokens, list(stream.ids), sorted(saved.name for saved in Context.list() if saved.name != "behind")]
"""
SAVE_HOLES = """
from inferlet import Context, Sampler

async def main() -> list:
    ctx = Context(window=24, sinks=4)
    ctx.user("Tell me a story about a fox and a crow, and make it long enough for some pages.")
    await ctx.generate(max_tokens=40)
    ctx.drop(range(1, 3))
    await ctx.save("holes")
    tokens = ctx.tokens
    stream = ctx.generate(Sampler.greedy(), max_tokens=6)
    await stream
    return [tokens, list(stream.ids)]
"""
OPEN = """
from inferlet import Context, NotFound, Sampler

async def main(name: str) -> list:
    ctx = Context.open(name)
    tokens, messages = ctx.tokens, len(ctx.messages)
    stream = ctx.generate(Sampler.greedy(), max_tokens=6)
    await stream
    Context.delete(name)
    try:
        Context.open(name)
    except NotFound:
        return [tokens, list(stream.ids), messages, stream.usage.prompt_tokens - stream.usage.cached_tokens]
"""


async def test_saved_contexts_survive_the_daemon_and_travel_in_files(fresh, tmp_path):
    fresh.use_fake_model()
    fresh.start()
    async with PieClient(home=fresh.home) as client:
        tokens, continued, names = await value_of(client, program(SAVE))
        holes = await value_of(client, program(SAVE_HOLES))
        for name in ("story", "holes"):
            await client.export_context(name, tmp_path / name)
            await client.remove_context(name)
    fresh.stop()
    fresh.start()
    async with PieClient(home=fresh.home) as client:
        # What was still to be written when the daemon was stopped.
        assert [context.name for context in await client.contexts()] == ["behind"]
        await client.import_context(tmp_path / "story", "tale")
        imported = await client.import_context(tmp_path / "holes")
        assert (imported.sight.window, imported.sight.sinks, imported.sight.dropped) == (24, 4, 2)
        holes_again = await value_of(client, program(OPEN), name="holes")
        from_file = await value_of(client, program(OPEN), name="tale")
        from_disk = await value_of(client, program(OPEN), name="behind")
    assert names == ["story"]
    assert holes_again[:3] == [*holes, 1]
    # The last token alone is run: its logits say what comes next.
    assert from_file == [tokens, continued, 1, 1]
    assert from_disk[:3] == [tokens, continued, 1]
