"""A registry that is full: what it has is renewed, a new life of a unit runs and is registered once there is room."""

from __future__ import annotations

import base64
import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from tests.end_to_end.host import Host
from tests.end_to_end.registries.site import TTL, Site
from tests.servers import Etcd, Proxy, Redis, Server
from tests.servers.fixtures import StartServer

pytestmark = pytest.mark.timeout(60)
QUOTA_BYTES = 2_000_000
PIECE_BYTES = 200_000


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


class FullEtcd:
    """etcd at its quota."""

    def __init__(self, start_server: StartServer) -> None:
        self.server = start_server(Etcd, quota_bytes=QUOTA_BYTES)

    def fill(self) -> None:
        """Write until nothing more can be written; how much is in the file is known with each commit, every 0.1 s."""
        deadline = time.monotonic() + 10
        for number in count():
            assert time.monotonic() < deadline, "etcd has no quota"
            body = {"key": _base64(b"fill/%d" % number), "value": _base64(bytes(PIECE_BYTES))}
            status, answer = self.server.ask("POST", "/v3/kv/put", body)
            if status != 200:
                assert "space exceeded" in answer["error"]
                return

    def make_room(self) -> None:
        """What an operator does then: delete, compact, defragment, disarm."""
        deleted = self._do("/v3/kv/deleterange", {"key": _base64(b"fill/"), "range_end": _base64(b"fill0")})
        self._do("/v3/kv/compaction", {"revision": deleted["header"]["revision"], "physical": True})
        self._do("/v3/maintenance/defragment", {})
        alarm = {"action": "DEACTIVATE", "memberID": self.server.member_id(), "alarm": "NOSPACE"}
        self._do("/v3/maintenance/alarm", alarm)

    def _do(self, path: str, body: object) -> dict[str, dict[str, str]]:
        status, answer = self.server.ask("POST", path, body)
        assert status == 200, answer
        assert isinstance(answer, dict)
        return answer


class FullRedis:
    """Redis that has more in its memory than it may."""

    def __init__(self, start_server: StartServer) -> None:
        self.server = start_server(Redis)

    def fill(self) -> None:
        """Allow it less than it has."""
        self.server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        self.server.ask("CONFIG", "SET", "maxmemory", "1000")
        with pytest.raises(OSError, match="OOM"):
            self.server.ask("SET", "fill", "x")

    def make_room(self) -> None:
        """Allow it as much as it likes."""
        self.server.ask("CONFIG", "SET", "maxmemory", "0")


@pytest.fixture(params=["etcd", "redis"])
def full(request: pytest.FixtureRequest, start_server: StartServer) -> FullEtcd | FullRedis:
    """A registry of this test alone, not full yet."""
    return FullEtcd(start_server) if request.param == "etcd" else FullRedis(start_server)


@pytest.fixture
def site(
    host: Host, full: FullEtcd | FullRedis, open_proxy: Callable[[Server | int], Proxy], namespace: str
) -> Iterator[Site]:
    """A host, not started yet, that is to use this registry."""
    server = full.server
    made = Site("etcd" if isinstance(server, Etcd) else "redis", host, server, open_proxy(server), namespace)
    yield made
    made.end()


def test_a_full_registry_renews_and_takes_a_new_life_once_there_is_room(site: Site, full: FullEtcd | FullRedis) -> None:
    site.run()
    with site.untouched("shop:1"):
        generation, pid = site.living()["shop:1"], site.host.unit("shop:1")["pid"]
        full.fill()
        os.kill(pid, signal.SIGKILL)
        site.until("it runs again", lambda: site.living().get("shop:1") == generation + 1, 2 * TTL + 10)
        site.until("it is told why it is not registered", lambda: "not registered" in site.host.unit("shop:1")["why"])
        assert site.host.unit("shop:1")["lease"]["state"] != "held"
        site.stays("the others are registered", lambda: set(site.entries()) == {"shop:0", "shop:2"})
        full.make_room()
    assert site.living()["shop:1"] == generation + 1
