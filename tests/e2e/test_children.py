"""Programs that launch programs, on a real daemon: results, messages, credits, and ends in every order."""

from __future__ import annotations

import os
import signal

import pytest

from pie_client import Event, PieClient
from pie_engine.errors import PieError
from pie_engine.protocol.credits import CREDIT
from pie_engine.protocol.program import Bundle, Manifest

WORKER = """
from inferlet import Context, scheduling, session

async def main(n: int = 1, does: str = "double", first: int = 300) -> object:
    if does == "talk":
        while (message := await session.receive()) is not None:
            session.send({"got": message})
        return "bye"
    if does == "wait":
        session.send("here")
        await session.receive()
    if does == "fail":
        return {}["nothing"]
    if does == "read":
        with Context() as ctx:
            ctx.append([first + i for i in range(64)])
            await ctx.flush()
            market = await scheduling()
        return [market.endowment, market.balance, market.num_made]
    return 2 * n
"""
BOSS = """
import asyncio
from inferlet import ChildFailed, PieError, runtime, scheduling, session

async def main(does: str, program: str = "worker", input: dict | None = None) -> object:
    if does == "fan-out":
        children = [await runtime.launch(program, n=n) for n in range(5)]
        return await asyncio.gather(*(child.result() for child in children))
    if does == "errors":
        try:
            child = await runtime.launch(program, input or {})
            return await child.result()
        except ChildFailed as error:
            return ["child", error.failure.code, error.failure.message, "main.py" in error.failure.traceback]
        except PieError as error:
            return [error.code, error.message]
    if does == "talk":
        async with await runtime.launch(program, does="talk") as child:
            child.send({"a": 1})
            child.send(2)
            child.send(None)
            return [[message async for message in child.messages()], await child.result()]
    if does == "leave":
        child = await runtime.launch(program, does="wait")
        session.send(child.pid)
        return "left"
    if does == "stop":
        async with await runtime.launch(program, does="wait") as child:
            pass
        try:
            await child.result()
        except ChildFailed as error:
            return [child.pid, error.failure.code]
    if does == "hold":
        children = [await runtime.launch(program, does="wait") for _ in range(3)]
        for child in children:
            async for _ in child.messages():
                break
        session.send([child.pid for child in children])
        await session.receive()
        return "released"
    if does == "credits":
        before = await scheduling()
        child = await runtime.launch(program, {"does": "read", **(input or {})}, endowment=input.get("n"))
        seen = await child.result()
        after = await scheduling()
        return [before.balance, seen, after.balance, after.endowment]
"""


def boss(**manifest) -> Bundle:
    return Bundle(Manifest(name="boss", launches=("worker",), **manifest), files={"main.py": BOSS})


def worker(**manifest) -> Bundle:
    return Bundle(Manifest(name="worker", version="1.0", **manifest), files={"main.py": WORKER})


@pytest.fixture
async def published(client):
    await client.upload(worker())
    return client


async def run(client, bundle=None, **arguments):
    process = await client.launch_process(bundle or boss(), arguments)
    return await process.result()


async def ended_once(client, pid) -> str:
    """How it ended: its only terminal event is its last."""
    async with await client.attach(pid) as process:
        kinds = [event async for event, _ in process]
    terminal = [event for event in kinds if event in (Event.Return, Event.Error)]
    assert terminal == kinds[-1:]
    return (await client.inspect(pid))["outcome"]


async def test_children_run_at_once_and_give_their_values(published):
    assert await run(published, does="fan-out") == [0, 2, 4, 6, 8]


async def test_messages_go_both_ways(published):
    assert await run(published, does="talk") == [[{"got": {"a": 1}}, {"got": 2}], "bye"]


@pytest.mark.parametrize(
    ("program", "input", "expected"),
    [
        ("worker", {"does": "fail"}, ["child", "exception", "KeyError: 'nothing'", True]),
        ("worker@1.0", {"n": 3}, 6),
        ("worker", {"m": 3}, ["child", "invalid_input", "`main` has no parameter `m`", False]),
        ("worker", {"n": "three"}, ["child", "invalid_input", "`n`", False]),
        ("worker@9", {}, ["not_found", "no program `worker@9`"]),
        ("other", {}, ["invalid_input", '`boss` may not launch `other`; write `launches = ["worker", "other"]`']),
    ],
)
async def test_what_goes_wrong_with_a_child_is_told_by_code_and_message(published, program, input, expected):
    got = await run(published, does="errors", program=program, input=input)
    if not isinstance(expected, list):
        assert got == expected
        return
    for part, wanted in zip(got, expected, strict=True):
        assert part == wanted or (isinstance(wanted, str) and wanted in part), got


