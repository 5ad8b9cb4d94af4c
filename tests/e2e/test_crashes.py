"""What is left after a process of the engine dies: clear errors, nothing acknowledged lost, recovery by itself."""

from __future__ import annotations

import asyncio
import os
import re
import signal

import pytest

from pie_client import Event, PieClient
from pie_engine.errors import PieError
from pie_engine.protocol.program import Bundle, Manifest

RECOVERY_S = 90

LONG = Bundle(
    Manifest(name="long"),
    files={
        "main.py": """
from inferlet import Context, session

async def main(tokens: int = 100000) -> int:
    while True:
        with Context() as ctx:
            ctx.append("Once upon a time")
            async for chunk in ctx.generate(max_tokens=200, ignore_eos=True):
                session.send(chunk.text)
"""
    },
)
WAITER = Bundle(
    Manifest(name="waiter"),
    files={
        "main.py": """
from inferlet import session

async def main() -> list[str]:
    session.send("ready")
    got = []
    while len(got) < 3:
        got.append(await session.receive())
        session.send(got[-1])
    return got
"""
    },
)

WRITER = Bundle(
    Manifest(name="writer"),
    files={
        "main.py": """
from inferlet import Context, session

async def main() -> None:
    ctx = Context()
    ctx.append("Once upon a time there was a fox. " * 40)
    await ctx.save("tale")
    ctx.append("It saw a crow. " * 40)
    await ctx.save("tale", durable=False)
    session.send("saved")
    await session.receive()
"""
    },
)
READER = Bundle(
    Manifest(name="reader"),
    files={
        "main.py": """
from inferlet import Context, Sampler

async def main() -> list:
    ctx = Context.open("tale")
    text, again = ctx.model.tokenizer.decode(ctx.tokens), Context()
    again.append(ctx.tokens)
    streams = [ctx.generate(Sampler.greedy(), max_tokens=4), again.generate(Sampler.greedy(), max_tokens=4)]
    replies = [await stream for stream in streams]
    return [text.count("fox"), text.count("crow"), replies[0] == replies[1], streams[0].usage.cached_tokens > 0]
"""
    },
)


async def os_pid(client, role, name=None):
    health = await client.health()
    members = [m for m in health["members"] if m["role"] == role and m["ready"] and name in (None, m["name"])]
    return members[0]["os_pid"] if members else None


async def kill(client, role):
    victim = await os_pid(client, role)
    os.kill(victim, signal.SIGKILL)
    return victim


async def recovered(client, role, victim, eventually):
    async def is_back():
        try:
            return await os_pid(client, role) not in (None, victim)
        except PieError:
            return False

    await eventually(is_back, timeout_s=RECOVERY_S)


async def first_message(process):
    async for event, _value in process:
        if event is Event.Message:
            return
    raise AssertionError("ended without a message")


async def ending(process):
    """The terminal event and how many there were."""
    terminal = []
    async with asyncio.timeout(RECOVERY_S):
        async for event, value in process:
            if event in (Event.Return, Event.Error):
                terminal.append((event, value))
    assert len(terminal) == 1
    return terminal[0]


@pytest.fixture
async def own(mortal):
    """A client of the daemon of which these tests kill parts."""
    async with PieClient(home=mortal.home) as client:
        yield client


async def works(client):
    process = await client.launch_process(WAITER)
    for word in "abc":
        await process.send(word)
    assert await ending(process) == (Event.Return, ["a", "b", "c"])


