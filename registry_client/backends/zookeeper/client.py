"""kazoo's client, cut down to its connection: one thread, which connects, sends, receives and keeps the session alive.

All that it calls back runs in that thread and must not block. Four things differ from kazoo's own ways, for which its
connection is subclassed:

- A call that was given up is never sent later: requests wait in kazoo's queue while it reconnects, and are looked at
  once more when their turn comes (`Batch.begin`). ZooKeeper executes the requests of a session in the order in which
  they were sent, and ends the old connection of a session before it serves the new one.
- Many requests leave in one write, and one call brings all their answers.
- A server that has just started may take a connection and never answer on it. kazoo would wait for a whole session;
  we wait a short time at first, and longer each time.
- The client forgets the last transaction that it saw when it reconnects. A server that has lost its data would refuse
  it for ever otherwise; whoever needs the newest state says `Sync` first.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kazoo.client import KazooClient  # type: ignore[import-untyped]
from kazoo.exceptions import (  # type: ignore[import-untyped]
    AuthFailedError,
    ConnectionClosedError,
    ConnectionDropped,
    ConnectionLoss,
    SessionExpiredError,
)
from kazoo.handlers.threading import SequentialThreadingHandler  # type: ignore[import-untyped]
from kazoo.protocol.connection import ConnectionHandler  # type: ignore[import-untyped]
from kazoo.protocol.serialization import Create2, int_struct  # type: ignore[import-untyped]
from kazoo.protocol.states import KeeperState  # type: ignore[import-untyped]
from kazoo.retry import KazooRetry  # type: ignore[import-untyped]

FIRST_PATIENCE_SECONDS = 1.0
BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.1, 5.0

_CUT = (ConnectionLoss, SessionExpiredError, ConnectionClosedError, AuthFailedError)  # of the connection, not the call
_SEND_BYTES = 65536
_WAKE_BYTES = 4096
_MAX_XID = 2**31 - 1


class CreateContainer(Create2):  # type: ignore[misc]
    """Create a node that the server removes when its last child is gone (ZooKeeper 3.5)."""

    type = 19


class Batch:
    """Requests that leave one after the other, and their answers: a value or kazoo's exception each."""

    __slots__ = ("_client", "_done", "_left", "_withdrawn", "begun", "first_zxid", "results", "session_id", "zxid")

    def __init__(self, client: Any, size: int, done: Callable[[Batch], None]) -> None:
        """`done` is called in kazoo's thread when all are answered."""
        self._client, self._done, self._left, self._withdrawn = client, done, size, False
        self.begun = False  # some of it was sent
        self.results: list[Any] = [None] * size
        self.first_zxid = self.zxid = 0  # what the server had executed at the first and at the last answer
        self.session_id = 0

    def begin(self) -> bool:
        """Asked by kazoo's thread right before a request of it is sent."""
        self.begun = self.begun or not self._withdrawn
        return not self._withdrawn

    def withdraw(self) -> None:
        """Send no more of it."""
        self._withdrawn = True

    @property
    def is_cut(self) -> bool:
        """Whether the connection or the session ended before all was answered."""
        return any(isinstance(result, _CUT) for result in self.results)

    def answered(self, index: int, result: Any) -> None:
        """One answer has come, in kazoo's thread."""
        self.results[index] = result
        self._left -= 1
        if index == 0:
            self.first_zxid = self._client.last_zxid
        if not self._left:
            self.zxid, self.session_id = self._client.last_zxid, self._client._session_id or 0
            self._done(self)


class Slot:
    """What kazoo takes for its result object: the place of one request in its batch."""

    __slots__ = ("_batch", "_index", "begin")

    def __init__(self, batch: Batch, index: int) -> None:
        self._batch, self._index, self.begin = batch, index, batch.begin

    def set(self, value: Any) -> None:
        self._batch.answered(self._index, value)

    def set_exception(self, error: Exception) -> None:
        self._batch.answered(self._index, error)


