"""The demo's unit as its users and its supervisor meet it: real processes, real requests, one database."""

from __future__ import annotations

import errno
import http.client
import json
import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

SHOP = Path(__file__).parents[2] / "etc" / "demo" / "shop.py"


class Process:
    """A running shop."""

    def __init__(self, folder: Path, **environment: str) -> None:
        command = [sys.executable, "-W", "error", str(SHOP), "--port", "0", "--database", "shop.sqlite"]
        variables = {**os.environ, **environment}
        self.child = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env=variables)
        self.port = int(self.line().split("port ")[1].split(",")[0])

    def line(self) -> str:
        assert self.child.stdout is not None
        return self.child.stdout.readline()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)

    def ask(self, method: str, path: str, value: object = None) -> tuple[int, Any]:
        with closing(self.connect()) as connection:
            return ask(connection, method, path, value)

    def end(self) -> int:
        self.child.terminate()
        return self.child.wait(15)


def ask(connection: http.client.HTTPConnection, method: str, path: str, value: object = None) -> tuple[int, Any]:
    connection.request(method, path, None if value is None else json.dumps(value))
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def item(sku: str, quantity: int) -> dict[str, object]:
    return {"sku": sku, "quantity": quantity}


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts shops on one database; those that still run at the end are killed."""
    started: list[Process] = []

    def start_one(**environment: str) -> Process:
        started.append(Process(tmp_path, **environment))
        return started[-1]

    yield start_one
    for process in started:
        if process.child.poll() is None:
            process.child.kill()
        process.child.wait()
        assert process.child.stdout is not None
        process.child.stdout.close()


def test_what_is_added_is_in_the_cart(start: Start) -> None:
    shop = start()
    assert shop.ask("POST", "/cart/ann/items", item("tea", 2)) == (200, {"user": "ann", "items": {"tea": 2}})
    shop.ask("POST", "/cart/ann/items", item("cup", 1))
    shop.ask("POST", "/cart/ann/items", item("tea", 3))
    assert shop.ask("GET", "/cart/ann") == (200, {"user": "ann", "items": {"cup": 1, "tea": 5}})
    assert shop.ask("GET", "/cart/j%C3%B6rg%2F1") == (200, {"user": "jörg/1", "items": {}})


def test_carts_outlive_the_process(start: Start) -> None:
    first = start()
    first.ask("POST", "/cart/ann/items", item("tea", 2))
    first.child.kill()
    first.child.wait()
    assert start().ask("GET", "/cart/ann")[1]["items"] == {"tea": 2}


def test_it_says_which_process_it_is(start: Start) -> None:
    shop = start(UNITD_NUMBER="1", UNITD_GENERATION="42")
    status, told = shop.ask("GET", "/")
    assert status == 200
    assert told.pop("started").startswith("20")
    assert told == {"service": "addToCart", "process": 1, "pid": shop.child.pid, "generation": 42}


def test_it_is_healthy_while_its_database_answers(start: Start, tmp_path: Path) -> None:
    shop = start()
    assert shop.ask("GET", "/healthz") == (200, {"status": "ok"})
    with closing(sqlite3.connect(tmp_path / "shop.sqlite")) as database:
        database.execute("DROP TABLE items")
    status, told = shop.ask("GET", "/healthz")
    assert status == 503 and "no such table" in told["error"]


@pytest.mark.parametrize(
    ("method", "path", "value", "status"),
    [
        ("GET", "/nothing", None, 404),
        ("GET", "/cart/ann/items", None, 404),
        ("POST", "/cart/ann", item("tea", 1), 404),
        ("GET", "/cart/", None, 400),
        ("POST", "/cart/ann/items", item("tea", 0), 400),
        ("POST", "/cart/ann/items", item("tea", 1001), 400),
        ("POST", "/cart/ann/items", {"sku": "tea", "quantity": True}, 400),
        ("POST", "/cart/ann/items", {"sku": "tea", "quantity": "2"}, 400),
        ("POST", "/cart/ann/items", {"sku": "", "quantity": 2}, 400),
        ("POST", "/cart/ann/items", {"sku": "\ud800", "quantity": 2}, 400),
        ("POST", "/cart/ann/items", {"sku": "tea", "quantity": 2, "price": 0}, 400),
        ("POST", "/cart/ann/items", ["tea", 2], 400),
        ("POST", "/cart/ann/items", "x" * 20_000, 413),
    ],
)
def test_wrong_requests_are_refused_with_a_reason(
    start: Start, method: str, path: str, value: object, status: int
) -> None:
    shop = start()
    got, told = shop.ask(method, path, value)
    assert got == status and told["error"]
    assert shop.ask("GET", "/cart/ann") == (200, {"user": "ann", "items": {}})


def test_one_connection_serves_many_requests(start: Start) -> None:
    shop = start()
    with closing(shop.connect()) as connection:
        for number in range(1, 20):
            assert ask(connection, "POST", "/cart/ann/items", item("tea", 1))[1]["items"] == {"tea": number}


def test_two_processes_that_write_at_once_lose_nothing(start: Start) -> None:
    shops = [start(), start()]

    def buy(customer: int) -> None:
        with closing(shops[customer % 2].connect()) as connection:
            for _ in range(25):
                assert ask(connection, "POST", "/cart/all/items", item("tea", 1))[0] == 200
                assert ask(connection, "POST", f"/cart/{customer}/items", item("cup", 2))[0] == 200

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(buy, range(8)))
    for shop in shops:
        assert shop.ask("GET", "/cart/all")[1]["items"] == {"tea": 200}
        assert [shop.ask("GET", f"/cart/{c}")[1]["items"]["cup"] for c in range(8)] == [50] * 8


def test_processes_that_start_together_share_a_new_database(start: Start) -> None:
    with ThreadPoolExecutor(4) as pool:
        shops = list(pool.map(lambda _: start(), range(4)))
    for number, shop in enumerate(shops, 1):
        assert shop.ask("POST", "/cart/ann/items", item("tea", 1))[1]["items"] == {"tea": number}


def test_asked_to_stop_it_ends_with_success_and_idle_connections_do_not_hold_it(start: Start) -> None:
    shop = start()
    with closing(shop.connect()) as used, closing(shop.connect()) as unused:
        ask(used, "GET", "/")
        unused.connect()
        assert shop.end() == 0


def begin(connection: http.client.HTTPConnection, size: int) -> None:
    """Begin to add an item; returns when the shop waits for the body."""
    connection.putrequest("POST", "/cart/ann/items")
    connection.putheader("Content-Length", str(size))
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    assert connection.sock.recv(1000).startswith(b"HTTP/1.1 100")


def wait_until_refused(port: int) -> None:
    """Until nobody listens on a port any more; the test's own time limit bounds it."""
    while True:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED:
                return
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_finishes_a_request_that_waits_for_the_database(
    start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    shop = start()
    body = json.dumps(item("tea", 2)).encode()
    with (
        closing(sqlite3.connect(tmp_path / "shop.sqlite", isolation_level=None)) as database,
        closing(shop.connect()) as connection,
    ):
        database.execute("BEGIN IMMEDIATE")  # the shop cannot write now
        begin(connection, len(body))
        connection.send(body)
        shop.child.send_signal(number)
        wait_until_refused(shop.port)
        assert shop.child.poll() is None
        assert select.select([connection.sock], [], [], 0)[0] == [], "answered without the database"
        database.execute("COMMIT")
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())["items"]) == (200, {"tea": 2})
    assert shop.child.wait(15) == 0
    assert shop.line() == "addToCart has finished its requests\n"


def test_asked_to_stop_it_finishes_a_request_whose_body_is_still_to_come(start: Start) -> None:
    shop = start()
    body = json.dumps(item("tea", 2)).encode()
    with closing(shop.connect()) as connection:
        begin(connection, len(body))
        shop.child.terminate()
        wait_until_refused(shop.port)
        connection.send(body)
        response = connection.getresponse()
        assert json.loads(response.read())["items"] == {"tea": 2}
        assert response.headers["Connection"] == "close"
    assert shop.child.wait(15) == 0
