"""The encrypted port: what is refused, what cannot hold up others, and certificates that change."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.host import http as limits
from tests.end_to_end.host import ROOT, UNITD, Host
from tests.end_to_end.machine import until
from tests.end_to_end.secure.scene import TOKENS, Authority, Client, Secure


def raw(port: int, timeout: float = 10.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout)


def serial_of(secure: Secure) -> int:
    """Of the certificate that is shown now."""
    with raw(secure.port) as plain, secure.context().wrap_socket(plain, server_hostname="127.0.0.1") as shown:
        certificate = shown.getpeercert()
        assert certificate is not None
        return int(str(certificate["serialNumber"]), 16)


def test_plain_http_is_told_so_and_closed_at_once(secure: Secure) -> None:
    with raw(secure.port) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        response = http.client.HTTPResponse(plain)
        response.begin()
        told = json.loads(response.read())
        assert (response.status, told["code"]) == (400, "bad_request")
        assert "https://" in told["detail"]
        assert plain.recv(1) == b""


@pytest.mark.parametrize("junk", [b"\0" * 100, b"\x80\x2e\x01\x03\x01", b"\xff", "ü".encode()])
def test_what_is_neither_is_closed_without_a_word(secure: Secure, junk: bytes) -> None:
    with raw(secure.port) as plain:
        plain.sendall(junk)
        with contextlib.suppress(ConnectionResetError):
            assert plain.recv(100) == b""


def test_a_handshake_that_goes_wrong_is_closed(secure: Secure) -> None:
    with raw(secure.port) as plain:
        plain.sendall(b"\x16\x03\x01\x00\x05hello" + b"\0" * 200)
        data = plain.recv(100)
        assert data[:1] in (b"", b"\x15"), "an alert, if anything"
        with contextlib.suppress(ConnectionResetError):
            while data:
                data = plain.recv(100)


@pytest.mark.parametrize("version", ["TLSv1_1", "TLSv1_2", "TLSv1_3"])
def test_old_versions_of_tls_are_refused(secure: Secure, version: str) -> None:
    context = secure.context()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that is the point
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    if version == "TLSv1_1":
        with pytest.raises(OSError):
            secure.client("reader", context=context).ask("GET", "/v1/units")
    else:
        assert secure.client("reader", context=context).ask("GET", "/v1/units").status == 200


def test_a_client_that_trusts_another_authority_does_not_believe_it(secure: Secure) -> None:
    foreign = Authority(secure.host.folder / "another")
    with pytest.raises(ssl.SSLCertVerificationError):
        secure.client(context=secure.context(authority=foreign)).ask("GET", "/healthz")
    assert "no TLS with 127.0.0.1" in until("it is logged", secure.host.said)


def test_one_connection_serves_many_requests_and_large_answers(secure: Secure) -> None:
    connection = secure.client("admin").connection()
    try:
        for size in (0, 1, 100_000, 900_000):
            reason = "x" * size
            body = json.dumps({"reason": reason, "parameters": {"signal": "CONT"}})
            connection.request("POST", "/v1/units/plain/signal", body, {"Authorization": f"Bearer {TOKENS['admin']}"})
            response = connection.getresponse()
            assert (response.status, len(json.loads(response.read())["reason"])) == (202, size)
    finally:
        connection.close()


def test_a_body_that_is_too_long_is_refused_with_an_answer(secure: Secure) -> None:
    connection = secure.client().connection()
    try:
        connection.putrequest("POST", "/v1/config/plan")
        connection.putheader("Authorization", f"Bearer {TOKENS['admin']}")
        connection.putheader("Content-Length", str(10_000_000))
        connection.endheaders()
        connection.send(b"x" * 1000)
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())["code"]) == (413, "too_large")
    finally:
        connection.close()


def test_nobody_sends_a_body_who_may_not(secure: Secure) -> None:
    connection = secure.client().connection()
    try:
        connection.putrequest("POST", "/v1/config/plan")
        connection.putheader("Content-Length", "1000000")
        connection.putheader("Expect", "100-continue")
        connection.endheaders()
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())["code"]) == (401, "unauthenticated")
    finally:
        connection.close()


def test_events_are_streamed(secure: Secure) -> None:
    connection = secure.client().connection()
    try:
        connection.request("GET", "/v1/events?since=0", headers={"Authorization": f"Bearer {TOKENS['reader']}"})
        response = connection.getresponse()
        assert response.status == 200 and response.readline().startswith(b":")
        secure.client("operator").ask("POST", "/v1/units/plain/restart", {})
        text = b""
        while b'"plain"' not in text:
            text = response.readline()
            assert text
    finally:
        connection.close()


def test_requests_sent_ahead_are_answered_in_order(secure: Secure) -> None:
    with raw(secure.port) as plain, secure.context().wrap_socket(plain, server_hostname="127.0.0.1") as shown:
        shown.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        data = b""
        while data.count(b"ok\n") < 20:
            more = shown.recv(65536)
            assert more, data
            data += more


def test_who_hangs_up_in_the_middle_leaves_nothing_behind(secure: Secure) -> None:
    def sockets() -> int:
        return sum(os.readlink(path).startswith("socket:") for path in fds())

    def fds() -> Iterator[str]:
        for number in os.listdir(f"/proc/{secure.host.pid}/fd"):
            path = f"/proc/{secure.host.pid}/fd/{number}"
            if os.path.lexists(path):
                yield path

    before = sockets()
    for sent in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"):
        with raw(secure.port) as plain:
            plain.sendall(sent)
    with raw(secure.port) as plain:
        shown = secure.context().wrap_socket(plain, server_hostname="127.0.0.1")
        shown.sendall(b"POST /v1/units/plain/warm HTTP/1.1\r\nHost: x\r\nContent-Len")
        shown.close()
    until("all connections are gone", lambda: sockets() <= before)


@pytest.fixture
def own(host: Host) -> Secure:
    """A daemon of its own."""
    made = Secure(host)
    host.run()
    return made


def test_those_who_never_finish_their_handshake_hold_up_nobody(own: Secure) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(100):
            silent = stack.enter_context(raw(own.port))
            silent.sendall((b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")[number % 3])
        began = time.monotonic()
        for _ in range(20):
            assert own.client("reader").ask("GET", "/v1/units").status == 200
        assert time.monotonic() - began < 8


def test_connections_that_are_not_encrypted_yet_count_and_leave_room_for_people_on_the_host(own: Secure) -> None:
    most = limits.MAX_CONNECTIONS + limits._EXTRA_CONNECTIONS
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(raw(own.port)) for _ in range(most)]
        with raw(own.port) as one_more:
            assert one_more.recv(1) == b"", "closed without a word"
        assert own.host.ask("GET", "/readyz").status == 200, "the unix socket has room of its own"
        silent[0].close()
        refused = until("there is a place", lambda: _told(own))
        assert refused == (503, "overloaded")
        # Those who say nothing are cut after a while, and there is room again.
        until("there is room", lambda: _told(own) == (401, "unauthenticated"), 15)


def _told(secure: Secure) -> tuple[int, str] | None:
    try:
        answer = secure.client().ask("GET", "/v1/units")
    except OSError:
        return None
    return answer.status, answer.json["code"]


def test_new_certificates_count_for_new_connections_without_a_restart(own: Secure) -> None:
    old = serial_of(own)
    lasting = own.client("reader").connection()
    shown = {"Authorization": f"Bearer {TOKENS['reader']}"}
    lasting.request("GET", "/v1/units", headers=shown)
    assert lasting.getresponse().read()
    own.authority.write("node", "127.0.0.1", "localhost")
    assert serial_of(own) != old
    lasting.request("GET", "/v1/units", headers=shown)
    assert lasting.getresponse().status == 200, "what is open stays"
    lasting.close()


def test_a_new_file_that_is_broken_leaves_the_old_certificate_in_use(own: Secure) -> None:
    good, old = own.certificate.read_bytes(), serial_of(own)
    for broken in (b"", b"no certificate", good[: len(good) // 2]):
        own.certificate.write_bytes(broken)
        assert serial_of(own) == old
    until("it is logged", lambda: "the certificate that was read before stays" in own.host.said())
    own.certificate.unlink()
    assert serial_of(own) == old
    own.authority.write("node", "127.0.0.1", "localhost")
    assert serial_of(own) != old, "the next good one counts"
    said = own.host.said()
    assert said.count("stays") <= 5, "one line for each broken file"


def test_a_new_authority_of_clients_counts_at_once(own: Secure) -> None:
    shown = own.authority.write("center", "center.example")
    client = own.client(context=own.context(shown))
    assert client.ask("GET", "/v1/units").status == 200
    other = Authority(own.host.folder / "other")
    own.authority.ca_file.write_bytes(other.ca_file.read_bytes())
    trusting = ssl.create_default_context(cadata=own.authority.ca.cert_pem.bytes().decode())
    trusting.load_cert_chain(shown)
    with pytest.raises(OSError):
        own.client(context=trusting).ask("GET", "/healthz")
    trusting = ssl.create_default_context(cadata=own.authority.ca.cert_pem.bytes().decode())
    trusting.load_cert_chain(other.write("center", "center.example"))
    assert own.client(context=trusting).ask("GET", "/v1/units").status == 200


@pytest.mark.parametrize(("content", "words"), [(None, "No such file"), ("", "cannot use"), ("rubbish", "cannot use")])
def test_a_certificate_that_cannot_be_used_at_the_start_is_an_error(
    host: Host, content: str | None, words: str
) -> None:
    path = host.folder / "broken.pem"
    if content is not None:
        path.write_text(content)
    host.configure(f'http.tls = {{ cert = "{path}" }}', http=f"127.0.0.1:{host.port()}")
    ended = subprocess.run(
        [*UNITD, "-c", str(host.config)], cwd=ROOT, capture_output=True, text=True, timeout=15, check=False
    )
    assert ended.returncode == 2
    assert "http.tls" in ended.stderr and words.lower() in ended.stderr.lower() and str(path) in ended.stderr
    assert not Path(host.socket).exists()


def test_a_daemon_without_tls_does_not_map_openssl(host: Host) -> None:
    port = host.port()
    host.configure("", http=f"127.0.0.1:{port}")
    host.run()
    assert host.ask("POST", "/v1/config/apply", {"command_id": "x"}).status == 202, "which is written to the audit log"
    maps = Path(f"/proc/{host.pid}/maps").read_text()
    assert "libssl" not in maps and "libcrypto" not in maps


def test_guesses_do_not_fill_the_log(own: Secure) -> None:
    for _ in range(30):
        assert Client(own.port, own.context(), "guess").ask("POST", "/v1/shutdown", {}).status == 401
    said = own.host.said()
    assert said.count("its token is unknown") == 1
    assert [line["code"] for line in own.audit()] == ["unauthenticated"]
    assert "guess" not in said and "guess" not in json.dumps(own.audit())


def test_many_clients_at_once_are_all_served(own: Secure) -> None:
    statuses = []

    def ask() -> None:
        statuses.append(own.client("reader").ask("GET", "/v1/units").status)

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert statuses == [200] * 40
