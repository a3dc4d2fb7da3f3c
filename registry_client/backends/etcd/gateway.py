"""Calls of etcd's JSON gateway: connections, members of the cluster, authentication, errors.

It knows no entries. Sources: etcd's pages "gRPC gateway" and "authentication", `api/v3rpc/rpctypes/error.go`, and the
behaviour of 3.4.23. Numbers of 64 bits travel as strings, bytes as base64, and what is zero is left out.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from ...errors import RegistryError, RegistryRejected, RegistryUnavailable
from ...options import Secret, Tls
from ..connection import HttpAddress, HttpAnswer, HttpConnection

MAX_ANSWER_BYTES = 256 * 1024 * 1024

# Codes of gRPC.
INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED = 3, 5, 7
RESOURCE_EXHAUSTED, FAILED_PRECONDITION, UNAUTHENTICATED = 8, 9, 16

_LANES = 8  # connections for calls; etcd writes what comes at the same time to its disk at once
_IDLE_LANES = 2  # kept when nothing is under way
# One code stands for many things; etcd's own clients tell these by their words, too.
_USER_MISSING = ("etcdserver: user name is empty", "etcdserver: authentication failed, invalid user ID or password")
_AUTH_IS_OFF = "etcdserver: authentication is not enabled"

_T = TypeVar("_T")


class Refused(RegistryUnavailable):
    """An answer of etcd itself that is an error, with its gRPC `code`, and that another attempt may not meet."""

    def __init__(self, message: str, code: int) -> None:
        self.code = code
        super().__init__(message)


class Gateway:
    """The members of one cluster, and who we are there. Every call has a connection of its own while it lasts."""

    def __init__(
        self,
        addresses: Sequence[HttpAddress],
        *,
        timeout_seconds: float,
        tls: Tls | None,
        user: str | None,
        password: Secret | None,
    ) -> None:
        self.timeout_seconds, self.addresses = timeout_seconds, tuple(addresses)
        self._tls, self._user, self._password = tls, user, password
        self._preferred = self.addresses[0]  # the member that answered last
        self._token: str | None = None
        self._logging_in: asyncio.Lock = asyncio.Lock()
        self._connections: set[HttpConnection] = set()
        self._idle: list[HttpConnection] = []
        self._free = asyncio.Semaphore(_LANES)
        self.closed = asyncio.Event()

    def close(self) -> None:
        """Close all connections at once, and refuse calls from now on."""
        self.closed.set()
        for connection in self._connections:
            connection.close()

    def check_open(self, verb: str) -> None:
        """Raise RegistryRejected (`closed`) after `close`."""
        if self.closed.is_set():
            raise RegistryRejected(f"cannot {verb}: this client of the registry is closed", code="closed")

    @asynccontextmanager
    async def call(self, verb: str) -> AsyncIterator[Call]:
        """One call of a user of the backend, of several requests; the time limit is for all of them together."""
        self.check_open(verb)
        deadline = time.monotonic() + self.timeout_seconds
        try:
            async with asyncio.timeout(self.timeout_seconds):
                await self._free.acquire()
        except TimeoutError as error:
            reason = f"no connection was free within {self.timeout_seconds:g} s"
            raise RegistryUnavailable(f"cannot {verb}: {reason}", may_have_counted=False) from error
        connection = self._idle.pop() if self._idle else self._connect()
        try:
            yield Call(self, verb, connection, deadline)
        finally:
            if self.closed.is_set() or (len(self._idle) >= _IDLE_LANES and not self._free.locked()):
                self._disconnect(connection)
            else:
                self._idle.append(connection)
            self._free.release()

    async def stream(self, verb: str, path: str, value: Mapping[str, object]) -> AsyncGenerator[Any, None]:
        """The values of an answer without end, on a connection of its own. Raises as `Call.ask`."""
        async with self.call(verb) as call:
            token = await self.log_in(call)
        began, connection = self._preferred, self._connect()
        try:
            pieces = connection.stream(verb, "POST", path, encode(value), self.timeout_seconds)
            async with aclosing(pieces):
                head, rest = await anext(pieces), b""
                async for piece in pieces:
                    *lines, rest = (rest + piece.body).split(b"\n")
                    for line in filter(None, lines):
                        yield _value(verb, line)
                    if len(rest) > MAX_ANSWER_BYTES:
                        raise RegistryUnavailable(f"cannot {verb}: the answer has no end")
            if head.status != 200:
                raise failure(verb, head.status, rest)
            if rest:
                yield _value(verb, rest)
        except RegistryRejected as error:
            if self.is_login_over(error):
                self.forget_login(token)
            raise
        except RegistryUnavailable:
            if self._preferred == began:  # a client that only watches has nothing else to find a better one with
                self.prefer(self.addresses[(self.addresses.index(began) + 1) % len(self.addresses)])
            raise
        finally:
            self._disconnect(connection)

    def prefer(self, address: HttpAddress) -> None:
        """Let new connections begin with this member."""
        self._preferred = address

    def _connect(self) -> HttpConnection:
        start = self.addresses.index(self._preferred)
        members = self.addresses[start:] + self.addresses[:start]
        connection = HttpConnection(
            members, max_answer_bytes=MAX_ANSWER_BYTES, headers=self._headers, tls=self._tls, backend="etcd"
        )
        self._connections.add(connection)
        return connection

    def _disconnect(self, connection: HttpConnection) -> None:
        connection.close()
        self._connections.discard(connection)

    # -- who we are ----------------------------------------------------------------------------------------------

    def _headers(self) -> Iterable[tuple[str, str]]:
        yield "Grpc-Metadata-hasleader", "true"  # a member without a leader says so at once, and ends its watches
        if self._token:
            yield "Authorization", self._token

    def is_login_over(self, error: RegistryError) -> bool:
        """Whether another token may help: it has expired, the member has restarted, or rights were changed."""
        if self._user is None:
            return False
        return isinstance(error, _Rejection) and error.grpc_code in (INVALID_ARGUMENT, UNAUTHENTICATED)

    def forget_login(self, token: str | None) -> None:
        """Let the next call get another token than this one; None: than any."""
        if token is None or self._token == token:
            self._token = None

    async def log_in(self, call: Call) -> str | None:
        """The token that calls are made with; the first call, and the first one after `forget_login`, gets it."""
        if self._user is None or self._token is not None:
            return self._token
        async with self._logging_in:
            if self._token is None:
                self._token = await self._authenticate(call)
        return self._token

    async def _authenticate(self, call: Call) -> str:
        try:
            password = "" if self._password is None else self._password.read()
        except (OSError, ValueError) as error:
            reason = f"the password cannot be read: {error}"
            raise RegistryUnavailable(f"cannot {call.verb}: {reason}", may_have_counted=False) from error
        body = encode({"name": self._user, "password": password})
        answer = await call.send("/v3/auth/authenticate", body)
        try:
            value = decode(call.verb, answer)
        except Refused as error:
            if error.code == FAILED_PRECONDITION and _AUTH_IS_OFF in str(error):
                return ""
            raise
        return read(call.verb, lambda: str(value["token"]))


class Call:
    """Requests one after the other on one connection. `counted`: one that changes something may have arrived."""

    __slots__ = ("_connection", "_gateway", "counted", "deadline", "verb")

    def __init__(self, gateway: Gateway, verb: str, connection: HttpConnection, deadline: float) -> None:
        self._gateway, self.verb, self._connection, self.deadline = gateway, verb, connection, deadline
        self.counted = False

    async def ask(self, path: str, value: Mapping[str, object], *, counts: bool = False) -> Any:
        """The value of the answer. `counts` when the request changes an entry or its ttl.

        A member that does not answer, or not well, is left for the next one, as long as there is time. Raises
        RegistryUnavailable (Refused), and RegistryRejected (`permission_denied`, `bad_request`).
        """
        return (await self.ask_with_head(path, value, counts=counts))[0]

    async def ask_with_head(
        self, path: str, value: Mapping[str, object], *, counts: bool = False
    ) -> tuple[Any, HttpAnswer]:
        """The value of the answer, and the answer that it came with. Raises as `ask`."""
        answer = await self._attempts(path, encode(value), counts)
        return decode(self.verb, answer), answer

    async def ask_many(self, path: str, body: bytes, *, counts: bool = False) -> list[Any]:
        """The values of an answer of many; the body holds many values, too. Raises as `ask`."""
        answer = await self._attempts(path, body, counts)
        return [_result(self.verb, value) for value in _values(self.verb, answer.body)]

    async def send(self, path: str, body: bytes, timeout_seconds: float | None = None) -> HttpAnswer:
        """One request as it is."""
        left = self.deadline - time.monotonic() if timeout_seconds is None else timeout_seconds
        return await self._connection.request(self.verb, "POST", path, body, max(left, 0.001))

    async def _attempts(self, path: str, body: bytes, counts: bool) -> HttpAnswer:
        others, logins = len(self._gateway.addresses) - 1, 1
        while True:
            token: str | None = None
            try:
                token = await self._gateway.log_in(self)
                return await self._attempt(path, body, counts, others)
            except RegistryRejected as error:
                if not logins or not self._gateway.is_login_over(error):
                    raise
                logins -= 1
                self._gateway.forget_login(token)
            except RegistryUnavailable as error:
                error.may_have_counted = self.counted
                if not others or (isinstance(error, Refused) and not _may_differ(error)) or not self._has_time():
                    raise
                others -= 1

    def _has_time(self) -> bool:
        return time.monotonic() < self.deadline and not self._gateway.closed.is_set()

    async def _attempt(self, path: str, body: bytes, counts: bool, others: int) -> HttpAnswer:
        left = self.deadline - time.monotonic()
        try:
            answer = await self.send(path, body, left / 2 if others else left)
        except RegistryUnavailable as error:
            self.counted |= counts and error.may_have_counted
            raise
        except BaseException:
            self.counted |= counts
            raise
        self.counted |= counts
        problem = _error_in(self.verb, answer)
        if isinstance(problem, RegistryUnavailable) and _may_differ(problem):
            self._connection.next_address()
        if problem is not None:
            raise problem
        self._gateway.prefer(self._connection.address)
        return answer


class _Rejection(RegistryRejected):
    """What etcd refuses for good, with its gRPC code."""

    def __init__(self, message: str, code: str, grpc_code: int) -> None:
        self.grpc_code = grpc_code
        super().__init__(message, code=code)


def new_lease() -> int:
    """A number for a lease, like no other one's."""
    return int.from_bytes(os.urandom(8)) >> 2 | 1 << 61


