"""The daemon as a process: start, deaths, restarts, the end; hosts and cores only speak the protocol."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from pie_client import Event, NoDaemon, PieClient
from pie_engine.errors import PieError
from pie_engine.protocol.program import Bundle, Manifest
from tests.integration.fake_engine import PATIENCE_S, FakeEngine, member

BUNDLE = Bundle(Manifest(name="steps"), {"main.py": "async def main(): ...\n"})
COMPONENT = Bundle(Manifest(name="parts", runtime="component"), blobs={"program.wasm": b"\0asm\x0d\0\x01\0"})


@pytest.fixture
def engine():
    made = FakeEngine()
    yield made
    made.remove()


def is_alive(os_pid):
    try:
        os.kill(os_pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{os_pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] != "Z"


async def all_gone(os_pids, eventually):
    await eventually(lambda: not any(is_alive(os_pid) for os_pid in os_pids), timeout_s=PATIENCE_S)


async def test_from_start_to_an_orderly_end(engine, eventually):
    async with await engine.start() as client:
        health = await client.health()
        assert [(m["role"], m["name"], m["ready"]) for m in health["members"]] == [
            ("gateway", "gateway", True),
            ("core", "tiny", True),
            ("host", "host-0", True),
        ]
        assert health["daemon_os_pid"] == engine.process.pid
        assert (health["protocol"], health["incidents"]) == (1, [])
        process = await client.launch_process(BUNDLE, {"do": [["message", 1], ["hang"]]})
        assert engine.stop() == 0
        ends = [pair async for pair in process]
        assert [event.is_terminal for event, _ in ends] == [False, False, True]
        with pytest.raises(NoDaemon):
            await client.inspect(process.pid)
    await all_gone([m["os_pid"] for m in health["members"]], eventually)
    assert sorted(path.name for path in (engine.home / "run").iterdir()) == ["daemon.lock", "gateway.lock"]
    assert (engine.home / "logs" / "incidents.jsonl").read_text() == ""


async def test_children_are_shown_while_they_start(engine):
    engine.settings["models"] = [{"name": "slow", "driver": "fake"}]
    engine.spawn()
    async with PieClient(home=engine.home) as client:
        health = await engine.until_health(client, lambda health: not member(health, "slow")["ready"])
        assert health["status"] == "starting"
        await engine.until_health(client, lambda health: "loading" in str(member(health, "slow")["detail"]))
        progress = member(await client.health(), "slow")["detail"]["progress"]
        assert progress == {"text": "loading", "fraction": 0.5}
        (engine.home / "go").touch()
        await engine.until_health(client, lambda health: member(health, "slow")["ready"])


async def test_what_cannot_start_says_why_and_stays_down(engine):
    engine.settings["models"] = [{"name": "broken", "driver": "fake"}, {"name": "tiny", "driver": "fake"}]
    engine.spawn()
    async with PieClient(home=engine.home) as client:
        health = await engine.until_health(client, lambda health: "failed" in member(health, "broken")["detail"])
        failed = member(health, "broken")["detail"]["failed"]
        assert failed == {"code": "model_error", "message": "broken: no such model", "hint": "name another"}
        assert health["status"] == "degraded"
        await engine.until_health(client, lambda health: member(health, "tiny")["ready"])
        assert [(each["reason"], each["code"]) for each in engine.incidents()] == [("exit status 78", "model_error")]


async def test_a_failed_start_is_told_as_such_also_when_the_daemon_was_stopped_because_of_it(engine):
    engine.settings["models"] = [{"name": "lingering", "driver": "fake"}]
    engine.spawn()
    async with PieClient(home=engine.home) as client:
        await engine.until_health(client, lambda health: "failed" in member(health, "lingering")["detail"])
        assert engine.stop() == 0
    assert [(incident["name"], incident["action"]) for incident in engine.incidents()] == [
        ("lingering", "cannot start: lingering: no such model")
    ]


async def test_nobody_waits_for_hosts_that_cannot_start(engine):
    engine.settings["host"] = {"warm_instances": 0}
    engine.spawn()
    async with PieClient(home=engine.home) as client:
        await engine.until_health(client, lambda health: True)
        with pytest.raises(PieError, match="no runtime here") as caught:
            await launched_result(client)
        assert (caught.value.code, caught.value.hint) == ("host_lost", "get one")
        with pytest.raises(PieError, match="no runtime here"):
            await client.launch_process(BUNDLE)


async def launched_result(client):
    """Queued, if the host has not failed yet."""
    return await (await client.launch_process(BUNDLE)).result()


async def test_what_keeps_dying_is_given_up(engine):
    engine.settings["models"] = [{"name": "dying", "driver": "fake"}]
    engine.spawn()
    async with PieClient(home=engine.home) as client:
        health = await engine.until_health(client, lambda health: "failed" in member(health, "dying")["detail"])
        assert "died 5 times" in member(health, "dying")["detail"]["failed"]["message"]
        assert "famous last words" in member(health, "dying")["detail"]["failed"]["message"]
        incidents = engine.incidents()
        assert [incident["reason"] for incident in incidents] == ["exit status 3"] * 5
        assert incidents[-1]["action"] == "given up"
        assert incidents[0]["stderr"] == ["famous last words"]
        assert len(health["incidents"]) == 5


async def test_a_killed_member_is_started_again_and_remembered(engine):
    async with await engine.start() as client:
        for name in ("tiny", "host-0", "gateway"):
            await engine.kill(client, name)
        assert [(incident["name"], incident["reason"]) for incident in engine.incidents()] == [
            (name, "killed by SIGKILL") for name in ("tiny", "host-0", "gateway")
        ]
        assert await (await client.launch_process(BUNDLE, {"do": [["return", 1]]})).result() == 1


async def test_a_killed_daemon_takes_its_children_along(engine, eventually):
    async with await engine.start() as client:
        health = await client.health()
        engine.process.kill()
        engine.process.wait()
        await all_gone([m["os_pid"] for m in health["members"]], eventually)


async def test_a_second_daemon_of_the_same_home_is_refused(engine):
    async with await engine.start() as client:
        first = engine.process
        second = engine.spawn()
        assert second.wait(PATIENCE_S) == 75
        assert b"already running" in second.stderr.read()
        engine.process = first
        assert (await client.health())["status"] == "ok"


async def test_a_gateway_that_cannot_start_ends_the_daemon_with_the_reason(engine):
    engine.settings["gateway"] = {"listen": "0.0.0.0:80"}
    daemon = engine.spawn()
    assert await asyncio.to_thread(daemon.wait, PATIENCE_S) == 78
    assert b"gateway.listen" in daemon.stderr.read()
    # The others went because of it, which is no incident of theirs.
    assert [incident["name"] for incident in engine.incidents()] == ["gateway"]


async def test_a_damaged_database_is_named(engine):
    (engine.home / "pie.sqlite").write_bytes(b"this is no database" * 1000)
    daemon = engine.spawn()
    assert await asyncio.to_thread(daemon.wait, PATIENCE_S) == 78
    assert b"pie.sqlite" in daemon.stderr.read()


async def test_draining_waits_for_what_runs_and_launches_no_more(engine):
    async with await engine.start() as client:
        process = await client.launch_process(BUNDLE, {"do": [["receive"], ["return", 7]]})
        await client.stop_daemon(drain=True)
        with pytest.raises(PieError, match="draining"):
            await client.launch_process(BUNDLE)
        await engine.kill(client, "gateway")
        with pytest.raises(PieError, match="draining"):
            await client.launch_process(BUNDLE)
        assert engine.process.poll() is None
        await process.send(1)
        assert [pair async for pair in process][-1] == (Event.Return, 7)
        assert await asyncio.to_thread(engine.process.wait, PATIENCE_S) == 0


async def test_stop_ends_what_runs(engine):
    async with await engine.start() as client:
        process = await client.launch_process(BUNDLE, {"do": [["hang"]]}, on_disconnect="detach")
        await client.stop_daemon()
        event, error = [pair async for pair in process][-1]
        assert event is Event.Error
        assert error.code in ("cancelled", "daemon_stopped")
        assert await asyncio.to_thread(engine.process.wait, PATIENCE_S) == 0


async def test_a_member_that_does_not_end_is_killed(engine):
    engine.settings["host"] = {"cancel_grace_s": 0.1}
    async with await engine.start() as client:
        process = await client.launch_process(BUNDLE, {"do": [["stubborn"]]}, on_disconnect="detach")
        assert (await process.recv())[0] is Event.Started
        assert (await process.recv()) == (Event.Message, "here")
        engine.process.send_signal(signal.SIGINT)
        event, error = [pair async for pair in process][-1]
        assert (event, error.code) == (Event.Error, "daemon_stopped")
        assert await asyncio.to_thread(engine.process.wait, PATIENCE_S) == 0
    # It was killed because the daemon stopped, which is no incident.
    assert engine.incidents() == []
    assert "killed by SIGKILL, since the daemon stops" in (engine.home / "logs" / "daemon.log").read_text()


async def test_a_signal_to_all_of_them_is_no_incident(engine):
    engine.own_group = True
    async with await engine.start() as client:
        os.killpg(engine.process.pid, signal.SIGTERM)
        assert await asyncio.to_thread(engine.process.wait, PATIENCE_S) == 0
        with pytest.raises(NoDaemon):
            await client.health()
    assert engine.incidents() == []


async def test_one_that_crashes_while_the_daemon_stops_is_an_incident(engine):
    engine.settings["host"] = {"cancel_grace_s": 2}
    async with await engine.start() as client:
        process = await client.launch_process(BUNDLE, {"do": [["stubborn"]]}, on_disconnect="detach")
        assert (await process.recv())[0] is Event.Started
        assert (await process.recv()) == (Event.Message, "here")
        host = member(await client.health(), "host-0")["os_pid"]
        engine.process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.2)
        os.kill(host, signal.SIGSEGV)
        assert await asyncio.to_thread(engine.process.wait, PATIENCE_S) == 0
    assert [(incident["reason"], incident["action"]) for incident in engine.incidents()] == [
        ("killed by SIGSEGV", "the daemon was stopping")
    ]


# Hosts for standalone components.


async def test_components_run_in_a_host_of_their_own_that_comes_when_it_is_needed(engine):
    async with await engine.start() as client:
        assert "components" not in {m["role"] for m in (await client.health())["members"]}
        process = await client.launch_process(COMPONENT, {"do": [["receive"]]})
        other = await client.launch_process(BUNDLE, {"do": [["receive"]]})
        assert (await process.recv())[0] is Event.Started
        health = await client.health()
        assert member(health, "components-local")["role"] == "components"
        assert health["status"] == "ok"
        assert (await client.inspect(process.pid))["host"] == "components-local"
        assert (await client.inspect(other.pid))["host"] == "host-0"
        assert (await client.describe(COMPONENT)).signature is not None


async def test_a_component_that_blocks_its_host_takes_only_its_like_along(engine):
    async with await engine.start() as client:
        python = await client.launch_process(BUNDLE, {"do": [["receive"], ["return", 1]]})
        waiting = await client.launch_process(COMPONENT, {"do": [["hang"]]})
        for _ in range(6):  # more often than what keeps dying would be started
            blocking = await client.launch_process(COMPONENT, {"do": [["block"]]})
            with pytest.raises(PieError, match="blocked the host") as caught:
                await blocking.result()
            assert (caught.value.code, caught.value.retry) == ("host_recycled", True)
            assert "kill_grace_s" in caught.value.hint
        with pytest.raises(PieError, match="blocked the host"):
            await waiting.result()
        for number in range(3):
            again = await client.launch_process(COMPONENT, {"do": [["return", number]]})
            assert await again.result() == number
        await python.send("go on")
        assert await python.result() == 1
        incidents = engine.incidents()
        assert {(incident["name"], incident["action"]) for incident in incidents} == {
            ("components-local", "started again when it is needed")
        }


@pytest.mark.slow
async def test_a_killed_host_of_components_is_started_again(engine):
    async with await engine.start() as client:
        lost = await client.launch_process(COMPONENT, {"do": [["hang"]]})
        assert (await lost.recv())[0] is Event.Started
        await engine.kill(client, "components-local")
        with pytest.raises(PieError, match="died") as caught:
            await lost.result()
        assert caught.value.code == "host_lost"
        assert await (await client.launch_process(COMPONENT, {"do": [["return", 2]]})).result() == 2
        assert engine.stop() == 0


@pytest.mark.slow
async def test_a_component_that_waits_for_its_host_survives_the_gateway(engine):
    engine.settings["host"] = {"max_processes": 1}
    async with await engine.start() as client:
        first = await client.launch_process(COMPONENT, {"do": [["receive"], ["return", 1]]}, on_disconnect="detach")
        second = await client.launch_process(COMPONENT, {"do": [["return", 2]]}, on_disconnect="detach")
        assert (await client.inspect(second.pid))["state"] == "queued"
        await engine.kill(client, "gateway")
        assert await (await client.launch_process(BUNDLE, {"do": [["return", 3]]})).result() == 3
        await first.send("go on")
        assert await first.result() == 1
        assert await second.result() == 2
