"""One SQLite file: opened safely, migrated, checkpointed away from the thread that serves."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pie_engine.errors import InvalidConfig

SCHEMA_VERSION = 7
BUSY_TIMEOUT_S = 5.0
CHECKPOINT_INTERVAL_S = 1.0
WAL_LIMIT_PAGES = 16384
"""64 MiB: past that the serving thread checkpoints by itself, or the log would grow without end under load."""
JOURNAL_LIMIT_BYTES = 16 * 1024 * 1024

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE programs (
    digest TEXT PRIMARY KEY, name TEXT NOT NULL, version TEXT NOT NULL, bundle BLOB NOT NULL, signature TEXT,
    created REAL NOT NULL
);
-- What a name stands for. An inline launch stores its program but publishes no name.
CREATE TABLE releases (
    user TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL, digest TEXT NOT NULL, published REAL NOT NULL,
    PRIMARY KEY (user, name, version)
) WITHOUT ROWID;

CREATE TABLE processes (
    id INTEGER PRIMARY KEY, pid TEXT NOT NULL UNIQUE, user TEXT NOT NULL, program TEXT NOT NULL,
    version TEXT NOT NULL, digest TEXT NOT NULL, input TEXT NOT NULL, on_disconnect TEXT NOT NULL,
    idempotency_key TEXT, host_boot TEXT, host TEXT, is_terminating INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL, ended REAL, outcome TEXT,
    usage TEXT NOT NULL DEFAULT '[]', trace TEXT NOT NULL DEFAULT '',
    native TEXT NOT NULL DEFAULT '', endowment INTEGER NOT NULL DEFAULT 0, bid INTEGER,
    parent TEXT, request INTEGER NOT NULL DEFAULT 0, inherits INTEGER
);
CREATE UNIQUE INDEX processes_key ON processes (user, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX processes_alive ON processes (id) WHERE ended IS NULL;
CREATE INDEX processes_ended ON processes (ended) WHERE ended IS NOT NULL;
CREATE INDEX processes_digest ON processes (digest);

CREATE TABLE events (
    process INTEGER NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL, time REAL NOT NULL,
    PRIMARY KEY (process, seq)
) WITHOUT ROWID;
-- A process ends once, whatever the code above does.
CREATE UNIQUE INDEX events_terminal ON events (process) WHERE kind IN ('return', 'error');

CREATE TABLE messages (
    process INTEGER NOT NULL, seq INTEGER NOT NULL, value TEXT NOT NULL, PRIMARY KEY (process, seq)
) WITHOUT ROWID;
"""
_SECRETS = """
CREATE TABLE secrets (
    user TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, set_at REAL NOT NULL, PRIMARY KEY (user, name)
) WITHOUT ROWID
"""
SCHEMA += _SECRETS


MIGRATIONS = {
    1: """
ALTER TABLE processes ADD COLUMN usage TEXT NOT NULL DEFAULT '[]';
UPDATE processes SET usage = '[0,0,' || num_tokens || ']';
ALTER TABLE processes DROP COLUMN num_tokens
""",
    2: _SECRETS,
    3: "ALTER TABLE processes ADD COLUMN trace TEXT NOT NULL DEFAULT ''",
    4: "ALTER TABLE processes ADD COLUMN native TEXT NOT NULL DEFAULT ''",
    5: """
ALTER TABLE processes ADD COLUMN endowment INTEGER NOT NULL DEFAULT 0;
ALTER TABLE processes ADD COLUMN bid INTEGER
""",
    6: """
ALTER TABLE processes ADD COLUMN parent TEXT;
ALTER TABLE processes ADD COLUMN request INTEGER NOT NULL DEFAULT 0;
ALTER TABLE processes ADD COLUMN inherits INTEGER
""",
}
"""From a version to the next one."""


class Database:
    """The connection of the serving thread."""

    def __init__(self, path: Path) -> None:
        """Raises `InvalidConfig` naming the file when it cannot be used."""
        self.path = path
        try:
            self.connection = _connect(path)
            self._migrate()
        except sqlite3.Error as error:
            raise InvalidConfig(
                f"cannot use the database {path}: {error}", hint="move it away, or set another PIE_HOME"
            ) from error
        self._checkpoints = _Checkpoints(path)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. `synchronous=NORMAL`: safe against SIGKILL of the process, not against power loss."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        self._checkpoints.stop()
        self.connection.close()

    def _migrate(self) -> None:
        (version,) = self.connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise InvalidConfig(
                f"{self.path} is of a newer version of pie (schema {version}, this one knows {SCHEMA_VERSION})",
                hint="use that version, or another PIE_HOME",
            )
        steps = [MIGRATIONS[old] for old in range(version, SCHEMA_VERSION)] if version else [SCHEMA]
        if version < SCHEMA_VERSION:
            with self.transaction() as connection:
                for statement in ";".join(steps).split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


class _Checkpoints:
    """Moves the write-ahead log into the database from a thread of its own, because that waits for the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        connection = _connect(self._path)
        version = -1
        while not self._stop.wait(CHECKPOINT_INTERVAL_S):
            # `data_version` moves when another connection has committed: an idle gateway leaves the disk alone.
            (newest,) = connection.execute("PRAGMA data_version").fetchone()
            if newest != version:
                version = newest
                _checkpoint(connection)
        connection.close()


def _checkpoint(connection: sqlite3.Connection) -> None:
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    except sqlite3.OperationalError:
        # A full disk: the log keeps what is committed, and the next round tries again.
        return


def _connect(path: Path) -> sqlite3.Connection:
    # `isolation_level=None`: transactions are where `transaction` says, not where Python guesses.
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    for pragma in (
        "journal_mode = WAL",
        "synchronous = NORMAL",
        f"wal_autocheckpoint = {WAL_LIMIT_PAGES}",
        f"journal_size_limit = {JOURNAL_LIMIT_BYTES}",
        "cache_size = -32768",
        "temp_store = MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}")
    return connection
