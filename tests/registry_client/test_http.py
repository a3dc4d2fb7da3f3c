"""backends/http.py and its connection, against servers that misbehave. Good behaviour is the contract suite's."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from registry_client import Entry, LeaseKey, LeaseLost, RegistryRejected, RegistryUnavailable, Unsupported
from registry_client.backends.connection import HttpAddress
from registry_client.backends.http import HttpBackend

VALUE: dict[str, Any] = {
    "schema": 1,
    "service": "s",
    "instance": "n/1",
    "node": "n",
    "unit": "u",
    "address": "127.0.0.1",
    "port": 1,
    "generation": 1,
    "status": "up",
    "weight": 1,
    "full_weight": 1,
    "started_at": "2026-11-23T06:29:10.123Z",
}
ENTRY = Entry.from_json(VALUE)
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A loopback server with one behaviour for all connections; it counts them and keeps the requests."""

    def __init__(self, handler: Handler) -> None:
        self.handler, self.connections, self.port = handler, 0, 0
        self.first_connection = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.first_connection.set()
        task = asyncio.ensure_future(self.serve(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.handler(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(handler: Handler, **options: Any) -> AsyncIterator[tuple[Server, HttpBackend]]:
    server = Server(handler)
    listener = await asyncio.start_server(server.connected, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    backend = HttpBackend(server.url, **{"timeout_seconds": 5.0, **options})
    try:
        yield server, backend
    finally:
        await backend.close()
        listener.close()
        for task in server.tasks:
            task.cancel()
        if server.tasks:
            await asyncio.wait(server.tasks)
        await listener.wait_closed()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """The head of a request; its body is read too."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            await reader.readexactly(int(line.split(b":")[1]))
    return head


def answer(value: object, status: int = 200, headers: str = "") -> bytes:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def always(*answers: bytes) -> Handler:
    """Answers the requests of a connection one after the other, then closes; the last answer repeats for ever."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        while True:
            await read_request(reader)
            writer.write(answers[min(number, len(answers) - 1)])
            await writer.drain()
            number += 1

    return handler


async def closes_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says nothing."""


async def never_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


def calls(backend: HttpBackend) -> list[Callable[[], Awaitable[object]]]:
    """Every kind of call."""
    return [
        lambda: backend.register(ENTRY, 10),
        lambda: backend.renew([ENTRY.key]),
        lambda: backend.update(ENTRY),
        lambda: backend.deregister(ENTRY.key),
        lambda: backend.get("s", "n/1"),
        lambda: backend.list("s"),
    ]


async def unavailable(call: Awaitable[object]) -> RegistryUnavailable:
    with pytest.raises(RegistryUnavailable, match=r"^cannot \w+ .*: ") as caught:
        await call
    return caught.value


async def rejected(call: Awaitable[object]) -> RegistryRejected:
    with pytest.raises(RegistryRejected, match=r"^cannot \w+ .*: ") as caught:
        await call
    return caught.value


async def test_nobody_listening_is_unavailable_and_cannot_have_counted() -> None:
    async with serving(closes_at_once) as (server, _):
        port = server.port
    backend = HttpBackend(f"http://127.0.0.1:{port}")
    for call in calls(backend):
        error = await unavailable(call())
        assert error.may_have_counted is False
        assert "connection refused" in str(error) or "connect call failed" in str(error)
    await backend.close()


async def test_no_such_socket_is_unavailable() -> None:
    backend = HttpBackend("unix:///nowhere/at/all.sock")
    assert "no such file" in str(await unavailable(backend.list()))
    await backend.close()


async def test_a_server_that_closes_at_once_is_unavailable() -> None:
    async with serving(closes_at_once) as (_, backend):
        for call in calls(backend):
            await unavailable(call())


async def test_a_server_that_never_answers_is_unavailable_in_time_and_may_have_counted() -> None:
    async with serving(never_answers, timeout_seconds=0.2) as (server, backend):
        for call in calls(backend):
            start = time.monotonic()
            error = await unavailable(call())
            assert "no answer within 0.2 s" in str(error)
            assert error.may_have_counted is True
            assert time.monotonic() - start < 3
        assert server.connections == 6  # each was given up with its connection


async def test_the_time_limit_counts_waiting_for_the_connection() -> None:
    async with serving(never_answers, timeout_seconds=0.3) as (_, backend):
        start = time.monotonic()
        results = await asyncio.gather(*(backend.list() for _ in range(20)), return_exceptions=True)
        assert all(isinstance(result, RegistryUnavailable) for result in results)
        assert time.monotonic() - start < 3


async def test_a_server_that_trickles_is_unavailable_in_time() -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with serving(trickle, timeout_seconds=0.2) as (_, backend):
        await unavailable(backend.list())


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00" * 20,
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
async def test_garbage_is_unavailable(garbage: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(garbage)
        await writer.drain()

    async with serving(handler) as (_, backend):
        for call in calls(backend):
            await unavailable(call())


@pytest.mark.parametrize("value", [b"", b"<html>", b"\xff", b"[" * 100_000, [], "yes", 7, None, {}, {"removed": "yes"}])
async def test_a_good_status_with_a_senseless_body_is_unavailable(value: object) -> None:
    async with serving(always(answer(value))) as (_, backend):
        register, renew, update, *others = calls(backend)
        for call in (register, renew, *others):
            await unavailable(call())
        if isinstance(value, bytes):  # an update needs to hear no more than JSON
            await unavailable(update())


@pytest.mark.parametrize(
    ("value", "call"),
    [
        ({"ttl_seconds": -1, "revision": 2}, 0),
        ({"ttl_seconds": "10", "revision": 2}, 0),
        ({"ttl_seconds": 10}, 0),
        ({"lost": [{"service": "s", "instance": "other", "generation": 1}]}, 1),
        ({"lost": ["n/1"]}, 1),
        (VALUE | {"instance": "other"}, 4),
        (VALUE | {"schema": 2}, 4),
        ({"epoch": "e", "revision": 1, "service": "other", "entries": []}, 5),
        ({"epoch": "e", "revision": 1, "service": "s", "entries": [{}]}, 5),
    ],
)
async def test_an_answer_to_another_question_is_unavailable(value: object, call: int) -> None:
    async with serving(always(answer(value))) as (_, backend):
        await unavailable(calls(backend)[call]())


async def test_an_oversized_answer_is_rejected_without_reading_it_all() -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n")
        while True:
            writer.write(b" " * 65536)
            sent += 65536
            await writer.drain()

    async with serving(flood, max_answer_bytes=100_000) as (_, backend):
        assert (await rejected(backend.list())).code == "answer_too_large"
    assert sent < 50_000_000


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408])
async def test_a_server_in_trouble_is_unavailable(status: int) -> None:
    async with serving(always(answer(b"<html>", status))) as (_, backend):
        for call in calls(backend):
            await unavailable(call())


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 413])
async def test_an_error_that_is_no_registrys_is_rejected_and_never_taken_for_absence(status: int) -> None:
    async with serving(always(answer(b"<html>", status))) as (_, backend):
        for call in calls(backend):
            assert (await rejected(call())).code == f"http_{status}"


async def test_only_the_registry_itself_says_that_an_entry_is_not_there() -> None:
    async with serving(always(answer({"code": "no_such_path"}, 404))) as (_, backend):
        assert (await rejected(backend.get("s", "n/1"))).code == "no_such_path"
    async with serving(always(answer({"code": "no_such_entry"}, 404))) as (_, backend):
        assert await backend.get("s", "n/1") is None
        assert (await rejected(backend.list())).code == "no_such_entry"
    async with serving(always(answer({"code": "no_such_entry"}, 403))) as (_, backend):
        await rejected(backend.list())
    async with serving(always(answer({"code": "lease_lost", "detail": "gone"}, 404))) as (_, backend):
        with pytest.raises(LeaseLost):
            await backend.update(ENTRY)


async def test_a_problem_keeps_its_facts() -> None:
    value = {"code": "stale_generation", "detail": "7 is newer", "held_generation": 7, "key": ""}
    async with serving(always(answer(value, 409))) as (_, backend):
        error = await rejected(backend.register(ENTRY, 10))
        assert (error.code, error.held_generation) == ("stale_generation", 7)
        assert str(error) == "cannot register n/1 of s: 7 is newer"
    async with serving(always(answer({"code": 7, "detail": [], "held_generation": "x", "key": 1}, 409))) as (
        _,
        backend,
    ):
        error = await rejected(backend.register(ENTRY, 10))
        assert (error.code, error.held_generation, error.key) == ("http_409", None, "")


RENEWED = answer({"lost": [], "epoch": "e", "revision": 1})


async def test_calls_share_a_kept_connection_and_renewals_have_their_own() -> None:
    async with serving(always(answer({"lost": [], "removed": True}))) as (server, backend):
        for _ in range(5):
            await backend.renew([ENTRY.key])
        assert server.connections == 1
        for _ in range(5):
            await backend.deregister(ENTRY.key)
        assert server.connections == 2


def once_then(ending: Callable[[asyncio.StreamWriter], None]) -> Handler:
    """Answers one request of each connection, then ends it in some way when the next one comes."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(RENEWED)
        await read_request(reader)
        ending(writer)

    return handler


@pytest.mark.parametrize(
    "ending",
    [
        lambda writer: writer.close(),
        lambda writer: writer.transport.abort(),
        lambda writer: writer.write(answer(b"", 408, "Connection: close\r\n")),
    ],
    ids=["closed", "reset", "timed out by the server"],
)
async def test_a_kept_connection_that_went_stale_is_replaced_once(
    ending: Callable[[asyncio.StreamWriter], None],
) -> None:
    async with serving(once_then(ending)) as (server, backend):
        for number in range(1, 4):
            assert await backend.renew([ENTRY.key]) == frozenset()
            assert server.connections == number


async def test_a_connection_that_the_server_closed_meanwhile_is_not_used() -> None:
    async def one_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(RENEWED)
        await writer.drain()

    async with serving(one_answer) as (server, backend):
        for number in range(1, 4):
            await backend.renew([ENTRY.key])
            assert server.connections == number
            await asyncio.sleep(0.02)


async def test_a_connection_that_breaks_inside_an_answer_is_not_tried_again() -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(RENEWED)
        await read_request(reader)
        writer.write(RENEWED[:30])
        await writer.drain()

    async with serving(half) as (server, backend):
        await backend.renew([ENTRY.key])
        await unavailable(backend.renew([ENTRY.key]))
        assert server.connections == 1


async def test_two_answers_to_one_request_do_not_answer_the_next_one() -> None:
    lost = answer({"lost": [ENTRY.key.to_json()]})
    async with serving(always(RENEWED + lost)) as (server, backend):
        for number in range(1, 4):
            assert await backend.renew([ENTRY.key]) == frozenset()
            assert server.connections == number


async def test_a_cancelled_call_closes_its_connection_and_the_next_call_has_a_new_one() -> None:
    ended = asyncio.Event()

    async def first_hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        if server.connections == 1:
            await reader.read()
            ended.set()
        else:
            writer.write(RENEWED)
            await reader.read()

    async with serving(first_hangs) as (server, backend):
        call = asyncio.ensure_future(backend.renew([ENTRY.key]))
        await server.first_connection.wait()
        await asyncio.sleep(0.02)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        async with asyncio.timeout(5):
            await ended.wait()
        assert await backend.renew([ENTRY.key]) == frozenset()


async def test_closing_fails_the_call_under_way_and_does_not_repeat_it() -> None:
    async with serving(never_answers, timeout_seconds=10) as (server, backend):
        call = asyncio.ensure_future(backend.renew([ENTRY.key]))
        await server.first_connection.wait()
        await backend.close()
        async with asyncio.timeout(5):
            await unavailable(call)
        assert server.connections == 1


async def test_many_keys_are_renewed_in_bounded_requests() -> None:
    sizes = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            leases = json.loads(await reader.readexactly(length))["leases"]
            sizes.append(len(leases))
            writer.write(answer({"lost": leases[:1]}))

    async with serving(handler) as (server, backend):
        keys = [LeaseKey("s", f"n/{number}", 1) for number in range(1234)]
        assert await backend.renew(keys) == {keys[0], keys[500], keys[1000]}
        assert sizes == [500, 500, 234]
        assert server.connections == 1


def snapshot(revision: int, *instances: str, epoch: str = "e") -> bytes:
    entries = [VALUE | {"instance": instance} for instance in instances]
    return answer({"epoch": epoch, "revision": revision, "service": "s", "entries": entries})


def script(asked: list[bytes], *answers: bytes | None) -> Handler:
    """One answer a connection (None: none at all), then silence; keeps the first lines of the requests."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await read_request(reader)).split(b"\r\n")[0])
        if len(asked) > len(answers):
            await reader.read()
        elif (reply := answers[len(asked) - 1]) is not None:
            writer.write(reply)
            await writer.drain()

    return handler


async def revisions(backend: HttpBackend, count: int, **options: Any) -> list[int]:
    seen: list[int] = []
    async with asyncio.timeout(10), aclosing(backend.watch("s", **options)) as watch:
        while len(seen) < count:
            seen.append((await anext(watch)).revision)
    return seen


async def test_a_watch_goes_on_after_failures_with_the_revision_it_had() -> None:
    asked: list[bytes] = []
    broken = [None, answer(b"<html>", 502), answer(b"{}"), b"garbage\r\n\r\n", answer(b"<html>", 404)]
    async with serving(script(asked, None, snapshot(4, "n/1"), *broken, snapshot(7, "n/2"))) as (_, backend):
        assert await revisions(backend, 2) == [4, 7]
    assert asked[0] == asked[1] == b"GET /v1/registry/services/s?since=0&wait=30 HTTP/1.1"
    assert set(asked[2:]) == {b"GET /v1/registry/services/s?since=4&wait=30&epoch=e HTTP/1.1"}


async def test_a_watch_of_what_is_no_registry_is_rejected_at_first() -> None:
    async with serving(always(answer(b"<html>", 404))) as (_, backend):
        watch = backend.watch("s")
        assert (await rejected(anext(watch))).code == "http_404"


async def test_a_watch_gives_no_older_revision_of_its_epoch_but_any_of_a_new_one() -> None:
    asked: list[bytes] = []
    answers = (snapshot(9), snapshot(8), snapshot(9), snapshot(3, epoch="f"), snapshot(4, epoch="f"))
    async with serving(script(asked, *answers), watch_wait_seconds=0.1) as (_, backend):
        assert await revisions(backend, 3) == [9, 3, 4]


async def test_a_server_that_does_not_let_a_watch_wait_is_not_asked_in_a_circle() -> None:
    async with serving(always(snapshot(5))) as (server, backend):
        asked = 0

        async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal asked
            while True:
                await read_request(reader)
                asked += 1
                writer.write(snapshot(5))

        server.handler = counting
        async with aclosing(backend.watch("s")) as watch:
            await anext(watch)
            following = asyncio.ensure_future(anext(watch, None))
            await asyncio.sleep(0.5)
            assert asked <= 3
            following.cancel()
            await asyncio.wait([following])


async def test_fast_changes_come_together() -> None:
    revision = 0

    async def busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal revision
        while True:
            await read_request(reader)
            revision += 1
            writer.write(snapshot(revision))

    async with serving(busy) as (_, backend):
        start = time.monotonic()
        await revisions(backend, 10)
        assert time.monotonic() - start >= 9 * 0.04


async def test_leaving_a_watch_closes_its_connection() -> None:
    gone = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(snapshot(1))
        await reader.read()
        gone.set()

    async with serving(handler) as (_, backend):
        async with aclosing(backend.watch("s")) as watch:
            await anext(watch)
        async with asyncio.timeout(5):
            await gone.wait()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://registry,https://other", "all of its urls"),
        ("ftp://registry", "must be like"),
        ("registry:9301", "must be like"),
        ("http://", "must be like"),
        ("unix://relative/path", "must be like"),
        ("unix://", "must be like"),
        ("http://registry:port", "port"),
        ("http://registry:99999", "range"),
        ("http://me:secret@registry", "no user"),
        ("https://me:secret@registry:port", "no user"),
        ("http://registry/?a=b", "no query"),
        ("http://registry/a b", "percent-encoded"),
        ("http://registry/ü", "percent-encoded"),
        ("http://registry/\r\nX: y", "percent-encoded"),
    ],
)
def test_other_urls_are_refused_at_construction(url: str, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason) as caught:
        HttpBackend(url)
    assert "secret" not in str(caught.value)


def test_addresses_have_a_host_and_port_or_a_socket_and_maybe_a_prefix() -> None:
    assert HttpAddress.parse("http://registry") == HttpAddress("http://registry", "registry", 80, None, "")
    parsed = HttpAddress.parse("http://[::1]:9301/unitd/")
    assert (parsed.host, parsed.port, parsed.prefix) == ("::1", 9301, "/unitd")
    assert HttpAddress.parse("unix:///run/unitd/a%20b.sock").socket == "/run/unitd/a b.sock"


async def test_a_prefix_and_odd_names_are_part_of_the_path() -> None:
    asked: list[bytes] = []
    async with serving(script(asked, answer({"code": "no_such_entry"}, 404))) as (server, _):
        backend = HttpBackend(f"{server.url}/unitd/", timeout_seconds=5.0)
        assert await backend.get("s ü", "n/a:0?#%") is None
        await backend.close()
    path = b"/unitd/v1/registry/services/s%20%C3%BC/n%2Fa%3A0%3F%23%25"
    assert asked == [b"GET " + path + b" HTTP/1.1"]


def test_time_limits_must_be_above_zero() -> None:
    for options in ({"timeout_seconds": 0}, {"watch_wait_seconds": -1}, {"timeout_seconds": float("nan")}):
        with pytest.raises(Unsupported, match="above 0"):
            HttpBackend("http://registry", **options)
