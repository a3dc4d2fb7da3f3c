"""What ZooKeeper alone does: its sessions, their owners, their ends. The rest is in tests/contract."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from kazoo.client import KazooClient  # type: ignore[import-untyped]
from kazoo.security import OPEN_ACL_UNSAFE  # type: ignore[import-untyped]

from registry_client import (
    BadOption,
    Entry,
    LeaseKey,
    RegistryRejected,
    RegistryUnavailable,
    Secret,
    Snapshot,
    Tls,
    open_backend,
)
from registry_client.backends.zookeeper import ZooKeeperBackend
from registry_client.client import check_options
from tests.servers import Proxy, ZooKeeper

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
async def backend_at(url: str, namespace: str, **options: Any) -> AsyncIterator[ZooKeeperBackend]:
    options.setdefault("timeout_seconds", 5.0)
    backend = ZooKeeperBackend(f"zookeeper://{url}", prefix=namespace, **options)
    try:
        yield backend
    finally:
        await backend.close()


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = DEADLINE) -> None:
    """Wait for something that is to happen; errors of a registry that is away do not count."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                if await condition():
                    return
            except RegistryUnavailable:
                pass
            await asyncio.sleep(0.02)


async def is_gone(backend: ZooKeeperBackend, instance: str = "n/1") -> bool:
    return await backend.get("cart", instance) is None


async def next_where(watch: Any, wanted: Callable[[Snapshot], bool]) -> Snapshot:
    async with asyncio.timeout(DEADLINE):
        while not wanted(snapshot := await anext(watch)):
            pass
        return snapshot


def owner_of(server: ZooKeeper, path: str) -> int:
    with_kazoo = KazooClient(server.url)
    with_kazoo.start()
    try:
        return int(with_kazoo.exists(path).ephemeralOwner)
    finally:
        with_kazoo.stop()
        with_kazoo.close()


# -- options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "blamed"),
    [
        ({"url": "127.0.0.1:2181"}, "url"),
        ({"url": "http://a"}, "url"),
        ({"url": "zookeeper://"}, "url"),
        ({"url": "zookeeper://a,,b"}, "url"),
        ({"url": "zookeeper://a:0"}, "url"),
        ({"url": "zookeeper://a:b"}, "url"),
        ({"url": "zookeeper://a/chroot"}, "url"),
        ({"url": "zookeeper://::1:2181"}, "url"),
        ({"url": f"zookeeper://{'a' * 70}"}, "url"),
        ({"url": "zookeeper://a", "user": "u"}, "password"),
        ({"url": "zookeeper://a", "password": "p"}, "user"),
        ({"url": "zookeeper://a", "user": "u:v", "password": "p"}, "user"),
        ({"url": "zookeeper://a", "tls": Tls()}, "tls"),
        ({"url": "zookeeper://a", "prefix": "/unitd"}, "prefix"),
        ({"url": "zookeeper://a", "prefix": "zookeeper"}, "prefix"),
        ({"url": "zookeeper://a", "session_seconds": 0}, "session_seconds"),
        ({"url": "zookeeper://a", "timeout_seconds": -1}, "timeout_seconds"),
        ({"url": "zookeeper://a", "token": "t"}, "token"),
    ],
)
def test_options_that_cannot_be_used_are_named(options: dict[str, Any], blamed: str) -> None:
    with pytest.raises(BadOption) as caught:
        check_options("zookeeper", options)
    assert caught.value.option == blamed


@pytest.mark.parametrize("url", ["zookeeper://a", "zookeeper://a:1,b,[::1]:2,[::2]/", "zookeeper+tls://a,b:3"])
def test_one_or_several_hosts_may_be_named(url: str) -> None:
    threads = threading.active_count()
    open_backend("zookeeper", url=url, prefix="a/b", session_seconds=5)
    assert threading.active_count() == threads  # nothing starts before the first call


