"""How things end at pie_client: the last event, a cancelled reader, a closed client, a daemon that is gone."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import subprocess
import sys
import traceback
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import pie_client
from pie_client import EndOfEvents, Event, Interrupted, InvalidInput, NoDaemon, NotFound, PieClient, PieError
from pie_client.lock import holder
from pie_engine import errors
from pie_engine.config import load_config
from tests.unit.test_client_wire import Server, counted

SOON_S = 3.0
HEAD = b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\npie-pid: 1a\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(seq, kind, value):
    data = f"id: {seq}\nevent: {kind}\ndata: {json.dumps(value)}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


STARTED = chunk(1, "started", {"program": "a", "version": "0"})
HELLO = chunk(2, "message", "hello")
RETURN = chunk(3, "return", 5)
ERROR = chunk(3, "error", {"code": "exception", "message": "KeyError: 1", "traceback": "Traceback …\nKeyError: 1"})


def refused(status, **error):
    return counted(json.dumps({"error": error}).encode()).replace(b"200 OK", b"%d No" % status)


@asynccontextmanager
async def daemon_of(home, *answers):
    """A server where a client looks for the daemon of this home, and such a client."""
    paths = load_config({"home": str(home)}).paths
    paths.run.mkdir(parents=True, exist_ok=True)
    paths.api_socket.unlink(missing_ok=True)
    async with Server(paths.api_socket) as server, PieClient(home=home) as client:
        server.answers += [list(answer) for answer in answers]
        yield server, client


@pytest.fixture
def lock(tmp_path):
    """The lock of a daemon that lives."""
    path = load_config({"home": str(tmp_path)}).paths.daemon_lock
    path.parent.mkdir(parents=True)
    with path.open("w") as file:
        json.dump({"os_pid": os.getpid()}, file)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        yield path


def die(server):
    """As a process that was killed: its socket stays, and nobody answers."""
    server._server.close()
    Path(server.path).touch()


# The last event.


async def test_the_result_is_there_after_the_last_event_and_again(tmp_path):
    async with daemon_of(tmp_path, [HEAD, STARTED, HELLO, RETURN, END]) as (_, client):
        process = await client.launch_process("a")
        assert [event for event, _ in [pair async for pair in process]] == [Event.Started, Event.Message, Event.Return]
        with pytest.raises(EndOfEvents):
            await process.recv()
        assert [await process.result(), await process.result()] == [5, 5]


async def test_messages_are_what_was_sent(tmp_path):
    async with daemon_of(tmp_path, [HEAD, STARTED, HELLO, RETURN, END]) as (_, client):
        process = await client.launch_process("a")
        assert [message async for message in process.messages()] == ["hello"]
        assert await process.result() == 5


async def test_messages_of_a_program_that_fails_end_in_its_error(tmp_path):
    async with daemon_of(tmp_path, [HEAD, STARTED, HELLO, ERROR, END]) as (_, client):
        messages = (await client.launch_process("a")).messages()
        assert await anext(messages) == "hello"
        with pytest.raises(PieError, match="KeyError") as caught:
            await anext(messages)
    assert caught.value.code == "exception"


async def test_what_nobody_catches_shows_hint_and_traceback_of_the_program(tmp_path):
    async with daemon_of(tmp_path, [HEAD, STARTED, ERROR, END]) as (_, client):
        with pytest.raises(PieError) as caught:
            await (await client.launch_process("a")).result()
    shown = "".join(traceback.format_exception(caught.value))
    assert "in the program:\nTraceback …\nKeyError: 1" in shown


async def test_attached_behind_the_end_the_result_is_still_there(tmp_path):
    inspected = counted(json.dumps({"state": "ended", "last_event": 3}).encode())
    async with daemon_of(tmp_path, [HEAD, END], [inspected], [HEAD, RETURN, END]) as (server, client):
        process = await client.attach("1a", after=3)
        assert await process.result() == 5
        assert b"Last-Event-ID: 2" in server.requests[-1][0]


# Cancelled readers.


async def test_a_reader_that_is_cancelled_loses_nothing(tmp_path):
    more = asyncio.Event()
    async with daemon_of(tmp_path, [HEAD, STARTED, HELLO[:20], more, HELLO[20:], RETURN, END]) as (server, client):
        process = await client.launch_process("a")
        assert (await process.recv())[0] is Event.Started
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await process.recv()
        more.set()
        assert [pair async for pair in process] == [(Event.Message, "hello"), (Event.Return, 5)]
        assert len(server.requests) == 1


async def test_two_readers_share_the_events(tmp_path):
    more = asyncio.Event()
    async with daemon_of(tmp_path, [HEAD, STARTED, more, HELLO, RETURN, END]) as (_, client):
        process = await client.launch_process("a")

        async def read():
            return [value async for _, value in process]

        readers = [asyncio.create_task(read()) for _ in range(2)]
        await asyncio.sleep(0.05)
        more.set()
        first, second = await asyncio.wait_for(asyncio.gather(*readers), SOON_S)
        assert len(first + second) == 3
        assert 5 in first + second


# Closing.


@pytest.mark.parametrize("closes", ["client", "process"])
async def test_closing_ends_whoever_waits(tmp_path, closes):
    async with daemon_of(tmp_path, [HEAD, STARTED, asyncio.Event()]) as (server, client):
        process = await client.launch_process("a")
        await process.recv()
        waiting = asyncio.create_task(process.recv())
        await asyncio.sleep(0.05)
        await (client if closes == "client" else process).close()
        with pytest.raises(Interrupted, match="closed") as caught:
            await asyncio.wait_for(waiting, SOON_S)
        assert "after=1" in caught.value.hint
        with pytest.raises(Interrupted):
            await process.recv()
        assert len(server.requests) == 1


async def test_a_closed_client_says_so(tmp_path):
    async with daemon_of(tmp_path) as (_, client):
        await client.close()
        await client.close()
        with pytest.raises(InvalidInput, match="closed"):
            await client.launch_process("a")


async def test_a_launch_that_comes_back_to_a_closed_client_is_let_go(tmp_path):
    answer = asyncio.Event()
    async with daemon_of(tmp_path, [answer, HEAD, STARTED, asyncio.Event()]) as (_, client):
        launching = asyncio.create_task(client.launch_process("a"))
        await asyncio.sleep(0.05)
        await client.close()
        answer.set()
        with pytest.raises(InvalidInput, match="closed"):
            await asyncio.wait_for(launching, SOON_S)


# A daemon that is gone.


async def test_a_daemon_that_was_killed_is_no_daemon_at_once(tmp_path):
    async with daemon_of(tmp_path, [HEAD, STARTED, None]) as (server, client):
        process = await client.launch_process("a")
        await process.recv()
        die(server)
        with pytest.raises(NoDaemon):
            await asyncio.wait_for(process.recv(), SOON_S)


async def test_a_gateway_whose_daemon_lives_is_waited_for(tmp_path, lock):
    async with daemon_of(tmp_path, [HEAD, STARTED, None]) as (server, client):
        process = await client.launch_process("a")
        await process.recv()
        die(server)
        waiting = asyncio.create_task(process.recv())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        async with daemon_of(tmp_path, [HEAD, HELLO, asyncio.Event()]) as (again, _):
            assert await asyncio.wait_for(waiting, SOON_S) == (Event.Message, "hello")
            assert b"Last-Event-ID: 1" in again.requests[0][0]


def test_a_lock_is_held_by_a_daemon_that_lives(lock):
    assert holder(lock) == json.loads(lock.read_text())["os_pid"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"os_pid": "x"}', json.dumps({"os_pid": os.getpid()})])
def test_a_lock_that_nobody_holds(tmp_path, text):
    (tmp_path / "lock").write_text(text)
    assert holder(tmp_path / "lock") is None
    assert holder(tmp_path / "nothing") is None


# What it says.


async def test_no_daemon_is_short_and_says_the_way_out(tmp_path):
    program = f"""
