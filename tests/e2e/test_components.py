"""`pie build` and what becomes of it: run, uploaded, inspected, and alone with what it blocks."""

from __future__ import annotations

import json
import textwrap

import pytest

from pie_client import Event, PieClient
from pie_engine.errors import PieError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
BUILD_S = 800
MAIN = """
from inferlet import Context, Sampler, session

async def main(prompt: str, path: str = "word.txt") -> dict:
    ctx = Context()
    ctx.user(prompt)
    text = await ctx.generate(Sampler.greedy(), max_tokens=8)
    session.send(text)
    return {"text": text, "word": open(path).read()}
"""
BLOCKER = """
import sys
from inferlet import session

async def main(blocks: bool) -> str:
    if not blocks:
        return await session.receive()
    session.send("blocking")
    del sys.modules["time"]  # a new one waits inside WASI, as foreign code may do
    import time
    time.sleep(3600)
"""


def write(home, name, main, **files):
    folder = home / name
    folder.mkdir()
    (folder / "pie.toml").write_text(f'[program]\nname = "{name}"\nversion = "1.0"\n')
    for file, text in {"main.py": textwrap.dedent(main), **files}.items():
        (folder / file).write_text(text)
    return folder


async def test_a_built_program_runs_is_uploaded_and_inspected(daemon, client):
    folder = write(daemon.home, "cherry", MAIN, **{"word.txt": "cherry"})
    done = daemon.pie("build", "cherry", timeout_s=BUILD_S)
    assert done.returncode == 0, done.stderr
    component = done.stdout.strip()
    again = daemon.pie("build", "cherry", timeout_s=BUILD_S)
    assert "unchanged: cherry 1.0" in again.stderr
    facts = json.loads(daemon.pie("inspect", component, "--json").stdout)
    assert (facts["kind"], facts["fits"], facts["files"]) == ("component", True, {"word.txt": 6})
    source = daemon.pie("run", "cherry", "Hello!", timeout_s=BUILD_S)
    built = daemon.pie("run", component, "Hello!", timeout_s=BUILD_S)
    assert built.returncode == 0, built.stderr
    assert built.stdout == source.stdout
    wrong = [daemon.pie("run", target, "Hi", "--path", "no.txt") for target in ("cherry", component)]
    assert [each.returncode for each in wrong] == [1, 1]
    assert wrong[0].stderr == wrong[1].stderr
    uploaded = await client.upload(daemon.home / component)
    assert (uploaded.name, uploaded.version, uploaded.digest) == ("cherry", "1.0", facts["digest"])
    process = await client.launch_process("cherry", {"prompt": "Hello!"})
    assert (await process.result())["word"] == "cherry"
    assert (await client.inspect(process.pid))["host"] == "components-local"
    bundled = daemon.pie("build", "cherry", "--bundle")
    assert daemon.pie("run", bundled.stdout.strip(), "Hello!").stdout == source.stdout
    assert folder.exists()


async def test_a_component_that_blocks_is_ended_and_python_programs_do_not_notice(fresh):
    (fresh.home / "config.toml").write_text('[[models]]\ndtype = "float32"\n[host]\nkill_grace_s = 1.0\n')
    write(fresh.home, "blocker", BLOCKER)
    done = fresh.pie("build", "blocker", timeout_s=BUILD_S)
    assert done.returncode == 0, done.stderr
    component = fresh.home / done.stdout.strip()
    fresh.start()
    async with PieClient(home=fresh.home) as client:
        python = await client.launch_process(fresh.home / "blocker", {"blocks": False})
        await client.upload(component)
        neighbour = await client.launch_process("blocker", {"blocks": False})
        assert (await neighbour.recv())[0] is Event.Started
        blocking = await client.launch_process("blocker", {"blocks": True})
        for process in (blocking, neighbour):
            with pytest.raises(PieError) as caught:
                await process.result()
            assert (caught.value.code, caught.value.retry) == ("host_recycled", True)
        logged = (fresh.home / "logs" / "components-local.log").read_text()
        assert f"process {blocking.pid} has blocked this host for 1 s" in logged
        await python.send("still here")
        assert await python.result() == "still here"
        again = await client.launch_process("blocker", {"blocks": False})
        await again.send("anew")
        assert await again.result() == "anew"