def test_without_kazoo_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['kazoo'] = None\n"
        "from registry_client import Unsupported, open_backend\n"
        "try: open_backend('zookeeper', url='zookeeper://a')\n"
        "except Unsupported as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "install unitd[zookeeper]" in done.stdout


# -- the life of entries ------------------------------------------------------------------------------------------


async def test_an_entry_expires_although_the_event_loop_hangs(zookeeper: ZooKeeper, namespace: str) -> None:
    async with backend_at(zookeeper.url, namespace) as backend:
        await backend.register(entry(), 0.5)
        with_kazoo = KazooClient(zookeeper.url)
        with_kazoo.start()
        try:
            deadline = time.monotonic() + DEADLINE
            while with_kazoo.exists(f"/{namespace}/cart/n%2F1"):  # this blocks the loop
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            with_kazoo.stop()
            with_kazoo.close()
        assert await backend.renew([entry().key]) == {entry().key}


async def test_entries_of_a_closed_backend_stay_until_its_session_ends(zookeeper: ZooKeeper, namespace: str) -> None:
    async with backend_at(zookeeper.url, namespace) as reader:
        async with backend_at(zookeeper.url, namespace, session_seconds=1.0) as backend:
            await backend.register(entry(), 10)
        closed_at = time.monotonic()
        assert await reader.get("cart", "n/1") == entry()
        await until(lambda: is_gone(reader))
        assert time.monotonic() - closed_at <= backend.removal_bound(1.0)


async def test_a_backend_without_entries_ends_its_session_and_its_threads(zookeeper: ZooKeeper, namespace: str) -> None:
    threads = threading.active_count()
    async with backend_at(zookeeper.url, namespace, session_seconds=60) as backend:
        await backend.register(entry(), 10)
        await backend.deregister(entry().key)
        assert threading.active_count() > threads
    assert threading.active_count() == threads

    def sessions() -> int:
        return zookeeper.ask("cons").count("/127.0.0.1") - 1  # but this one

    assert sessions() == 0


async def test_the_entry_of_an_old_session_is_taken_over_by_a_registration(
    zookeeper: ZooKeeper, namespace: str
) -> None:
    async with backend_at(zookeeper.url, namespace, session_seconds=2) as old:
        await old.register(entry(), 10)
    before = owner_of(zookeeper, f"/{namespace}/cart/n%2F1")
    async with backend_at(zookeeper.url, namespace, session_seconds=2) as new, aclosing(new.watch("cart")) as watch:
        assert (await anext(watch)).entries == (entry(),)
        following = asyncio.ensure_future(anext(watch))
        await new.register(entry(), 10)
        assert owner_of(zookeeper, f"/{namespace}/cart/n%2F1") not in (0, before)
        end = time.monotonic() + 2.5  # past the end of the old session
        while time.monotonic() < end:
            assert await new.renew([entry().key]) == frozenset()
            await asyncio.sleep(0.2)
        assert not following.done()
        await new.deregister(entry().key)
        assert (await following).entries == ()


async def test_the_entry_of_another_session_is_taken_over_by_a_renewal(zookeeper: ZooKeeper, namespace: str) -> None:
    async with backend_at(zookeeper.url, namespace) as first, backend_at(zookeeper.url, namespace) as second:
        await first.register(entry(), 1)
        await first.update(entry(weight=5))
        end = time.monotonic() + 2
        while time.monotonic() < end:  # the first one does not delete what the second one renews
            assert await second.renew([entry().key, LeaseKey("cart", "n/1", 2)]) == {LeaseKey("cart", "n/1", 2)}
            assert await second.get("cart", "n/1") == entry(weight=5)
            await asyncio.sleep(0.1)
        await until(lambda: is_gone(second))  # it kept the ttl, too


async def test_who_was_replaced_by_a_newer_generation_loses_and_deletes_nothing(
    zookeeper: ZooKeeper, namespace: str
) -> None:
    async with backend_at(zookeeper.url, namespace) as first, backend_at(zookeeper.url, namespace) as second:
        await first.register(entry(), 0.5)
        await second.register(entry(generation=4), 10)
        assert await first.renew([entry().key]) == {entry().key}
        await asyncio.sleep(1)
        assert await second.get("cart", "n/1") == entry(generation=4)


