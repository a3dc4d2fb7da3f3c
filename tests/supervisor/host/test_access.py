"""Who may use the control API, with real connections of real users where the kernel is asked."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from supervisor.core.access import Principal, Role, token_hash
from supervisor.host.access import Access, Denied
from supervisor.host.http import Peer, Request
from supervisor.host.listener import peer_of

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
STRANGER = 65534


def over_unix(uid: int, gid: int = 4242, pid: int | None = 1, method: str = "POST") -> Request:
    return Request(method, "/v1/shutdown", {}, {}, b"", Peer(uid, gid, pid, "unix"))


def over_tcp(peer: Peer, method: str = "POST", **headers: str) -> Request:
    known = {"host": "127.0.0.1:9301", **headers}
    return Request(method, "/v1/shutdown", {}, known, b"", peer)


def tcp(address: str) -> Peer:
    return Peer(None, None, None, address, "127.0.0.1:9301" if "." in address else "::1:9301")


@contextmanager
def connected(code: str = "", uid: int | None = None, host: str = "127.0.0.1") -> Iterator[Peer]:
    """A connection that another process made as that user, after which it ran `code`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        listener.listen()
        program = (
            f"import encodings.idna, os, socket, sys\nos.setuid({os.geteuid() if uid is None else uid})\n"
            f"made = socket.create_connection({(host, listener.getsockname()[1])})\n{code}\n"
            "print('done', flush=True)\nsys.stdin.read()"
        )
        with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1) as client:
            assert client.stdout is not None and client.stdout.readline() == b"done\n"
            accepted, _ = listener.accept()
            with accepted:
                yield peer_of(accepted)
            assert client.stdin is not None
            client.stdin.close()


# On the unix socket.


def test_root_and_the_daemons_own_user_may_do_everything() -> None:
    access = Access(None)
    assert access.refuses(over_unix(0)) is None
    assert access.refuses(over_unix(os.geteuid())) is None


def test_others_may_not_even_look() -> None:
    for method in ("GET", "POST"):
        refused = Access(None).refuses(over_unix(STRANGER, method=method))
        assert refused is not None and refused.startswith(f"uid {STRANGER} may not use unitd: become root, or a member")


def test_members_of_the_sockets_group_may_by_their_first_group() -> None:
    assert Access(4242).refuses(over_unix(STRANGER, gid=4242)) is None
    assert Access(4242).refuses(over_unix(STRANGER, gid=4243)) is not None


def test_a_gid_of_0_is_no_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of other users run with root's group here and there."""
    assert Access(None).refuses(over_unix(STRANGER, gid=0)) is not None
    monkeypatch.setattr(os, "getegid", lambda: 77)
    assert Access(None).refuses(over_unix(STRANGER, gid=77)) is None, "the daemon's own group"


@as_root
def test_members_of_the_sockets_group_may_by_any_of_their_groups() -> None:
    code = "import os, sys\nos.setgroups([4242, 4243])\nos.setuid(65534)\nprint(flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as member:
        assert member.stdin is not None and member.stdout is not None and member.stdout.readline()
        request = over_unix(STRANGER, gid=STRANGER, pid=member.pid)
        assert Access(4243).refuses(request) is None
        assert Access(4244).refuses(request) is not None
        member.stdin.close()
    assert Access(4243).refuses(request) is not None, "who has gone is nobody's member"


# Over TCP.


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_our_own_user_may_command_over_tcp(host: str) -> None:
    with connected(host=host) as peer:
        assert Access(None).refuses(over_tcp(peer)) is None


@as_root
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_other_users_may_look_over_tcp_but_not_command(host: str) -> None:
    with connected(uid=STRANGER, host=host) as peer:
        assert Access(None).refuses(over_tcp(peer, method="GET")) is None
        assert Access(None).refuses(over_tcp(peer, method="HEAD")) is None
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
            refused = Access(None).refuses(over_tcp(peer, method=method))
            assert refused is not None and refused.startswith("only root and the user that unitd runs as may command")


@as_root
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("code", ["made.close()", "made.send(b'x'); made.close()", "made.shutdown(1); made.close()"])
def test_hanging_up_does_not_make_a_stranger_root(host: str, code: str) -> None:
    """The kernel lists a connection that its program has closed as root's."""
    with connected(code, uid=STRANGER, host=host) as peer:
        assert Access(None).refuses(over_tcp(peer)) is not None


@as_root
def test_a_stranger_who_has_only_stopped_sending_is_still_known() -> None:
    with connected("made.shutdown(1)") as peer:
        assert Access(None).refuses(over_tcp(peer)) is None
    with connected("made.shutdown(1)", uid=STRANGER) as peer:
        assert Access(None).refuses(over_tcp(peer)) is not None


def test_a_connection_from_the_same_port_to_another_one_does_not_count() -> None:
    """Two programs may have the same port at their ends when they are connected to different ones."""
    with connected() as peer:
        assert Access(None).refuses(over_tcp(peer)) is None
        assert Access(None).refuses(over_tcp(dataclasses.replace(peer, ours="127.0.0.1:1"))) is not None


def test_a_caller_whom_the_kernel_does_not_know_is_refused() -> None:
    assert Access(None).refuses(over_tcp(tcp("127.0.0.1:1"))) is not None
    assert Access(None).refuses(over_tcp(tcp("::1:1"))) is not None


