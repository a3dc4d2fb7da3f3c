"""What Redis alone does: its expiry, its memory, its replicas, its users. The rest is in tests/contract."""

from __future__ import annotations

import asyncio
import importlib.machinery
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from registry_client import (
    BadOption,
    Entry,
    LeaseKey,
    RegistryRejected,
    RegistryUnavailable,
    Secret,
    Snapshot,
    Tls,
    Unsupported,
    open_backend,
)
from registry_client.backends.redis import RedisBackend
from registry_client.backends.redis import link as redis_link
from registry_client.client import check_options
from tests.servers import Redis
from tests.servers.fixtures import namespace, open_proxy, redis_server, share_server, start_server

__all__ = ["namespace", "open_proxy", "redis_server", "share_server", "start_server"]

DEADLINE = 10.0
pytestmark = pytest.mark.real


def entry(instance: str = "n/1", generation: int = 3, **changes: Any) -> Entry:
    values: dict[str, Any] = {
        "service": "cart",
        "instance": instance,
        "node": "n",
        "unit": "cart",
        "address": "10.0.0.1",
    }
    values |= {"port": 80, "generation": generation, "started_at": "2026-11-23T06:29:10.123Z"}
    return Entry(**{**values, **changes})


@asynccontextmanager
async def backend_at(url: str, prefix: str, **options: Any) -> AsyncIterator[RedisBackend]:
    options.setdefault("timeout_seconds", 5.0)
    backend = RedisBackend(url, prefix=prefix, **options)
    try:
        yield backend
    finally:
        await backend.close()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that is to happen; errors of a registry that is away do not count."""
    async with asyncio.timeout(DEADLINE):
        while True:
            with suppress(RegistryUnavailable):
                if await condition():
                    return
            await asyncio.sleep(0.02)


async def next_where(watch: Any, wanted: Callable[[Snapshot], bool]) -> Snapshot:
    async with asyncio.timeout(DEADLINE):
        while True:
            snapshot: Snapshot = await anext(watch)
            if wanted(snapshot):
                return snapshot


def names(snapshot: Snapshot) -> list[str]:
    return [item.instance for item in snapshot.entries]


async def unavailable(call: Awaitable[object]) -> RegistryUnavailable:
    with pytest.raises(RegistryUnavailable) as caught:
        await call
    return caught.value


async def denied(call: Awaitable[object]) -> RegistryRejected:
    with pytest.raises(RegistryRejected) as caught:
        await call
    assert caught.value.code == "permission_denied"
    return caught.value


# Options.


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("url", "http://127.0.0.1:6379"),
        ("url", "redis://"),
        ("url", "redis://h:99999"),
        ("url", "redis://h/one"),
        ("url", "redis://h?db=1"),
        ("url", "unix://"),
        ("url", "unix:///a.sock?name=1"),
        ("url", "redis://h 1"),
        ("prefix", ""),
        ("prefix", "a\nb"),
        ("prefix", "x" * 101),
        ("timeout_seconds", 0),
        ("timeout_seconds", True),
        ("user", "registrar"),
        ("tls", Tls()),
        ("token", "t"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(option: str, value: object) -> None:
    with pytest.raises(BadOption) as caught:
        check_options("redis", {option: value})
    assert caught.value.option == option
    with pytest.raises(BadOption):
        open_backend("redis", **{option: value})


def test_a_url_with_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(BadOption) as caught:
        RedisBackend("redis://registrar:hunter2@h:6379/0")
    assert "hunter2" not in str(caught.value)


def test_without_the_library_the_backend_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.machinery.PathFinder, "find_spec", lambda *_: None)
    with pytest.raises(Unsupported, match=r"install unitd\[redis\]"):
        open_backend("redis", url="redis://127.0.0.1")


def test_the_library_is_imported_by_the_first_call_only() -> None:
    program = """
import asyncio, sys
from registry_client import RegistryUnavailable, open_backend

async def main():
    backend = open_backend("redis", url="redis://127.0.0.1:1")
    assert "redis" not in sys.modules, "imported too early"
    try:
        await backend.list()
    except RegistryUnavailable as error:
        assert not error.may_have_counted
    assert "redis" in sys.modules
    await backend.close()

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=15, check=False)
    assert done.returncode == 0, done.stderr


