"""backends/etcd.py: etcd's traps, its rights, its limits. Good behaviour is the contract suite's."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64decode
from collections.abc import Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from registry_client import LeaseKey, LeaseLost, RegistryRejected, RegistryUnavailable, Secret, Tls, open_backend
from registry_client.backends.etcd import EtcdBackend
from registry_client.errors import BadOption
from tests.registry_client.etcd_asking import Behind, client, entry, eventually, next_of, updated, weights
from tests.servers import Etcd
from tests.servers.fixtures import ShareServer, StartServer

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"url": "etcd:2379"}, "url"),
        ({"url": "unix:///run/etcd.sock"}, "url"),
        ({"url": "http://a:2379,https://b:2379"}, "url"),
        ({"prefix": "//"}, "prefix"),
        ({"prefix": "a\nb"}, "prefix"),
        ({"user": "registrar"}, "password"),
        ({"password": "secret"}, "user"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"watch_wait_seconds": "long"}, "watch_wait_seconds"),
        ({"token": "x"}, "token"),
    ],
)
def test_options_that_cannot_be_used_are_named(options: dict[str, Any], option: str) -> None:
    with pytest.raises(BadOption) as caught:
        open_backend("etcd", **options)
    assert caught.value.option == option
    assert "secret" not in str(caught.value)


def test_a_client_can_be_made_without_a_loop_and_connects_to_nothing() -> None:
    assert EtcdBackend("http://192.0.2.1:2379,http://192.0.2.2:2379", user="u", password=Secret("p")).name == "etcd"


async def test_an_entry_always_has_a_lease(etcd: Etcd, namespace: str) -> None:
    behind = Behind(etcd, namespace)
    async with client(etcd, namespace) as backend:
        await backend.register(entry(), 10)
        first = behind.pair()["lease"]
        await backend.update(entry(weight=1))
        assert behind.pair()["lease"] == first
        await backend.register(entry(weight=2), 10)
        assert behind.pair()["lease"] == first
        await backend.register(entry(weight=2), 11)
        assert behind.pair()["lease"] not in (first, "0")


async def test_an_entry_that_has_lost_its_lease_is_lost_and_gets_one_again(etcd: Etcd, namespace: str) -> None:
    behind = Behind(etcd, namespace)
    async with client(etcd, namespace) as backend:
        await backend.register(entry(), 10)
        behind.put("web-7/cart:0", b64decode(behind.pair()["value"]))  # by hand, and so for ever
        assert "lease" not in behind.pair()
        with pytest.raises(LeaseLost):
            await backend.update(entry(weight=1))
        assert await backend.renew([entry().key]) == {entry().key}
        await backend.register(entry(), 10)
        assert await backend.renew([entry().key]) == frozenset()
        assert behind.pair()["lease"] != "0"


async def test_registering_the_same_again_writes_nothing(etcd: Etcd, namespace: str) -> None:
    behind = Behind(etcd, namespace)
    async with client(etcd, namespace) as backend, client(etcd, namespace) as another:
        await backend.register(entry(), 10)
        before = behind.pair(), behind.revision(), behind.leases()
        await backend.register(entry(), 10)
        grant = await another.register(entry(), 10)
        assert (behind.pair(), behind.revision(), behind.leases()) == before
        assert (grant.ttl_seconds, grant.revision) == (10, before[1])


async def test_no_lease_is_left_over(etcd: Etcd, namespace: str) -> None:
    behind = Behind(etcd, namespace)
    async with client(etcd, namespace) as backend:
        before = behind.leases()
        await backend.register(entry(generation=1), 10)
        await backend.register(entry(generation=2), 10)
        await backend.register(entry(generation=2), 20)
        assert len(behind.leases() - before) == 1
        with pytest.raises(RegistryRejected):
            await backend.register(entry(generation=1), 10)
        await asyncio.gather(
            *(backend.register(entry(generation=number), 10) for number in range(3, 9)), return_exceptions=True
        )
        assert len(behind.leases() - before) == 1
        await backend.deregister(entry(generation=9).key)
        assert behind.leases() == before


async def test_a_living_lease_is_no_proof_of_an_entry(etcd: Etcd, namespace: str) -> None:
    behind = Behind(etcd, namespace)
    async with client(etcd, namespace) as backend:
        for number in range(3):
            await backend.register(entry(f"n/{number}"), 10)
        behind.delete("n/1")
        keys = [entry(f"n/{number}").key for number in range(3)]
        assert await backend.renew(keys) == {keys[1]}


async def test_many_leases_are_renewed_by_a_client_that_did_not_register_them(etcd: Etcd, namespace: str) -> None:
    async with client(etcd, namespace) as backend, client(etcd, namespace) as another:
        entries = [entry(f"n/{number}") for number in range(700)]
        for start in range(0, 700, 50):
            await asyncio.gather(*(backend.register(item, 30) for item in entries[start : start + 50]))
        keys = [item.key for item in entries]
        missing = [LeaseKey("cart", f"m/{number}", 1) for number in range(5)]
        for renewer in (another, backend, another):
            assert await renewer.renew([*missing, *keys]) == set(missing)
        await backend.register(entry("n/5", generation=43), 30)
        assert await another.renew(keys) == {keys[5]}


async def test_leases_that_the_gateway_has_not_read_are_renewed_all_the_same(
    etcd: Etcd, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It drops what has not arrived when it begins to answer; without room in front, that is nearly everything."""

    def without_room(leases: Iterable[int]) -> bytes:
        return "".join(f'{{"ID":{lease}}}' for lease in leases).encode()

    monkeypatch.setattr("registry_client.backends.etcd.backend.keepalives", without_room)
    async with client(etcd, namespace) as backend:
        entries = [entry(f"n/{number}") for number in range(200)]
        await asyncio.gather(*(backend.register(item, 20) for item in entries))
        for _ in range(10):
            assert await backend.renew([item.key for item in entries]) == frozenset()