def test_web_pages_may_not_command() -> None:
    with connected() as peer:
        refused = Access(None).refuses(over_tcp(peer, origin="http://127.0.0.1:9301"))
        assert refused == "this API takes no commands from web pages"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9301", "127.0.0.1", "127.0.0.1:9301", "[::1]", "[::1]:9301"])
def test_it_is_served_under_the_names_of_this_host(host: str) -> None:
    assert Access(None).refuses(over_tcp(tcp("127.0.0.1:1"), method="GET", host=host)) is None


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9301", "127.0.0.1.evil.example", "10.0.0.7:9301"])
def test_it_is_not_served_under_a_strangers_name(host: str) -> None:
    """A page of that name could be made to lead here (DNS rebinding)."""
    refused = Access(None).refuses(over_tcp(tcp("127.0.0.1:1"), method="GET", host=host))
    assert refused is not None and refused.endswith("use 127.0.0.1")


# With a credential.

READER = Principal("reader", Role.READ, token_sha256=(token_hash("secret"),), certificates=("reader.example",))
FAR = Peer(None, None, None, "10.0.0.9:4711", "10.0.0.7:9301")


def shown(method: str = "POST", peer: Peer = FAR, **headers: str) -> Principal | Denied:
    return Access(None, (READER,)).caller(over_tcp(peer, method, **headers))


@pytest.mark.parametrize("value", ["Bearer secret", "bearer secret", "BEARER  secret "])
def test_a_token_says_who_calls(value: str) -> None:
    assert shown(authorization=value) is READER
    assert shown("GET", authorization=value, host="web-7.example") is READER, "under any name"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "secret",
        "Bearer",
        "Bearer ",
        "Bearer Secret",
        "Bearer secret, Bearer secret",
        "Basic secret",
        "Bearersecret",
    ],
)
def test_anything_else_says_nothing(value: str) -> None:
    found = shown(authorization=value)
    assert isinstance(found, Denied) and found.code == "unauthenticated"
    assert "secret" not in found.detail.replace("Bearer TOKEN", "")


def test_a_verified_certificate_says_who_calls() -> None:
    assert shown(peer=dataclasses.replace(FAR, names=("x", "reader.example"))) is READER
    found = shown(peer=dataclasses.replace(FAR, names=("x", "y")))
    assert isinstance(found, Denied) and found.detail.endswith("x, y")


def test_a_page_that_shows_a_token_still_cannot_command() -> None:
    found = shown(authorization="Bearer secret", origin="https://evil.example")
    assert isinstance(found, Denied) and found.code == "forbidden"
    assert shown("GET", authorization="Bearer secret", origin="https://evil.example") is READER


def test_with_entries_root_needs_a_credential_over_tcp_and_none_on_the_unix_socket() -> None:
    access = Access(None, (READER,))
    with connected() as peer:
        assert isinstance(access.caller(over_tcp(peer)), Denied)
        assert isinstance(access.caller(over_tcp(peer, "GET")), Denied)
    found = access.caller(over_unix(0))
    assert isinstance(found, Principal) and (found.name, found.role) == ("uid 0", Role.ADMIN)


def test_only_the_first_of_many_failures_is_told(caplog: pytest.LogCaptureFixture) -> None:
    access = Access(None, (READER,))
    found = [access.caller(over_tcp(FAR, authorization=f"Bearer guess-{number}")) for number in range(50)]
    assert [each.first for each in found if isinstance(each, Denied)] == [True] + [False] * 49
    assert len(caplog.messages) == 1 and "guess" not in caplog.text
    other = access.caller(over_tcp(dataclasses.replace(FAR, address="10.0.0.10:1"), authorization="Bearer x"))
    assert isinstance(other, Denied) and other.first, "another address"


def test_without_entries_a_caller_on_loopback_is_known_by_its_user() -> None:
    access = Access(None)
    with connected() as peer:
        found = access.caller(over_tcp(peer))
        assert isinstance(found, Principal) and (found.name, found.role) == (f"uid {os.geteuid()}", Role.ADMIN)
        reader = access.caller(over_tcp(peer, "GET"))
        assert isinstance(reader, Principal) and reader.role is Role.READ


def test_whether_somebody_may_command_can_be_asked_before() -> None:
    access = Access(None, (READER,))
    request = over_tcp(FAR, "GET", authorization="Bearer secret")
    found = access.caller(request)
    assert found is READER
    request.caller = READER
    assert access.may_not_command(request) == "reader has the role read, which may not command units"
    request.caller = dataclasses.replace(READER, role=Role.OPERATE)
    assert access.may_not_command(request) is None
    assert access.may_not_command(over_unix(0, method="GET")) is None
    assert access.may_not_command(over_unix(STRANGER, method="GET")) is not None


def test_somebody_on_this_host_who_may_not_is_named_and_cannot_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    access = Access(None)
    found = [access.caller(over_unix(STRANGER)) for _ in range(20)]
    assert all(isinstance(each, Denied) and each.who == f"uid {STRANGER}" for each in found)
    assert [each.first for each in found if isinstance(each, Denied)] == [True] + [False] * 19
    page = [access.caller(over_tcp(tcp("127.0.0.1:1"), origin="http://evil.example")) for _ in range(20)]
    assert [each.first for each in page if isinstance(each, Denied)] == [True] + [False] * 19
    assert len(caplog.messages) == 2
