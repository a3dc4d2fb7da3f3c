"""Every scenario of this folder runs with each kind of registry, on the real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.end_to_end.host import Host
from tests.end_to_end.registries.site import KINDS, Site
from tests.servers import Proxy, Server
from tests.servers.fixtures import ShareServer, namespace, open_proxy, share_server, start_server

__all__ = ["namespace", "open_proxy", "share_server", "start_server"]


@pytest.fixture(params=KINDS)
def site(
    request: pytest.FixtureRequest,
    host: Host,
    share_server: ShareServer,
    open_proxy: Callable[[Server | int], Proxy],
    namespace: str,
) -> Iterator[Site]:
    """A host, not started yet, and the registry that it is to use."""
    server = share_server(KINDS[request.param])
    made = Site(request.param, host, server, open_proxy(server), namespace)
    yield made
    made.end()
