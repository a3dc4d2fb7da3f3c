"""The unit under load: a small HTTP/1.1 server with kept-alive connections, and with no grace of its own.

On SIGTERM it closes its listener and ends at once, and what it was working on is cut. That is deliberate: whatever a
restart spares, the supervisor has spared. Needs nothing but Python's own library.

Arguments: port [number that is added to it] [seconds that it takes before it listens].

    GET /fast               the instance's pid
    GET /slow?seconds=2     the same, after that time
    POST /echo              the request's body
    GET /count              how many requests it is working on, this one not counted
    GET /healthz            ok
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

HOST = "127.0.0.1"
BACKLOG = 1024
MAX_HEAD_BYTES = 16 * 1024
MAX_BODY_BYTES = 1024 * 1024
MAX_SLOW_SECONDS = 60.0
_PID = b"%d\n" % os.getpid()


class Connection(asyncio.Protocol):
    """One client. Requests that were sent ahead of an answer wait in the buffer for their turn."""

    working = 0  # requests of all connections

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._keep = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:  # nobody waits for the answer any more
            self._timer.cancel()
            self._timer = None
            Connection.working -= 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._go_on()

    def _go_on(self) -> None:
        """Answer what is complete, one after the other."""
        while self._timer is None and self._transport is not None and not self._transport.is_closing():
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                if len(self._buffer) > MAX_HEAD_BYTES:
                    self._refuse(b"431 Request Header Fields Too Large")
                return
            if not self._begin(head, rest):
                return

    def _begin(self, head: bytes, rest: bytes) -> bool:
        """Begin with the first request of the buffer; False: it is not complete, or was refused."""
        first, *lines = head.split(b"\r\n")
        words = first.split(b" ")
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        length = fields.get(b"content-length", b"0")
        if len(words) != 3 or not length.isdigit() or int(length) > MAX_BODY_BYTES or b"transfer-encoding" in fields:
            self._refuse(b"400 Bad Request")
            return False
        if len(rest) < int(length):
            return False
        body, self._buffer = rest[: int(length)], rest[int(length) :]
        asked = fields.get(b"connection", b"").lower()
        self._keep = asked == b"keep-alive" if words[2] == b"HTTP/1.0" else asked != b"close"
        self._serve(words[0], words[1], body)
        return True

    def _serve(self, method: bytes, target: bytes, body: bytes) -> None:
        path, _, query = target.partition(b"?")
        match method, path:
            case b"GET", b"/fast":
                self._answer(b"200 OK", _PID)
            case b"GET", b"/slow":
                self._answer_later(query)
            case b"POST", b"/echo":
                self._answer(b"200 OK", body)
            case b"GET", b"/count":
                self._answer(b"200 OK", b"%d\n" % Connection.working)
            case b"GET", b"/healthz":
                self._answer(b"200 OK", b"ok\n")
            case _:
                self._answer(b"404 Not Found", b"")

    def _answer_later(self, query: bytes) -> None:
        try:
            seconds = float(query.removeprefix(b"seconds=") or b"0")
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= MAX_SLOW_SECONDS:
            self._answer(b"400 Bad Request", b"")
            return
        Connection.working += 1
        self._timer = asyncio.get_running_loop().call_later(seconds, self._end_slow)

    def _end_slow(self) -> None:
        self._timer = None
        Connection.working -= 1
        self._answer(b"200 OK", _PID)
        self._go_on()

    def _refuse(self, status: bytes) -> None:
        self._keep = False
        self._answer(status, b"")

    def _answer(self, status: bytes, body: bytes) -> None:
        assert self._transport is not None
        kept = b"keep-alive" if self._keep else b"close"
        head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n" % (status, len(body), kept)
        self._transport.write(head + body)
        if not self._keep:
            self._transport.close()


async def serve(port: int) -> None:
    """Listen and answer until SIGTERM, which ends this process without another look at its connections."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, HOST, port, backlog=BACKLOG)

    def end() -> None:
        server.close()
        os._exit(0)

    loop.add_signal_handler(signal.SIGTERM, end)
    await server.serve_forever()


def main() -> None:
    """Serve on the port of the arguments."""
    port, number, delay = [*sys.argv[1:4], "0", "0"][:3]
    time.sleep(float(delay))
    asyncio.run(serve(int(port) + int(number)))


if __name__ == "__main__":
    main()
