"""testing.py: the faults that users can ask for (that it keeps the contract is tested with the contract)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from registry_client import Entry, LeaseLost, RegistryUnavailable
from registry_client.testing import FakeBackend


def entry() -> Entry:
    values: dict[str, Any] = {"node": "n", "unit": "u", "address": "127.0.0.1", "port": 1, "generation": 1}
    return Entry(service="s", instance="n/1", started_at="2026-11-23T06:29:10.123Z", **values)


async def test_exactly_the_next_calls_fail_and_change_nothing() -> None:
    backend = FakeBackend()
    backend.fail_next(2)
    backend.fail_next(error=LeaseLost("cannot update it"))
    with pytest.raises(RegistryUnavailable):
        await backend.register(entry(), 10)
    with pytest.raises(RegistryUnavailable):
        await backend.get("s", "n/1")
    with pytest.raises(LeaseLost):
        await backend.update(entry())
    assert (await backend.list()).entries == ()
    assert [name for name, _ in backend.calls] == ["register", "get", "update", "list"]
    await backend.close()


async def test_hanging_calls_go_on_when_released() -> None:
    backend = FakeBackend()
    backend.hang()
    call = asyncio.ensure_future(backend.register(entry(), 10))
    await asyncio.sleep(0.05)
    assert not call.done()
    backend.release()
    await call
    assert await backend.get("s", "n/1") == entry()
    await backend.close()


async def test_hanging_calls_end_at_their_time_limit() -> None:
    backend = FakeBackend(timeout_seconds=0.05)
    backend.hang()
    with pytest.raises(RegistryUnavailable, match=r"no answer within 0\.05 s"):
        await backend.deregister(entry().key)
    await backend.close()


async def test_time_can_be_the_tests_own() -> None:
    now = 0.0
    backend = FakeBackend(clock=lambda: now)
    await backend.register(entry(), 10)
    now = 10.0
    assert await backend.get("s", "n/1") is None
    await backend.close()


async def test_forgetting_loses_everything_in_a_new_epoch() -> None:
    backend = FakeBackend()
    await backend.register(entry(), 10)
    before = await backend.list()
    backend.forget()
    after = await backend.list()
    assert after.entries == () and after.epoch != before.epoch
    await backend.close()