# Who may do what, and over which way.


async def test_a_password_is_needed_and_may_be_in_a_file_that_changes(
    share_server: Any, namespace: str, tmp_path: Path
) -> None:
    server, file = share_server(Redis, password=True), tmp_path / "password"
    file.write_text("wrong")
    async with backend_at(server.url, namespace) as backend:
        error = await denied(backend.register(entry(), 10))
        assert "NOAUTH" in str(error) or "Authentication required" in str(error)
    async with backend_at(server.url, namespace, password=Secret(path=str(file))) as backend:
        error = await denied(backend.list())
        assert "wrong" not in str(error)
        file.write_text(server.password + "\n")
        await backend.register(entry(), 10)
        assert await backend.get("cart", "n/1") == entry()
        file.unlink()
        await until(lambda: _is(backend.list(), lambda snapshot: len(snapshot.entries) == 1))
    async with backend_at(server.url, namespace, password=Secret(path=str(file))) as backend:
        assert (await unavailable(backend.list())).may_have_counted is False


async def _is(call: Awaitable[Any], wanted: Callable[[Any], bool]) -> bool:
    return wanted(await call)


@pytest.mark.parametrize("flags_since", [(7, 0), (99,)])
async def test_a_user_with_exactly_the_documented_rights_can_do_everything(
    redis_server: Redis, namespace: str, flags_since: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_link, "FLAGS_SINCE", flags_since)  # as if the server were older
    rights = ["+@hash", "+@sortedset", "+@stream", "+@keyspace", "+@scripting", "+@connection", "+time", "+info"]
    assert f"`~<prefix>:* {' '.join(rights)}`" in (RedisBackend.__doc__ or "")
    redis_server.ask("ACL", "SETUSER", namespace, "on", ">secret", f"~{namespace}:*", *rights)
    try:
        async with backend_at(redis_server.url, namespace, user=namespace, password="secret") as backend:
            await backend.register(entry(), 10)
            await backend.update(entry(weight=3))
            assert await backend.renew([entry().key]) == frozenset()
            assert (await backend.inspect(10)).version == redis_server.version
            async with aclosing(backend.watch()) as watch:
                assert names(await next_where(watch, bool)) == ["n/1"]
                assert await backend.deregister(entry().key) is True
                assert names(await next_where(watch, bool)) == []
        async with backend_at(redis_server.url, "elsewhere", user=namespace, password="secret") as backend:
            await denied(backend.register(entry(), 10))
            await denied(backend.get("cart", "n/1"))
            await denied(anext(backend.watch()))
    finally:
        redis_server.ask("ACL", "DELUSER", namespace)


async def test_a_user_below_another_prefix_is_denied(share_server: Any) -> None:
    server = share_server(Redis, acl=True)
    async with backend_at(server.url, "unitd", user=server.user, password=server.password) as backend:
        await backend.register(entry(), 10)
        assert await backend.deregister(entry().key) is True
    async with backend_at(server.url, "other", user=server.user, password=server.password) as backend:
        await denied(backend.register(entry(), 10))


async def test_over_tls_both_sides_show_certificates(share_server: Any, namespace: str) -> None:
    server = share_server(Redis, tls=True)
    own = server.certificates
    ca, cert, key = str(own.ca), str(own.client_certificate), str(own.client_key)
    async with backend_at(server.url, namespace, tls=Tls(ca=ca, cert=cert, key=key)) as backend:
        await backend.register(entry(), 10)
        assert await backend.get("cart", "n/1") == entry()
    async with backend_at(server.url, namespace, tls=Tls(ca=ca, cert=cert, key=key, server_name="else")) as backend:
        assert (await unavailable(backend.list())).may_have_counted is False
    async with backend_at(server.url, namespace, tls=Tls(ca=ca)) as backend:
        await unavailable(backend.list())
    async with backend_at(server.url, namespace) as backend:
        assert "certificate" in str(await unavailable(backend.list()))


