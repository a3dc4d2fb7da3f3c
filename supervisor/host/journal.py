"""What survives the daemon, in SQLite: each unit's generation, and whether it should be up after a restart.

It never stops a unit from running: what cannot be written (a full disk) is logged and kept in memory.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterable, Sequence

from ..errors import ConfigError

log = logging.getLogger("unitd.journal")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS unit (
    name TEXT PRIMARY KEY,
    attempt INTEGER NOT NULL DEFAULT 0,
    up_after_restart INTEGER          -- NULL: nobody has said so, the configuration decides
) WITHOUT ROWID
"""


class Journal:
    """One file, one writer: a second daemon on the same folder is refused."""

    def __init__(self, state_dir: str) -> None:
        """Open or create it. Raises ConfigError when the folder cannot be used or another daemon uses it."""
        path = os.path.join(state_dir, "journal.sqlite")
        self._lock = _lock(state_dir)
        try:
            self._database = sqlite3.connect(path, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            # A power cut may lose the last records, a killed daemon none: then the processes are gone as well.
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute("PRAGMA cache_size=-128")
            self._database.execute(_SCHEMA)
        except sqlite3.Error as error:
            os.close(self._lock)
            reason = f"cannot read {path}: {error}; move it away to start with an empty one"
            raise ConfigError(reason, key="daemon.state_dir") from error

    def attempts(self) -> dict[str, int]:
        """unit name -> the generation that was used last."""
        return dict(self._database.execute("SELECT name, attempt FROM unit WHERE attempt > 0"))

    def wishes(self) -> dict[str, bool]:
        """unit name -> whether it should be up after a restart, for those that somebody has spoken about."""
        rows = self._database.execute("SELECT name, up_after_restart FROM unit WHERE up_after_restart IS NOT NULL")
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

    def _write(self, statement: str, rows: Sequence[tuple[str, int]]) -> None:
        try:
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
        os.close(self._lock)


def _lock(state_dir: str) -> int:
    """A descriptor that keeps other daemons out as long as it is open, even if we are killed."""
    lock = -1
    try:
        os.makedirs(state_dir, mode=0o700, exist_ok=True)
        lock = os.open(os.path.join(state_dir, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if lock >= 0:
            os.close(lock)
        reason = f"cannot use {state_dir}: {error.strerror}"
        if isinstance(error, BlockingIOError):
            reason = f"another unitd runs on {state_dir}; stop it, or give this one another state_dir"
        raise ConfigError(reason, key="daemon.state_dir") from error
    return lock
