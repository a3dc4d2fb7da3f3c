"""blocking.py."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from registry_client import (
    BlockingRegistryClient,
    Entry,
    LeaseState,
    RegistryRejected,
    RegistryUnavailable,
    Snapshot,
    open_backend,
)
from registry_client.testing import FakeBackend

from .serving import heeding_ctrl_c


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


def test_a_lease_tells_whether_it_is_kept_and_what_went_wrong() -> None:
    backend = FakeBackend()
    with BlockingRegistryClient(backend) as client:
        lease = client.register(entry(), 0.6)
        assert lease.is_running and lease.error is None
        client.register(entry(generation=2), 10)
        wait_until(lambda: not lease.is_running)
        assert isinstance(lease.error, RegistryRejected) and lease.error.code == "stale_generation"
        assert lease.close() is False


def test_leases_may_be_asked_and_closed_after_their_client() -> None:
    client = BlockingRegistryClient(FakeBackend())
    lease = client.register(entry(), 10)
    client.close()
    assert (lease.state, lease.is_running, lease.close()) == (LeaseState.ABSENT, False, True)
    with pytest.raises(RegistryRejected, match="closed"):
        lease.update(weight=1)


def test_the_registry_can_be_inspected() -> None:
    with BlockingRegistryClient(FakeBackend()) as client:
        assert client.inspect(0.1).granted_ttl_seconds == 0.5


class SlowToEnd(FakeBackend):
    """A watch that has something to tidy up."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting, self.ending, self.ended = threading.Event(), threading.Event(), threading.Event()

    async def watch(
        self, service: str | None = None, since: int = 0, epoch: str | None = None
    ) -> AsyncGenerator[Snapshot, None]:
        yield Snapshot(1, "e", service, ())
        try:
            self.waiting.set()
            await asyncio.Event().wait()
        finally:
            self.ending.set()
            await asyncio.sleep(0.1)
            self.ended.set()


def test_ctrl_c_in_a_watch_is_just_that_and_ends_the_watch() -> None:
    backend, main_thread = SlowToEnd(), threading.get_ident()

    def press() -> None:
        assert backend.waiting.wait(5)
        signal.pthread_kill(main_thread, signal.SIGINT)
        while not backend.ending.wait(2):  # Python misses a signal that comes just before it waits for a lock
            signal.pthread_kill(main_thread, signal.SIGINT)

    with heeding_ctrl_c(), BlockingRegistryClient(backend) as client:
        thread = threading.Thread(target=press)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            for _ in client.watch():
                pass
        assert backend.ended.is_set()
        thread.join(5)


def test_a_watch_that_the_garbage_collector_finds_in_the_clients_thread_does_not_block_it() -> None:
    backend = FakeBackend()
    with BlockingRegistryClient(backend) as client:
        held = [client.watch()]
        assert next(held[0]).entries == ()
        client._thread.call(drop(held))
        assert client.list().entries == ()


async def drop(held: list[Any]) -> None:
    held.clear()


@pytest.mark.parametrize("name", ["http", "consul", "etcd", "zookeeper", "redis"])
def test_every_backend_can_be_made_without_a_loop_and_closed_unused(name: str) -> None:
    threads = threading.active_count()
    schemes = {"redis": "redis://", "zookeeper": "zookeeper://"}
    backend = open_backend(name, url=f"{schemes.get(name, 'http://')}127.0.0.1:1")
    assert threading.active_count() == threads  # nothing is begun before the first call
    BlockingRegistryClient(backend).close()
    assert threading.active_count() == threads


def wait_until(condition: Callable[[], bool], seconds: float = 8.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
