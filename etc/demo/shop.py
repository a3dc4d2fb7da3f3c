#!/usr/bin/env python3
"""A small business unit: the shopping carts of a shop, over HTTP, kept in SQLite.

    python3 shop.py --port 9080 --database shop.sqlite

    POST /cart/{user}/items   {"sku": "tea", "quantity": 2}    adds to a cart
    GET  /cart/{user}         what is in a cart
    GET  /healthz             200 when the database answers, else 503
    GET  /                    which process this is

Any number of processes may share one database file. SIGTERM stops accepting, lets running requests finish and ends
with exit code 0. It needs nothing but Python 3.11.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

MAX_BODY_BYTES = 16 * 1024
MAX_NAME_LENGTH = 100
MAX_QUANTITY = 1000
BUSY_SECONDS = 10.0  # how long a write waits for another process's
KEEP_ALIVE_SECONDS = 60.0

SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    user TEXT NOT NULL, sku TEXT NOT NULL, quantity INTEGER NOT NULL CHECK (quantity > 0), PRIMARY KEY (user, sku)
) WITHOUT ROWID
"""
ADD = """
INSERT INTO items (user, sku, quantity) VALUES (?, ?, ?)
ON CONFLICT (user, sku) DO UPDATE SET quantity = quantity + excluded.quantity
"""
CART = "SELECT sku, quantity FROM items WHERE user = ? ORDER BY sku"


class BadRequest(Exception):
    """The client must change its request; `status` and the text tell how."""

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        super().__init__(detail)


class Carts:
    """The carts of all users. One object a thread: it owns a connection to the database."""

    def __init__(self, path: str) -> None:
        self._database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        self._database.execute("PRAGMA synchronous = NORMAL")  # with WAL: safe against a killed process

    @staticmethod
    def create(path: str) -> None:
        """Make the database if there is none; processes that start together may all do it."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                with contextlib.closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as database:
                    database.execute("PRAGMA journal_mode = WAL")
                    database.execute(SCHEMA)
                return
            except sqlite3.OperationalError:  # SQLite does not wait for the lock when the journal mode changes
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def add(self, user: str, sku: str, quantity: int) -> dict[str, int]:
        """Put items into a cart; returns what is in it then: sku to quantity."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            self._database.execute(ADD, (user, sku, quantity))
            cart = self.of(user)
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:  # some errors end it
                self._database.execute("ROLLBACK")
            raise
        return cart

    def of(self, user: str) -> dict[str, int]:
        """What is in a cart: sku to quantity."""
        return dict(self._database.execute(CART, (user,)))

    def close(self) -> None:
        """Give the connection back."""
        self._database.close()