async def test_a_killed_core_ends_its_programs_and_comes_back(own, eventually, mortal):
    bystander = await own.launch_process(WAITER)
    process = await own.launch_process(LONG)
    await first_message(process)
    victim = await kill(own, "core")
    event, error = await ending(process)
    assert (event, error.code) == (Event.Error, "core_lost")
    assert "pie-tiny" in error.message
    await recovered(own, "core", victim, eventually)
    for word in "abc":
        await bystander.send(word)
    assert await ending(bystander) == (Event.Return, ["a", "b", "c"])
    doctor = mortal.pie("doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert re.search(r"warning  core pie-tiny was killed by SIGKILL at .*; started again", doctor.stdout)
    await works(own)


@pytest.mark.slow
async def test_a_core_that_is_killed_while_it_writes_leaves_a_whole_context(own, eventually):
    process = await own.launch_process(WRITER)
    await first_message(process)
    victim = await kill(own, "core")
    assert (await ending(process))[1].code == "core_lost"
    await recovered(own, "core", victim, eventually)
    event, (foxes, crows, is_same, is_cached) = await ending(await own.launch_process(READER))
    assert (event, foxes, is_same, is_cached) == (Event.Return, 40, True, True)
    assert crows in (0, 40)


async def test_a_killed_host_ends_its_programs_and_frees_their_pages(own, eventually):
    process = await own.launch_process(LONG)
    await first_message(process)
    victim = await kill(own, "host")
    event, error = await ending(process)
    assert (event, error.code) == (Event.Error, "host_lost")
    await recovered(own, "host", victim, eventually)

    async def all_free():
        model = (await own.models())[0]
        return model["num_free_pages"] == model["num_pages"]

    await eventually(all_free)
    await works(own)


async def test_a_killed_gateway_loses_nothing_acknowledged(own, eventually):
    waiter = await own.launch_process(WAITER, on_disconnect="detach")
    await first_message(waiter)
    await waiter.send("one")
    uploaded = await own.upload(WAITER)
    victim = await kill(own, "gateway")
    await recovered(own, "gateway", victim, eventually)
    again = await own.attach(waiter.pid)
    for word in ("two", "three"):
        await again.send(word)
    seen = [pair async for pair in again]
    assert [value for event, value in seen if event is Event.Message] == ["ready", "one", "two", "three"]
    assert seen[-1] == (Event.Return, ["one", "two", "three"])
    by_reference = await own.launch_process(uploaded.digest)
    for word in "abc":
        await by_reference.send(word)
    assert await ending(by_reference) == (Event.Return, ["a", "b", "c"])


async def test_a_new_gateway_hears_from_the_hosts_what_programs_do(own, eventually):
    waiter = await own.launch_process(WAITER, on_disconnect="detach")

    async def waits_for_client():
        try:
            return (await own.inspect(waiter.pid))["activity"] == "waiting: client (to send a message)"
        except PieError:
            return False

    await eventually(waits_for_client)
    victim = await kill(own, "gateway")
    await recovered(own, "gateway", victim, eventually)
    await eventually(waits_for_client, timeout_s=RECOVERY_S)
    await waiter.terminate()


async def test_a_killed_daemon_takes_everything_down_and_the_next_one_says_so(fresh, eventually):
    fresh.use_fake_model()
    fresh.start()
    async with PieClient(home=fresh.home) as client:
        process = await client.launch_process(LONG, on_disconnect="detach")
        await first_message(process)
        health = await client.health()
    os.kill(health["daemon_os_pid"], signal.SIGKILL)
    await eventually(lambda: not any(is_alive(m["os_pid"]) for m in health["members"]))
    fresh.start()
    async with PieClient(home=fresh.home) as client:
        event, error = await ending(await client.attach(process.pid))
        assert (event, error.code) == (Event.Error, "lost")


def is_alive(os_pid):
    try:
        os.kill(os_pid, 0)
    except ProcessLookupError:
        return False
    return open(f"/proc/{os_pid}/stat").read().split(")")[1].split()[0] != "Z"


async def test_a_client_that_disappears_leaves_no_pages_behind(own, eventually):
    async with PieClient(home=own.home) as short_lived:
        process = await short_lived.launch_process(LONG, on_disconnect="terminate")
        await first_message(process)
    ended = await eventually(lambda: has_ended(own, process.pid))
    assert ended["outcome"] == "cancelled"

    async def all_free():
        model = (await own.models())[0]
        return model["num_free_pages"] == model["num_pages"]

    await eventually(all_free)


async def has_ended(client, pid):
    process = await client.inspect(pid)
    return process if process["state"] == "ended" else None


async def test_a_detached_process_goes_on_and_can_be_attached(own, eventually):
    async with PieClient(home=own.home) as short_lived:
        process = await short_lived.launch_process(WAITER, on_disconnect="detach")
        await first_message(process)
    await asyncio.sleep(1)
    again = await own.attach(process.pid)
    for word in "abc":
        await again.send(word)
    assert await ending(again) == (Event.Return, ["a", "b", "c"])


async def test_terminate_ends_a_process_once_and_for_all(own):
    process = await own.launch_process(LONG)
    await first_message(process)
    await process.terminate()
    await process.terminate()
    event, error = await ending(process)
    assert (event, error.code) == (Event.Error, "cancelled")
