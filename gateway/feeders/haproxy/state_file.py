"""What a HAProxy that begins anew reads its servers' states from: a dump of its own (`load-server-state-from-file`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile

from gateway.settings.haproxy import SERVICE

from .session import Session

_log = logging.getLogger(__name__)


class StateFile:
    """Writes the dump after each change: `path` with {service} in it, a file for each; without, one for all."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._begun = 0
        self._lock = asyncio.Lock()
        self._complaint = ""

    async def save(self, session: Session, service: str, dump: str) -> None:
        """Keep what is so now. `dump`: the state of the service's backend. A file that cannot be written is logged."""
        if self._path is None:
            return
        if SERVICE in self._path:
            self._write(self._path.replace(SERVICE, service), dump)
            return
        ticket = self._begun
        async with self._lock:
            if self._begun > ticket:  # one that began after this change is written already
                return
            self._begun += 1
            self._write(self._path, await session.ask("show servers state"))

    def _write(self, path: str, text: str) -> None:
        try:
            replace(path, text)
            self._complaint = ""
        except OSError as error:
            complaint = f"cannot write {path}: {error.strerror or error}"
            if complaint != self._complaint:
                _log.warning("%s; a HAProxy that begins anew begins without servers", complaint)
            self._complaint = complaint


def replace(path: str, text: str) -> None:
    """Write a file so that whoever reads it finds the old text or the new one. Raises OSError."""
    number, name = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=os.path.dirname(path))
    try:
        with open(number, "w", encoding="utf-8") as file:
            os.fchmod(number, 0o644)
            file.write(text.rstrip("\n") + "\n")
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
