"""How the whole suite runs in several processes at once (`pytest -n 4`, pytest-xdist), on a machine with other work."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import settings

BETWEEN_LONG = 8  # tests

# How long an example takes says more about the machine's load than about what is tested.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Before the workers start: they inherit that SIGCHLD is blocked, and so does the thread with which xdist reads.

    Where that thread would take the signal, a signalfd of the test never sees it: signal(7), "Pending signals".
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})


def pytest_configure(config: pytest.Config) -> None:
    """In a worker: tests begin with no signal blocked, as without workers."""
    if hasattr(config, "workerinput"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker: each gets its share of the long tests, early, so that none is busy with one at the very end.

    `--dist worksteal` gives each worker a stretch of the list, and takes from the ends of stretches for those who are done.
    """
    if not hasattr(config, "workerinput"):
        return
    workers = config.workerinput["workercount"]
    stretch = -(-len(items) // workers)
    long = sorted(filter(_limit_seconds, items), key=_limit_seconds, reverse=True)
    others = iter([item for item in items if not _limit_seconds(item)])
    items[:] = [item for worker in range(workers) for item in islice(_mixed(long[worker::workers], others), stretch)]


def _mixed(long: list[pytest.Item], others: Iterator[pytest.Item]) -> Iterator[pytest.Item]:
    """Long ones not one after the other: they are demanding, and other workers have theirs at the same time."""
    for item in long:
        yield item
        yield from islice(others, BETWEEN_LONG)
    yield from others


def _limit_seconds(item: pytest.Item) -> float:
    """The test's own time limit; 0: it has none, for it is short."""
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark is not None and mark.args else 0.0