async def test_a_unix_socket_is_as_good(redis_server: Redis, namespace: str, tmp_path: Path) -> None:
    forwards: list[asyncio.Task[Any] | None] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        forwards.append(asyncio.current_task())
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", redis_server.port)
        await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))

    server = await asyncio.start_unix_server(forward, tmp_path / "redis.sock")
    async with backend_at(f"unix://{tmp_path}/redis.sock?db=0", namespace) as backend:
        await backend.register(entry(), 10)
        assert await backend.get("cart", "n/1") == entry()
    server.close()
    await asyncio.gather(*filter(None, forwards), return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


async def test_a_database_that_is_not_there_is_unavailable(redis_server: Redis, namespace: str) -> None:
    async with backend_at(f"{redis_server.url}/5", namespace) as backend:
        error = await unavailable(backend.register(entry(), 10))
        assert "DB index" in str(error) and not error.may_have_counted


# Expiry.


async def test_no_call_ever_makes_an_entry_immortal(redis_server: Redis, namespace: str) -> None:
    key = f"{namespace}:entry:cart/n/1"
    async with backend_at(redis_server.url, namespace) as backend:
        calls: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: backend.register(entry(), 20),
            lambda: backend.update(entry(weight=1)),
            lambda: backend.renew([entry().key]),
            lambda: backend.register(entry(weight=2), 10),
            lambda: backend.update(entry(weight=3, status="draining")),
            lambda: backend.register(entry(generation=4), 10),
        )
        for call in calls:
            await call()
            assert 0 < int(redis_server.ask("PTTL", key)) <= 20_000
        assert int(redis_server.ask("PTTL", key)) <= 10_000


async def test_an_expiry_is_one_revision_however_many_look(redis_server: Redis, namespace: str) -> None:
    async with AsyncExitStack() as stack:
        backends = [await stack.enter_async_context(backend_at(redis_server.url, namespace)) for _ in range(2)]
        found = [backend.watch(service) for backend in backends for service in ("cart", None)]
        watches = [await stack.enter_async_context(aclosing(watch)) for watch in found]
        await backends[0].register(entry(), 1.0)
        before = await backends[0].list()
        await asyncio.gather(*(next_where(watch, lambda snapshot: names(snapshot) == ["n/1"]) for watch in watches))
        ends = await asyncio.gather(*(next_where(watch, lambda snapshot: not snapshot.entries) for watch in watches))
        assert {end.revision for end in ends} == {before.revision + 1}
        assert (await backends[1].list()).revision == before.revision + 1


async def test_what_expired_unseen_is_told_to_a_watch_that_resumes(redis_server: Redis, namespace: str) -> None:
    async with backend_at(redis_server.url, namespace) as backend:
        await backend.register(entry(), 0.5)
        last = await backend.list("cart")
        await until(lambda: _is(backend.get("cart", "n/1"), lambda found: found is None))
        async with aclosing(backend.watch("cart", last.revision, last.epoch)) as watch:
            assert (await next_where(watch, bool)).entries == ()


async def test_two_thousand_leases_are_renewed_in_one_go(redis_server: Redis, namespace: str) -> None:
    entries = [entry(f"n/{number}", service=f"s{number % 7}") for number in range(2000)]
    async with backend_at(redis_server.url, namespace) as backend:
        await asyncio.gather(*(backend.register(item, 30) for item in entries))
        gone = [entries[number].key for number in (0, 499, 500, 1999)]
        for key in gone:
            assert await backend.deregister(key) is True
        odd = [LeaseKey("a/b", "c", 1), LeaseKey("cart", "", 1), LeaseKey("cart", "\ud800", 1), LeaseKey("", "n/1", 1)]
        keys = [item.key for item in entries]
        assert await backend.renew([*odd, *keys, LeaseKey("s1", "n/1", -1)]) == {
            *gone,
            *odd,
            LeaseKey("s1", "n/1", -1),
        }


