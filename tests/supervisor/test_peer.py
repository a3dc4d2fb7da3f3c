"""Whose the other end of a connection is, where the kernel is asked for it and where it only lists all of them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from supervisor import peer
from supervisor.peer import owner_of

STRANGER = 65534


@pytest.fixture(params=["asked", "listed"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """`listed`: a kernel that cannot be asked for one connection. `asked`: a list that shows nothing."""

    def refuse(*_: object) -> None:
        raise OSError("not here")

    if request.param == "listed":
        monkeypatch.setattr(peer, "_asked_owner", refuse)
    else:
        monkeypatch.setattr(peer, "_listed_owner", lambda *_: None)
    return str(request.param)


@contextmanager
def connection(host: str) -> Iterator[tuple[socket.socket, str, str]]:
    """The client's socket, and both ends as the server sees them."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2], 5) as client,
    ):
        server, _ = listener.accept()
        with server:
            yield client, _end(server.getpeername()), _end(server.getsockname())


def _end(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_our_own_connection_is_ours(host: str) -> None:
    with connection(host) as (_, theirs, ours):
        assert owner_of(theirs, ours) == os.geteuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_strangers_connection_is_the_strangers(host: str) -> None:
    """A socket belongs to whom it was made by."""
    os.seteuid(STRANGER)
    try:
        made = connection(host)
        _, theirs, ours = made.__enter__()
    finally:
        os.seteuid(0)
    assert owner_of(theirs, ours) == STRANGER
    made.__exit__(None, None, None)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_who_has_hung_up_is_nobody(host: str) -> None:
    with connection(host) as (client, theirs, ours):
        client.close()
        assert owner_of(theirs, ours) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_same_port_towards_somebody_else_does_not_count(host: str) -> None:
    with connection(host) as (_, theirs, ours), connection(host) as (_, _, other):
        assert owner_of(theirs, other) is None


def test_a_listener_on_that_port_is_no_connection() -> None:
    with connection("127.0.0.1") as (_, theirs, ours):
        assert owner_of(ours, "127.0.0.1:1") is None
