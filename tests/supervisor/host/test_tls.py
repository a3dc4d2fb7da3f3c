"""HTTPS, against real TLS servers; and that nobody pays for it who does not use it."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from supervisor.host.http_client import HttpFailed, request
from supervisor.host.tls import TlsOptions
from tests.supervisor.host.answering import OK, Speak, answering, listening, open_sockets, saying, until_it_hangs_up
from tests.supervisor.running import run, until

SHORT_SECONDS = 0.3


class Authority:
    """A certificate authority, and files of what it has signed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, trustme.CA()
        self.file = str(folder / "ca.pem")
        self.made.cert_pem.write_to_path(self.file)

    def server(self, *names: str, until: datetime | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.made.issue_cert(*names, not_after=until).configure_cert(context)
        return context

    def client(self) -> tuple[str, str]:
        issued, cert, key = self.made.issue_cert("unitd.test"), self.folder / "cert.pem", self.folder / "key.pem"
        issued.private_key_pem.write_to_path(str(key))
        issued.cert_chain_pems[0].write_to_path(str(cert))
        return str(cert), str(key)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def ask(
    context: ssl.SSLContext | None,
    options: TlsOptions,
    speak: Speak | bytes = OK,
    seconds: float = 10.0,
    host: str | None = None,
) -> int | str:
    """The status, or why there is none."""

    async def scenario() -> int | str:
        async with answering(speak, context=context) as server:
            before = open_sockets()
            try:
                got: int | str = (
                    await request("127.0.0.1", server.port, "GET", "/", host=host, tls=options, timeout_seconds=seconds)
                ).status
            except HttpFailed as error:
                got = error.reason
            await until(lambda: open_sockets() <= before)
            return got

    return run(scenario())


def test_a_certificate_need_not_be_valid(authority: Authority) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=1)
    assert ask(authority.server("elsewhere.test", until=long_ago), TlsOptions()) == 200


def test_a_certificate_of_a_trusted_authority_is_accepted(authority: Authority) -> None:
    assert ask(authority.server("127.0.0.1"), TlsOptions(verify=True, ca=authority.file)) == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_bodies_of_any_size_come_through(authority: Authority, version: ssl.TLSVersion) -> None:
    context = authority.server("127.0.0.1")
    context.maximum_version = context.minimum_version = version
    body = os.urandom(300_000)

    async def scenario() -> None:
        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + await reader.readexactly(300_000))
            await writer.drain()

        async with answering(speak, context=context) as server:
            got = await request(
                "127.0.0.1",
                server.port,
                "POST",
                "/",
                body=body,
                tls=TlsOptions(),
                timeout_seconds=10,
                max_body_bytes=1 << 20,
            )
            assert got.body == body

    run(scenario())


def test_the_name_in_the_request_is_the_one_that_is_verified(authority: Authority) -> None:
    options = TlsOptions(verify=True, ca=authority.file)
    assert ask(authority.server("shop.test"), options, host="shop.test:8443") == 200
    assert ask(authority.server("shop.test"), TlsOptions(True, authority.file, server_name="shop.test")) == 200


def test_the_server_is_told_the_name(authority: Authority) -> None:
    names, context = list[str | None](), authority.server("shop.test")
    context.sni_callback = lambda _, name, __: names.append(name)
    assert ask(context, TlsOptions(server_name="shop.test")) == 200
    assert ask(context, TlsOptions()) == 200, "an address is no name to tell"
    assert names == ["shop.test", None]


def test_what_is_wrong_with_a_certificate_is_said(authority: Authority, tmp_path: Path) -> None:
    trusted = TlsOptions(verify=True, ca=authority.file)
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other")
    long_ago = datetime.now(UTC) - timedelta(days=1)
    prefix = "its certificate is not accepted: "
    assert ask(stranger.server("127.0.0.1"), trusted) == prefix + "unable to get local issuer certificate"
    assert ask(authority.server("127.0.0.1", until=long_ago), trusted) == prefix + "certificate has expired"
    assert str(ask(authority.server("127.0.0.2"), trusted)).startswith(prefix + "IP address mismatch")
    other_name = TlsOptions(True, authority.file, server_name="cart.test")
    assert str(ask(authority.server("shop.test"), other_name)).startswith(prefix + "hostname mismatch")


def test_without_an_authority_the_system_is_trusted(authority: Authority) -> None:
    answer = str(ask(authority.server("127.0.0.1"), TlsOptions(verify=True)))
    assert answer.startswith("its certificate is not accepted: ")


def test_a_renewed_authority_is_taken_up(authority: Authority, tmp_path: Path) -> None:
    """No restart, and no context made anew as long as nothing changes."""
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other")
    file = tmp_path / "trusted.pem"
    file.write_bytes(Path(authority.file).read_bytes())
    options = TlsOptions(verify=True, ca=str(file))
    assert ask(authority.server("127.0.0.1"), options) == 200
    assert "not accepted" in str(ask(stranger.server("127.0.0.1"), options))
    renewed = tmp_path / "renewed.pem"
    renewed.write_bytes(Path(stranger.file).read_bytes())
    renewed.replace(file)
    assert ask(stranger.server("127.0.0.1"), options) == 200


