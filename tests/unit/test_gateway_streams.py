"""The gateway's event streams: frames, tails, and who follows a process."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_engine.gateway.process import Follower, Process
from pie_engine.gateway.sse import MAX_TAIL_BYTES, Tail, frame
from pie_engine.protocol.to_gateway import Event
from pie_engine.store.store import Store
from tests import thoroughness
from tests.unit.test_store import record


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        ('"a"', b'data: "a"'),
        ('{\n "a": 1\n}', b'data: {\ndata:  "a": 1\ndata: }'),
        ("[1,\r\n2]", b"data: [1,\ndata: 2]"),
    ],
)
def test_frames_have_a_data_field_for_each_line(data, lines):
    assert frame(3, "message", data) == b"id: 3\nevent: message\n" + lines + b"\n\n"


@given(st.lists(st.integers(1, MAX_TAIL_BYTES // 2), max_size=40), st.integers(0, 45))
def test_a_tail_has_everything_after_its_floor(sizes, cursor):
    tail = Tail(0)
    for seq, size in enumerate(sizes, 1):
        tail.push(seq, b"%d:" % seq + b"x" * size)
    frames = tail.after(cursor)
    if cursor < tail.floor:
        assert frames is None
    else:
        assert [int(data.split(b":")[0]) for data in frames] == list(range(cursor + 1, len(sizes) + 1))
    kept = tail.after(tail.floor)
    assert sum(map(len, kept)) <= MAX_TAIL_BYTES


@settings(max_examples=thoroughness.count(12, 60), deadline=None)
@given(st.lists(st.sampled_from(["event", "big", "trace", "read", "join"]), max_size=60))
async def test_followers_see_every_event_once_wherever_it_lies(tmp_path_factory, steps):
    store = Store(tmp_path_factory.mktemp("follow") / "pie.sqlite")
    process, followers = Process(record(1)), []

    def add(event):
        process.accept(event)
        with store.transaction():
            store.add_events([(1, event)])
        process.show(event)

    def join():
        if not process.followers:
            process.tail.forget(process.stored_seq)
        followers.append((Follower(process, store, 0, with_trace=len(followers) % 2 == 0), []))
        process.followers.add(followers[-1][0])

    async def read():
        for follower, seen in followers:
            while follower.cursor < process.stored_seq:
                seen.append(follower._read())

    for step in steps:
        if step in ("event", "big", "trace"):
            data = '"' + "x" * (MAX_TAIL_BYTES if step == "big" else 1) + '"'
            add(Event("p1", process.accepted_seq + 1, "trace" if step == "trace" else "message", data, 1.0))
        elif step == "join":
            join()
        else:
            await read()
    join()
    add(Event("p1", process.accepted_seq + 1, "return", "null", 1.0))
    await read()
    kinds = {row.seq: row.kind for row in store.events(1, 0, 100)}
    for number, (follower, seen) in enumerate(followers):
        ids = [int(line[4:]) for line in b"".join(seen).split(b"\n") if line.startswith(b"id: ")]
        assert ids == [seq for seq in kinds if number % 2 == 0 or kinds[seq] != "trace"]
        assert follower.is_at_end
        assert await follower.next() is None
    store.close()


async def test_a_follower_that_waits_is_woken_pinged_and_sent_away(store):
    process = Process(record(1))
    follower = Follower(process, store, 0)
    process.followers.add(follower)
    waiting = asyncio.create_task(follower.next())
    await asyncio.sleep(0)
    follower.ping()
    assert await waiting == b": keep-alive\n\n"
    waiting = asyncio.create_task(follower.next())
    await asyncio.sleep(0)
    process.show(Event("p1", 1, "message", "1", 1.0))
    assert b"id: 1\n" in await waiting
    waiting = asyncio.create_task(follower.next())
    await asyncio.sleep(0)
    follower.leave()
    assert await waiting is None
