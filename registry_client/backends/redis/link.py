"""One connection to a Redis server, for one call at a time: addresses, deadlines, errors. Knows nothing of entries.

A call that fails, is too late or is cancelled closes the connection. What a server has received by then it may still
execute much later (when it was frozen, say), so every script is told until when, by the server's own clock, it may do
anything: scripts.py refuses what comes later. The clock is read off each answer, as of when that arrived, so it
is behind by the answer's way back: what comes too late for its answer to be in time is refused, too.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from ...errors import BadOption, RegistryRejected, RegistryUnavailable, Unsupported
from ...options import Secret, Tls
from .scripts import LATE, Script

if TYPE_CHECKING:
    from ssl import SSLContext

    from . import library as redis_library

BACKEND = "redis"
USUAL_PORT = 6379
FLAGS_SINCE = (7, 0)  # the first version whose scripts have flags

_T = TypeVar("_T")
_CLOCK_SECONDS = 60.0  # after so long without an answer the server's clock is asked for again


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where the server listens: `host` and `port`, or the unix `socket`; and the number of its database."""

    url: str
    host: str
    port: int
    socket: str | None
    database: int
    encrypted: bool

    @classmethod
    def parse(cls, url: object) -> RedisAddress:
        """From `redis[s]://host[:port][/db]` or `unix:///path/of.sock[?db=1]`. Raises BadOption (`url`)."""
        if not isinstance(url, str) or not url.isascii() or not url.isprintable() or " " in url:
            raise _bad_url("it must be printable ASCII without blanks")
        if "@" in url:  # before any message could show it
            raise _bad_url("it must have no user and password; give them as options")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise _bad_url(f"{url}: {error}") from error
        if parts.scheme == "unix" and not host and len(parts.path) > 1 and not parts.fragment:
            name, _, number = parts.query.partition("=")
            if name in ("", "db"):
                return cls(url, "localhost", 0, unquote(parts.path), _database(number), False)
        if parts.scheme in ("redis", "rediss") and host and not parts.query and not parts.fragment:
            secure = parts.scheme == "rediss"
            return cls(url, host, port or USUAL_PORT, None, _database(parts.path.strip("/")), secure)
        raise _bad_url(f"{url}: it must be like redis://host:6379/0, rediss://host:6379/0 or unix:///path/of.sock")


def _database(text: str) -> int:
    if text and not (text.isdecimal() and len(text) < 6):
        raise _bad_url(f"the database must be a number, not {text!r}")
    return int(text or 0)


def _bad_url(reason: str) -> BadOption:
    return BadOption(BACKEND, "url", reason)


@dataclass(frozen=True, slots=True)
class Access:
    """How a server is spoken to: address, user, password, TLS."""

    address: RedisAddress
    user: str | None = None
    password: Secret | None = None
    tls: Tls = field(default_factory=Tls)


class ServerFull(Exception):
    """The server has no memory left for what was asked, and has done nothing."""


class _Broken(Exception):
    """The connection, or what came over it, is no good."""


