"""backends/etcd.py while etcd, or the way to it, fails: nobody is called lost or absent for that."""

from __future__ import annotations

import asyncio
import shutil
import time
from base64 import b64encode
from collections.abc import Awaitable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from registry_client import RegistryRejected, RegistryUnavailable
from registry_client.backends.etcd import EtcdBackend
from tests.registry_client.etcd_asking import Behind, OpenProxy, client, entry, eventually, next_of, updated, weights
from tests.servers import Etcd, EtcdCluster
from tests.servers.fixtures import StartServer

pytestmark = pytest.mark.real

RUBBISH = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n<html>hi</html>",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"result":{}}',
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot found",
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
    b"\x15\x03\x01\x00\x02\x02\x16",
)


def all_calls(backend: EtcdBackend) -> Iterator[Awaitable[object]]:
    yield backend.register(entry(), 10)
    yield backend.renew([entry().key])
    yield backend.update(entry(weight=1))
    yield backend.deregister(entry().key)
    yield backend.get("cart", "web-7/cart:0")
    yield backend.list()
    yield backend.inspect(10)


async def refusals(backend: EtcdBackend) -> list[RegistryUnavailable]:
    """What each of the calls raises."""
    errors = []
    for call in all_calls(backend):
        with pytest.raises(RegistryUnavailable) as caught:
            await call
        errors.append(caught.value)
    return errors


async def test_answers_that_are_not_etcds_are_no_answers(etcd: Etcd, namespace: str, open_proxy: OpenProxy) -> None:
    proxy = open_proxy(etcd)
    async with client(proxy, namespace) as backend, client(etcd, namespace) as direct:
        await direct.register(entry(), 20)
        assert await backend.renew([entry().key]) == frozenset()
        for answer in RUBBISH:
            proxy.answer_with(answer)
            await refusals(backend)
            proxy.mend()
        assert await backend.renew([entry().key]) == frozenset()
        assert await backend.get("cart", "web-7/cart:0") == entry()


async def test_what_was_never_sent_has_not_counted(etcd: Etcd, namespace: str, open_proxy: OpenProxy) -> None:
    proxy = open_proxy(etcd)
    async with client(proxy, namespace, timeout_seconds=0.3) as backend:
        await backend.register(entry(), 10)
        proxy.stall()
        with pytest.raises(RegistryUnavailable) as caught:
            await backend.renew([entry().key])
        assert caught.value.may_have_counted is True
        proxy.cut()
        errors = await refusals(backend)
        assert [error.may_have_counted for error in errors] == [False] * len(errors)


@pytest.mark.parametrize("at", [b"/v3/kv/txn", b"/v3/lease/grant", b'"mod_revision"', b'"version"'])
async def test_a_registration_that_is_cut_in_the_middle_can_be_repeated(
    etcd: Etcd, namespace: str, open_proxy: OpenProxy, at: bytes
) -> None:
    proxy, behind = open_proxy(etcd), Behind(etcd, namespace)
    leases = behind.leases()
    async with client(proxy, namespace) as backend:
        await backend.register(entry(weight=1), 10)
        for item in (entry(weight=2), entry("n/1"), entry(generation=43)):
            proxy.cut_after_request(at)
            try:
                await backend.register(item, 10)
            except RegistryUnavailable:
                await backend.register(item, 10)
            proxy.mend()
            assert await backend.get("cart", item.instance) == item
            assert await backend.renew([item.key]) == frozenset()
        assert len(behind.leases() - leases) == 2


async def test_a_call_that_was_given_up_sends_nothing_more(etcd: Etcd, namespace: str, open_proxy: OpenProxy) -> None:
    proxy = open_proxy(etcd)
    async with client(proxy, namespace) as backend, client(etcd, namespace) as direct:
        await backend.list()
        proxy.delay(0.3)  # so that the answer to its first question comes too late
        call = asyncio.ensure_future(backend.register(entry(), 10))
        await asyncio.sleep(0.1)
        call.cancel()
        await asyncio.wait([call])
        proxy.mend()
        await asyncio.sleep(0.5)
        assert await direct.get("cart", "web-7/cart:0") is None
        await backend.register(entry(), 10)


