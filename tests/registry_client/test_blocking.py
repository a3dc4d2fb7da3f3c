"""blocking.py."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from registry_client import (
    BlockingRegistryClient,
    Entry,
    LeaseState,
    RegistryRejected,
    RegistryUnavailable,
    Snapshot,
)
from registry_client.testing import FakeBackend


def entry(instance: str = "n/1", **changes: Any) -> Entry:
    values: dict[str, Any] = {"node": "n", "unit": "u", "address": "127.0.0.1", "port": 1, "generation": 1}
    values |= {"started_at": "2026-11-23T06:29:10.123Z"} | changes
    return Entry(service="s", instance=instance, **values)


def test_a_script_registers_looks_up_and_leaves() -> None:
    with BlockingRegistryClient(FakeBackend()) as client:
        with client.register(entry(), 10) as lease:
            assert lease.state is LeaseState.HELD
            lease.update(weight=5)
            assert client.get("s", "n/1") == lease.entry == entry(weight=5)
            assert client.list().entries == (entry(weight=5),)
            assert client.select("s") == entry(weight=5)
        assert client.get("s", "n/1") is None
        assert client.deregister(entry().key) is False


def test_leases_are_renewed_while_the_script_does_something_else() -> None:
    with BlockingRegistryClient(FakeBackend()) as client:
        client.register(entry(), 0.6)
        time.sleep(1.5)
        assert client.get("s", "n/1") == entry()


def test_errors_come_through() -> None:
    backend = FakeBackend()
    with BlockingRegistryClient(backend) as client:
        backend.fail_next()
        with pytest.raises(RegistryUnavailable):
            client.list()


def test_a_watch_is_an_iterator_and_may_be_left() -> None:
    with BlockingRegistryClient(FakeBackend()) as client:
        seen = []
        for number, snapshot in enumerate(client.watch("s")):
            seen.append([item.instance for item in snapshot.entries])
            if number == 2:
                break
            client.register(entry(f"n/{number}"), 10)
        assert seen == [[], ["n/0"], ["n/0", "n/1"]]


def test_closing_ends_a_watch_in_another_thread() -> None:
    client, seen, first = BlockingRegistryClient(FakeBackend()), list[Snapshot](), threading.Event()

    def follow() -> None:
        for snapshot in client.watch():
            seen.append(snapshot)
            first.set()

    thread = threading.Thread(target=follow)
    thread.start()
    assert first.wait(5)
    client.close()
    thread.join(5)
    assert not thread.is_alive()
    assert len(seen) == 1


def test_a_closed_client_says_so_and_its_thread_is_gone() -> None:
    before = threading.active_count()
    client = BlockingRegistryClient(FakeBackend())
    client.close()
    client.close()
    assert threading.active_count() == before
    with pytest.raises(RegistryRejected, match="closed"):
        client.list()


def test_several_threads_may_share_a_client() -> None:
    with BlockingRegistryClient(FakeBackend()) as client:
        threads = [
            threading.Thread(target=lambda number=number: client.register(entry(f"n/{number}"), 10))
            for number in range(10)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
        assert len(client.list("s").entries) == 10