async def test_an_entry_replaces_what_somebody_else_left_in_its_place(zookeeper: ZooKeeper, namespace: str) -> None:
    with_kazoo = KazooClient(zookeeper.url)
    with_kazoo.start()
    try:
        with_kazoo.create(f"/{namespace}/cart/n%2F1", b"rubbish", makepath=True)
        with_kazoo.create(f"/{namespace}/cart/n%2F2", json.dumps(entry().to_json()).encode())
    finally:
        with_kazoo.stop()
        with_kazoo.close()
    async with backend_at(zookeeper.url, namespace) as backend, aclosing(backend.watch()) as watch:
        assert (await anext(watch)).entries == ()
        assert await backend.get("cart", "n/1") is None
        assert await backend.get("cart", "n/2") is None
        assert await backend.renew([entry().key]) == {entry().key}
        assert await backend.deregister(entry().key) is False
        await backend.register(entry(), 10)
        assert (await next_where(watch, lambda snapshot: bool(snapshot.entries))).entries == (entry(),)
        assert await backend.deregister(entry().key) is True


async def test_rubbish_is_logged_once(zookeeper: ZooKeeper, namespace: str, caplog: pytest.LogCaptureFixture) -> None:
    with_kazoo = KazooClient(zookeeper.url)
    with_kazoo.start()
    with_kazoo.create(f"/{namespace}/cart/n%2F1", b"rubbish", makepath=True)
    with_kazoo.stop()
    with_kazoo.close()
    caplog.clear()
    async with backend_at(zookeeper.url, namespace) as backend:
        for _ in range(3):
            assert (await backend.list()).entries == ()
    assert [record.name for record in caplog.records] == ["registry_client"]


# -- sessions -----------------------------------------------------------------------------------------------------


async def test_the_grant_is_no_longer_than_the_session(start_server: Any, namespace: str) -> None:
    server = start_server(ZooKeeper, maximum_session_milliseconds=3000, minimum_session_milliseconds=1000)
    async with backend_at(server.url, namespace) as backend:
        grant = await backend.register(entry(), 15)
        assert grant.ttl_seconds == 3
        long, short, fitting = [await backend.inspect(ttl) for ttl in (15, 1, 3)]
        assert (long.granted_ttl_seconds, short.granted_ttl_seconds, fitting.granted_ttl_seconds) == (3, 1, 3)
        assert "maxSessionTimeout" in long.warnings[0]
        assert "minSessionTimeout" in short.warnings[0]
        assert fitting.warnings == ()
        assert long.version == server.version
        assert backend.removal_bound(3) >= 3 + 3 + 0.1


async def test_a_longer_ttl_prolongs_the_session_that_is_there(zookeeper: ZooKeeper, namespace: str) -> None:
    async with backend_at(zookeeper.url, namespace) as backend:
        assert (await backend.register(entry("n/1"), 2)).ttl_seconds == 2
        owner = owner_of(zookeeper, f"/{namespace}/cart/n%2F1")
        assert (await backend.register(entry("n/2"), 20)).ttl_seconds == 20
        assert owner_of(zookeeper, f"/{namespace}/cart/n%2F2") == owner
        assert await backend.renew([entry("n/1").key, entry("n/2").key]) == frozenset()


async def test_entries_survive_a_restart_of_the_server(zookeeper: ZooKeeper, namespace: str) -> None:
    async with (
        backend_at(zookeeper.url, namespace, timeout_seconds=1) as backend,
        aclosing(backend.watch("cart")) as watch,
    ):
        await backend.register(entry(), 30)
        before = await next_where(watch, lambda snapshot: bool(snapshot.entries))
        zookeeper.kill()
        with pytest.raises(RegistryUnavailable):
            async with asyncio.timeout(DEADLINE):
                await backend.renew([entry().key])
        await asyncio.to_thread(zookeeper.start)
        await until(lambda: answers_nothing_lost(backend))
        await backend.update(entry(weight=1))
        after = await next_where(watch, lambda snapshot: snapshot.entries == (entry(weight=1),))
        assert (after.epoch, after.revision > before.revision) == (before.epoch, True)