async def test_entries_re_registered_by_somebody_else_stay_renewed(etcd: Etcd, namespace: str) -> None:
    behind = Behind(etcd, namespace)
    async with client(etcd, namespace) as backend, client(etcd, namespace) as another:
        await backend.register(entry(), 10)
        await another.register(entry(), 2)
        lease = behind.pair()["lease"]
        for _ in range(8):
            assert await backend.renew([entry().key]) == frozenset()
            await asyncio.sleep(0.3)
        assert behind.pair()["lease"] == lease


async def test_values_of_others_are_skipped_and_said_once(
    etcd: Etcd, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    behind = Behind(etcd, namespace)
    caplog.set_level(logging.WARNING)
    async with client(etcd, namespace) as backend:
        await backend.register(entry(), 10)
        behind.put("rubbish", b"\xff\x00")
        behind.put("other", b64decode(behind.pair()["value"]))  # an entry, but of another key
        async with aclosing(backend.watch("cart")) as watch:
            assert weights(await next_of(watch)) == {"web-7/cart:0": 100}
            behind.put("more", b'{"schema": 1}')
            await backend.update(entry(weight=1))
            assert weights(await next_of(watch)) == {"web-7/cart:0": 1}
        assert weights(await backend.list()) == {"web-7/cart:0": 1}
        assert await backend.get("cart", "rubbish") is None
        assert await backend.renew([entry("rubbish").key]) == {entry("rubbish").key}
        await backend.register(entry("rubbish"), 10)
        assert await backend.get("cart", "rubbish") == entry("rubbish")
    for name in ("rubbish", "other", "more"):
        assert len([line for line in caplog.messages if f"{namespace}/entries/cart/{name}" in line]) == 1


async def test_a_service_with_a_slash_is_nobody_elses_instance(etcd: Etcd, namespace: str) -> None:
    async with client(etcd, namespace) as backend:
        await backend.register(entry(), 10)
        assert await backend.get("cart/web-7", "cart:0") is None
        assert (await backend.list("cart/web-7")).entries == ()
        assert await backend.renew([LeaseKey("cart/web-7", "cart:0", 42)]) != frozenset()


async def test_a_watch_resumes_from_a_revision_that_was_compacted(etcd: Etcd, namespace: str) -> None:
    behind = Behind(etcd, namespace)
    async with client(etcd, namespace) as backend:
        await backend.register(entry(), 10)
        last = await backend.list("cart")
        for weight in range(3):
            await backend.update(entry(weight=weight))
        behind.call("/v3/kv/compaction", {"revision": behind.revision(), "physical": True})
        async with aclosing(backend.watch("cart", last.revision, last.epoch)) as watch:
            assert weights(await next_of(watch)) == {"web-7/cart:0": 2}
            await backend.update(entry(weight=7))
            assert weights(await next_of(watch)) == {"web-7/cart:0": 7}


async def test_a_silent_watch_is_begun_anew_and_misses_nothing(etcd: Etcd, namespace: str) -> None:
    async with client(etcd, namespace, watch_wait_seconds=0.05) as backend:
        await backend.register(entry(), 10)
        async with aclosing(backend.watch("cart")) as watch:
            first = await next_of(watch)
            for weight in range(10):
                following = asyncio.ensure_future(next_of(watch))
                await asyncio.sleep(0.03 * weight)
                await backend.update(entry(weight=weight))
                assert weights(await following) == {"web-7/cart:0": weight}
        assert first.epoch == (await backend.list()).epoch


async def test_an_etcd_of_the_past_with_the_same_epoch_is_another_epoch(etcd: Etcd, namespace: str) -> None:
    """As after a restore: the same keys at smaller revisions. Here, the watch has come from the future."""
    async with client(etcd, namespace) as backend:
        await backend.register(entry(), 10)
        now = await backend.list("cart")
        async with aclosing(backend.watch("cart", now.revision + 1000, now.epoch)) as watch:
            assert weights(await next_of(watch)) == {"web-7/cart:0": 100}
            await backend.update(entry(weight=7))
            assert weights(await next_of(watch)) == {"web-7/cart:0": 7}


async def test_an_inspection_tells_version_clock_and_the_ttl_that_is_granted(
    etcd: Etcd, namespace: str, share_server: ShareServer
) -> None:
    behind = Behind(etcd, namespace)
    async with client(etcd, namespace) as backend:
        leases = behind.leases()
        found = await backend.inspect(2.5)
        assert (found.version, found.granted_ttl_seconds, found.warnings) == (etcd.version, 3, ())
        assert found.clock is not None
        assert behind.leases() == leases


async def test_a_ttl_below_the_minimum_of_the_server_is_warned_about_and_granted_longer(
    namespace: str, start_server: StartServer
) -> None:
    slow = start_server(Etcd, election_milliseconds=2500)
    async with client(slow, namespace) as backend:
        found = await backend.inspect(1)
        assert found.granted_ttl_seconds == 4
        assert len(found.warnings) == 1 and "4 s" in found.warnings[0]
        grant = await backend.register(entry(), 1)
        assert grant.ttl_seconds == 4
        assert backend.removal_bound(1) >= 4
        again = [(await backend.register(entry(), 1)).revision for _ in range(2)]
        assert again[0] == again[1]  # refreshed, although it is not what was asked for


async def test_a_user_with_rights_below_the_prefix_can_do_everything(share_server: ShareServer, tmp_path: Path) -> None:
    server = share_server(Etcd, auth=True)
    file = tmp_path / "password"
    file.write_text(f"{server.password}\n")
    for password in (server.password, Secret(path=str(file))):
        async with client(server, "unitd", user=server.user, password=password) as backend:
            await backend.register(entry(), 10)
            async with aclosing(backend.watch("cart")) as watch:
                assert weights(await next_of(watch)) == {"web-7/cart:0": 100}
                await backend.update(entry(weight=1))
                assert weights(await next_of(watch)) == {"web-7/cart:0": 1}
            assert await backend.renew([entry().key]) == frozenset()
            assert (await backend.inspect(10)).warnings == ()
            assert await backend.deregister(entry().key) is True


async def test_who_has_no_right_is_refused_and_told_so(share_server: ShareServer) -> None:
    server = share_server(Etcd, auth=True)
    right = {"user": server.user, "password": server.password}
    for prefix, options in (
        ("elsewhere", right),
        ("unitd", {}),
        ("unitd", {**right, "password": "not-the-secret"}),
        ("unitd", {**right, "user": "nobody"}),
    ):
        async with client(server, prefix, **options) as backend:
            watch = backend.watch("cart")
            for call in (
                backend.register(entry(), 10),
                backend.renew([entry().key]),
                backend.update(entry()),
                backend.deregister(entry().key),
                backend.get("cart", "web-7/cart:0"),
                backend.list(),
                anext(watch),
            ):
                with pytest.raises(RegistryRejected) as caught:
                    await call
                assert caught.value.code == "permission_denied"
                assert "not-the-secret" not in str(caught.value)


async def test_a_token_that_is_over_is_replaced(share_server: ShareServer) -> None:
    """A restart ends all tokens of this kind, and the watch with them."""
    server = share_server(Etcd, auth=True)
    async with client(server, "unitd", user=server.user, password=server.password) as backend:
        await backend.register(entry(), 10)
        async with aclosing(backend.watch("cart")) as watch:
            await next_of(watch)
            await asyncio.to_thread(server.restart)
            await eventually(lambda: updated(backend, 1))
            assert weights(await next_of(watch)) == {"web-7/cart:0": 1}
        assert await backend.renew([entry().key]) == frozenset()
        await backend.deregister(entry().key)


async def test_a_password_that_cannot_be_read_now_is_tried_again(share_server: ShareServer, tmp_path: Path) -> None:
    server = share_server(Etcd, auth=True)
    file = tmp_path / "password"
    async with client(server, "unitd", user=server.user, password=Secret(path=str(file))) as backend:
        with pytest.raises(RegistryUnavailable) as caught:
            await backend.list()
        assert caught.value.may_have_counted is False
        file.write_text(server.password)
        await backend.list()


async def test_a_user_where_authentication_is_off_is_no_mistake(etcd: Etcd, namespace: str) -> None:
    async with client(etcd, namespace, user="registrar", password="any") as backend:
        await backend.register(entry(), 10)
        assert weights(await backend.list()) == {"web-7/cart:0": 100}


async def test_a_reader_who_may_not_write_reads_and_watches(share_server: ShareServer) -> None:
    server = share_server(Etcd, auth=True)
    token = server.authenticate("root", "root-of-the-tests")
    key, end = "L3VuaXRkLXJlYWQv", "L3VuaXRkLXJlYWQw"  # /unitd-read/ and what is below
    for path, body in (
        ("/v3/auth/user/add", {"name": "reader", "password": "reads"}),
        ("/v3/auth/role/add", {"name": "reader"}),
        ("/v3/auth/role/grant", {"name": "reader", "perm": {"permType": "READ", "key": key, "range_end": end}}),
        ("/v3/auth/user/grant", {"user": "reader", "role": "reader"}),
    ):
        assert server.ask("POST", path, body, token=token)[0] == 200
    options = {"watch_wait_seconds": 0.1}
    async with (
        client(server, "unitd-read", user="reader", password="reads", **options) as reader,
        client(server, "unitd-read", user="root", password="root-of-the-tests") as writer,
        aclosing(reader.watch()) as watch,
    ):
        empty = await next_of(watch)
        assert (await reader.list()).epoch == empty.epoch
        await writer.register(entry(), 10)
        snapshot = await next_of(watch)
        while snapshot.epoch == empty.epoch:  # the writer has made a true one
            snapshot = await next_of(watch)
        assert weights(snapshot) == {"web-7/cart:0": 100}
        with pytest.raises(RegistryRejected):
            await reader.register(entry("n/1"), 10)


async def test_a_server_that_wants_certificates_gets_ours(share_server: ShareServer, namespace: str) -> None:
    server = share_server(Etcd, tls=True)
    files = server.certificates
    assert files is not None
    ours = Tls(ca=str(files.ca), cert=str(files.client_certificate), key=str(files.client_key))
    async with client(server, namespace, tls=ours) as backend:
        await backend.register(entry(), 10)
        async with aclosing(backend.watch()) as watch:
            assert weights(await next_of(watch)) == {"web-7/cart:0": 100}
        assert await backend.renew([entry().key]) == frozenset()
    for tls in (Tls(ca=str(files.ca)), Tls(), None, Tls(ca="/nowhere.pem")):
        async with client(server, namespace, tls=tls) as backend:
            with pytest.raises(RegistryUnavailable):
                await backend.list()