async def test_a_watch_outlives_cuts_and_misses_nothing(etcd: Etcd, namespace: str, open_proxy: OpenProxy) -> None:
    proxy, behind = open_proxy(etcd), Behind(etcd, namespace)
    async with client(proxy, namespace) as backend, client(etcd, namespace) as direct:
        await direct.register(entry(), 20)
        async with aclosing(backend.watch("cart")) as watch:
            epoch = (await next_of(watch)).epoch
            for compacted in (False, True):
                following = asyncio.ensure_future(next_of(watch))
                await asyncio.sleep(0)
                proxy.cut()
                await direct.register(entry("n/1", weight=int(compacted)), 20)
                await direct.deregister(entry("n/1").key)
                await direct.update(entry(weight=1 + compacted))
                if compacted:
                    behind.call("/v3/kv/compaction", {"revision": behind.revision(), "physical": True})
                proxy.mend()
                snapshot = await following
                while weights(snapshot) != {"web-7/cart:0": 1 + compacted}:  # of the time before the cut
                    snapshot = await next_of(watch)
                assert snapshot.epoch == epoch
            await direct.register(entry("n/2"), 20)
            assert weights(await next_of(watch)) == {"web-7/cart:0": 2, "n/2": 100}


async def test_a_killed_server_that_comes_back_has_lost_nothing(etcd: Etcd, namespace: str) -> None:
    async with client(etcd, namespace) as backend:
        await backend.register(entry(), 10)
        async with aclosing(backend.watch("cart")) as watch:
            first = await next_of(watch)
            following = asyncio.ensure_future(next_of(watch))
            await asyncio.sleep(0)
            etcd.kill()
            await refusals(backend)
            await asyncio.to_thread(etcd.start)
            assert await backend.renew([entry().key]) == frozenset()
            assert await backend.get("cart", "web-7/cart:0") == entry()
            assert not following.done()
            await backend.update(entry(weight=1))
            second = await following
        assert (weights(second), second.epoch) == ({"web-7/cart:0": 1}, first.epoch)


async def test_a_server_that_has_lost_everything_and_moved_on_is_a_new_epoch(etcd: Etcd, namespace: str) -> None:
    """Its revisions may be larger again than those of before, when the watch comes back to it."""
    async with client(etcd, namespace) as backend, client(etcd, namespace) as writer:
        await backend.register(entry(), 10)
        behind = Behind(etcd, namespace)
        before = behind.revision()
        async with aclosing(backend.watch("cart")) as watch:
            first = await next_of(watch)
            await asyncio.to_thread(etcd.lose_everything)
            await writer.register(entry("n/1"), 10)
            while behind.revision() < before + 20:
                behind.put("more", b"x")
                behind.delete("more")
            second = await next_of(watch)
            assert (weights(second), second.epoch != first.epoch) == ({"n/1": 100}, True)
        keys = [entry().key, entry("n/1").key]
        assert await backend.renew(keys) == {keys[0]}
        await backend.register(entry(), 10)
        assert weights(await backend.list()) == {"web-7/cart:0": 100, "n/1": 100}


async def test_a_server_that_is_set_back_to_a_copy_is_a_new_epoch(etcd: Etcd, namespace: str, tmp_path: Path) -> None:
    """The copy has the same epoch in it, so whoever saw later revisions has to make another."""
    async with client(etcd, namespace) as backend:
        await backend.register(entry(), 30)
        async with aclosing(backend.watch("cart")) as watch:
            first = await next_of(watch)
            await asyncio.to_thread(etcd.terminate)
            shutil.copytree(etcd.data, tmp_path / "copy")
            await asyncio.to_thread(etcd.start)
            for number in range(3):
                await backend.register(entry(f"n/{number}"), 30)
            later = await next_of(watch)
            while len(later.entries) < 4:
                later = await next_of(watch)
            assert later.epoch == first.epoch
            following = asyncio.ensure_future(next_of(watch))
            await asyncio.sleep(0)
            await asyncio.to_thread(etcd.terminate)
            shutil.rmtree(etcd.data)
            shutil.move(tmp_path / "copy", etcd.data)
            await asyncio.to_thread(etcd.start)
            back = await following
            assert weights(back) == {"web-7/cart:0": 100}
            assert back.epoch != first.epoch and back.epoch == (await backend.list()).epoch
        assert await backend.renew([entry().key, entry("n/1").key]) == {entry("n/1").key}


async def test_a_server_that_was_frozen_for_longer_than_the_ttl_says_lost_only_when_it_is(
    etcd: Etcd, namespace: str
) -> None:
    async with client(etcd, namespace, timeout_seconds=0.3) as backend, client(etcd, namespace) as patient:
        await patient.register(entry(), 1)
        frozen_at, refused = time.monotonic(), 0
        etcd.freeze()
        try:
            while time.monotonic() < frozen_at + 1.8:
                try:
                    assert await backend.renew([entry().key]) == frozenset()  # a first one may slip in
                except RegistryUnavailable:
                    refused += 1
        finally:
            etcd.thaw()
        assert refused >= 3
        await eventually(lambda: is_lost(backend))
        assert await patient.get("cart", "web-7/cart:0") is None
        await patient.register(entry(), 10)
        assert await patient.renew([entry().key]) == frozenset()


