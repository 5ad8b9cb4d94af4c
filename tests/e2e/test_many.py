"""Many programs at once: each gets its own right answer, and every page is free afterwards."""

from __future__ import annotations

import asyncio
import random

from pie_client import Event
from pie_engine.protocol.program import Bundle, Manifest

ECHO = Bundle(
    Manifest(name="greedy"),
    files={
        "main.py": """
from inferlet import Context

async def main(prompt: list[int], max_tokens: int = 24) -> list[int]:
    with Context() as ctx:
        ctx.append(prompt)
        ids = []
        async for chunk in ctx.generate(max_tokens=max_tokens, ignore_eos=True):
            ids += chunk.ids
        return ids
"""
    },
)
NOTHING = Bundle(Manifest(name="nothing"), files={"main.py": "async def main(n: int) -> int:\n    return n * 2\n"})


async def result(process):
    last = None
    async for event, value in process:
        last = (event, value)
    assert last is not None
    assert last[0] is Event.Return, last
    return last[1]


async def run(client, bundle, **arguments):
    return await result(await client.launch_process(bundle, input=arguments))


async def no_page_is_held(client):
    model = (await client.models())[0]
    return model["num_free_pages"] == model["num_pages"]


async def test_64_at_once_give_what_each_gives_alone(client, eventually):
    draw = random.Random(0)
    prompts = [[draw.randrange(300, 2000) for _ in range(10 + number)] for number in range(64)]
    alone = [await run(client, ECHO, prompt=prompt) for prompt in prompts[::8]]
    together = await asyncio.gather(*(run(client, ECHO, prompt=prompt) for prompt in prompts))
    assert together[::8] == alone
    assert len({tuple(ids) for ids in together}) > 48
    await eventually(lambda: no_page_is_held(client))


async def test_500_at_once_all_finish(client, eventually):
    results = await asyncio.gather(*(run(client, NOTHING, n=n) for n in range(500)))
    assert results == [2 * n for n in range(500)]
    await eventually(lambda: no_page_is_held(client))
    processes = await client.list_processes()
    assert processes == []
