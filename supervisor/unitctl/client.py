"""A blocking client of the control API: HTTP/1.1 over one connection that is kept, to a unix socket or to loopback.

It owns the connection and turns what can go wrong into the package's errors; it knows no command.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import h11

from ..errors import DaemonUnreachable, SupervisorError, WireError
from ..wire import decode, encode
from .address import Address
from .codes import FAILED, UNKNOWN, USAGE

ANSWER_SECONDS = 10.0
MAX_ANSWER_BYTES = 256 * 1024 * 1024
_CHUNK_BYTES = 256 * 1024
_RETRY_SECONDS = 0.02
_ASK_SECONDS = 1.0


class Unreachable(DaemonUnreachable):
    """`cause` is missing, refused, permission, timeout, garbage, lost (hung up while we spoke) or other."""

    def __init__(self, address: str, cause: str, reason: str) -> None:
        self.cause = cause
        super().__init__(address, reason)

    @property
    def has_ended(self) -> bool:
        """The daemon that was there is not there now."""
        return self.cause in ("missing", "refused", "lost")


class Refused(SupervisorError):
    """The daemon answered with an error; the message is its own. `problem` is the RFC 9457 body."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status, self.problem = status, problem
        super().__init__(_message_of(status, problem))

    @property
    def exit_code(self) -> int:
        """What it means for the exit code."""
        return {400: USAGE, 401: UNKNOWN, 403: UNKNOWN, 404: UNKNOWN, 422: USAGE}.get(self.status, FAILED)


class _StreamOver(Exception):
    """Whoever reads the stream has had enough."""


def _message_of(status: int, problem: Mapping[str, Any]) -> str:
    detail = str(problem.get("detail") or problem.get("title") or f"unitd answered with HTTP status {status}")
    nearest = problem.get("nearest")
    return f"{detail} (did you mean {nearest}?)" if nearest and str(nearest) not in detail else detail


def unit_path(name: str, verb: str = "") -> str:
    """The path of a unit, or of a verb for the units that a pattern names."""
    path = f"/v1/units/{quote(name, safe=':*,')}"
    return f"{path}/{verb}" if verb else path


