"""`python -m registry_client` and the blocking client on the real servers: what one writes, the other shows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry_client import BlockingRegistryClient, Tls, open_backend
from registry_client.command import main
from tests.servers.fixtures import ShareServer
from tests.servers.redis import Redis

from .serving import make_entry
from .test_command import clean_surroundings, running

__all__ = ["clean_surroundings"]  # a fixture for all tests of this module, too

pytestmark = pytest.mark.real
FIXTURES = {"consul": "consul", "etcd": "etcd", "zookeeper": "zookeeper", "redis": "redis_server"}


@pytest.fixture(params=FIXTURES)
def place(request: pytest.FixtureRequest, namespace: str) -> Iterator[tuple[str, str, str]]:
    """(backend, url, prefix) of a real server and a corner of it."""
    server = request.getfixturevalue(FIXTURES[request.param])
    scheme = "zookeeper://" if request.param == "zookeeper" else ""  # the others' urls have theirs
    yield request.param, scheme + server.url, namespace


def test_what_a_script_registers_is_what_the_command_shows(
    place: tuple[str, str, str], namespace: str, capsys: Any
) -> None:
    backend, url, prefix = place
    options = ["--backend", backend, "--url", url, "--prefix", prefix, "--timeout", "10"]
    entry = make_entry("web-7/cart:0", namespace, port=9080, weight=10)
    with (
        BlockingRegistryClient(open_backend(backend, url=url, prefix=prefix, timeout_seconds=10.0)) as client,
        running("watch", namespace, *options) as watch,
    ):
        watch.complaint(f"watching {namespace}: 0 registered")
        with client.register(entry, 10) as lease:
            assert re.search(rf"Z \+ {namespace} web-7/cart:0  127\.0\.0\.1:9080 up weight 10/100", watch.line())
            lease.update(weight=5, status="draining")
            assert watch.line().endswith("web-7/cart:0  status up -> draining, weight 10 -> 5\n")
            assert client.select(namespace) is None
            assert main(["list", namespace, *options, "-o", "json"]) == 0
            assert json.loads(capsys.readouterr().out)["entries"] == [lease.entry.to_json()]
            assert main(["get", namespace, "web-7/cart:0", *options]) == 0
            assert re.search(r"^weight +5$", capsys.readouterr().out, re.M)
        assert watch.line().endswith(f"Z - {namespace} web-7/cart:0\n")
        assert main(["get", namespace, "web-7/cart:0", *options]) == 1
        assert watch.end() == 130
        assert watch.out.empty() and watch.err.empty()


def test_inspect_tells_the_version_the_ttl_and_the_bound(place: tuple[str, str, str], capsys: Any) -> None:
    backend, url, prefix = place
    options = ["--backend", backend, "--url", url, "--prefix", prefix, "--timeout", "10", "-o", "json"]
    assert main(["inspect", "--ttl", "5", *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["backend"] == backend and re.match(r"v?\d+\.\d+", report["version"])
    assert 0 < report["granted_ttl_seconds"] <= report["removal_bound_seconds"]
    offset = report["clock_offset_seconds"]
    assert offset is None or (offset["min"] <= 0.1 and offset["max"] >= -0.1)  # it is on this machine


def test_a_server_behind_tls_and_a_password_is_read_with_files(
    share_server: ShareServer, tmp_path: Path, capsys: Any
) -> None:
    server = share_server(Redis, tls=True, password=True)
    files = server.certificates
    assert files is not None and server.password is not None
    (tmp_path / "password").write_text(server.password)
    tls = Tls(ca=str(files.ca), cert=str(files.client_certificate), key=str(files.client_key))
    options = ["list", "tls", "--backend", "redis", "--url", server.url, "--timeout", "10"]
    shown = ["--ca", str(files.ca), "--cert", str(files.client_certificate), "--key", str(files.client_key)]
    backend = open_backend("redis", url=server.url, tls=tls, password=server.password, timeout_seconds=10.0)
    with BlockingRegistryClient(backend) as client, client.register(make_entry(service="tls"), 10):
        assert main([*options, *shown, "--password-file", str(tmp_path / "password")]) == 0
        assert main([*options, *shown]) == 4  # no password
        assert main(options) == 69  # nobody whom we trust
        assert server.password not in capsys.readouterr().err