async def answers_nothing_lost(backend: ZooKeeperBackend) -> bool:
    assert await backend.renew([entry().key]) == frozenset()
    return True


async def test_a_session_that_ended_loses_its_entries_and_another_one_goes_on(
    zookeeper: ZooKeeper, namespace: str, open_proxy: Callable[[Any], Proxy]
) -> None:
    proxy = open_proxy(zookeeper)
    async with (
        backend_at(zookeeper.url, namespace) as reader,
        backend_at(proxy.url, namespace, session_seconds=2, timeout_seconds=1) as backend,
        aclosing(backend.watch("cart")) as watch,
    ):
        await backend.register(entry(), 2)
        first = await next_where(watch, lambda snapshot: bool(snapshot.entries))
        proxy.cut()
        await until(lambda: is_gone(reader))
        with pytest.raises(RegistryUnavailable):
            await backend.renew([entry().key])
        proxy.mend()
        await until(lambda: answers_lost(backend))
        assert (await next_where(watch, lambda snapshot: not snapshot.entries)).epoch == first.epoch
        await backend.register(entry(weight=9), 2)
        assert (await next_where(watch, lambda snapshot: bool(snapshot.entries))).entries == (entry(weight=9),)


async def answers_lost(backend: ZooKeeperBackend) -> bool:
    return await backend.renew([entry().key]) == {entry().key}


async def test_an_entry_whose_time_ends_while_the_server_is_away_goes_when_it_is_back(
    zookeeper: ZooKeeper, namespace: str, open_proxy: Callable[[Any], Proxy]
) -> None:
    proxy = open_proxy(zookeeper)
    async with (
        backend_at(zookeeper.url, namespace) as reader,
        backend_at(proxy.url, namespace, session_seconds=30) as backend,
    ):
        await backend.register(entry(), 0.5)
        proxy.cut()
        await asyncio.sleep(1)
        assert await reader.get("cart", "n/1") == entry()  # its session lives
        proxy.mend()
        await until(lambda: is_gone(reader))


async def test_a_frozen_server_gives_no_answer_and_loses_nothing_that_was_not_over(
    zookeeper: ZooKeeper, namespace: str
) -> None:
    async with backend_at(zookeeper.url, namespace, timeout_seconds=0.5) as backend:
        await backend.register(entry(), 20)
        zookeeper.freeze()
        try:
            for call in (backend.renew([entry().key]), backend.get("cart", "n/1"), backend.list()):
                started_at = time.monotonic()
                with pytest.raises(RegistryUnavailable):
                    await call
                assert time.monotonic() - started_at < 3
        finally:
            zookeeper.thaw()
        await until(lambda: answers_nothing_lost(backend))


async def test_a_server_frozen_for_longer_than_the_session_ends_with_the_living_registered(
    zookeeper: ZooKeeper, namespace: str
) -> None:
    async with (
        backend_at(zookeeper.url, namespace, timeout_seconds=0.5, session_seconds=2) as backend,
        aclosing(backend.watch("cart")) as watch,
    ):
        await backend.register(entry(), 2)
        await next_where(watch, lambda snapshot: bool(snapshot.entries))
        zookeeper.freeze()
        await asyncio.sleep(3)
        zookeeper.thaw()

        async def is_registered() -> bool:
            lost = await backend.renew([entry().key])
            if lost:
                await backend.register(entry(), 2)
            return not lost

        await until(is_registered)
        assert await backend.get("cart", "n/1") == entry()
        await backend.update(entry(weight=4))
        await next_where(watch, lambda snapshot: snapshot.entries == (entry(weight=4),))


