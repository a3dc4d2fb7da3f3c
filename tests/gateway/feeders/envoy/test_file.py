"""The file of a service: who stands in it, and that it is whole or not there."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.errors import GatewayRefused, GatewayUnreachable
from gateway.feeders import envoy_file
from gateway.feeders.envoy_admin import Cluster, Host
from gateway.feeders.envoy_file import Written
from gateway.feeders.envoy_told import LEAVING_SECONDS, Told
from gateway.model import Key, Pool, Server, Standing


def _server(instance: str, *, generation: int = 1, port: int = 80, draining: bool = False) -> Server:
    standing = Standing.DRAINING if draining else Standing.SERVING
    return Server(
        service="web", instance=instance, generation=generation, address="10.0.0.1", port=port,
        weight=0 if draining else 10, full_weight=10, standing=standing,
    )  # fmt: skip


def _take(told: Told, *servers: Server, now: float = 0.0, known: bool = True) -> None:
    places = {server.key: (server.address, server.port) for server in servers}
    there = {*told.places.values(), *places.values()} if known else set()
    told.take(Pool("web", 1, "epoch", servers), places, there, now)


def _told(*servers: Server) -> Told:
    told = Told(Pool("web", 0, "epoch"))
    _take(told, *servers)
    return told


def _lines(told: Told) -> list[tuple[str, int, bool]]:
    return [(each.instance, each.port, each.draining) for each in told.endpoints()]


def _cluster(told: Told, key: Key, in_flight: int, health: str = "DRAINING") -> Cluster:
    place = told.places[key]
    return Cluster("web", {place: Host(place, 1, health, False, False, False, {"rq_active": in_flight})})


def test_who_leaves_stays_draining_until_nothing_is_open_at_any_envoy() -> None:
    """And for no longer than is reasonable."""
    a, b = _server("a"), _server("b", port=81)
    told = _told(a, b)
    _take(told, b)
    assert _lines(told) == [("b", 81, False), ("a", 80, True)]
    assert told.serving() == {b.key}
    assert not told.let_go([_cluster(told, a.key, 0), _cluster(told, a.key, 1)])
    assert not told.let_go([_cluster(told, a.key, 0, "HEALTHY")])  # it has not been told yet
    assert told.let_go([_cluster(told, a.key, 0)])
    assert _lines(told) == [("b", 81, False)]
    _take(told)
    _take(told, now=LEAVING_SECONDS)
    assert _lines(told) == []


def test_who_leaves_and_is_known_to_no_envoy_is_gone() -> None:
    """Nothing can be open there."""
    told = _told(_server("a"))
    _take(told, known=False)
    assert _lines(told) == []


def test_who_leaves_makes_way_for_who_comes_to_its_place() -> None:
    """A new life, or another instance; and it may come back itself."""
    a = _server("a")
    told = _told(a)
    _take(told, _server("a", generation=2))
    assert [(each.generation, each.draining) for each in told.endpoints()] == [(2, False)]
    _take(told, _server("c"))
    assert _lines(told) == [("c", 80, False)]
    _take(told)
    _take(told, _server("c"))
    assert _lines(told) == [("c", 80, False)]


def test_of_two_at_one_place_the_newest_that_serves_counts() -> None:
    """Both are sent to then: Envoy knows places only."""
    a, b = _server("a", generation=3, draining=True), _server("b", generation=2)
    c = _server("c", generation=1)
    told = _told(a, b, c)
    assert _lines(told) == [("b", 80, False)]
    assert told.serving() == {a.key, b.key, c.key}


def test_without_draining_whoever_gets_nothing_new_is_left_out() -> None:
    """As where Envoy might panic."""
    told = _told(_server("a"), _server("b", port=81, draining=True))
    told.drains = False
    assert _lines(told) == [("a", 80, False)]


def test_what_is_written_is_what_is_read_and_may_be_read_by_others(tmp_path: Path) -> None:
    """Envoy runs as another user; nothing is left beside the file."""
    path = str(tmp_path / "web.json")
    resources = envoy_file.resources("web", _told(_server("a")).endpoints(), zones=False)
    old = os.umask(0o077)
    try:
        envoy_file.write(path, Written("7", resources))
    finally:
        os.umask(old)
    assert envoy_file.read(path) == Written("7", resources)
    assert os.stat(path).st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == ["web.json"]


def test_weights_are_never_zero() -> None:
    """Envoy would refuse the whole file."""
    drained = replace(_server("a", draining=True), full_weight=0)
    resources = envoy_file.resources("web", _told(drained).endpoints(), zones=False)
    assert resources[0]["endpoints"][0]["lb_endpoints"][0]["load_balancing_weight"] == 1


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOSPC, GatewayUnreachable), (errno.EIO, GatewayUnreachable), (errno.EROFS, GatewayRefused)],
)
def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    """A full disk may have room again; a folder that is read-only needs somebody."""
    path = str(tmp_path / "web.json")
    envoy_file.write(path, Written("1", []))

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(error, match=os.strerror(number)):
        envoy_file.write(path, Written("2", []))
    assert envoy_file.read(path) == Written("1", [])
    assert os.listdir(tmp_path) == ["web.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "{}", '{"version_info": "1", "resources": 7}', "[" * 100_000])
def test_what_we_would_not_write_is_nothing(tmp_path: Path, text: str) -> None:
    """It is written anew."""
    path = tmp_path / "web.json"
    path.write_text(text)
    assert envoy_file.read(str(path)) is None