async def test_a_service_with_a_slash_is_not_another_one(redis_server: Redis, namespace: str) -> None:
    async with backend_at(redis_server.url, namespace) as backend:
        await backend.register(entry("b/c", service="a"), 10)
        assert await backend.renew([LeaseKey("a/b", "c", 3)]) == {LeaseKey("a/b", "c", 3)}
        assert await backend.deregister(LeaseKey("a/b", "c", 3)) is False
        assert await backend.get("a/b", "c") is None
        assert (await backend.list("")).entries == ()
        assert names(await backend.list()) == ["b/c"]


# What others do to our keys.


async def test_an_entry_that_cannot_be_read_is_skipped_with_one_line(
    redis_server: Redis, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with backend_at(redis_server.url, namespace) as backend:
        await backend.register(entry(), 10)
        for place, field in (("n/8", "{"), ("n/9", '{"schema": 1}')):
            redis_server.ask(
                "HSET", f"{namespace}:entry:cart/{place}", "entry", field, "generation", "1", "ttl", "9000"
            )
            redis_server.ask("ZADD", f"{namespace}:index:cart", "9999999999999", place)
        redis_server.ask("SET", f"{namespace}:entry:cart/n/7", "a string")
        redis_server.ask("ZADD", f"{namespace}:index:cart", "9999999999999", "n/7")
        with caplog.at_level(logging.WARNING, "registry_client"):
            for _ in range(3):
                assert names(await backend.list()) == ["n/1"]
                assert await backend.get("cart", "n/9") is None
                assert await backend.get("cart", "n/7") is None
        assert sum("cart/n/9" in message for message in caplog.messages) == 1
        assert await backend.renew([entry("n/7").key]) == {entry("n/7").key}
        await backend.register(entry("n/7"), 10)
        assert names(await backend.list("cart")) == ["n/1", "n/7"]


@pytest.mark.parametrize("lost", ["index:cart", "services"])
async def test_what_an_evicted_index_held_is_lost_and_comes_back(
    redis_server: Redis, namespace: str, lost: str
) -> None:
    async with backend_at(redis_server.url, namespace) as backend:
        await backend.register(entry(), 10)
        redis_server.ask("DEL", f"{namespace}:{lost}")
        assert await backend.renew([entry().key]) == {entry().key}
        async with aclosing(backend.watch()) as watch:
            assert names(await next_where(watch, bool)) == []
            await backend.register(entry(), 10)
            assert names(await next_where(watch, bool)) == ["n/1"]
        assert await backend.renew([entry().key]) == frozenset()


async def test_a_flushed_server_is_a_new_epoch_and_its_leases_are_lost(start_server: Any, namespace: str) -> None:
    server = start_server(Redis)
    async with backend_at(server.url, namespace) as backend:
        for number in range(3):
            await backend.register(entry(f"n/{number}"), 10)
        async with aclosing(backend.watch("cart")) as watch:
            before = await next_where(watch, lambda snapshot: len(snapshot.entries) == 3)
            server.ask("FLUSHALL")
            after = await next_where(watch, lambda snapshot: not snapshot.entries)
            assert after.epoch != before.epoch
            assert await backend.renew([entry("n/1").key]) == {entry("n/1").key}
            await backend.register(entry("n/1"), 10)
            again = await next_where(watch, lambda snapshot: names(snapshot) == ["n/1"])
            assert again.epoch == after.epoch
            server.ask("SCRIPT", "FLUSH")
            assert await backend.renew([entry("n/1").key]) == frozenset()


# The server's faults.


async def test_a_killed_server_that_keeps_its_data_goes_on_where_it_was(start_server: Any, namespace: str) -> None:
    server = start_server(Redis)
    async with backend_at(server.url, namespace) as backend:
        await backend.register(entry(), 30)
        async with aclosing(backend.watch("cart")) as watch:
            before = await next_where(watch, bool)
            server.kill()
            await unavailable(backend.register(entry(generation=4), 30))
            assert (await unavailable(backend.register(entry(generation=4), 30))).may_have_counted is False
            await asyncio.to_thread(server.start)
            assert await backend.renew([entry().key]) == frozenset()
            after = await next_where(watch, bool)  # it might have lost its last second
            assert after.epoch != before.epoch and after.entries == before.entries
            await backend.update(entry(weight=9))
            assert (await next_where(watch, bool)).entries[0].weight == 9


async def test_a_server_frozen_for_longer_than_the_ttl_has_lost_the_lease(start_server: Any, namespace: str) -> None:
    server = start_server(Redis)
    async with backend_at(server.url, namespace, timeout_seconds=0.3) as backend:
        await backend.register(entry(), 0.6)
        async with aclosing(backend.watch("cart")) as watch:
            await next_where(watch, lambda snapshot: names(snapshot) == ["n/1"])
            server.freeze()
            assert (await unavailable(backend.renew([entry().key]))).may_have_counted is True
            end = time.monotonic() + 0.7
            while time.monotonic() < end:
                await unavailable(backend.get("cart", "n/1"))
            server.thaw()
            await until(lambda: _is(backend.renew([entry().key]), lambda lost: lost == {entry().key}))
            await next_where(watch, lambda snapshot: not snapshot.entries)


async def test_what_arrives_after_its_caller_gave_up_does_nothing(
    redis_server: Redis, namespace: str, open_proxy: Any
) -> None:
    proxy = open_proxy(redis_server)
    async with (
        backend_at(redis_server.url, namespace) as observer,
        backend_at(proxy.url, namespace, timeout_seconds=0.3) as backend,
    ):
        await backend.register(entry("n/1"), 1.5)
        last_renewal = time.monotonic()
        await backend.deregister(LeaseKey("cart", "n/9", 1))  # both connections are open
        executed = _executed(redis_server)
        proxy.delay_requests(0.5)
        late: tuple[Awaitable[object], ...] = (
            backend.register(entry("n/2"), 30),
            backend.renew([entry("n/1").key]),
            backend.update(entry("n/1", weight=1)),
            backend.deregister(entry("n/1").key),
        )
        for number, call in enumerate(late):
            error = await unavailable(call)
            assert error.may_have_counted is True or number in (1, 2)  # these found no connection
        while _executed(redis_server) < executed + 2:  # the first and the last had a connection, and do arrive
            await asyncio.sleep(0.01)
        proxy.mend()
        await until(lambda: _is(observer.get("cart", "n/1"), lambda found: found is None))
        assert time.monotonic() - last_renewal <= observer.removal_bound(1.5) + 0.3
        assert await observer.get("cart", "n/2") is None


def _executed(server: Redis) -> int:
    """How many scripts it has run."""
    line = next(line for line in server.ask("INFO", "commandstats").splitlines() if "_evalsha:" in line)
    return int(line.partition("calls=")[2].partition(",")[0])


async def test_a_server_whose_clock_was_set_forward_is_asked_again(
    redis_server: Redis, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SetBack:
        """To a clock that was set back, every other one was set forward."""

        @staticmethod
        def monotonic() -> float:
            return time.monotonic() - 100

    async with backend_at(redis_server.url, namespace) as backend:
        await backend.register(entry(), 10)
        monkeypatch.setattr(redis_link, "time", SetBack)
        assert await backend.renew([entry().key]) == frozenset()
        assert await backend.renew([entry().key]) == frozenset()


async def test_a_connection_cut_in_the_middle_of_a_call_may_have_counted(
    redis_server: Redis, namespace: str, open_proxy: Any
) -> None:
    proxy = open_proxy(redis_server)
    async with backend_at(proxy.url, namespace) as backend:
        await backend.register(entry(weight=1), 10)
        proxy.cut_after_request(b"EVALSHA")
        assert (await unavailable(backend.register(entry(weight=2), 10))).may_have_counted is True
        assert proxy.calls_cut == 1
        assert await backend.get("cart", "n/1") == entry(weight=2)
        proxy.cut()
        assert (await unavailable(backend.renew([entry().key]))).may_have_counted is False
        proxy.mend()
        assert await backend.renew([entry().key]) == frozenset()


@pytest.mark.parametrize(
    "rubbish",
    [
        b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
        b"+OK\r\n" * 20,
        b":1\r\n" * 20,
        b"*1\r\n$2\r\nhi\r\n" * 9,
        b"*x\r\n",
        b"-\xff\r\n" * 9,
    ],
)
async def test_answers_that_make_no_sense_are_no_answers(
    redis_server: Redis, namespace: str, open_proxy: Any, rubbish: bytes
) -> None:
    proxy = open_proxy(redis_server)
    async with backend_at(proxy.url, namespace, timeout_seconds=1.0) as backend:
        await backend.register(entry(), 10)
        async with aclosing(backend.watch()) as watch:
            await next_where(watch, bool)
            proxy.answer_with(rubbish)
            calls: tuple[Callable[[], Awaitable[object]], ...] = (
                lambda: backend.renew([entry().key]),
                lambda: backend.get("cart", "n/1"),
                backend.list,
                lambda: backend.inspect(10),
                lambda: backend.deregister(entry().key),
                lambda: backend.register(entry(generation=9), 10),
            )
            for call in calls:
                await unavailable(call())
            proxy.mend()
            assert await backend.get("cart", "n/1") == entry()
            await backend.register(entry("n/2"), 10)
            await next_where(watch, lambda snapshot: names(snapshot) == ["n/1", "n/2"])


async def test_a_cancelled_call_takes_its_connection_with_it(
    redis_server: Redis, namespace: str, open_proxy: Any
) -> None:
    proxy = open_proxy(redis_server)
    async with backend_at(proxy.url, namespace) as backend:
        await backend.register(entry(), 10)
        proxy.delay(0.2)
        for _ in range(3):
            call = asyncio.ensure_future(backend.register(entry(weight=7), 10))
            await asyncio.sleep(0.05)
            call.cancel()
            await asyncio.wait([call])
            assert call.cancelled()
        assert await backend.renew([LeaseKey("cart", "n/5", 1)]) == {LeaseKey("cart", "n/5", 1)}
        assert await backend.get("cart", "n/1") == entry(weight=7)


@pytest.mark.parametrize("flags_since", [(7, 0), (99,)])
async def test_a_replica_refuses_everything_and_serves_once_it_is_the_master(
    start_server: Any, redis_server: Redis, namespace: str, flags_since: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_link, "FLAGS_SINCE", flags_since)  # as if the server were older
    server = start_server(Redis)
    redis_server.ask("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    async with backend_at(server.url, namespace) as backend, backend_at(redis_server.url, namespace) as elsewhere:
        await backend.register(entry(), 30)
        await elsewhere.register(entry("n/2"), 30)
        async with aclosing(backend.watch()) as watch:
            before = await next_where(watch, bool)
            server.ask("REPLICAOF", "127.0.0.1", str(redis_server.port))
            calls: tuple[Callable[[], Awaitable[object]], ...] = (
                lambda: backend.register(entry(), 30),
                lambda: backend.renew([entry().key]),
                lambda: backend.get("cart", "n/1"),
                backend.list,
            )
            for call in calls:
                await unavailable(call())
            assert any("slave" in warning for warning in (await backend.inspect(10)).warnings)
            await until(lambda: _is(_answer(server, "EXISTS", f"{namespace}:entry:cart/n/2"), lambda text: text == "1"))
            server.ask("REPLICAOF", "NO", "ONE")
            after = await next_where(watch, lambda snapshot: snapshot.epoch != before.epoch)
            assert names(after) == ["n/2"]
            assert await backend.renew([entry().key, entry("n/2").key]) == {entry().key}


async def _answer(server: Redis, *words: str) -> str:
    with suppress(OSError):
        return server.ask(*words)
    return ""


async def test_a_full_server_keeps_what_it_has_and_takes_nothing_new(start_server: Any, namespace: str) -> None:
    server = start_server(Redis)
    async with backend_at(server.url, namespace) as backend:
        await backend.register(entry("n/1"), 10)
        await backend.register(entry("n/2"), 10)
        async with aclosing(backend.watch("cart")) as watch:
            await next_where(watch, bool)
            server.ask("CONFIG", "SET", "maxmemory", "1")
            error = await unavailable(backend.register(entry("n/3"), 10))
            assert "memory" in str(error) and not error.may_have_counted
            await backend.register(entry("n/1", weight=5), 10)
            assert await backend.renew([entry("n/1").key, entry("n/2").key]) == frozenset()
            await backend.update(entry("n/1", weight=6, status="draining"))
            assert await backend.deregister(entry("n/2").key) is True
            last = await next_where(watch, lambda snapshot: names(snapshot) == ["n/1"])
            assert last.entries == (entry("n/1", weight=6, status="draining"),)
            server.ask("CONFIG", "SET", "maxmemory", "0")
            await backend.register(entry("n/3"), 10)


async def test_a_full_server_without_flags_for_scripts_goes_on(
    start_server: Any, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_link, "FLAGS_SINCE", (99,))  # as if the server were older
    server = start_server(Redis)
    async with backend_at(server.url, namespace) as backend:
        await backend.register(entry(), 10)
        server.ask("CONFIG", "SET", "maxmemory", "1")
        assert await backend.renew([entry().key]) == frozenset()
        await backend.register(entry(weight=5), 10)
        assert (await backend.list()).entries == (entry(weight=5),)
        assert await backend.deregister(entry().key) is True
        assert (await backend.list()).entries == ()


async def test_renewals_of_which_some_were_answered_may_have_counted(
    redis_server: Redis, namespace: str, open_proxy: Any
) -> None:
    proxy = open_proxy(redis_server)
    async with backend_at(proxy.url, namespace) as backend:
        keys = [LeaseKey("cart", f"n/{number}", 1) for number in range(600)]
        assert await backend.renew(keys) == set(keys)
        proxy.cut_after_request(b"n/599\r\n")
        assert (await unavailable(backend.renew(keys))).may_have_counted is True
        assert proxy.calls_cut == 1


async def test_a_server_that_takes_no_writes_is_unavailable_with_its_reason(
    start_server: Any, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_server(Redis)
    async with backend_at(server.url, namespace) as backend:
        await backend.register(entry(), 10)
        async with aclosing(backend.watch("cart")) as watch:
            await next_where(watch, bool)
            server.ask("CONFIG", "SET", "min-replicas-to-write", "1")
            assert "replicas" in str(await unavailable(backend.renew([entry().key])))
            await unavailable(backend.get("cart", "n/1"))
            server.ask("CONFIG", "SET", "min-replicas-to-write", "0")
            assert await backend.renew([entry().key]) == frozenset()
            await backend.update(entry(weight=4))
            assert (await next_where(watch, bool)).entries == (entry(weight=4),)


async def test_no_more_clients_are_taken(start_server: Any, namespace: str) -> None:
    server = start_server(Redis)
    async with backend_at(server.url, namespace) as backend:
        await backend.register(entry(), 10)
        server.ask("CONFIG", "SET", "maxclients", "1")
        await unavailable(backend.get("cart", "n/1"))
        assert await backend.renew([entry().key]) == frozenset()


async def test_a_newer_generation_never_loses_a_race_of_two_clients(redis_server: Redis, namespace: str) -> None:
    async with backend_at(redis_server.url, namespace) as one, backend_at(redis_server.url, namespace) as two:
        for generation in range(2, 40):
            older, newer = entry(generation=generation - 1), entry(generation=generation)
            await asyncio.gather(
                one.register(newer, 10),
                two.register(older, 10),
                two.update(replace(older, weight=1)),
                two.deregister(older.key),
                return_exceptions=True,
            )
            assert await one.get("cart", "n/1") == newer


# What it tells of itself.


async def test_an_inspection_tells_version_clock_and_what_cannot_work(start_server: Any, namespace: str) -> None:
    server = start_server(Redis)
    async with backend_at(server.url, namespace) as backend:
        before = time.time()
        found = await backend.inspect(7)
        assert found.clock is not None and before - 0.01 <= found.clock <= time.time() + 0.01
        assert (found.version, found.granted_ttl_seconds, found.warnings) == (server.version, 7, ())
        server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        (warning,) = (await backend.inspect(7)).warnings
        assert "noeviction" in warning
        assert server.ask("DBSIZE") == "0"
