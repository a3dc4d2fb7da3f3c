"""The last good pools, on disk: what gateways are told at once when unit-gateway starts and the registry is away.

One JSON file in the state folder, replaced whole. It owns the folder's lock as well: two unit-gateways on one folder
would tell the same gateways different things.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import tempfile
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import fields
from time import monotonic
from typing import Any

from .errors import GatewayError
from .model import Pool, Server, Standing

log = logging.getLogger("unit-gateway.memory")

FILE, LOCK = "pools.json", "lock"
VERSION = 1  # of the file's form
SAVE_SECONDS = 1.0  # at most so often: during a rolling restart pools change all the time
FAILED_SECONDS = 10.0  # what could not be saved is tried again after so long
MAX_BYTES = 256 * 1024 * 1024

_FIELDS = {each.name for each in fields(Server)} - {"service"}
_TEXTS, _NUMBERS = ("instance", "address"), ("generation", "port", "weight", "full_weight")


class Memory:
    """The state folder of one unit-gateway; None: there is none, and nothing is remembered.

    A folder that cannot be written is complained of, and done without: gateways are fed all the same.
    """

    def __init__(self, folder: str | None) -> None:
        """Take the folder. Raises GatewayError: another unit-gateway has it."""
        self._folder = folder
        self._lock = -1
        self._told = ""
        self._wanted: Mapping[str, Pool] | None = None
        self._changed = asyncio.Event()
        self._one_at_a_time = threading.Lock()
        if folder is not None:
            self._take(folder)

    def load(self) -> tuple[Pool, ...]:
        """What was saved last; nothing where there is nothing that can be used, which is said."""
        if self._folder is None:
            return ()
        path = os.path.join(self._folder, FILE)
        try:
            with open(path, "rb") as file:
                return decode(file.read(MAX_BYTES))
        except FileNotFoundError:
            return ()
        except (OSError, ValueError) as error:
            log.warning("cannot use %s, and go on without what was last known: %s", path, error)
            return ()

    def note(self, pools: Mapping[str, Pool]) -> None:
        """These are the pools now; `run` saves them soon."""
        self._wanted = pools
        self._changed.set()

    async def run(self) -> None:
        """Save what was noted, the newest only; for ever."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            began = monotonic()
            pools, self._wanted = self._wanted, None
            if pools is not None and not await asyncio.to_thread(self._write, pools):
                self._try_again(pools)
                await asyncio.sleep(FAILED_SECONDS)
            await asyncio.sleep(max(SAVE_SECONDS, 9 * (monotonic() - began)))

    def save(self) -> None:
        """Write what was noted last at once, if it is not written yet."""
        pools, self._wanted = self._wanted, None
        if pools is not None:
            self._write(pools)

    def close(self) -> None:
        """Save what is not saved yet, and let go of the folder."""
        self.save()
        with self._one_at_a_time:
            if self._lock >= 0:
                os.close(self._lock)
            self._lock = -1

    def _try_again(self, pools: Mapping[str, Pool]) -> None:
        if self._wanted is None:
            self._wanted = pools
        self._changed.set()

    def _write(self, pools: Mapping[str, Pool]) -> bool:
        """Whether nothing of it need be tried again; not only the event loop's thread comes here."""
        with self._one_at_a_time:
            if self._folder is None or self._lock < 0:
                return True
            try:
                _replace(os.path.join(self._folder, FILE), encode(pools.values()))
            except OSError as error:
                self._complain(f"cannot save what is known in {self._folder}: {error.strerror or error}")
                return False
            self._told = ""
            return True

    def _take(self, folder: str) -> None:
        lock = -1
        try:
            os.makedirs(folder, mode=0o750, exist_ok=True)
            lock = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
        except OSError as error:
            holder = _read_holder(lock)
            if lock >= 0:
                os.close(lock)
            if isinstance(error, BlockingIOError):
                who = f"another unit-gateway runs on {folder}{holder}"
                raise GatewayError(f"cannot run: {who}; stop it, or give this one another state_dir") from error
            self._complain(f"cannot use {folder}: {error.strerror or error}")
            return
        self._lock = lock

    def _complain(self, what: str) -> None:
        if what != self._told:
            log.warning("%s; after a restart nothing is known until the registry answers", what)
        self._told = what


def encode(pools: Iterable[Pool]) -> bytes:
    """The file that holds these pools."""
    plain = [
        {
            "service": pool.service,
            "revision": pool.revision,
            "epoch": pool.epoch,
            "servers": [{name: getattr(server, name) for name in sorted(_FIELDS)} for server in pool.servers],
        }
        for pool in pools
    ]
    return json.dumps({"version": VERSION, "pools": plain}, separators=(",", ":")).encode()


def decode(data: bytes) -> tuple[Pool, ...]:
    """The pools in such a file. Raises ValueError with the reason: torn, of another version, or of another form."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is torn ({error})") from error
    if not isinstance(value, dict) or value.get("version") != VERSION:
        found = value.get("version") if isinstance(value, dict) else None
        raise ValueError(f"it is of version {found!r}, and this one reads version {VERSION}")
    try:
        return tuple(_pool(each) for each in value["pools"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"it has another form than expected ({error!r})") from error


def _pool(value: dict[str, Any]) -> Pool:
    service, revision, epoch = value["service"], value["revision"], value["epoch"]
    if not isinstance(service, str) or not isinstance(epoch, str) or type(revision) is not int:
        raise ValueError("service, revision or epoch")
    return Pool(service, revision, epoch, tuple(_server(service, each) for each in value["servers"]))


def _server(service: str, value: dict[str, Any]) -> Server:
    known = {name: value[name] for name in _FIELDS}
    if any(not isinstance(known[name], str) for name in (*_TEXTS, "held")):
        raise ValueError("a text")
    if any(type(known[name]) is not int or known[name] < 0 for name in _NUMBERS):
        raise ValueError("a number")
    if not isinstance(known["zone"], str | None):
        raise ValueError("zone")
    return Server(service=service, **{**known, "standing": Standing(known["standing"])})


def _replace(path: str, data: bytes) -> None:
    """The file holds either what it held or all of this, whenever the power fails."""
    folder = os.path.dirname(path)
    number, temporary = tempfile.mkstemp(prefix=f".{FILE}.", dir=folder)
    try:
        with open(number, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _read_holder(lock: int) -> str:
    """Who wrote the lock's file, as words; nothing where it is not to be read."""
    if lock < 0:
        return ""
    try:
        pid = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
    except OSError:
        return ""
    return f" (pid {pid})" if pid.isdigit() else ""
