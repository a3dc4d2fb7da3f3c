"""Bodies of any size pass through; memory and speed are set by the slower end."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.machine import free_ports
from tests.gateway.proxy.running import Visit, asynchronous, echoing, get, ok, running, until

ROOT = Path(__file__).parents[3]
PIECE = b"x" * (1024 * 1024)
MUCH_BYTES = 40 * 1024 * 1024  # more than all buffers of kernel and processes on the way
SERVE = """
import asyncio, sys
from gateway.model import Pool, Server
from gateway.proxy import make
from gateway.settings.proxy import alone

async def main(port, unit):
    gateway = make(alone(("127.0.0.1", port), "cart"))
    await gateway.start()
    server = Server(service="cart", instance="n/0", generation=1, address="127.0.0.1", port=unit, weight=1, full_weight=1)
    await gateway.apply(Pool("cart", 1, "e", (server,)))
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def gateway(listener: socket.socket) -> Iterator[tuple[int, int]]:
    """A gateway as a process of its own: its port and its pid."""
    port = free_ports(1)
    command = [sys.executable, "-c", SERVE, str(port), str(listener.getsockname()[1])]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield port, process.pid
        finally:
            process.kill()


def peak_bytes(pid: int) -> int:
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match
    return int(match[1]) * 1024


def pour(connection: socket.socket, size: int) -> None:
    for _ in range(size // len(PIECE)):
        connection.sendall(PIECE)


def drink(connection: socket.socket, size: int) -> int:
    """How many bytes came until the end, or until that many had come."""
    buffer, count = bytearray(1024 * 1024), 0
    while count < size and (read := connection.recv_into(buffer)):
        count += read
    return count


def head_of(connection: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    return head


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("direction", "size"), [("down", 1024**3), ("up", 256 * 1024**2)])
def test_a_gigabyte_passes_through_in_little_memory(
    listener: socket.socket, gateway: tuple[int, int], direction: str, size: int
) -> None:
    port, pid = gateway
    counted: list[int] = []

    def unit() -> None:
        connection, _ = listener.accept()
        with connection:
            head_of(connection)
            if direction == "down":
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                pour(connection, size)
            else:
                counted.append(drink(connection, size))
                connection.sendall(ok(b""))

    thread = threading.Thread(target=unit)
    thread.start()
    before = peak_bytes(pid)
    with socket.create_connection(("127.0.0.1", port)) as client:
        if direction == "down":
            client.sendall(get())
            head_of(client)
            counted.append(drink(client, size))
        else:
            client.sendall(get("/", f"Content-Length: {size}", method="POST"))
            pour(client, size)
            assert head_of(client).startswith(b"HTTP/1.1 200")
    thread.join()
    assert counted == [size]
    assert peak_bytes(pid) - before < 16 * 1024 * 1024


@asynchronous
async def test_a_client_that_does_not_read_holds_the_unit_back() -> None:
    sent = 0

    async def talk(visit: Visit) -> None:
        nonlocal sent
        await visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * MUCH_BYTES))
        while sent < 2 * MUCH_BYTES:
            visit.send(PIECE)
            sent += len(PIECE)
            await visit.writer.drain()
        await visit.reader.read()

    async with running(talk) as place:
        client = await place.client()
        client.send(get())
        await client.head()
        await _at_rest(lambda: sent)
        assert sent < MUCH_BYTES
        assert len(await client.reader.readexactly(2 * MUCH_BYTES)) == 2 * MUCH_BYTES
        assert (await place.look())["n/0"].in_flight == 0
        await client.close()


@asynchronous
async def test_a_unit_that_does_not_read_holds_the_client_back() -> None:
    read = asyncio.Event()

    async def talk(visit: Visit) -> None:
        await visit.reader.readuntil(b"\r\n\r\n")
        await read.wait()
        visit.send(ok(b"%d" % len(await visit.reader.readexactly(2 * MUCH_BYTES))))

    async with running(talk) as place:
        client, sent = await place.client(), 0

        async def pour_in() -> None:
            nonlocal sent
            client.send(get("/", f"Content-Length: {2 * MUCH_BYTES}", method="POST"))
            while sent < 2 * MUCH_BYTES:
                client.send(PIECE)
                sent += len(PIECE)
                await client.writer.drain()

        pouring = asyncio.create_task(pour_in())
        await _at_rest(lambda: sent)
        assert sent < MUCH_BYTES
        read.set()
        await pouring
        assert (await client.answer()).body == b"%d" % (2 * MUCH_BYTES)
        await client.close()


async def _at_rest(count) -> None:
    """Nothing has moved for a while."""
    last, since = -1, 0.0
    loop = asyncio.get_running_loop()
    while loop.time() - since < 0.3:
        if count() != last or not last:
            last, since = count(), loop.time()
        await asyncio.sleep(0.02)


@asynchronous
async def test_a_client_that_never_reads_is_cut_after_a_while() -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MUCH_BYTES)
        with contextlib.suppress(ConnectionError):
            while True:
                visit.send(PIECE)
                await visit.writer.drain()

    async with running(talk, idle_seconds=0.2) as place:
        client = await place.client()
        client.send(get())
        await until("it is cut", lambda: place.count("proxy_connections") == 0)
        assert place.count("proxy_in_flight", service="cart") == 0
        await client.close()


@asynchronous
async def test_a_unit_that_stops_in_the_middle_is_cut_after_a_while() -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await visit.reader.read()

    async with running(talk, stall_seconds=0.1) as place:
        client = await place.client()
        client.send(get())
        await client.head()
        assert await client.rest() in (b"half", b"RESET")
        await client.close()


@asynchronous
async def test_many_requests_sent_ahead_do_not_pile_up() -> None:
    async with running(echoing()) as place:
        client = await place.client()
        many = 3000
        answered = 0

        async def pour_in() -> None:
            for _ in range(many // 100):
                client.send(get("/ahead", method="HEAD") * 100)
                await client.writer.drain()

        await place.apply()
        pouring = asyncio.create_task(pour_in())
        while answered < many:
            assert (await client.answer("HEAD")).status == 503
            answered += 1
        await pouring
        await client.close()
