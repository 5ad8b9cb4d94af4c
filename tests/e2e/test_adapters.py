"""LoRA adapters as people use them: added by command, used by programs side by side, kept over a restart, removed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from pie_client import Busy, PieClient
from tests.adapter_files import tensors_of, write_files
from tests.e2e.test_programs import error_of, program, value_of

HIDDEN = 256
"""Of pie-tiny, and of its queries."""
TELL = """
from inferlet import Context, Sampler

async def tell(ctx) -> list:
    stream = ctx.generate(Sampler.greedy(), max_tokens=8)
    await stream
    return [list(stream.ids), stream.usage.prompt_tokens - stream.usage.cached_tokens]

async def main(adapter: str = "", save: str = "", saved: str = "") -> list:
    if saved:
        ctx = Context.open(saved)
        assert ctx.adapter == adapter, ctx.adapter
        return [(await tell(ctx))[0]]
    ctx = Context(adapter=adapter or None)
    ctx.user("Tell me a story about a fox and a crow, and make it long enough for some pages of the cache.")
    await ctx.flush()
    if save:
        await ctx.save(save)
    child = ctx.fork()
    assert child.adapter == ctx.adapter
    return [(await tell(ctx))[0], (await tell(child))[0]]
"""
HOLD = """
from inferlet import Context, session

async def main(adapter: str) -> None:
    ctx = Context(adapter=adapter)
    await ctx.append("Hello").flush()
    session.send("ready")
    await session.receive()
"""


def write(folder: Path, value: float, hidden: int = HIDDEN) -> str:
    return str(write_files(folder, tensors_of(hidden, hidden, num_layers=2), {"layers_to_transform": [0, 1]}, value))


async def remove(client: PieClient, name: str) -> None:
    """The core hears that a program has ended a moment after its client does."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await client.remove_adapter(name)
            except Busy:
                await asyncio.sleep(0.05)


@pytest.mark.timeout(120)
async def test_adapters_are_added_used_side_by_side_and_removed(daemon, tmp_path):
    folders = {name: write(tmp_path / name, value) for name, value in (("one", 0.3), ("two", -0.5))}
    added = daemon.pie("adapter", "add", "one", folders["one"])
    assert added.returncode == 0, added.stderr
    assert "added one to pie-tiny: rank 2" in added.stderr
    wrong = daemon.pie("adapter", "add", "wide", write(tmp_path / "wide", 1.0, 2 * HIDDEN))
    assert wrong.returncode != 0
    assert "has shape [2, 512], this model and the adapter's rank ask for [2, 256]" in " ".join(wrong.stderr.split())
    assert "hint: the adapter was trained on another model" in " ".join(wrong.stderr.split())

    async with PieClient(home=daemon.home) as client, PieClient(home=daemon.home) as other:
        await client.add_adapter("two", folders["two"])
        asked = [(client, ""), (other, "one"), (client, "two"), (other, "two")]
        told = await asyncio.gather(*(value_of(user, program(TELL), adapter=name) for user, name in asked))
        assert all(mine == forked for mine, forked in told)
        none, one, two, again = (mine for mine, _ in told)
        assert two == again
        assert len({tuple(ids) for ids in (none, one, two)}) == 3
        unknown = await error_of(client, program(TELL), adapter="three")
        assert unknown.code == "not_found"
        assert unknown.message == "pie-tiny has no adapter called `three`; adapters of pie-tiny: one, two"

        process = await client.launch_process(program(HOLD), {"adapter": "one"})
        async for _ in process.messages():
            break
        busy = daemon.pie("adapter", "remove", "one")
        assert busy.returncode != 0
        assert f"is in use by {process.pid} (1 context)" in " ".join(busy.stderr.split())
        await process.send("end")
        await process.result()
        removed = daemon.pie("adapter", "remove", "one")
        assert removed.returncode == 0, removed.stderr
        await remove(client, "two")


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_adapters_and_what_was_saved_with_them_outlive_the_daemon(fresh, tmp_path):
    folder = write(tmp_path / "two", -0.5)
    fresh.start()
    async with PieClient(home=fresh.home) as client:
        await client.add_adapter("two", folder)
        none, (two, _) = [await value_of(client, program(TELL)), await value_of(client, program(TELL), adapter="two")]
        assert await value_of(client, program(TELL), adapter="two", save="story") == [two, two]
    fresh.stop()
    fresh.start()
    listed = json.loads(fresh.pie("adapter", "list", "--json").stdout)["adapters"]
    assert [(each["name"], each["rank"], each["folder"]) for each in listed] == [("two", 2, folder)]
    async with PieClient(home=fresh.home) as client:
        assert await value_of(client, program(TELL), adapter="two", saved="story") == [two]
        await remove(client, "two")
        gone = await error_of(client, program(TELL), adapter="two", saved="story")
        assert "`story` was computed with the adapter `two`, which is not loaded; load the adapter" in gone.message
        assert await value_of(client, program(TELL)) == none
