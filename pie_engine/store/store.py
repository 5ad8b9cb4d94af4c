"""Every statement that the gateway runs. Writes happen inside `transaction()`; reads anywhere."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec

from pie_engine.protocol.plan import Usage
from pie_engine.protocol.program import Bundle
from pie_engine.protocol.to_gateway import Event
from pie_engine.store.database import Database
from pie_engine.store.records import EventRow, ProcessRecord, ProgramRecord

PRUNE_BATCH = 100
"""Processes deleted in one transaction, so that a long history does not hold up the ones that run."""

_PROCESS_COLUMNS = (
    "id, pid, user, program, version, digest, input, on_disconnect, idempotency_key, host_boot, host,"
    " is_terminating, created, ended, outcome, trace, native, endowment, bid, parent, request, inherits, usage"
)
_PLACES = ", ".join("?" * len(_PROCESS_COLUMNS.split(",")))
_SELECT_PROCESS = (
    f"SELECT {_PROCESS_COLUMNS}, (SELECT coalesce(max(seq), 0) FROM events WHERE process = processes.id) FROM processes"
)
_SELECT_PROGRAM = "SELECT digest, name, version, signature, created FROM programs"

_encode_bundle = msgspec.json.Encoder(order="sorted").encode
_decode_bundle = msgspec.json.Decoder(Bundle).decode


class Store:
    """The gateway's memory. One thread, one connection."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path)
        self._db = self.database.connection

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        return self.database.transaction()

    def close(self) -> None:
        self.database.close()

    # Facts about the daemon.

    def meta(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # Secrets.

    def secrets(self, user: str) -> list[tuple[str, float]]:
        """Names, and when each was set."""
        query = "SELECT name, set_at FROM secrets WHERE user = ? ORDER BY name"
        return [(str(name), float(set_at)) for name, set_at in self._db.execute(query, (user,))]

    def secret_values(self, user: str, names: Iterable[str]) -> dict[str, str]:
        """Of those that are set."""
        query = "SELECT value FROM secrets WHERE user = ? AND name = ?"
        rows = ((name, self._db.execute(query, (user, name)).fetchone()) for name in names)
        return {name: str(row[0]) for name, row in rows if row is not None}

    def set_secret(self, user: str, name: str, value: str, now: float) -> None:
        self._db.execute("INSERT OR REPLACE INTO secrets VALUES (?, ?, ?, ?)", (user, name, value, now))

    def remove_secret(self, user: str, name: str) -> None:
        self._db.execute("DELETE FROM secrets WHERE user = ? AND name = ?", (user, name))

    # Programs.

    def add_program(self, digest: str, bundle: Bundle) -> None:
        manifest = bundle.manifest
        self._db.execute(
            "INSERT OR IGNORE INTO programs VALUES (?, ?, ?, ?, NULL, ?)",
            (digest, manifest.name, manifest.version, _encode_bundle(bundle), time.time()),
        )

    def set_signature(self, digest: str, signature: str) -> None:
        self._db.execute("UPDATE programs SET signature = ? WHERE digest = ?", (signature, digest))

    def publish(self, user: str, name: str, version: str, digest: str) -> None:
        """From now on `name@version` is this content."""
        self._db.execute(
            "INSERT OR REPLACE INTO releases VALUES (?, ?, ?, ?, ?)", (user, name, version, digest, time.time())
        )

    def has_program(self, digest: str) -> bool:
        return self._db.execute("SELECT 1 FROM programs WHERE digest = ?", (digest,)).fetchone() is not None

    def program(self, digest: str) -> ProgramRecord | None:
        row = self._db.execute(f"{_SELECT_PROGRAM} WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else ProgramRecord(*row)

    def bundle(self, digest: str) -> Bundle | None:
        row = self._db.execute("SELECT bundle FROM programs WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else _decode_bundle(row[0])

    def is_released(self, digest: str) -> bool:
        """Whether anybody has published it."""
        return self._db.execute("SELECT 1 FROM releases WHERE digest = ?", (digest,)).fetchone() is not None

    def released(self, user: str, name: str, version: str | None = None) -> str | None:
        """Digest of `name@version`, or of what was published last under `name`."""
        query = "SELECT digest FROM releases WHERE user = ? AND name = ?"
        if version is None:
            row = self._db.execute(f"{query} ORDER BY published DESC LIMIT 1", (user, name)).fetchone()
        else:
            row = self._db.execute(f"{query} AND version = ?", (user, name, version)).fetchone()
        return None if row is None else str(row[0])

    def releases(self, user: str) -> list[ProgramRecord]:
        rows = self._db.execute(
            "SELECT p.digest, r.name, r.version, p.signature, r.published FROM releases r"
            " JOIN programs p ON p.digest = r.digest WHERE r.user = ? ORDER BY r.name, r.published",
            (user,),
        )
        return [ProgramRecord(*row) for row in rows]

    # Processes.

    def next_process_id(self) -> int:
        """Larger than any that was used, also by a launch that was refused."""
        (newest,) = self._db.execute(
            "SELECT max(coalesce((SELECT max(id) FROM processes), 0), coalesce((SELECT max(process) FROM events), 0))"
        ).fetchone()
        return int(newest) + 1

    def add_process(self, record: ProcessRecord) -> None:
        self._db.execute(
            f"INSERT INTO processes ({_PROCESS_COLUMNS}) VALUES ({_PLACES})",
            msgspec.structs.astuple(record)[:-1],
        )

    def assign(self, process: int, host_boot: str, host: str) -> None:
        self._db.execute("UPDATE processes SET host_boot = ?, host = ? WHERE id = ?", (host_boot, host, process))

    def endowed_since(self, since: float) -> list[tuple[str, float, int]]:
        """User, time and endowment of the processes that were launched after `since`, the oldest first."""
        query = "SELECT user, created, endowment FROM processes WHERE created > ? ORDER BY id"
        return self._db.execute(query, (since,)).fetchall()

    def set_credits(self, process: int, endowment: int, bid: int | None) -> None:
        self._db.execute("UPDATE processes SET endowment = ?, bid = ? WHERE id = ?", (endowment, bid, process))

    def mark_terminating(self, process: int) -> None:
        self._db.execute("UPDATE processes SET is_terminating = 1 WHERE id = ?", (process,))

    def end_process(self, process: int, ended: float, outcome: str, usage: Usage) -> None:
        self._db.execute(
            "UPDATE processes SET ended = ?, outcome = ?, usage = ? WHERE id = ?",
            (ended, outcome, msgspec.json.encode(usage).decode(), process),
        )

    def settle(self, pid: str, spent: int, endowment: int) -> None:
        """What a process that has ended has paid in the end. Nothing happens to one that is not there."""
        row = self._db.execute("SELECT id, usage FROM processes WHERE pid = ? AND ended IS NOT NULL", (pid,)).fetchone()
        if row is not None:
            usage = msgspec.structs.replace(msgspec.json.decode(row[1], type=Usage), spent=spent, endowment=endowment)
            self._db.execute(
                "UPDATE processes SET usage = ? WHERE id = ?", (msgspec.json.encode(usage).decode(), row[0])
            )

    def process(self, pid: str) -> ProcessRecord | None:
        return self._one_process("WHERE pid = ?", pid)

    def process_with_key(self, user: str, key: str) -> ProcessRecord | None:
        return self._one_process("WHERE user = ? AND idempotency_key = ?", user, key)

    def alive(self) -> list[ProcessRecord]:
        return [_process(row) for row in self._db.execute(f"{_SELECT_PROCESS} WHERE ended IS NULL ORDER BY id")]

    def ended(self, user: str, limit: int) -> list[ProcessRecord]:
        """The newest first."""
        query = f"{_SELECT_PROCESS} WHERE user = ? AND ended IS NOT NULL ORDER BY id DESC LIMIT ?"
        return [_process(row) for row in self._db.execute(query, (user, limit))]

    def _one_process(self, where: str, *parameters: str) -> ProcessRecord | None:
        row = self._db.execute(f"{_SELECT_PROCESS} {where}", parameters).fetchone()
        return None if row is None else _process(row)

    # Events and messages.

    def add_events(self, rows: Iterable[tuple[int, Event]]) -> None:
        # IGNORE is the last line of defence: one bad event must not keep everybody else's from being stored.
        self._db.executemany(
            "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?)",
            ((process, event.seq, event.kind, event.data, event.time) for process, event in rows),
        )

    def events(
        self, process: int, after: int, limit: int, *, with_trace: bool = True
    ) -> Generator[EventRow, None, None]:
        """In order; lazily, so that the reader can stop at a size; it then closes the generator."""
        which = "" if with_trace else "AND kind != 'trace' "
        rows = self._db.execute(
            f"SELECT seq, kind, data, time FROM events WHERE process = ? AND seq > ? {which}ORDER BY seq LIMIT ?",
            (process, after, limit),
        )
        try:
            for row in rows:
                yield EventRow(*row)
        finally:
            rows.close()

    def add_message(self, process: int, seq: int, value: str) -> None:
        self._db.execute("INSERT INTO messages VALUES (?, ?, ?)", (process, seq, value))

    def num_messages(self, process: int) -> int:
        query = "SELECT coalesce(max(seq), 0) FROM messages WHERE process = ?"
        return int(self._db.execute(query, (process,)).fetchone()[0])

    def messages(self, process: int) -> list[tuple[int, str]]:
        return self._db.execute("SELECT seq, value FROM messages WHERE process = ? ORDER BY seq", (process,)).fetchall()

    # Retention.

    def prune(self, before: float) -> int:
        """Deletes up to `PRUNE_BATCH` processes that ended before then, and programs nothing refers to; how many."""
        with self.transaction():
            old = self._db.execute("SELECT id FROM processes WHERE ended < ? LIMIT ?", (before, PRUNE_BATCH)).fetchall()
            for table, column in (("events", "process"), ("messages", "process"), ("processes", "id")):
                self._db.executemany(f"DELETE FROM {table} WHERE {column} = ?", old)
            if len(old) < PRUNE_BATCH:
                self._drop_unused_programs(before)
        return len(old)

    def num_ended(self, before: float) -> int:
        """How many processes `prune` would delete, all batches together."""
        return int(self._db.execute("SELECT count(*) FROM processes WHERE ended < ?", (before,)).fetchone()[0])

    @property
    def num_bytes(self) -> int:
        """Of the database, without the log of what is not in it yet."""
        (pages,), (size,) = (self._db.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
        return int(pages) * int(size)

    def shrink(self) -> None:
        """Give free pages back to the disk. It rewrites the file, so nobody should be waiting."""
        self._db.execute("VACUUM")

    def _drop_unused_programs(self, before: float) -> None:
        self._db.execute(
            "DELETE FROM programs WHERE created < ? AND digest NOT IN (SELECT digest FROM releases)"
            " AND digest NOT IN (SELECT digest FROM processes)",
            (before,),
        )


def _process(row: tuple[Any, ...]) -> ProcessRecord:
    return ProcessRecord(*row)