async def is_lost(backend: EtcdBackend) -> bool:
    return await backend.renew([entry().key]) == {entry().key}


async def test_a_full_server_refuses_and_says_why_but_renews(namespace: str, start_server: StartServer) -> None:
    server = start_server(Etcd, quota_bytes=1 << 20)
    behind = Behind(server, namespace)
    async with client(server, namespace) as backend:
        await backend.register(entry(), 10)
        status = 200
        while status == 200:
            body = {"key": behind.key("stuff"), "value": b64encode(bytes(100_000)).decode()}
            status, _ = await asyncio.to_thread(server.ask, "POST", "/v3/kv/put", body)
        for call in (backend.register(entry("n/1"), 10), backend.update(entry(weight=1))):
            with pytest.raises(RegistryUnavailable, match="space exceeded"):
                await call
        assert await backend.renew([entry().key]) == frozenset()
        await backend.register(entry(), 10)
        assert any("NOSPACE" in warning for warning in (await backend.inspect(10)).warnings)
        assert await backend.deregister(entry().key) is True


async def test_a_cluster_goes_on_without_its_leader_and_is_silent_without_a_majority(
    namespace: str, start_server: StartServer
) -> None:
    cluster = start_server(EtcdCluster)
    async with client(",".join(cluster.urls), namespace, timeout_seconds=2.0) as backend:
        await backend.register(entry(), 5)
        async with aclosing(backend.watch("cart")) as watch:
            epoch = (await next_of(watch)).epoch
            following = asyncio.ensure_future(next_of(watch))
            killed = await asyncio.to_thread(cluster.leader)
            killed.kill()
            good = await renewals_until(backend, 10)
            assert good == 10
            await eventually(lambda: updated(backend, 1))
            snapshot = await following
            assert (weights(snapshot), snapshot.epoch) == ({"web-7/cart:0": 1}, epoch)

            other = await asyncio.to_thread(cluster.leader)
            other.kill()
            await renewals_refused(backend)
            for error in await refusals(backend):
                assert not isinstance(error, RegistryRejected)
            await asyncio.to_thread(killed.start)
            await eventually(lambda: updated(backend, 2))
            assert weights(await next_of(watch)) == {"web-7/cart:0": 2}


async def renewals_until(backend: EtcdBackend, wanted: int) -> int:
    """Renew until that many have gone well; none of the others may say that it is lost or absent."""
    good, deadline = 0, time.monotonic() + 10
    while good < wanted and time.monotonic() < deadline:
        try:
            assert await backend.renew([entry().key]) == frozenset()
            assert await backend.get("cart", "web-7/cart:0") is not None
            good += 1
        except RegistryUnavailable:
            await asyncio.sleep(0.05)
    return good


async def renewals_refused(backend: EtcdBackend) -> None:
    """Renew until the members have noticed that they are too few."""
    with pytest.raises(RegistryUnavailable):
        while True:
            assert await backend.renew([entry().key]) == frozenset()


async def test_a_frozen_member_is_left_by_calls_and_watches(namespace: str, start_server: StartServer) -> None:
    cluster = start_server(EtcdCluster)
    leader = await asyncio.to_thread(cluster.leader)
    frozen = next(member for member in cluster.members if member is not leader)
    urls = ",".join([frozen.url, *(member.url for member in cluster.members if member is not frozen)])
    async with (
        client(urls, namespace, timeout_seconds=1.0) as backend,
        client(urls, namespace, timeout_seconds=0.5, watch_wait_seconds=0.5) as reader,
        aclosing(reader.watch()) as watch,
    ):
        await backend.register(entry(), 10)
        snapshot = await next_of(watch)
        frozen.freeze()
        try:
            assert await backend.renew([entry().key]) == frozenset()
            assert await backend.get("cart", "web-7/cart:0") == entry()
            await backend.update(entry(weight=1))
            while weights(snapshot) != {"web-7/cart:0": 1}:
                snapshot = await next_of(watch)
        finally:
            frozen.thaw()
        assert (await backend.inspect(10)).warnings == ()
    async with client(frozen.url, namespace) as backend:
        assert any("3 members" in warning for warning in (await backend.inspect(10)).warnings)