class Shop(ThreadingHTTPServer):
    """Accepts connections, a thread each; knows which of them are between requests."""

    daemon_threads = False  # the end waits for them
    request_queue_size = 128

    def __init__(self, port: int, database: str) -> None:
        self.database = database
        self.started = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.stopping = False
        self._waiting: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), Conversation)

    def stop(self) -> None:
        """Accept no more, and end every connection after the request it is at; returns at once."""
        with self._lock:
            self.stopping = True
            for connection in self._waiting:
                with contextlib.suppress(OSError):  # what has arrived can still be read
                    connection.shutdown(socket.SHUT_RD)
        threading.Thread(target=self.shutdown).start()

    def accept_the_rest(self) -> None:
        """Serve the connections that the kernel has made for us but that we had not accepted."""
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(self.request_queue_size):
                self.process_request(*self.get_request())

    @contextlib.contextmanager
    def between_requests(self, connection: socket.socket) -> Iterator[None]:
        """While this lasts, `stop` may end the connection."""
        with self._lock:
            self._waiting.add(connection)
            if self.stopping:
                connection.shutdown(socket.SHUT_RD)
        try:
            yield
        finally:
            with self._lock:
                self._waiting.discard(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are nothing to report."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Conversation(BaseHTTPRequestHandler):
    """One connection: requests, one after the other."""

    protocol_version = "HTTP/1.1"
    server_version = "addToCart"
    timeout = KEEP_ALIVE_SECONDS
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body leave together
    server: Shop

    def setup(self) -> None:
        super().setup()
        self.carts = Carts(self.server.database)

    def finish(self) -> None:
        self.carts.close()
        super().finish()

    def handle_one_request(self) -> None:
        try:
            with self.server.between_requests(self.connection):
                self.rfile.peek(1)  # type: ignore[attr-defined]  # a BufferedReader: waits for the first byte
        except TimeoutError:
            self.close_connection = True
        else:
            super().handle_one_request()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Only errors are logged."""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, find: Any) -> None:
        try:
            status, value = find([unquote(part) for part in self.path.partition("?")[0].split("/")[1:]])
        except BadRequest as error:
            status, value = error.status, {"error": str(error)}
            self.close_connection = True  # its body may be unread
        except sqlite3.Error as error:
            status, value = 503, {"error": f"cannot use the database: {error}"}
        self._send(status, value)

    def _get(self, path: list[str]) -> tuple[int, object]:
        match path:
            case [""]:
                return 200, self._who()
            case ["healthz"]:
                self.carts.of("")
                return 200, {"status": "stopping" if self.server.stopping else "ok"}
            case ["cart", user]:
                return 200, {"user": user, "items": self.carts.of(_name(user, "user"))}
        raise BadRequest(404, "no such page")

    def _post(self, path: list[str]) -> tuple[int, object]:
        match path:
            case ["cart", user, "items"]:
                sku, quantity = _item(self._body())
                return 200, {"user": user, "items": self.carts.add(_name(user, "user"), sku, quantity)}
        raise BadRequest(404, "nothing can be posted there")

    def _who(self) -> dict[str, object]:
        generation = os.environ.get("UNITD_GENERATION")
        return {
            "service": "addToCart",
            "process": int(os.environ.get("UNITD_NUMBER", "0")),
            "pid": os.getpid(),
            "generation": int(generation) if generation else None,
            "started": self.server.started,
        }

    def _body(self) -> object:
        try:
            size = int(self.headers.get("Content-Length", ""))
        except ValueError:
            raise BadRequest(411, "send a Content-Length") from None
        if not 0 <= size <= MAX_BODY_BYTES:
            raise BadRequest(413, f"send at most {MAX_BODY_BYTES} bytes")
        self.wfile.flush()  # a client may wait for our "100 Continue"
        body = self.rfile.read(size)
        if len(body) < size:
            raise BadRequest(400, "the body ended early")
        try:
            return json.loads(body)
        except ValueError as error:
            raise BadRequest(400, f"send JSON: {error}") from error

    def _send(self, status: int, value: object) -> None:
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.server.stopping or self.close_connection:
            self.send_header("Connection", "close")  # which makes the base class end the connection, too
        self.end_headers()
        self.wfile.write(body)


def _item(value: object) -> tuple[str, int]:
    if not isinstance(value, dict) or set(value) != {"sku", "quantity"}:
        raise BadRequest(400, 'send {"sku": TEXT, "quantity": NUMBER}')
    quantity = value["quantity"]
    if type(quantity) is not int or not 1 <= quantity <= MAX_QUANTITY:
        raise BadRequest(400, f"quantity must be a whole number from 1 to {MAX_QUANTITY}")
    return _name(value["sku"], "sku"), quantity


def _name(value: object, what: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME_LENGTH or not value.isprintable():
        raise BadRequest(400, f"{what} must be 1 to {MAX_NAME_LENGTH} printable characters")
    return value


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="The unit addToCart: shopping carts over HTTP.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", required=True, metavar="FILE")
    options = parser.parse_args()
    Carts.create(options.database)
    with Shop(options.port, options.database) as shop:  # leaving it waits for the threads
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: shop.stop())
        print(f"addToCart listens on port {shop.server_port}, process {os.getpid()}", flush=True)
        shop.serve_forever(poll_interval=0.2)
        shop.accept_the_rest()
    print("addToCart has finished its requests", flush=True)


if __name__ == "__main__":
    main()