import asyncio
from pie_client import PieClient

async def ask():
    async with PieClient(home={str(tmp_path)!r}) as client:
        await client.launch_process("hello")

asyncio.run(ask())
"""
    shown = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True)
    lines = shown.stderr.splitlines()
    assert lines[-2].startswith("pie_client.errors.NoDaemon: no daemon answers at ")
    assert lines[-1] == "hint: `pie serve --background` starts one"
    assert "direct cause" not in shown.stderr
    assert [line for line in lines if "pie_client" in line and line.startswith("  File")][2:] == []


async def test_nobody_at_an_address(tmp_path):
    async with PieClient(home=tmp_path, url="http://127.0.0.1:9") as client:
        with pytest.raises(NoDaemon, match="no daemon answers at http://127") as caught:
            await client.models()
    assert "--listen" in caught.value.hint


@pytest.mark.parametrize("url", ["127.0.0.1:8765", "localhost:8765", "http://", "ftp://there", "http://a:b:c"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(InvalidInput, match="`url` is"):
        PieClient(url=url)


async def test_a_name_that_is_only_a_folder_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hello").mkdir()
    answers = [[refused(404, code="not_found", message=f"no program `{name}`", hint="?")] for name in ("hello", "bye")]
    async with daemon_of(tmp_path, *answers) as (_, client):
        with pytest.raises(NotFound, match="no program `hello`") as caught:
            await client.launch_process("hello")
        assert caught.value.hint == 'there is a folder of this name here: write "./hello" to launch it'
        with pytest.raises(NotFound) as caught:
            await client.launch_process("bye")
        assert caught.value.hint == "?"


async def test_a_path_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.py").write_text("async def main(): ...\n")
    async with daemon_of(tmp_path, [HEAD, RETURN, END]) as (server, client):
        await client.launch_process("~/a.py")
        assert json.loads(server.requests[0][1])["bundle"]["manifest"]["name"] == "a"


def test_the_public_names():
    assert sorted(pie_client.__all__) == pie_client.__all__
    assert all(getattr(pie_client, name).__doc__ is not None for name in ("PieClient", "Process", "Event"))
    assert (Path(pie_client.__file__).parent / "py.typed").exists()


def test_the_errors_are_those_of_the_engine():
    names = [name for name in pie_client.__all__ if name in vars(errors)]
    assert {"PieError", "ErrorInfo", "InvalidProgram", "NotFound", "Lost"} <= set(names)
    assert all(getattr(pie_client, name) is getattr(errors, name) for name in names)


@pytest.mark.parametrize("cls", [PieClient, pie_client.Process])
def test_methods_are_documented(cls):
    bare = {"request", "open_events", "remember", "forget"}
    for name, value in vars(cls).items():
        if not name.startswith("_") and callable(value) and name not in bare:
            assert value.__doc__, f"{cls.__name__}.{name}"


class Circle:
    def __init__(self):
        self.parts = []
        self.parts.append(self.parts)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"prompt": object()}, "`prompt` of the input cannot be sent: JSON has no `object`"),
        (
            {"a": {"b": [1, {"c d": {1, object()}}]}},
            "`a.b[1].c d[…]` of the input cannot be sent: JSON has no `object`",
        ),
        ({"a": [1, lambda: 0]}, "`a[1]` of the input cannot be sent: JSON has no `function`"),
        ({"a": {(1, 2): 3}}, "`a` of the input cannot be sent: the key `(1, 2)` is no text"),
        ({"a": "\ud800"}, "`a` of the input cannot be sent: 'utf-8' codec can't encode"),
        ({"a": Circle().parts}, "of the input cannot be sent: it contains itself, or too many levels"),
    ],
)
async def test_what_json_does_not_have_is_named(tmp_path, value, says):
    """Before anything is sent, also without a daemon."""
    async with PieClient(home=tmp_path) as client:
        with pytest.raises(InvalidInput) as caught:
            await client.launch_process("hello", value)
        assert says in caught.value.message
        assert caught.value.__notes__ == [
            "hint: use str, int, float, bool, None, lists, dicts and dataclasses of these"
        ]
        process = client._process("1a", None, after=0, with_trace=False)
        with pytest.raises(InvalidInput, match="the message cannot be sent"):
            await process.send(value)


@pytest.mark.parametrize("credits", [float("nan"), float("inf"), -1.0])
async def test_what_is_no_amount_of_credits_is_refused_before_it_is_sent(tmp_path, credits):
    """JSON has no NaN: a bid would be taken back, in place of the error."""
    async with PieClient(home=tmp_path) as client:
        with pytest.raises(InvalidInput, match="a bid is a number of credits from 0 "):
            await client.bid("1a", credits)
        with pytest.raises(InvalidInput, match="an endowment is a number of credits from 0 "):
            await client.endow("1a", credits)
