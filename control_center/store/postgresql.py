"""The store on PostgreSQL: several centers, which hear of each other's changes.

A connection may go at any moment, with a restart of the server for example. Transactions that certainly failed are
repeated on another one (see database.py); the two connections of their own, for listening and for the leader's lock,
are watched here. asyncpg is imported by nobody else: it belongs to an optional extra.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
from typing import Any

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import URL, event, func, select
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from ..errors import StoreError
from .changes import ALL, Changes
from .transaction import Transaction

log = logging.getLogger(__name__)

_POOL = 8
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 10.0  # of any statement; the server itself may be frozen, so it cannot be trusted with this limit
_GOODBYE_SECONDS = 0.5
_CHANNEL = "unit_center"
_MAX_PAYLOAD = 7000  # of the server's 8000 bytes
_AGAIN_SECONDS = 1.0
_LOCK_CHECK_SECONDS = 1.0
_LOCK_ANSWER_SECONDS = 3.0
_SETTINGS = {
    "application_name": "unit-center",
    "timezone": "UTC",
    "synchronous_commit": "on",
    # A center that hangs or whose host is gone holds rows and locks; the server notices it by these.
    "lock_timeout": "10000",
    "idle_in_transaction_session_timeout": "5000",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}
# Its owner asks every second. A center that is frozen (a stopped process, a suspended machine) still has its kernel
# answer keepalives, but asks nothing: the server ends the session, and with it the lock.
_LOCK_SETTINGS = {**_SETTINGS, "idle_session_timeout": "6000"}
# The last: a program that was frozen asks over a connection that the server has ended meanwhile, and asyncpg has read
# of that in the middle. It is no InterfaceError, and nothing was sent.
_OF_THE_DRIVER = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


async def open_postgresql(url: URL, password: str | None, changes: Changes) -> PostgresqlBackend:
    """Raises StoreError: the url has what is not known, nobody answers, a wrong password."""
    address = _address(url, password)
    backend = PostgresqlBackend(url, address, changes)
    try:
        await backend.start()
    except Exception as error:
        await backend.close()
        if _is_of_the_driver(error):
            raise StoreError(f"cannot open the store {_shown(url)}: {backend.words(error)}") from error
        raise
    return backend


def _address(url: URL, password: str | None) -> dict[str, Any]:
    """What asyncpg needs to know of the server."""
    if url.query:
        raise StoreError(f"cannot open the store {_shown(url)}: nothing may follow the database's name in its url")
    if not url.database:
        raise StoreError(f"cannot open the store {_shown(url)}: write the database's name at the end of its url")
    if url.password is not None:
        raise StoreError(f"cannot open the store {_shown(url)}: a password does not stand in a url; use a file for it")
    return {
        "host": url.host or "127.0.0.1",
        "port": url.port or 5432,
        "user": url.username or "unit-center",
        "password": password or "",  # "": asyncpg would look into the environment and ~/.pgpass
        "database": url.database,
        "timeout": _CONNECT_SECONDS,
        "command_timeout": _ANSWER_SECONDS,
        "connection_class": _Connection,
    }


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)


class PostgresqlBackend:
    """A pool of connections, and one that listens."""

    one_writer = False

    def __init__(self, url: URL, address: dict[str, Any], changes: Changes) -> None:
        self._url, self._address, self._changes = url, address, changes
        self._me = secrets.token_hex(4)  # so that it knows its own notices
        arguments = {**address, "server_settings": _SETTINGS}
        self.writer = create_async_engine(
            URL.create("postgresql+asyncpg"),
            connect_args=arguments,
            pool_size=_POOL,
            max_overflow=0,
            pool_timeout=_ANSWER_SECONDS,
        )
        event.listen(self.writer.sync_engine, "handle_error", _take_for_lost)
        self.reader = self.writer.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._listening: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to listen. Raises whatever a connection raises."""
        connection = await self._listen()
        self._listening = asyncio.get_running_loop().create_task(self._keep_listening(connection))

    def told(self, transaction: Transaction) -> None:
        """The notice goes out with the commit."""
        topics = "\n".join(sorted(transaction.topics))
        payload = f"{self._me}\n{topics if len(topics.encode()) <= _MAX_PAYLOAD else ALL}"
        transaction.all(select(func.pg_notify(_CHANNEL, payload)))

    def words(self, error: BaseException) -> str:
        """The server's message, or what the connection says."""
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        cause = cause.__cause__ if isinstance(error, DBAPIError) and cause.__cause__ is not None else cause
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno).lower()
        text = str(cause).partition("\n")[0]
        return text or ("it does not answer in time" if isinstance(cause, TimeoutError) else type(cause).__name__)

    def leader_lock(self, store_id: str) -> AdvisoryLock:
        """A lock of the database that belongs to a connection."""
        return AdvisoryLock(self._address, store_id, self.words)

    async def close(self) -> None:
        """Close all connections."""
        if self._listening is not None:
            self._listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listening
        await self.writer.dispose()

    async def _listen(self) -> _Session:
        session = await _Session.open(self._address, _SETTINGS)
        try:
            await session.connection.add_listener(_CHANNEL, self._heard)
        except BaseException:
            session.end()
            raise
        return session

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        sender, *topics = payload.split("\n")
        if sender != self._me:
            self._changes.tell(topics)

    async def _keep_listening(self, session: _Session) -> None:
        """Listen for ever; what was said meanwhile is unknown, so everything may have changed."""
        try:
            while True:
                await session.lost(_ANSWER_SECONDS, _ANSWER_SECONDS)
                session.end()
                session = await self._listen_again()
                self._changes.tell((ALL,))
        finally:
            session.end()

    async def _listen_again(self) -> _Session:
        while True:
            try:
                return await self._listen()
            except Exception as error:
                if not _is_of_the_driver(error):
                    raise
                log.warning("cannot hear of other control centers' changes: %s; trying again", self.words(error))
            await asyncio.sleep(_AGAIN_SECONDS)