def encode(value: Mapping[str, object]) -> bytes:
    """JSON as the gateway takes it."""
    return json.dumps(value, separators=(",", ":")).encode()


def decode(verb: str, answer: HttpAnswer) -> Any:
    """The value of a good answer. Raises what a bad one means."""
    if answer.status != 200:
        raise failure(verb, answer.status, answer.body)
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise RegistryUnavailable(f"cannot {verb}: the answer is not JSON") from error
    if not isinstance(value, dict):
        raise RegistryUnavailable(f"cannot {verb}: the answer is not etcd's")
    return value


def read(verb: str, reader: Callable[[], _T]) -> _T:
    """What a good status promised; anything else is not the answer of etcd."""
    try:
        return reader()
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise RegistryUnavailable(f"cannot {verb}: the answer makes no sense ({error!r})") from error


def failure(verb: str, status: int, body: bytes) -> RegistryError:
    """The exception for an answer that is an error."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    return _failure(verb, value, f"HTTP status {status}, not from etcd")


def _failure(verb: str, value: object, otherwise: str) -> RegistryError:
    problem = value if isinstance(value, dict) else {}
    if isinstance(problem.get("error"), dict):  # in a stream
        problem = problem["error"]
    code = problem.get("code", problem.get("grpc_code"))
    message = problem.get("message")
    if type(code) is not int or not isinstance(message, str):
        return RegistryUnavailable(f"cannot {verb}: {otherwise}")
    text = f"cannot {verb}: {message[:500]}"
    if code in (PERMISSION_DENIED, UNAUTHENTICATED) or message in _USER_MISSING:
        return _Rejection(text, "permission_denied", code)
    if code == INVALID_ARGUMENT:
        return _Rejection(text, "bad_request", code)
    return Refused(text, code)


def _may_differ(error: RegistryUnavailable) -> bool:
    """Whether another member of the cluster may answer better."""
    return not isinstance(error, Refused) or error.code not in (NOT_FOUND, FAILED_PRECONDITION, RESOURCE_EXHAUSTED)


def _error_in(verb: str, answer: HttpAnswer) -> RegistryError | None:
    if answer.status != 200:
        return failure(verb, answer.status, answer.body)
    if answer.body.startswith(b'{"error"'):  # a stream that began well enough for its status
        return failure(verb, answer.status, answer.body.partition(b"\n")[0])
    return None


def _values(verb: str, body: bytes) -> list[Any]:
    try:
        values: list[Any] = json.loads(b"[" + b",".join(filter(None, body.split(b"\n"))) + b"]")
    except (ValueError, RecursionError) as error:
        raise RegistryUnavailable(f"cannot {verb}: the answer is not JSON") from error
    return values


def _value(verb: str, line: bytes) -> Any:
    return _result(verb, _values(verb, line)[0])


def _result(verb: str, value: object) -> Any:
    """What a line of a stream holds."""
    if isinstance(value, dict) and isinstance(value.get("result"), dict):
        return value["result"]
    raise _failure(verb, value, "the answer is not etcd's")