def test_a_server_may_want_a_certificate(authority: Authority) -> None:
    context = authority.server("127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    authority.made.configure_trust(context)
    cert, key = authority.client()
    assert ask(context, TlsOptions(cert=cert, key=key)) == 200
    assert "certificate required" in refusal(context)


def refusal(context: ssl.SSLContext) -> str:
    """Why a server that tells its clients so wants nothing to do with us (asyncio's does not tell)."""

    def serve(listener: socket.socket) -> None:
        accepted, _ = listener.accept()
        with accepted, suppress(ssl.SSLError):
            try:
                context.wrap_socket(accepted, server_side=True, suppress_ragged_eofs=True).close()
            finally:
                while accepted.fileno() >= 0 and accepted.recv(65536):
                    pass

    with listening() as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        with pytest.raises(HttpFailed) as caught:
            port = listener.getsockname()[1]
            run(request("127.0.0.1", port, "GET", "/", tls=TlsOptions(), timeout_seconds=10))
        server.join()
    return caught.value.reason


def test_files_that_cannot_be_used_are_named(authority: Authority, tmp_path: Path) -> None:
    context = authority.server("127.0.0.1")
    cert, key = authority.client()
    empty = tmp_path / "empty.pem"
    empty.write_bytes(b"")
    locked = tmp_path / "locked.pem"
    subprocess.run(
        ["openssl", "pkey", "-in", key, "-out", locked, "-aes256", "-passout", "pass:secret"],
        check=True,
        capture_output=True,
    )
    missing = str(tmp_path / "missing.pem")
    assert ask(context, TlsOptions(True, ca=missing)) == f"cannot read {missing}: no such file or directory"
    assert str(ask(context, TlsOptions(True, ca=str(empty)))).startswith(f"cannot use {empty}: ")
    assert str(ask(context, TlsOptions(cert=cert))).startswith(f"cannot use {cert}: ")
    assert str(ask(context, TlsOptions(cert=cert, key=str(locked)))).startswith(
        f"cannot use {cert} with the key {locked}: "
    )
    assert str(ask(context, TlsOptions(server_name=".shop"))).startswith("cannot ask for the server name .shop: ")


def test_a_plain_server_is_no_tls_server() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        await until_it_hangs_up(reader, writer)

    assert str(ask(None, TlsOptions(), speak)).startswith("the TLS handshake failed: ")


def test_a_server_that_hangs_up_or_hangs_during_the_handshake() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)

    assert ask(None, TlsOptions(), hang_up) == "it closed the connection during the TLS handshake"
    assert ask(None, TlsOptions(), until_it_hangs_up, SHORT_SECONDS) == "no TLS handshake within 0.3 s"


def test_a_server_that_hangs_up_or_hangs_after_the_handshake(authority: Authority) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    context = authority.server("127.0.0.1")
    assert ask(context, TlsOptions(), hang_up) == "it closed the connection before it answered"
    assert ask(context, TlsOptions(), until_it_hangs_up, SHORT_SECONDS) == "no answer within 0.3 s"
    endless = saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", for_ever=b"x", pause_seconds=0.01)
    assert ask(context, TlsOptions(), endless, SHORT_SECONDS) == "its answer did not end within 0.3 s"


def test_a_cancelled_handshake_leaves_nothing_open() -> None:
    async def scenario() -> None:
        async with answering(until_it_hangs_up) as server:
            before = open_sockets()
            asking = asyncio.create_task(
                request("127.0.0.1", server.port, "GET", "/", tls=TlsOptions(), timeout_seconds=100)
            )
            await until(lambda: server.open)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await server.all_gone()
            assert open_sockets() <= before

    run(scenario())


DAEMON = """
import sys
sys.modules.setdefault("ssl", None)  # as boot.py does
import asyncio
from supervisor.host.http_client import request
from supervisor.host.probes import exec, http, kernel, notify, tcp
from supervisor.host.tls import TlsOptions
import plugins.redis_ping

async def main(plain, encrypted):
    told = []
    told.append((await request("127.0.0.1", plain, "GET", "/", timeout_seconds=10)).status)
    told.append(bool(sys.modules.get("ssl") or sys.modules.get("_ssl")))
    for _ in range(2):
        told.append((await request("127.0.0.1", encrypted, "GET", "/", tls=TlsOptions(), timeout_seconds=10)).status)
    told.append(bool(sys.modules.get("ssl")))
    print(told)

asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
"""


def test_openssl_is_not_loaded_before_the_first_https_request(authority: Authority) -> None:
    async def scenario() -> None:
        async with answering() as plain, answering(context=authority.server("127.0.0.1")) as encrypted:
            daemon = await asyncio.create_subprocess_exec(
                sys.executable, "-c", DAEMON, str(plain.port), str(encrypted.port), stdout=-1, stderr=-1
            )
            out, err = await daemon.communicate()
            assert (out.decode(), err.decode()) == ("[200, False, 200, 200, True]\n", "")

    run(scenario())