class AdvisoryLock:
    """A lock that ends with its connection, whatever ends that: this process, its host, the network, the server."""

    def __init__(self, address: dict[str, Any], store_id: str, words: Any) -> None:
        self._address, self._words = address, words
        self._key = int.from_bytes(hashlib.sha256(store_id.encode()).digest()[:8], "big", signed=True)
        self._session: _Session | None = None

    async def acquire(self) -> bool:
        """Try once to get it; False: another center has it. Raises StoreError when the database is away."""
        try:
            if self._session is None or self._session.is_lost:
                await self.release()
                self._session = await _Session.open(self._address, _LOCK_SETTINGS)
            return bool(await self._session.value("SELECT pg_try_advisory_lock($1)", self._key))
        except Exception as error:
            await self.release()
            if _is_of_the_driver(error):
                raise StoreError(f"cannot ask for the leader's lock: {self._words(error)}") from error
            raise

    async def lost(self) -> None:
        """Return as soon as the connection is gone or does not answer."""
        if self._session is not None:
            await self._session.lost(_LOCK_CHECK_SECONDS, _LOCK_ANSWER_SECONDS)

    async def release(self) -> None:
        """End the connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class _Connection(asyncpg.Connection):  # type: ignore[misc]
    """Ends in good order if the server answers soon; the pool would wait long for each, one after the other."""

    async def close(self, *, timeout: float | None = None) -> None:
        with contextlib.suppress(*_OF_THE_DRIVER):
            await super().close(timeout=timeout or _GOODBYE_SECONDS)


class _Session:
    """One connection outside of the pool."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._ended = asyncio.Event()
        connection.add_termination_listener(lambda _: self._ended.set())

    @classmethod
    async def open(cls, address: dict[str, Any], settings: dict[str, str]) -> _Session:
        return cls(await asyncpg.connect(**address, server_settings=settings))

    @property
    def is_lost(self) -> bool:
        return self._ended.is_set() or self.connection.is_closed()

    async def value(self, query: str, *arguments: object) -> Any:
        return await self.connection.fetchval(query, *arguments)

    async def lost(self, every_seconds: float, answer_seconds: float) -> None:
        """Return when it has ended, or does not answer a question that is asked again and again."""
        while not self.is_lost:
            try:
                async with asyncio.timeout(every_seconds):
                    await self._ended.wait()
            except TimeoutError:
                if not await self._answers(answer_seconds):
                    return

    async def _answers(self, seconds: float) -> bool:
        try:
            await self.connection.fetchval("SELECT 1", timeout=seconds)
        except Exception as error:
            if not _is_of_the_driver(error):
                raise
            return False
        return True

    def end(self) -> None:
        """Without a word to the server."""
        self.connection.terminate()

    async def close(self) -> None:
        """In good order, if the server still answers."""
        await self.connection.close()


def _is_of_the_driver(error: BaseException) -> bool:
    """The connection or the server is to blame, not this program."""
    return isinstance(error, (*_OF_THE_DRIVER, DBAPIError))


def _take_for_lost(context: ExceptionContext) -> None:
    """A connection that its driver is confused about is as good as gone: the work is done again on another one."""
    original = context.original_exception
    if isinstance(original.__cause__ or original, asyncpg.InternalClientError):
        context.is_disconnect = True
