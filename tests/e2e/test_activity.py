"""What `pie ps`, snapshots and metrics say that programs do: real ones, each busy with something else."""

from __future__ import annotations

import json

import pytest

from pie_engine.protocol.program import Bundle, Manifest

SOURCES = {
    "receiving": """
        from inferlet import session
        async def main():
            await session.receive()
        """,
    "answering": """
        from inferlet import Context, session
        async def main():
            with Context() as ctx:
                ctx.append("Once upon a time")
                await ctx.generate(max_tokens=4).text()
                await session.receive()
        """,
    "sleeping": """
        import asyncio
        async def main():
            await asyncio.sleep(36_000)
        """,
    "computing": """
        import asyncio
        async def main():
            while True:
                sum(range(10_000))
                await asyncio.sleep(0)
        """,
    "generating": """
        from inferlet import Context
        async def main():
            while True:
                with Context() as ctx:
                    ctx.append("Once upon a time")
                    await ctx.generate(max_tokens=1000, ignore_eos=True).text()
        """,
    "dreaming": """
        import asyncio
        from inferlet import Context
        async def main():
            with Context() as ctx:
                ctx.append("Once upon a time")
                async for chunk in ctx.generate(max_tokens=1000, ignore_eos=True):
                    await asyncio.sleep(36_000)
        """,
}
ACTIVITIES = {
    "receiving": "waiting: client (to send a message)",
    "answering": "waiting: client (to send a message)",
    "sleeping": "waiting: timer (10 h left)",
    "computing": "computing",
    "generating": "running",
    "dreaming": "waiting: consumer (which waits for a timer, 10 h left)",
}


def bundle(name: str) -> Bundle:
    lines = SOURCES[name].strip("\n").splitlines()
    return Bundle(Manifest(name=name), files={"main.py": "".join(f"{line[8:]}\n" for line in lines)})


@pytest.fixture
async def processes(client):
    launched = {name: await client.launch_process(bundle(name), {}) for name in SOURCES}
    yield launched
    for process in launched.values():
        await process.terminate()


async def test_everybody_who_looks_is_told_what_each_program_does(daemon, client, processes, eventually):
    pids = {process.pid: name for name, process in processes.items()}

    def activities(told):
        return {pids[each["pid"]]: each["activity"] for each in told if each["pid"] in pids}

    async def is_so():
        return activities(await client.list_processes()) == ACTIVITIES

    await eventually(is_so, timeout_s=30.0)
    # Between two replies it does something else for a moment.
    await processes["generating"].terminate()
    lasting = {name: activity for name, activity in ACTIVITIES.items() if name != "generating"}
    shown = daemon.pie("ps").stdout
    for pid, name in pids.items():
        if name in lasting:
            (line,) = [line for line in shown.splitlines() if line.startswith(pid)]
            assert f"  {lasting[name]}  " in line
    told = json.loads(daemon.pie("ps", "--json").stdout)["processes"]
    assert activities(told).items() >= lasting.items()
    (usage,) = [each["usage"] for each in told if pids.get(each["pid"]) == "answering"]
    assert usage["state"] == "idle", "that is what its core says"
    programs = {pids[each.pid]: each for each in (await client.stats()).programs if each.pid in pids}
    for name, activity in lasting.items():
        assert programs[name].state == activity.partition(" (")[0]
    assert programs["answering"].waits_for == programs["receiving"].waits_for == "to send a message"
    assert (programs["answering"].model, programs["receiving"].model) == ("pie-tiny", "")