HOLDER = """
import asyncio, json, sys
from registry_client import Entry, RegistryUnavailable
from registry_client.backends.zookeeper import ZooKeeperBackend
async def main():
    url, prefix, value = sys.argv[1:]
    backend, entry = ZooKeeperBackend(url, prefix=prefix, session_seconds=2), Entry.from_json(json.loads(value))
    await backend.register(entry, 2)
    print("registered", flush=True)
    lost = False
    while not lost:
        await asyncio.sleep(0.1)
        try:
            lost = await backend.renew([entry.key])
        except RegistryUnavailable:
            pass  # its time limit went by while the process was stopped
    print("lost", flush=True)
asyncio.run(main())
"""


async def test_a_process_that_is_stopped_for_longer_than_its_ttl_loses_its_entry(
    zookeeper: ZooKeeper, namespace: str
) -> None:
    arguments = [f"zookeeper://{zookeeper.url}", namespace, json.dumps(entry().to_json())]
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLDER, *arguments, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with backend_at(zookeeper.url, namespace) as reader:
            assert await process.stdout.readline() == b"registered\n"
            process.send_signal(signal.SIGSTOP)
            stopped_at = time.monotonic()
            await until(lambda: is_gone(reader))
            assert time.monotonic() - stopped_at <= reader.removal_bound(2)
            await reader.register(entry(generation=4), 10)
            process.send_signal(signal.SIGCONT)
            async with asyncio.timeout(DEADLINE):
                assert await process.stdout.readline() == b"lost\n"
            assert await reader.get("cart", "n/1") == entry(generation=4)
    finally:
        with suppress(ProcessLookupError):  # it has ended by itself
            process.kill()
        await process.wait()


# -- calls without an answer --------------------------------------------------------------------------------------


async def test_a_server_that_is_away_is_unavailable_and_nothing_is_sent_later(
    zookeeper: ZooKeeper, namespace: str, open_proxy: Callable[[Any], Proxy]
) -> None:
    proxy = open_proxy(zookeeper)
    proxy.cut()
    async with (
        backend_at(zookeeper.url, namespace) as reader,
        backend_at(proxy.url, namespace, timeout_seconds=0.3) as backend,
    ):
        with pytest.raises(RegistryUnavailable) as caught:
            await backend.register(entry(), 10)
        assert not caught.value.may_have_counted
        assert "refused" in str(caught.value)
        cancelled = asyncio.ensure_future(backend.register(entry(), 10))
        await asyncio.sleep(0.05)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        proxy.mend()
        await until(lambda: is_gone(backend))  # it is connected
        assert await reader.get("cart", "n/1") is None
        assert await backend.renew([entry().key]) == {entry().key}


async def test_a_registration_whose_answer_was_lost_expires_although_the_session_lives(
    zookeeper: ZooKeeper, namespace: str, open_proxy: Callable[[Any], Proxy]
) -> None:
    proxy = open_proxy(zookeeper)
    async with (
        backend_at(zookeeper.url, namespace) as reader,
        backend_at(proxy.url, namespace, session_seconds=30) as backend,
    ):
        await backend.register(entry("n/0"), 20)
        proxy.cut_after_request(b'"instance":"n/1"')
        with pytest.raises(RegistryUnavailable) as caught:
            await backend.register(entry(), 1)
        assert caught.value.may_have_counted
        assert await reader.get("cart", "n/1") == entry()
        await until(lambda: is_gone(reader))
        assert await backend.renew([entry("n/0").key]) == frozenset()


async def test_a_read_whose_connection_was_cut_is_asked_again(
    zookeeper: ZooKeeper, namespace: str, open_proxy: Callable[[Any], Proxy]
) -> None:
    proxy = open_proxy(zookeeper)
    async with backend_at(proxy.url, namespace) as backend:
        await backend.register(entry(), 10)
        proxy.cut_after_request(b"n%2F1")
        assert await backend.get("cart", "n/1") == entry()
        assert proxy.calls_cut == 1


