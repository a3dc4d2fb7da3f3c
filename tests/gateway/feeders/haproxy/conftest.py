"""Async tests run in a loop of their own; a real HAProxy, and servers behind it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.gateway.feeders.haproxy.origin import Origin
from tests.servers.fixtures import *  # noqa: F403  # the real servers
from tests.servers.fixtures import StartServer
from tests.servers.haproxy import Haproxy


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an async test function."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture
def haproxy(start_server: StartServer) -> Haproxy:
    """A HAProxy with eight free slots for the service `cart`."""
    return start_server(Haproxy)


@pytest.fixture
def origins() -> Iterator[Callable[[int], list[Origin]]]:
    """So many servers, in threads of this process."""
    with ExitStack() as stack:
        yield lambda count: [stack.enter_context(Origin()) for _ in range(count)]