async def test_a_child_that_is_left_ends_with_its_parent(published):
    process = await published.launch_process(boss(), {"does": "leave"})
    pid = await anext(process.messages())
    assert await process.result() == "left"
    assert await ended_once(published, pid) == "cancelled"
    view = await published.inspect(pid)
    assert view["parent"] == process.pid
    assert (await published.inspect(process.pid))["parent"] is None


async def test_the_end_of_a_block_ends_its_child(published):
    pid, code = await run(published, does="stop")
    assert code == "cancelled"
    assert await ended_once(published, pid) == "cancelled"


async def held(client) -> tuple[object, list[str]]:
    process = await client.launch_process(boss(), {"does": "hold"})
    return process, await anext(process.messages())


async def test_a_killed_parent_takes_its_children_along(published):
    process, pids = await held(published)
    await process.terminate()
    with pytest.raises(PieError) as caught:
        await process.result()
    assert caught.value.code == "cancelled"
    assert [await ended_once(published, pid) for pid in pids] == ["cancelled"] * 3


async def test_a_client_can_end_one_child_and_the_parent_goes_on(published):
    process, pids = await held(published)
    async with await published.attach(pids[0]) as child:
        await child.terminate()
    assert await ended_once(published, pids[0]) == "cancelled"
    await process.send("go")
    assert await process.result() == "released"
    assert [await ended_once(published, pid) for pid in pids] == ["cancelled"] * 3


async def test_children_stand_still_with_their_parent(published):
    process, pids = await held(published)
    await published.pause(process.pid)
    states = {pid: (await published.inspect(pid))["state"] for pid in (process.pid, *pids)}
    assert set(states.values()) == {"paused"}
    await published.resume(process.pid)
    assert {(await published.inspect(pid))["state"] for pid in pids} == {"running"}
    await process.send("go")
    assert await process.result() == "released"


async def test_parents_are_shown(published, daemon):
    process, pids = await held(published)
    listed = daemon.pie("ps").stdout
    for pid in pids:
        assert any(pid in line and process.pid in line for line in listed.splitlines()), listed
    await process.terminate()


async def test_credits_come_out_of_the_parent_and_what_is_left_goes_back(published):
    before, (endowment, balance, num_made), after, given = await run(published, does="credits", input={"n": 100})
    assert (before, given) == (1000, 1000)
    assert (endowment, num_made) == (100, 4)
    assert balance == pytest.approx(96)
    assert after == pytest.approx(996)


async def test_a_child_that_names_no_credits_gets_an_eighth(published):
    before, (endowment, _, _), after, _ = await run(published, does="credits", input={"first": 500})
    assert (before, endowment) == (1000, 125)
    assert after == pytest.approx(996)


async def test_what_the_parent_does_not_have_is_refused_with_the_numbers(published):
    with pytest.raises(PieError, match="an endowment of 2000 credits is more than the 1000 that its parent was given"):
        await run(published, does="credits", input={"n": 2000})


async def test_children_are_not_charged_to_their_user_again(published):
    process = await published.launch_process(boss(), {"does": "credits", "input": {"n": 100}}, endowment=500)
    assert (await process.result())[0] == 500
    usage = (await published.inspect(process.pid))["usage"]
    assert usage["endowment"] == 500 * CREDIT


async def test_a_killed_host_ends_parents_and_children_once(mortal, eventually):
    async with PieClient(home=mortal.home) as client:
        await client.upload(worker())
        process, pids = await held(client)
        health = await client.health()
        victim = next(each for each in health["members"] if each["role"] == "host")["os_pid"]
        os.kill(victim, signal.SIGKILL)
        assert await ended_once(client, process.pid) == "host_lost"
        assert [await ended_once(client, pid) for pid in pids] == ["host_lost"] * 3

        async def is_back() -> bool:
            try:
                members = (await client.health())["members"]
            except PieError:
                return False
            return any(each["role"] == "host" and each["ready"] and each["os_pid"] != victim for each in members)

        await eventually(is_back, timeout_s=90)
        assert await run(client, does="fan-out") == [0, 2, 4, 6, 8]


async def test_families_live_on_when_the_gateway_dies(mortal, eventually):
    async with PieClient(home=mortal.home) as client:
        await client.upload(worker())
        process, pids = await held(client)
        health = await client.health()
        os.kill(next(each for each in health["members"] if each["role"] == "gateway")["os_pid"], signal.SIGKILL)

        async def shows_parent() -> bool:
            try:
                return (await client.inspect(pids[0]))["parent"] == process.pid
            except PieError:
                return False

        await eventually(shows_parent, timeout_s=60)
        await process.send("go")
        assert await process.result() == "released"
        assert [await ended_once(client, pid) for pid in pids] == ["cancelled"] * 3
