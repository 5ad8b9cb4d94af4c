"""The store: what is committed, what is refused, what is forgotten."""

from __future__ import annotations

import sqlite3
import time

import pytest

from pie_engine.errors import InvalidConfig
from pie_engine.protocol.plan import Usage
from pie_engine.protocol.program import Bundle, Manifest
from pie_engine.protocol.to_gateway import Event
from pie_engine.store import database
from pie_engine.store.records import ProcessRecord
from pie_engine.store.store import Store

BUNDLE = Bundle(Manifest(name="a", version="1"), {"main.py": "x = 'é'"}, {"b.bin": b"\x00\xff"})


def record(number, **fields):
    values = {
        "id": number,
        "pid": f"p{number}",
        "user": "me",
        "program": "a",
        "version": "1",
        "digest": BUNDLE.digest,
        "input": "{}",
        "on_disconnect": "detach",
        "idempotency_key": None,
        "host_boot": None,
        "host": None,
        "is_terminating": False,
        "created": 1.0,
        "ended": None,
        "outcome": None,
    }
    return ProcessRecord(**{**values, **fields})


def event(number, seq, kind="message", data="1"):
    return number, Event(f"p{number}", seq, kind, data, 2.0)


def test_what_was_committed_is_there_after_opening_again(store, tmp_path):
    with store.transaction():
        store.add_program(BUNDLE.digest, BUNDLE)
        store.add_process(record(7, idempotency_key="k"))
        store.add_events([event(7, 1, "started"), event(7, 2, "return", "null")])
        store.end_process(7, 3.0, "return", Usage(1, 2, 3, 4, 5))
        store.set_meta("instance", "x")
    again = Store(tmp_path / "pie.sqlite")
    assert again.bundle(BUNDLE.digest) == BUNDLE
    assert (again.process("p7").last_seq, again.process("p7").usage) == (2, "[1,2,3,4,5,0,0]")
    assert again.process_with_key("me", "k").outcome == "return"
    assert [row.seq for row in again.events(7, 0, 10)] == [1, 2]
    assert (again.meta("instance"), again.meta("nothing")) == ("x", None)
    assert again.next_process_id() == 8
    again.close()


def test_a_transaction_is_all_or_nothing(store):
    def add_twice():
        with store.transaction():
            store.add_process(record(1))
            store.add_process(record(1))

    with pytest.raises(sqlite3.IntegrityError):
        add_twice()
    assert store.alive() == []


@pytest.mark.parametrize("second", ["return", "error"])
def test_a_second_terminal_event_is_never_stored(store, second):
    with store.transaction():
        store.add_events([event(1, 1, "started"), event(1, 2, "error", "{}"), event(1, 3, second)])
        store.add_events([event(1, 4, second)])
    assert [(row.seq, row.kind) for row in store.events(1, 0, 10)] == [(1, "started"), (2, "error")]


def test_an_event_that_comes_twice_is_stored_once(store):
    with store.transaction():
        store.add_events([event(1, 1, data="1"), event(1, 1, data="2")])
    assert [row.data for row in store.events(1, 0, 10)] == ["1"]


def test_events_are_read_in_pages(store):
    with store.transaction():
        store.add_events(event(1, seq) for seq in range(1, 11))
    assert [row.seq for row in store.events(1, 0, 4)] == [1, 2, 3, 4]
    assert [row.seq for row in store.events(1, 4, 100)] == list(range(5, 11))
    page = store.events(1, 0, 100)
    next(page)
    page.close()
    with store.transaction():
        store.add_events([event(1, 11)])


def test_names_stand_for_the_newest_release(store):
    with store.transaction():
        store.add_program("d1", BUNDLE)
        store.add_program("d2", BUNDLE)
        store.publish("me", "a", "1", "d1")
        store.publish("me", "a", "2", "d2")
        store.publish("you", "a", "1", "d2")
    assert store.released("me", "a") == "d2"
    assert store.released("me", "a", "1") == "d1"
    with store.transaction():
        store.publish("me", "a", "1", "d2")
    assert store.released("me", "a", "1") == "d2"
    assert store.released("me", "a", "3") is None
    assert [(release.version, release.digest) for release in store.releases("me")] == [("2", "d2"), ("1", "d2")]


