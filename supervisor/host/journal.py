"""What survives the daemon, in SQLite: generations, wishes, living processes, registry entries, operations, drains.

Everything is written before its effect: a daemon that is killed at any point finds here what it may have done. It
never stops a unit from running: what cannot be written (a full disk) is logged, and goes on in memory.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from ..core.model import JOURNAL_VERSION
from ..errors import ConfigError
from .lock import claim_name, lock_folder

log = logging.getLogger("unitd.journal")

VERSION = JOURNAL_VERSION
_SCHEMA = """
CREATE TABLE IF NOT EXISTS unit (
    name TEXT PRIMARY KEY,
    attempt INTEGER NOT NULL DEFAULT 0,
    up_after_restart INTEGER          -- NULL: nobody has said so, the configuration decides
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS process (  -- leaders of trees that may be alive
    unit TEXT PRIMARY KEY, attempt INTEGER NOT NULL, pid INTEGER NOT NULL, ticks INTEGER NOT NULL, boot TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entry (    -- entries that may be in the registry; fenced: they are not renewed any more
    unit TEXT PRIMARY KEY, value TEXT NOT NULL, ttl REAL NOT NULL, fenced INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS operation (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, value TEXT NOT NULL, finished REAL  -- unix time; NULL: it is open
);
CREATE TABLE IF NOT EXISTS fact (     -- JSON values of other owners, by what they are and of which unit
    kind TEXT NOT NULL, unit TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, unit)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """The leader of an attempt, told from any later process with its pid by its start and the boot that it lives in."""

    unit: str
    attempt: int
    pid: int
    ticks: int
    boot: str


@dataclass(frozen=True, slots=True)
class EntryRecord:
    """An entry as JSON that may be in the registry. Once `fenced`, no renewal was sent any more."""

    unit: str
    value: str
    ttl_seconds: float
    fenced: bool


class Journal:
    """One file, one writer: a second daemon on the same folder is refused."""

    def __init__(self, state_dir: str, config: str = "") -> None:
        """Open or create it. Raises ConfigError when the folder cannot be used or another daemon uses it.

        `config` is the path of the configuration, for a daemon that is refused.
        """
        path = self._path = os.path.join(state_dir, "journal.sqlite")
        self._lock = lock_folder(state_dir, config)
        try:
            _keep_private(path)
            self._database = sqlite3.connect(path, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            # A power cut may lose the last records, a killed daemon none: then the processes are gone as well.
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute("PRAGMA cache_size=-128")
            version = self._check_version(path)
            if version < VERSION:  # else nothing is written: there may be no room on the disk
                self._database.executescript(_SCHEMA)
                self._database.execute(f"PRAGMA user_version={VERSION}")
            self._claim = claim_name(self.state_id(), state_dir)
        except (sqlite3.Error, OSError) as error:
            os.close(self._lock)
            raise self._unreadable(error) from error
        except ConfigError:
            os.close(self._lock)
            raise

    def _check_version(self, path: str) -> int:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            reason = f"cannot use {path}: a later version of unitd has written it; run that one, or move it away"
            raise ConfigError(reason, key="daemon.state_dir")
        return int(version)

    def _unreadable(self, error: sqlite3.Error | OSError) -> ConfigError:
        why = error.strerror if isinstance(error, OSError) else error
        reason = f"cannot read {self._path}: {why}; move it away to start with an empty one"
        return ConfigError(reason, key="daemon.state_dir")

    def _rows(self, query: str, values: Sequence[str] = ()) -> list[Any]:
        """Raises ConfigError: what is kept here is read when the daemon starts, and it must not start on half of it."""
        try:
            return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    # Units. All that read raise ConfigError.

    def attempts(self) -> dict[str, int]:
        """unit name -> the generation that was used last."""
        return dict(self._rows("SELECT name, attempt FROM unit WHERE attempt > 0"))

    def wishes(self) -> dict[str, bool]:
        """unit name -> whether it should be up after a restart, for those that somebody has spoken about."""
        rows = self._rows("SELECT name, up_after_restart FROM unit WHERE up_after_restart IS NOT NULL")
        return {name: bool(up) for name, up in rows}

    def record_attempts(self, attempts: Sequence[tuple[str, int]]) -> None:
        """Before their processes exist: these units use these generations."""
        self._write(
            "INSERT INTO unit (name, attempt) VALUES (?, ?)"
            " ON CONFLICT (name) DO UPDATE SET attempt = excluded.attempt",
            attempts,
        )

    def record_wishes(self, names: Iterable[str], *, up: bool) -> None:
        """These units should be up, or down, after a restart of the daemon."""
        self._write(
            "INSERT INTO unit (name, up_after_restart) VALUES (?, ?)"
            " ON CONFLICT (name) DO UPDATE SET up_after_restart = excluded.up_after_restart",
            [(name, int(up)) for name in names],
        )

    # Processes and entries.

    def processes(self) -> list[ProcessRecord]:
        """Leaders that were alive when somebody last looked."""
        return [ProcessRecord(*row) for row in self._rows("SELECT * FROM process")]

    def record_process(self, record: ProcessRecord) -> None:
        """It was spawned."""
        self._write(
            "INSERT OR REPLACE INTO process VALUES (?, ?, ?, ?, ?)",
            [(record.unit, record.attempt, record.pid, record.ticks, record.boot)],
        )

    def forget_process(self, unit: str) -> None:
        """Nothing of its tree lives."""
        self._write("DELETE FROM process WHERE unit = ?", [(unit,)])

    def entries(self) -> list[EntryRecord]:
        """Entries that may be in the registry."""
        rows = self._rows("SELECT unit, value, ttl, fenced FROM entry")
        return [EntryRecord(unit, value, ttl, bool(fenced)) for unit, value, ttl, fenced in rows]

    def record_entry(self, unit: str, value: str, ttl_seconds: float) -> None:
        """Before it is registered, or registered again."""
        self._write("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, 0)", [(unit, value, ttl_seconds)])

    def record_fence(self, unit: str) -> None:
        """Before anything is done to have it removed: it is not renewed from now on."""
        self._write("UPDATE entry SET fenced = 1 WHERE unit = ?", [(unit,)])

    def forget_entry(self, unit: str) -> None:
        """It was looked for, and is gone."""
        self._write("DELETE FROM entry WHERE unit = ?", [(unit,)])

    # Operations.

    def operations(self) -> list[tuple[int, str]]:
        """(number, JSON) of all that are kept, oldest first."""
        return self._rows("SELECT number, value FROM operation ORDER BY number")

    def record_operations(self, rows: Sequence[tuple[int, str, str, float | None]]) -> None:
        """(number, id, JSON, unix time of its end or None) of operations as they are now."""
        self._write("INSERT OR REPLACE INTO operation VALUES (?, ?, ?, ?)", rows)

    def forget_operations(self, numbers: Sequence[int]) -> None:
        """Nobody will ask for them any more."""
        self._write("DELETE FROM operation WHERE number = ?", [(number,) for number in numbers])

    # What others keep here.

    def facts(self, kind: str) -> dict[str, str]:
        """unit name -> JSON, of one kind."""
        return dict(self._rows("SELECT unit, value FROM fact WHERE kind = ?", (kind,)))

    def fact(self, kind: str, unit: str) -> str | None:
        """The JSON of one unit; None: there is none."""
        rows = self._rows("SELECT value FROM fact WHERE kind = ? AND unit = ?", (kind, unit))
        return rows[0][0] if rows else None

    def record_fact(self, kind: str, unit: str, value: str | None, *, durable: bool = False) -> None:
        """Keep it, or (None) forget it; `durable`: not even a power cut may lose it."""
        if durable:
            self._database.execute("PRAGMA synchronous=FULL")
        if value is None:
            self._write("DELETE FROM fact WHERE kind = ? AND unit = ?", [(kind, unit)])
        else:
            self._write("INSERT OR REPLACE INTO fact VALUES (?, ?, ?)", [(kind, unit, value)])
        if durable:
            self._database.execute("PRAGMA synchronous=NORMAL")

    def forget_facts(self, *kinds: str) -> None:
        """Forget all facts of these kinds."""
        self._write("DELETE FROM fact WHERE kind = ?", [(kind,) for kind in kinds])

    def state_id(self) -> str:
        """A random name of this folder, the same for every daemon that uses it: what its processes are known by."""
        known = self.facts("state").get("id")
        if known is None:
            known = uuid4().hex
            self.record_fact("state", "id", known)
        return known

    def next_life(self) -> int:
        """How often a daemon has begun on this folder, this time included."""
        life = int(self.facts("state").get("life", "0")) + 1
        self.record_fact("state", "life", str(life))
        return life

    def size_bytes(self) -> int:
        """What its files take on the disk."""
        return sum(os.stat(path).st_size for path in (self._path, f"{self._path}-wal") if os.path.exists(path))

    def _write(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        try:
            if len(rows) == 1:
                self._database.execute(statement, rows[0])
                return
            self._database.execute("BEGIN")
            self._database.executemany(statement, rows)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            log.error("cannot write the journal: %s; a restart of unitd would forget this", error)
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")

    def close(self) -> None:
        """Write it out and let go of the folder."""
        self._database.close()
        self._claim.close()
        os.close(self._lock)


def _keep_private(path: str) -> None:
    """Only its owner may read it: it holds what units have in their environment. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_mode & 0o077:
            os.fchmod(descriptor, 0o600)  # SQLite gives the files beside it the same mode
    finally:
        os.close(descriptor)