class Handler(SequentialThreadingHandler):  # type: ignore[misc]
    """No threads but the connection's: callbacks are called where they arise, so in order with the answers."""

    def __init__(self, connect: Callable[[tuple[str, int], str], socket.socket]) -> None:
        super().__init__()
        self._connect, self._stopping = connect, threading.Event()
        self.sleep_func = self._stopping.wait  # a pause between two attempts ends at once when we stop
        self.patience_seconds: float | None = None  # for what a new connection has to answer

    def start(self) -> None:
        """Nothing runs besides the connection."""

    def stop(self) -> None:
        """See `start`."""

    def interrupt(self) -> None:
        """End the pauses."""
        self._stopping.set()

    def select(self, *args: Any) -> Any:
        """Wait for sockets: readable, writable, in error, and how long."""
        *sockets, seconds = args
        return super().select(*sockets, min(seconds, self.patience_seconds or seconds))

    def dispatch_callback(self, callback: Any) -> None:
        """Call a watcher at once."""
        callback.func(*callback.args)

    def create_connection(self, address: tuple[str, int], hostname: str, **_: object) -> socket.socket:
        """A connection as the options of the backend want it; kazoo's own would not check host names."""
        return self._connect(address, hostname)


class Connection(ConnectionHandler):  # type: ignore[misc]
    """kazoo's thread; see the module's docstring for what is changed."""

    _xid: int
    _patience = FIRST_PATIENCE_SECONDS

    def _connect(self, host: str, hostip: str, port: int) -> tuple[float, float]:
        client, handler = self.client, self.handler
        client.last_zxid, handler.patience_seconds = 0, self._patience
        try:
            client.auth_data = client.credentials()
            read_timeout, connect_timeout = super()._connect(host, hostip, port)
        except Exception as error:
            client.trouble = _reason(error)
            if isinstance(error, handler.timeout_exception):
                self._patience *= 2
            raise
        finally:
            handler.patience_seconds = None
        self._patience = FIRST_PATIENCE_SECONDS
        client.trouble = ""
        client.negotiated_seconds = read_timeout * 1.5 / 1000  # kazoo reads for two thirds of it
        return read_timeout, connect_timeout

    def _connect_attempt(self, host: str, hostip: str, port: int, retry: Any) -> Any:
        try:
            return super()._connect_attempt(host, hostip, port, retry)
        except Exception as error:  # rubbish from the server, files that cannot be read: kazoo's thread would end
            self.client.trouble = _reason(error)
            self.client._session_callback(KeeperState.CONNECTING)
            return None

    def _expand_client_hosts(self) -> Any:
        found = super()._expand_client_hosts()
        if not found:
            self.client.trouble = "no address is known for it"
        return found

    def _send_request(self, read_timeout: float, connect_timeout: float) -> None:
        client, data = self.client, bytearray()
        self._read_sock.recv(_WAKE_BYTES)
        while client._queue and len(data) < _SEND_BYTES:
            request, slot = client._queue.popleft()
            if slot is not None and not slot.begin():
                continue
            self._xid = self._xid % _MAX_XID + 1
            body = request.serialize()
            data += int_struct.pack(len(body) + 8) + int_struct.pack(self._xid) + int_struct.pack(request.type) + body
            client._pending.append((request, slot, self._xid))
        if data:
            self._write(data, connect_timeout)
        if client._queue:
            client.wake()


class Client(KazooClient):  # type: ignore[misc]
    """kazoo's client with our connection."""

    def __init__(self, hosts: str, session_seconds: float, credentials: Callable[[], Any], handler: Handler) -> None:
        delay = min(MAX_BACKOFF_SECONDS, max(session_seconds / 3, BACKOFF_SECONDS))
        retry = KazooRetry(
            max_tries=-1, delay=BACKOFF_SECONDS, max_delay=delay, max_jitter=0.5, sleep_func=handler.sleep_func
        )
        quiet = logging.Logger("kazoo", logging.CRITICAL + 1)
        super().__init__(hosts, session_seconds, handler=handler, connection_retry=retry, logger=quiet)
        self._connection = Connection(self, self._conn_retry.copy(), logger=quiet)
        self.credentials = credentials
        self.negotiated_seconds = 0.0
        self.trouble = ""

    def wake(self) -> None:
        """Tell the thread that requests are waiting."""
        with suppress(OSError, AttributeError):  # it has been told many times, or it has ended
            self._connection._write_sock.send(b"\0", socket.MSG_DONTWAIT)


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionDropped) and isinstance(error.__context__, OSError):
        error = error.__context__
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