class RedisLink:
    """Calls to one server, one after the other, on one connection that is made when it is needed."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._turn = asyncio.Lock()
        self._wire: redis_library.Wire | None = None
        self._process = b""  # names the life of the server that is spoken to
        self._version: tuple[int, ...] = (0,)
        self._clock_at, self._clock = 0.0, 0  # monotonic seconds when an answer came, unix milliseconds in it
        self._sent = False  # the present call may have reached the server
        self._closed = False

    @property
    def url(self) -> str:
        """Whom it talks to."""
        return self._access.address.url

    async def call(self, verb: str, script: Script, words: Sequence[bytes], timeout_seconds: float) -> list[Any]:
        """Run a script, and answer what it did: its first word, then the values after the clock.

        Raises RegistryUnavailable ("cannot <verb>: ..."), RegistryRejected (`permission_denied`), ServerFull.
        """
        give_up_at = time.monotonic() + timeout_seconds

        async def attempt() -> list[Any]:
            while True:
                answer = await self._run(script, words, give_up_at)
                if answer[0] != LATE:
                    return answer
                await self._read_clock()  # it was set forward, for we are not late yet; nothing was done

        return await self._limited(verb, attempt, timeout_seconds)

    async def command(self, verb: str, words: Sequence[bytes], timeout_seconds: float) -> Any:
        """The answer to a command that changes nothing. Raises as `call`."""

        async def attempt() -> Any:
            await self._connect()
            return await self._ask(words)

        return await self._limited(verb, attempt, timeout_seconds)

    def close(self) -> None:
        """Close the connection at once and for good; a call under way fails."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.abort()

    async def _limited(self, verb: str, attempt: Callable[[], Awaitable[_T]], timeout_seconds: float) -> _T:
        sent = False
        try:
            async with asyncio.timeout(timeout_seconds), self._turn:
                self._sent = False
                try:
                    return await attempt()
                except ServerFull:
                    raise  # a good answer
                except BaseException:
                    self._drop()
                    raise
                finally:
                    sent = self._sent
        except TimeoutError as error:
            raise self._unavailable(verb, f"no answer within {timeout_seconds:g} s", sent) from error
        except (_Broken, OSError) as error:
            raise self._unavailable(verb, _reason(error), sent) from error
        except _Refused as error:
            raise RegistryRejected(
                f"cannot {verb}: the registry at {self.url} refuses it ({error})", code="permission_denied"
            ) from error

    def _unavailable(self, verb: str, reason: str, sent: bool) -> RegistryUnavailable:
        return RegistryUnavailable(
            f"cannot {verb}: the registry at {self.url} does not answer ({reason})", may_have_counted=sent
        )

    # -- scripts -------------------------------------------------------------------------------------------------

    async def _run(self, script: Script, words: Sequence[bytes], give_up_at: float) -> list[Any]:
        await self._connect()
        if time.monotonic() - self._clock_at > _CLOCK_SECONDS:
            await self._read_clock()
        until = self._clock + int((give_up_at - self._clock_at) * 1000)
        token = os.urandom(8).hex().encode()
        text = script.text(flags=self._version >= FLAGS_SINCE)
        tail = [b"1", script.key, self._process, token, b"%d" % until, *words]
        self._sent = True
        try:
            answer = await self._ask([b"EVALSHA", text.digest, *tail])
        except _NotKnown:
            answer = await self._ask([b"EVAL", text.source, *tail])
        if not isinstance(answer, list) or len(answer) < 2 or not isinstance(answer[1], int):
            raise _Broken(f"its answer makes no sense: {answer!r:.60}")
        self._clock_at, self._clock = time.monotonic(), answer[1]
        return [answer[0], *answer[2:]]

    async def _read_clock(self) -> None:
        answer = await self._ask([b"TIME"])
        try:
            seconds, micros = map(int, answer)
        except (TypeError, ValueError) as error:
            raise _Broken(f"its answer makes no sense: {answer!r:.60}") from error
        self._clock_at, self._clock = time.monotonic(), seconds * 1000 + micros // 1000

    # -- the connection ------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        if self._wire is not None and self._wire.is_usable:
            return
        self._drop()
        if self._closed:
            raise _Broken("this client of it was closed")
        library = load_library()
        access, address = self._access, self._access.address
        self._wire = library.Wire(
            address.host,
            address.port,
            address.socket,
            self._context(),
            access.tls.server_name,
            db=address.database,
            username=access.user,
            password=_read(access.password),
        )
        try:
            await self._wire.connect()
        except OSError:
            raise
        except Exception as error:
            raise _translated(library, error) from error
        await self._greet()

    async def _greet(self) -> None:
        """Learn which life of the server this is: after a restart it may lack what was written last."""
        facts = read_info(await self._ask([b"INFO", b"server"]))
        self._process = facts.get("run_id", "").encode()
        if not self._process:
            raise _Broken("it does not tell its run_id")
        self._version = read_version(facts)
        await self._read_clock()
        if self._closed:
            raise _Broken("this client of it was closed")

    def _context(self) -> SSLContext | None:
        if not self._access.address.encrypted:
            return None
        try:
            return self._access.tls.context(BACKEND)
        except BadOption as error:  # files that were there at the start
            raise _Broken(f"{error.option}: {error.reason}") from error

    async def _ask(self, words: Sequence[bytes]) -> Any:
        library, wire = load_library(), self._wire
        if wire is None or not wire.is_usable:
            raise _Broken("it closed the connection")
        try:
            await wire.send_packed_command(library.packed(words), check_health=False)
            answer = await wire.read_response(disable_decoding=True)
        except OSError:
            raise
        except Exception as error:  # the library's own errors, and whatever rubbish makes its reader raise
            raise _translated(library, error) from error
        if wire is not self._wire:
            raise _Broken("this client of it was closed")
        return answer


class _NotKnown(Exception):
    """The server does not know the script (any more)."""


class _Refused(Exception):
    """The user may not do that."""


def load_library() -> Any:
    """redis-py, imported now. Raises Unsupported."""
    try:
        from . import library as redis_library
    except ImportError as error:
        raise Unsupported(
            f"cannot use the registry backend {BACKEND}: install unitd[redis] (redis-py 6 or later: {error})"
        ) from error
    return redis_library


def _translated(library: Any, error: Exception) -> Exception:
    reason = str(error) or type(error).__name__
    cause = error.__context__
    if isinstance(cause, ConnectionError | FileNotFoundError) and cause.errno:  # rather the kernel's own words
        return _Broken(os.strerror(cause.errno).lower())
    if isinstance(error, library.NoScriptError):
        return _NotKnown(reason)
    if isinstance(error, library.REFUSED) or "NOPERM" in reason[:60]:
        return _Refused(reason)
    if isinstance(error, library.OutOfMemoryError) or reason.startswith("OOM "):
        return ServerFull(reason)
    return _Broken(reason)


def _read(password: Secret | None) -> str | None:
    try:
        return None if password is None else password.read()
    except (OSError, ValueError) as error:
        raise _Broken(f"the credentials for it cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def read_info(answer: object) -> dict[str, str]:
    """What INFO tells, by name."""
    lines = answer.decode(errors="replace").splitlines() if isinstance(answer, bytes) else []
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}


def read_version(facts: dict[str, str]) -> tuple[int, ...]:
    """The version as numbers, (0,) when it tells none. Relatives of Redis tell which Redis they are like."""
    numbers = facts.get("redis_version", "0").split(".")
    return tuple(int(number) for number in numbers if number.isdecimal()) or (0,)