def test_old_processes_go_with_everything_that_was_theirs(store):
    with store.transaction():
        store.add_program(BUNDLE.digest, BUNDLE)
        store.add_program("other", BUNDLE)
        for number in range(1, 251):
            store.add_process(record(number))
            store.add_events([event(number, 1, "return")])
            store.add_message(number, 1, "1")
            store.end_process(number, float(number), "return", 0)
        store.add_process(record(251, host_boot="h"))
    assert [store.prune(before=200.5) for _ in range(3)] == [100, 100, 0]
    assert [process.pid for process in store.ended("me", 1000)] == [f"p{n}" for n in range(250, 200, -1)]
    assert [process.pid for process in store.alive()] == ["p251"]
    assert list(store.events(200, 0, 1)) == []
    assert store.num_messages(200) == 0
    assert list(store.events(201, 0, 1)) != []
    # Programs are as old as their upload, and kept while anything refers to them.
    assert store.prune(before=time.time() + 1) == 50
    assert store.has_program(BUNDLE.digest)
    assert not store.has_program("other")


def test_a_full_disk_rolls_back_and_later_goes_on(store):
    connection = store.database.connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 2}")

    def add_much():
        with store.transaction():
            store.add_process(record(1))
            store.add_events([event(1, 1, data='"' + "x" * 100_000 + '"')])

    with pytest.raises(sqlite3.OperationalError, match="full"):
        add_much()
    assert store.alive() == []
    connection.execute("PRAGMA max_page_count = 1000000")
    with store.transaction():
        store.add_process(record(1))
    assert len(store.alive()) == 1


def test_a_database_of_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "pie.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(InvalidConfig, match="newer"):
        Store(path)


def test_a_file_that_is_no_database_is_named(tmp_path):
    path = tmp_path / "pie.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(InvalidConfig, match=r"pie\.sqlite"):
        Store(path)


def test_a_database_of_the_version_before_is_taken_over(tmp_path):
    path = tmp_path / "pie.sqlite"
    with sqlite3.connect(path) as old:
        usage = (
            "usage TEXT NOT NULL DEFAULT '[]', trace TEXT NOT NULL DEFAULT '',\n"
            "    native TEXT NOT NULL DEFAULT '', endowment INTEGER NOT NULL DEFAULT 0, bid INTEGER,\n"
            "    parent TEXT, request INTEGER NOT NULL DEFAULT 0, inherits INTEGER"
        )
        assert usage in database.SCHEMA
        old.executescript(database.SCHEMA.replace(usage, "num_tokens INTEGER") + "; DROP TABLE secrets")
        old.execute("PRAGMA user_version = 1")
        columns = "id, pid, user, program, version, digest, input, on_disconnect, created, num_tokens"
        old.execute(
            f"INSERT INTO processes ({columns}) VALUES (7, 'p7', 'me', 'p', '1', 'd', '{{}}', 'detach', 1.0, 5)"
        )
    assert Store(path).process("p7").usage == "[0,0,5]"
    assert Store(path).process("p7").last_seq == 0, "and opened again"
    assert Store(path).secrets("me") == []
    assert Store(path).process("p7").trace == ""
    assert Store(path).process("p7").native == ""
    assert (Store(path).process("p7").endowment, Store(path).process("p7").bid) == (0, None)
    assert (Store(path).process("p7").parent, Store(path).process("p7").inherits) == (None, None)


def test_credits_change(store):
    with store.transaction():
        store.add_process(record(1, endowment=10**12))
        store.add_process(record(2, endowment=5, bid=0))
    with store.transaction():
        store.set_credits(1, 7, 3)
    assert (store.process("p1").endowment, store.process("p1").bid) == (7, 3)
    assert (store.process("p2").endowment, store.process("p2").bid) == (5, 0)


def test_what_was_paid_in_the_end_is_known_after_the_end(store):
    with store.transaction():
        store.add_process(record(1))
        store.settle("p1", 5, 9)
        store.settle("nobody", 5, 9)
    assert store.process("p1").usage == "[]", "it has not ended"
    with store.transaction():
        store.end_process(1, 3.0, "return", Usage(1, 2, 3, 4, 5, 6, 7))
        store.settle("p1", 8, 9)
    assert store.process("p1").usage == "[1,2,3,4,5,8,9]"