@pytest.mark.parametrize(
    "rubbish", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\1\0", b"\0\0\0\x25" + 37 * b"\xff", b"\xff" * 64]
)
async def test_an_answer_that_makes_no_sense_is_none(
    zookeeper: ZooKeeper,
    namespace: str,
    open_proxy: Callable[[Any], Proxy],
    rubbish: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    proxy = open_proxy(zookeeper)
    async with backend_at(proxy.url, namespace, timeout_seconds=0.5) as backend:
        proxy.answer_with(rubbish)
        with pytest.raises(RegistryUnavailable):
            await backend.get("cart", "n/1")
        proxy.mend()
        await until(lambda: is_gone(backend))
        await backend.register(entry(), 10)
        proxy.answer_with(rubbish)
        with pytest.raises(RegistryUnavailable):
            await backend.renew([entry().key])
        proxy.mend()
        await until(lambda: answers_nothing_lost(backend))
    assert [record for record in caplog.records if record.name.startswith("kazoo")] == []


async def test_a_cancelled_registration_that_arrives_late_expires(
    zookeeper: ZooKeeper, namespace: str, open_proxy: Callable[[Any], Proxy]
) -> None:
    proxy = open_proxy(zookeeper)
    async with (
        backend_at(zookeeper.url, namespace) as reader,
        backend_at(proxy.url, namespace, session_seconds=30) as backend,
    ):
        await backend.register(entry("n/0"), 20)
        proxy.delay_requests(0.5)
        cancelled = asyncio.ensure_future(backend.register(entry(), 1))
        await asyncio.sleep(0.8)  # it has read, and writes now
        cancelled.cancel()
        await asyncio.wait([cancelled])
        await asyncio.sleep(1)
        proxy.mend()
        await until(lambda: is_gone(reader))
        assert await backend.renew([entry().key, entry("n/0").key]) == {entry().key}


async def test_another_host_is_tried_when_one_is_away(zookeeper: ZooKeeper, namespace: str) -> None:
    async with backend_at(f"127.0.0.1:1,{zookeeper.url}", namespace) as backend:
        assert (await backend.list()).entries == ()


@pytest.mark.parametrize("fault", ["none", "cut", "stall"])
async def test_closing_ends_all_threads_and_watches_whatever_the_server_does(
    zookeeper: ZooKeeper, namespace: str, open_proxy: Callable[[Any], Proxy], fault: str
) -> None:
    proxy = open_proxy(zookeeper)
    threads = threading.active_count()
    backend = ZooKeeperBackend(f"zookeeper://{proxy.url}", prefix=namespace, timeout_seconds=1)
    watch = backend.watch()
    await anext(watch)
    await backend.register(entry(), 5)
    await next_where(watch, lambda snapshot: bool(snapshot.entries))
    following = asyncio.ensure_future(anext(watch, None))
    if fault != "none":
        getattr(proxy, fault)()
        with pytest.raises(RegistryUnavailable):
            await backend.get("cart", "n/1")
    await backend.close()
    assert threading.active_count() == threads
    async with asyncio.timeout(DEADLINE):
        assert await following is None
    with pytest.raises(RegistryRejected):
        await backend.get("cart", "n/1")


# -- rights and TLS -----------------------------------------------------------------------------------------------


async def test_what_a_user_registered_others_can_read_and_not_change(zookeeper: ZooKeeper, namespace: str) -> None:
    async with (
        backend_at(zookeeper.url, namespace, user="daemon", password=Secret("s:ecret")) as daemon,
        backend_at(zookeeper.url, namespace, user="other", password="other") as other,
        backend_at(zookeeper.url, namespace) as anybody,
    ):
        await daemon.register(entry(), 10)
        for backend in (other, anybody):
            assert await backend.get("cart", "n/1") == entry()
            assert (await backend.list()).entries == (entry(),)
            for call in (
                backend.register(entry(generation=9), 10),
                backend.update(entry(weight=1)),
                backend.deregister(entry().key),
                backend.renew([entry().key]),
            ):
                with pytest.raises(RegistryRejected) as caught:
                    await call
                assert caught.value.code == "permission_denied"
        assert await daemon.renew([entry().key]) == frozenset()


async def test_the_secret_may_come_from_a_file_that_is_read_at_each_connection(
    zookeeper: ZooKeeper, namespace: str, tmp_path: Any
) -> None:
    path = tmp_path / "password"
    async with backend_at(
        zookeeper.url, namespace, user="daemon", password=Secret(path=str(path)), timeout_seconds=1
    ) as backend:
        with pytest.raises(RegistryUnavailable, match="no such file"):
            await backend.list()
        path.write_text("secret\n")
        await until(lambda: is_gone(backend))


async def test_tls_is_spoken_with_certificates_on_both_sides(start_server: Any, namespace: str) -> None:
    server = start_server(ZooKeeper, tls=True)
    made = server.certificates
    tls = Tls(ca=str(made.ca), cert=str(made.client_certificate), key=str(made.client_key))
    url = f"zookeeper+tls://{server.url}"
    backend = ZooKeeperBackend(url, tls=tls, timeout_seconds=5, prefix=namespace)
    try:
        await backend.register(entry(), 10)
        assert await backend.get("cart", "n/1") == entry()
        assert (await backend.inspect(10)).version == server.version
    finally:
        await backend.close()
    for wrong in (Tls(), replace(tls, server_name="elsewhere"), replace(tls, ca="/nowhere"), Tls(ca=str(made.ca))):
        backend = ZooKeeperBackend(url, tls=wrong, timeout_seconds=0.7, prefix=namespace)
        with pytest.raises(RegistryUnavailable):
            await backend.get("cart", "n/1")
        await backend.close()


async def test_a_service_that_cannot_exist_is_empty_and_cannot_be_watched(zookeeper: ZooKeeper, namespace: str) -> None:
    async with backend_at(zookeeper.url, namespace) as backend:
        for name in ("", "\ud800"):
            snapshot = await backend.list(name)
            assert (snapshot.service, snapshot.entries) == (name, ())
            with pytest.raises(RegistryRejected):
                await anext(backend.watch(name))


# -- many ---------------------------------------------------------------------------------------------------------


async def test_two_thousand_entries_are_registered_listed_watched_and_renewed(
    zookeeper: ZooKeeper, namespace: str
) -> None:
    entries = [entry(f"n/{number:04}") for number in range(2000)]
    async with backend_at(zookeeper.url, namespace) as backend, aclosing(backend.watch("cart")) as watch:
        for start in range(0, 2000, 100):
            await asyncio.gather(*(backend.register(item, 30) for item in entries[start : start + 100]))
        assert await backend.renew([item.key for item in entries]) == frozenset()
        assert (await backend.list()).entries == tuple(entries)
        await next_where(watch, lambda snapshot: len(snapshot.entries) == 2000)
        backend._session.drop()
        assert await backend.renew([item.key for item in entries]) == frozenset()
        await backend.deregister(entries[7].key)
        await next_where(watch, lambda snapshot: len(snapshot.entries) == 1999)


async def test_many_entries_that_are_not_renewed_expire_together(zookeeper: ZooKeeper, namespace: str) -> None:
    entries = [entry(f"n/{number:04}") for number in range(500)]
    async with backend_at(zookeeper.url, namespace) as backend:
        await asyncio.gather(*(backend.register(item, 1) for item in entries))
        kept = [item.key for item in entries[::2]]

        async def only_the_renewed_are_there() -> bool:
            assert await backend.renew(kept) == frozenset()
            return len((await backend.list()).entries) == 250

        await until(only_the_renewed_are_there)


def test_nodes_are_open_to_everybody_without_a_user() -> None:
    backend = ZooKeeperBackend("zookeeper://a")
    assert backend._layout.rights == OPEN_ACL_UNSAFE
