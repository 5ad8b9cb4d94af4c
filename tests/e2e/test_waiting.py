"""More context than KV pages on a real daemon: programs wait, visibly, and only what never fits is refused."""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import sys

import pytest

from pie_client import Event, PieClient
from pie_engine.protocol.program import Bundle, Manifest

NUM_PAGES = 24
SOURCE = """
from inferlet import Context, session

async def main(prompt: list[int], max_tokens: int = 0) -> list[int]:
    with Context() as ctx:
        ctx.append(prompt)
        if not max_tokens:
            ctx.bid(1.0)
            await ctx.flush()
            await session.receive()
        ids = []
        async for chunk in ctx.generate(max_tokens=max_tokens, ignore_eos=True):
            ids += chunk.ids
        return ids
"""
BUNDLE = Bundle(Manifest(name="greedy"), files={"main.py": SOURCE})


def prompt_of(number: int, length: int = 200) -> list[int]:
    draw = random.Random(number)
    return [draw.randrange(300, 2000) for _ in range(length)]


def arguments(number: int, max_tokens: int = 160) -> dict[str, object]:
    """Of a program that needs nearly all pages before it ends."""
    return {"prompt": prompt_of(number), "max_tokens": max_tokens}


@pytest.fixture
async def client(queueing):
    async with PieClient(home=queueing.home) as connected:
        yield connected


HOLDER = {"prompt": prompt_of(1, 290)}
"""Has 19 pages until it is ended, whatever others bid."""


async def result_of(process):
    last = [pair async for pair in process][-1]
    assert last[0] is Event.Return, last
    return last[1]


async def waits(client, pid):
    usage = (await client.inspect(pid))["usage"]
    return usage if usage and usage["pages_needed"] else None


async def until_waiting(client, pid, eventually):
    return await eventually(lambda: waits(client, pid), timeout_s=20.0)


async def notes_of(client, pid):
    return [event["data"] for event in await client.events(pid) if event["kind"] == "log"]


async def is_free(client):
    (model,) = await client.models()
    return model["num_free_pages"] == NUM_PAGES and not await client.list_processes()


async def test_programs_wait_for_pages_visibly_and_end_as_alone(queueing, client, eventually):
    first = await client.launch_process(BUNDLE, HOLDER)
    await eventually(lambda: has_pages(client, first.pid))
    processes = [await client.launch_process(BUNDLE, arguments(number)) for number in range(3)]
    last = processes[-1]
    usage = await until_waiting(client, last.pid, eventually)
    assert usage["state"].startswith(f"waiting: pages ({usage['pages_needed']} needed, ")
    shown = queueing.pie("ps")
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith(last.pid)]
    assert "waiting: pages (" in line
    assert f"of {NUM_PAGES} pages in use" in shown.stdout
    await eventually(lambda: notes_of(client, last.pid), timeout_s=20.0)
    await first.terminate()
    together = await asyncio.gather(*(result_of(process) for process in processes))
    notes = await notes_of(client, last.pid)
    assert len(notes) == 1
    assert notes[0]["level"] == "info"
    # As many as it needs then: it may have had pages, and lost them to a program that needs fewer.
    assert re.fullmatch(rf"waiting for 1\d KV pages of pie-tiny: \d+ of {NUM_PAGES} are free, .*", notes[0]["message"])
    for number in (0, 2):
        alone = await result_of(await client.launch_process(BUNDLE, arguments(number)))
        assert together[number] == alone
    await eventually(lambda: is_free(client))


async def has_pages(client, pid):
    usage = (await client.inspect(pid))["usage"]
    return usage is not None and usage["pages"] > 12


async def test_who_is_ended_while_it_waits_gives_its_place_to_the_next(queueing, client, eventually, tmp_path):
    (tmp_path / "waiter.py").write_text(SOURCE)
    first = await client.launch_process(BUNDLE, HOLDER)
    large = {"prompt": prompt_of(2, 16 * NUM_PAGES - 9), "max_tokens": 5}
    terminated = await client.launch_process(BUNDLE, large)
    command = [sys.executable, "-m", "pie_cli", "run", str(tmp_path / "waiter.py"), "--input", json.dumps(large)]
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    run = await asyncio.create_subprocess_exec(*command, env=queueing.env, **pipes)
    await until_waiting(client, terminated.pid, eventually)
    interrupted = await eventually(lambda: pid_of(client, "waiter"), timeout_s=20.0)
    await until_waiting(client, interrupted, eventually)
    small_one = await client.launch_process(BUNDLE, {"prompt": prompt_of(3, 20), "max_tokens": 4})
    run.send_signal(signal.SIGINT)
    await terminated.terminate()
    assert len(await result_of(small_one)) == 4
    assert (await client.inspect(first.pid))["state"] == "running", "it got its place when the first had ended"
    _, errors = await asyncio.wait_for(run.communicate(), 20)
    assert run.returncode == 130, errors
    ends = {pid: (await client.inspect(pid))["outcome"] for pid in (terminated.pid, interrupted)}
    assert ends == {terminated.pid: "cancelled", interrupted: "cancelled"}
    await first.terminate()
    await eventually(lambda: is_free(client))


async def pid_of(client, program):
    return next((each["pid"] for each in await client.list_processes() if each["program"] == program), None)


async def test_what_can_never_fit_is_refused_at_once_with_the_numbers_and_the_way_out(client):
    running = await client.launch_process(BUNDLE, HOLDER)
    process = await client.launch_process(BUNDLE, {"prompt": prompt_of(2, 16 * NUM_PAGES + 1), "max_tokens": 1})
    event, error = [pair async for pair in process][-1]
    assert event is Event.Error
    assert error.code == "out_of_pages"
    assert "the context has 385 tokens and needs 25 KV pages of 16 tokens; pie-tiny has 24 in all" in error.message
    assert "raise `num_pages` or `kv_memory_mb` of the model in the configuration" in error.message
    assert (await client.inspect(running.pid))["state"] == "running"
    await running.terminate()
