"""client.py over the fake backend: leases that keep themselves alive."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from registry_client import (
    Capability,
    Entry,
    HeldLease,
    LeaseLost,
    LeaseState,
    RegistryClient,
    RegistryRejected,
    RegistryUnavailable,
    Unsupported,
    open_backend,
)
from registry_client.testing import FakeBackend

TTL = 0.6  # a beat every 0.2 s


def entry(instance: str = "n/1", **changes: Any) -> Entry:
    values: dict[str, Any] = {"node": "n", "unit": "u", "address": "127.0.0.1", "port": 1, "generation": 1}
    values |= {"started_at": "2026-11-23T06:29:10.123Z"} | changes
    return Entry(service="s", instance=instance, **values)


async def until(condition: Callable[[], bool], seconds: float = 8.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # any condition, most have no event
            await asyncio.sleep(0.005)


def count(backend: FakeBackend, method: str) -> int:
    return sum(name == method for name, _ in backend.calls)


async def test_a_held_lease_keeps_its_entry_and_ends_with_its_block() -> None:
    backend = FakeBackend()
    async with RegistryClient(backend) as client:
        async with await client.register(entry(), TTL) as lease:
            assert lease.state is LeaseState.HELD
            await until(lambda: count(backend, "renew") >= 6)
            assert await client.get("s", "n/1") == entry()
            assert count(backend, "register") == 1
        assert await client.get("s", "n/1") is None
        assert (lease.state, lease.is_running) == (LeaseState.ABSENT, False)
        renewals = count(backend, "renew")
        await asyncio.sleep(TTL)
        assert count(backend, "renew") == renewals


async def test_beats_come_every_third_of_the_ttl() -> None:
    backend, ttl = FakeBackend(), 1.5
    lease = HeldLease(backend, entry(), ttl)
    start = time.monotonic()
    await lease.start()
    await until(lambda: count(backend, "renew") == 4)
    assert 4 * ttl / 3 * 0.9 - 0.05 <= time.monotonic() - start <= 4 * ttl / 3 * 1.1 + 0.5
    await lease.close()
    await backend.close()


async def test_a_forgetful_registry_gets_the_entry_back() -> None:
    async with RegistryClient(FakeBackend()) as client:
        backend = client.backend
        assert isinstance(backend, FakeBackend)
        lease = await client.register(entry(), TTL)
        await lease.update(weight=5)
        backend.forget()
        assert await client.get("s", "n/1") is None
        await until(lambda: count(backend, "register") == 2)
        await until(lambda: lease.state is LeaseState.HELD)
        assert await client.get("s", "n/1") == entry(weight=5)


async def test_a_silent_registry_makes_the_lease_suspended_then_lost_then_held_again() -> None:
    backend = FakeBackend()
    lease = HeldLease(backend, entry(), TTL)
    await lease.start()
    backend.hang()
    await until(lambda: lease.state is LeaseState.SUSPENDED)
    await until(lambda: lease.state is LeaseState.LOST)
    assert isinstance(lease.error, RegistryUnavailable)
    assert lease.is_running
    backend.release()
    await until(lambda: lease.state is LeaseState.HELD)
    assert lease.error is None
    assert await backend.get("s", "n/1") == entry()
    await lease.close()
    await backend.close()


async def test_a_failed_beat_is_repeated_at_the_next_turn() -> None:
    backend = FakeBackend()
    lease = HeldLease(backend, entry(), 1.2)
    await lease.start()
    backend.fail_next()
    await until(lambda: lease.error is not None)
    assert lease.state is LeaseState.SUSPENDED
    await until(lambda: lease.state is LeaseState.HELD)
    assert count(backend, "register") == 1
    await lease.close()
    await backend.close()


async def test_a_failed_first_registration_is_the_callers_to_see() -> None:
    backend = FakeBackend()
    async with RegistryClient(backend) as client:
        backend.fail_next()
        with pytest.raises(RegistryUnavailable):
            await client.register(entry(), TTL)
        await asyncio.sleep(TTL)
        assert [name for name, _ in backend.calls] == ["register"]


async def test_a_newer_generation_ends_the_renewing_of_the_older_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = FakeBackend()
    async with RegistryClient(backend) as client:
        old = await client.register(entry(), TTL)
        new = await client.register(entry(generation=2), TTL)
        await until(lambda: not old.is_running)
        assert isinstance(old.error, RegistryRejected) and old.error.code == "stale_generation"
        assert old.state is LeaseState.ABSENT
        assert "giving up" in caplog.text
        assert await old.close() is False
        assert new.is_running and await client.get("s", "n/1") == entry(generation=2)


async def test_a_rejection_that_is_not_about_the_entry_does_not_end_the_renewing() -> None:
    backend = FakeBackend()
    lease = HeldLease(backend, entry(), TTL)
    await lease.start()
    backend.fail_next(error=RegistryRejected("cannot renew: HTTP status 404", code="http_404"))
    await until(lambda: lease.error is not None)
    await until(lambda: lease.error is None)
    assert lease.state is LeaseState.HELD
    await lease.close()
    await backend.close()


async def test_a_faulty_backend_does_not_end_the_renewing() -> None:
    class Faulty(FakeBackend):
        faults = 1

        async def renew(self, keys: Any) -> Any:
            if self.faults:
                self.faults -= 1
                raise ZeroDivisionError("a bug")
            return await super().renew(keys)

    backend = Faulty()
    lease = HeldLease(backend, entry(), TTL)
    await lease.start()
    await until(lambda: lease.error is not None)
    assert "ZeroDivisionError" in str(lease.error)
    await until(lambda: lease.error is None)
    await lease.close()
    await backend.close()


async def test_an_update_changes_the_entry_but_not_its_identity() -> None:
    backend = FakeBackend()
    lease = HeldLease(backend, entry(), 10)
    await lease.start()
    await lease.update(weight=7, status="draining")
    assert lease.entry == await backend.get("s", "n/1") == entry(weight=7, status="draining")
    with pytest.raises(ValueError, match="register another"):
        await lease.update(generation=2)
    with pytest.raises(RegistryRejected):
        await lease.update(weight=-1)
    assert lease.entry == entry(weight=7, status="draining")
    await lease.close()
    await backend.close()


async def test_an_update_of_a_forgotten_entry_registers_it() -> None:
    backend = FakeBackend()
    lease = HeldLease(backend, entry(), 10)
    await lease.start()
    backend.forget()
    await lease.update(weight=7)
    assert await backend.get("s", "n/1") == entry(weight=7)
    await lease.close()
    await backend.close()


async def test_an_update_that_failed_arrives_with_the_next_beat() -> None:
    backend = FakeBackend()
    lease = HeldLease(backend, entry(), TTL)
    await lease.start()
    backend.fail_next()
    with pytest.raises(RegistryUnavailable):
        await lease.update(weight=7)
    await until(lambda: count(backend, "register") == 2)
    assert await backend.get("s", "n/1") == entry(weight=7)
    await lease.close()
    await backend.close()


async def test_an_update_that_is_refused_leaves_the_registration_as_it_was() -> None:
    backend = FakeBackend()
    lease = HeldLease(backend, entry(), TTL)
    await lease.start()
    backend.fail_next(error=RegistryRejected("cannot update: too large here", code="bad_entry"))
    with pytest.raises(RegistryRejected):
        await lease.update(metadata={"a": "b"})
    assert lease.entry == entry()
    await until(lambda: count(backend, "renew") >= 2)
    assert count(backend, "register") == 1  # beats with the refused entry would have ended the lease
    assert (lease.state, lease.is_running) == (LeaseState.HELD, True)
    await lease.update(weight=7)
    assert await backend.get("s", "n/1") == entry(weight=7)
    await lease.close()
    await backend.close()


@pytest.mark.parametrize("prolongs", [False, True])
async def test_an_update_after_a_newer_generation_was_registered_is_refused_and_the_lease_ends(prolongs: bool) -> None:
    backend = FakeBackend()
    if prolongs:
        backend.capabilities -= {Capability.UPDATE_WITHOUT_RENEWAL}
    async with RegistryClient(backend) as client:
        lease = await client.register(entry(), TTL)
        await backend.register(entry(generation=2), 10)
        with pytest.raises(RegistryRejected) as refused:
            await lease.update(weight=7)
        assert (refused.value.code, refused.value.held_generation) == ("stale_generation", 2)
        await until(lambda: not lease.is_running)
        with pytest.raises(LeaseLost):
            await lease.update(weight=8)
        assert await client.get("s", "n/1") == entry(generation=2)


async def test_where_updates_prolong_an_update_of_a_lost_entry_registers_it_and_the_lease_is_held() -> None:
    backend = FakeBackend()
    backend.capabilities -= {Capability.UPDATE_WITHOUT_RENEWAL}
    async with RegistryClient(backend) as client:
        lease = await client.register(entry(), 10)
        backend.forget()
        await lease.update(weight=7)
        assert await client.get("s", "n/1") == entry(weight=7)
        assert lease.state is LeaseState.HELD


async def test_where_updates_prolong_one_without_an_answer_makes_the_lease_doubtful() -> None:
    backend = FakeBackend()
    backend.capabilities -= {Capability.UPDATE_WITHOUT_RENEWAL}
    async with RegistryClient(backend) as client:
        lease = await client.register(entry(), TTL)
        backend.fail_next()
        with pytest.raises(RegistryUnavailable):
            await lease.update(weight=7)
        assert lease.state is LeaseState.SUSPENDED
        await until(lambda: lease.state is LeaseState.HELD)
        assert await client.get("s", "n/1") == entry(weight=7)


async def test_an_update_under_way_at_the_closing_does_not_bring_the_entry_back() -> None:
    backend = FakeBackend()
    lease = HeldLease(backend, entry(), 10)
    await lease.start()
    backend.hang()
    update = asyncio.ensure_future(lease.update(weight=7))
    await until(lambda: count(backend, "update") == 1)
    closing = asyncio.ensure_future(lease.close())
    await until(lambda: lease.state is LeaseState.ABSENT)
    backend.forget()
    backend.release()
    with pytest.raises(LeaseLost):
        await update
    assert await closing is True
    with pytest.raises(LeaseLost):
        await lease.update(weight=8)
    assert await backend.get("s", "n/1") is None
    assert count(backend, "register") == 1
    await backend.close()


async def test_where_updates_prolong_they_count_as_beats() -> None:
    backend = FakeBackend()
    backend.capabilities = frozenset((Capability.DEREGISTER,))
    lease = HeldLease(backend, entry(), 10)
    await lease.start()
    before = lease.lease.sent_at
    await asyncio.sleep(0.01)
    await lease.update(weight=7)
    assert before is not None and lease.lease.sent_at is not None and lease.lease.sent_at > before
    await lease.close()
    await backend.close()


async def test_closing_stops_the_renewing_even_if_the_registry_does_not_answer() -> None:
    backend = FakeBackend(timeout_seconds=0.2)
    lease = HeldLease(backend, entry(), TTL)
    await lease.start()
    backend.hang()
    await until(lambda: count(backend, "renew") == 1)
    assert await lease.close() is False
    assert isinstance(lease.error, RegistryUnavailable)
    assert lease.state is LeaseState.ABSENT
    assert lease.lease.last_possible_at is not None
    backend.release()
    await asyncio.sleep(TTL)
    assert await backend.get("s", "n/1") is None
    assert count(backend, "renew") == 1
    await backend.close()


async def test_closing_where_nothing_can_be_deleted_leaves_the_entry_to_expire() -> None:
    backend = FakeBackend()
    backend.capabilities = frozenset()
    lease = HeldLease(backend, entry(), 10)
    await lease.start()
    assert await lease.close() is False
    assert await lease.close() is False
    assert await backend.get("s", "n/1") == entry()
    await backend.close()


async def test_a_client_closes_the_leases_it_still_has() -> None:
    registry = FakeBackend()
    client = RegistryClient(registry)
    for number in range(3):
        await client.register(entry(f"n/{number}"), 10)
    await client.close()
    assert count(registry, "deregister") == 3


async def test_look_ups_go_to_the_backend() -> None:
    async with RegistryClient(FakeBackend()) as client:
        assert await client.select("s") is None
        assert (await client.inspect(10)).granted_ttl_seconds == 10
        await client.register(entry("n/1", weight=0), 10)
        await client.register(entry("n/2", weight=1), 10)
        chosen = await client.select("s")
        assert chosen is not None and chosen.instance == "n/2"
        assert len((await client.list("s")).entries) == 2
        async with aclosing(client.watch("s")) as watch:
            assert len((await anext(watch)).entries) == 2
        assert await client.deregister(entry("n/2").key) is True
        assert await client.deregister(entry("n/2").key) is False


async def test_failing_and_recovering_is_logged_once_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "registry_client")
    backend = FakeBackend()
    lease = HeldLease(backend, entry(), TTL)
    await lease.start()
    backend.fail_next(3)
    await until(lambda: len(caplog.messages) == 2)
    assert "trying again" in caplog.messages[0] and "held again" in caplog.messages[1]
    await lease.close()
    await backend.close()


async def test_backends_are_opened_by_name() -> None:
    embedded = open_backend("embedded", timeout_seconds=1.0)
    http = open_backend("http", url="http://127.0.0.1:1")
    assert (embedded.name, http.name) == ("embedded", "http")
    await embedded.close()
    await http.close()


def plugin(folder: Path, target: str) -> None:
    """A distribution that brings the backend `elsewhere`."""
    info = folder / "elsewhere-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[unitd.registry_backends]\nelsewhere = {target}\n")


async def test_an_installed_backend_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin(tmp_path, "registry_client.testing:FakeBackend")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    backend = open_backend("elsewhere", timeout_seconds=3.0)
    assert isinstance(backend, FakeBackend) and backend.timeout_seconds == 3.0
    await backend.close()


def test_an_unknown_or_broken_backend_is_refused_with_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin(tmp_path, "no_such_module_at_all:Backend")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(Unsupported, match=r"no such backend is installed; known: .*elsewhere.*http"):
        open_backend("consuls")
    with pytest.raises(Unsupported, match="cannot be loaded"):
        open_backend("elsewhere")