class Client:
    """Answers come within `answer_seconds` (plus the time that was asked for), or Unreachable is raised.

    After an error the next request opens a new connection. Not for several threads.
    """

    def __init__(self, address: Address, answer_seconds: float = ANSWER_SECONDS) -> None:
        self.address = address
        self._answer_seconds = max(answer_seconds, 0.001)  # 0 would mean: do not wait for the socket at all
        self._socket: socket.socket | None = None
        self._h11 = h11.Connection(h11.CLIENT)

    def get(self, path: str, query: Mapping[str, str] | None = None, *, wait_seconds: float = 0.0) -> Any:
        """The JSON value at a path. Raises Unreachable, Refused."""
        if wait_seconds:
            query = {**(query or {}), "wait": f"{wait_seconds:.3f}"}
        return self._ask("GET", _target(path, query), b"", wait_seconds)

    def post(self, path: str, message: Any = None) -> Any:
        """Send a message, get the JSON value of the answer. Raises Unreachable, Refused."""
        return self._ask("POST", path, b"" if message is None else encode(message), 0.0)

    def stream(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        until: Callable[[], bool] | None = None,
    ) -> Iterator[bytes]:
        """What comes, as it comes, until the daemon ends it.

        With `until`, something may come at any time, and it also ends when `until` (asked every second in which
        nothing comes) says so; else a pause longer than `answer_seconds` is an error.
        """
        try:
            self._send("GET", _target(path, query), b"", headers or {})
            answer = self._read_head(self._deadline())
            if answer.status_code >= 300:
                raise self._refused(answer, self._read_body(self._deadline()))
            while isinstance(event := self._next_event(lambda: self._more(until)), h11.Data):
                yield bytes(event.data)
        except _StreamOver:
            return
        finally:
            self.close()

    def wait_closed(self, seconds: float) -> bool:
        """Wait until the daemon closes the idle connection; False if it did not within `seconds`."""
        if self._socket is None:
            time.sleep(seconds)
            return False
        return self._is_readable(seconds)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # one exchange

    def _ask(self, method: str, target: str, body: bytes, wait_seconds: float) -> Any:
        deadline = self._deadline() + wait_seconds
        try:
            self._send(method, target, body, {})
            answer = self._read_head(deadline)
            text = self._read_body(deadline)
        except BaseException:
            self.close()
            raise
        self._recycle()
        if answer.status_code >= 300:
            raise self._refused(answer, text)
        try:
            return decode(text)
        except WireError as error:
            raise self._garbage(str(error)) from error

    def _deadline(self) -> float:
        return time.monotonic() + self._answer_seconds

    def _send(self, method: str, target: str, body: bytes, headers: Mapping[str, str]) -> None:
        connection = self._connected()
        request = h11.Request(method=method, target=target, headers=self._headers(body, headers))
        parts = [
            self._h11.send(request),
            self._h11.send(h11.Data(data=body)),
            self._h11.send(h11.EndOfMessage()),
        ]
        try:
            connection.settimeout(self._answer_seconds)
            connection.sendall(b"".join(part for part in parts if part))
        except (BrokenPipeError, ConnectionResetError):
            pass  # it may have answered before it hung up
        except OSError as error:
            raise self._no_answer(error) from error

    def _headers(self, body: bytes, more: Mapping[str, str]) -> list[tuple[str, str]]:
        headers = [("Host", self.address.host or "localhost"), *more.items()]
        if body:
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        return headers

    def _read_head(self, deadline: float) -> h11.Response:
        while True:
            event = self._next_event(lambda: self._receive(deadline))
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise self._lost()

    def _read_body(self, deadline: float) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while not isinstance(event := self._next_event(lambda: self._receive(deadline)), h11.EndOfMessage):
            assert isinstance(event, h11.Data)
            chunks.append(event.data)
            size += len(event.data)
            if size > MAX_ANSWER_BYTES:
                raise self._garbage(f"its answer is larger than {MAX_ANSWER_BYTES} bytes")
        return b"".join(chunks)

    def _next_event(self, receive: Callable[[], bytes]) -> Any:
        ended = False
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise (self._lost() if ended else self._garbage(f"it does not speak HTTP ({error})")) from error
            if event is not h11.NEED_DATA:
                return event
            data = receive()
            ended = not data
            self._h11.receive_data(data)

    def _receive(self, deadline: float) -> bytes:
        assert self._socket is not None
        try:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            return self._socket.recv(_CHUNK_BYTES)
        except ConnectionError:
            return b""
        except OSError as error:
            raise self._no_answer(error) from error

    def _recycle(self) -> None:
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
        else:
            self.close()

    # waiting for more of a stream

    def _more(self, until: Callable[[], bool] | None) -> bytes:
        if until is None:
            return self._receive(self._deadline())
        while not self._is_readable(_ASK_SECONDS):
            if until():
                raise _StreamOver
        return self._receive(self._deadline())

    def _is_readable(self, seconds: float) -> bool:
        assert self._socket is not None
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    # the connection

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._h11 = h11.Connection(h11.CLIENT)
            self._socket = self._connect()
        return self._socket

    def _connect(self) -> socket.socket:
        deadline = self._deadline()
        while True:
            try:
                return self._try_to_connect()
            except BlockingIOError as error:  # the listener's queue is full: unix sockets do not wait for room
                if time.monotonic() > deadline:
                    raise self._not_connected(error) from error
                time.sleep(_RETRY_SECONDS)
            except OSError as error:
                raise self._not_connected(error) from error

    def _try_to_connect(self) -> socket.socket:
        if self.address.path is None:
            return socket.create_connection((self.address.host, self.address.port), self._answer_seconds)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self._answer_seconds)
            connection.connect(self.address.path)
        except BaseException:
            connection.close()
            raise
        return connection

    # errors

    def _not_connected(self, error: OSError) -> Unreachable:
        from .diagnosis import explain  # only needed now

        return Unreachable(str(self.address), *explain(self.address, error))

    def _no_answer(self, error: OSError) -> Unreachable:
        if isinstance(error, TimeoutError):
            seconds = f"{self._answer_seconds:g} s"
            return self._unreachable("timeout", f"no answer within {seconds}: it is overloaded or stuck; see its log")
        return self._unreachable("other", error.strerror or str(error))

    def _garbage(self, reason: str) -> Unreachable:
        return self._unreachable("garbage", f"cannot understand what answers there: {reason}; is it unitd?")

    def _lost(self) -> Unreachable:
        return self._unreachable("lost", "it hung up before its answer was complete; see its log")

    def _unreachable(self, cause: str, reason: str) -> Unreachable:
        self.close()
        return Unreachable(str(self.address), cause, reason)

    def _refused(self, answer: h11.Response, text: bytes) -> SupervisorError:
        try:
            problem = decode(text)
        except WireError:
            problem = None
        if isinstance(problem, dict):
            return Refused(answer.status_code, problem)
        return self._garbage(f"HTTP status {answer.status_code} without a reason")


def _target(path: str, query: Mapping[str, str] | None) -> str:
    return f"{path}?{urlencode(query)}" if query else path
