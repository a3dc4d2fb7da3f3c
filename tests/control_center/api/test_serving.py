"""How the API is served: TLS, client certificates, changed files, and the end."""

from __future__ import annotations

import asyncio
import gzip
import os
import socket
import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme

from control_center.api.serving import serve
from supervisor.core.access import Role
from supervisor.core.model import HttpSpec, ServerTlsSpec

from .site import ROLES, TOKENS, Site, center, entry, principals, until


class Files:
    """Certificates in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.authority = folder, trustme.CA()
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca))
        self.renew(self.authority)

    def renew(self, authority: trustme.CA) -> None:
        """Another certificate for the server, put in place at once as a tool for it would."""
        issued = authority.issue_cert("127.0.0.1", "localhost")
        text = issued.cert_chain_pems[0].bytes() + issued.private_key_pem.bytes()
        self.write("server.pem", text)

    def write(self, name: str, text: bytes) -> None:
        """Replace a file."""
        (self.folder / "new").write_bytes(text)
        os.replace(self.folder / "new", self.folder / name)

    @property
    def spec(self) -> ServerTlsSpec:
        return ServerTlsSpec(str(self.folder / "server.pem"), None, str(self.ca))

    def client(self, name: str | None = None, authority: trustme.CA | None = None) -> ssl.SSLContext:
        """What a client needs; `name` is in its own certificate."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if name is not None:
            (authority or self.authority).issue_cert(name).configure_cert(context)
        return context


@pytest.fixture
def files(tmp_path: Path) -> Files:
    (tmp_path / "tls").mkdir()
    return Files(tmp_path / "tls")


async def role_of(site: Site, context: ssl.SSLContext, token: str | None = None) -> str:
    """The role that the center gives a client with this certificate; or the problem's code."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connector = aiohttp.TCPConnector(ssl=context)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"{site.url}/v1/center", headers=headers) as response,
    ):
        answer = await response.json(content_type=None)
        return str(answer.get("code") or answer["principal"]["role"])


async def test_a_client_certificate_says_who_calls(tmp_path: Path, files: Files) -> None:
    async with center(tmp_path, principals(), files.spec) as site:
        assert site.url.startswith("https://")
        for role in (Role.READ, Role.OPERATE, Role.ADMIN):
            assert await role_of(site, files.client(f"{ROLES[role]}.example")) == role.value
        assert await role_of(site, files.client("stranger.example")) == "unauthenticated"
        assert await role_of(site, files.client()) == "unauthenticated"


async def test_a_token_goes_before_a_certificate(tmp_path: Path, files: Files) -> None:
    async with center(tmp_path, principals(), files.spec) as site:
        context = files.client("chief.example")
        assert await role_of(site, context, TOKENS[Role.READ]) == "read"
        assert await role_of(site, context, "a-guess") == "unauthenticated"


async def test_a_certificate_of_another_authority_gets_no_connection(tmp_path: Path, files: Files) -> None:
    async with center(tmp_path, principals(), files.spec) as site:
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await role_of(site, files.client("chief.example", trustme.CA()))
        assert await role_of(site, files.client("chief.example")) == "admin"


async def test_old_tls_is_refused(tmp_path: Path, files: Files) -> None:
    context = files.client()
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with center(tmp_path, principals(), files.spec) as site:
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await role_of(site, context)


async def test_plain_http_to_the_tls_port_is_closed(tmp_path: Path, files: Files) -> None:
    async with center(tmp_path, principals(), files.spec) as site:
        reader, writer = await asyncio.open_connection(*site.serving.address)
        writer.write(b"GET /v1/center HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(10):
            assert b"HTTP/1.1 200" not in await reader.read()
        writer.close()


async def test_a_changed_certificate_is_used_for_new_connections(
    tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("control_center.api.serving.LOOK_SECONDS", 0.02)
    caplog.set_level("INFO", "unit-center.api")
    async with center(tmp_path, principals(), files.spec) as site:
        context = files.client("chief.example")
        connector = aiohttp.TCPConnector(ssl=context)
        async with aiohttp.ClientSession(connector=connector) as kept:
            async with kept.get(f"{site.url}/v1/center") as response:
                assert response.status == 200
            files.write("server.pem", b"no certificate")
            await until(lambda: "the old one stays" in caplog.text)
            assert await role_of(site, context) == "admin"
            other = trustme.CA()
            files.renew(other)
            other.cert_pem.write_to_path(str(files.folder / "ca-of-tomorrow.pem"))
            await until(lambda: "new connections use it" in caplog.text)
            with pytest.raises(aiohttp.ClientError):
                await role_of(site, context)
            tomorrow = ssl.create_default_context(cafile=str(files.folder / "ca-of-tomorrow.pem"))
            files.authority.issue_cert("chief.example").configure_cert(tomorrow)
            assert await role_of(site, tomorrow) == "admin"
            async with kept.get(f"{site.url}/v1/center") as response:  # on its old connection
                assert response.status == 200


async def test_an_authority_that_is_not_trusted_any_more_lets_nobody_in(
    tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control_center.api.serving.LOOK_SECONDS", 0.02)
    async with center(tmp_path, principals(), files.spec) as site:
        context = files.client("chief.example")
        assert await role_of(site, context) == "admin"
        files.write("ca.pem", trustme.CA().cert_pem.bytes())
        async with asyncio.timeout(10):
            while True:
                try:
                    assert await role_of(site, context) == "admin"
                except (aiohttp.ClientError, ssl.SSLError):
                    break
                await asyncio.sleep(0.02)


async def test_what_is_no_http_is_refused_and_fills_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with center(tmp_path) as site:
        long = b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\n"
        for nonsense in (b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\nHo st: x", long):
            reader, writer = await asyncio.open_connection(*site.serving.address)
            writer.write(nonsense + b"\r\n\r\n")
            async with asyncio.timeout(10):
                answer = await reader.read()
            assert answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
            assert b"Traceback" not in answer
            writer.close()
    assert caplog.records == []


async def test_a_body_that_is_not_what_its_headers_say_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bomb = gzip.compress(b" " * 20_000_000)
    async with center(tmp_path) as site:
        for headers, body, status in (
            (b"Transfer-Encoding: chunked", b'5\r\n{"a":\r\nGG\r\n', b"400"),
            (b"Content-Encoding: gzip\r\nContent-Length: 5", b"hello", b"400"),
            (b"Content-Encoding: gzip\r\nContent-Length: %d" % len(bomb), bomb, b"413"),
            (b"Content-Length: -5", b"hello", b"400"),
        ):
            reader, writer = await asyncio.open_connection(*site.serving.address)
            writer.write(b"POST /v1/reports HTTP/1.1\r\nHost: 127.0.0.1\r\n" + headers + b"\r\n\r\n" + body)
            async with asyncio.timeout(10):
                assert (await reader.readline()).split()[1] == status, headers
            writer.close()
        _, writer = await asyncio.open_connection(*site.serving.address)
        writer.write(b"POST /v1/reports HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 50\r\n\r\n{")
        writer.close()
        assert (await site.get("/healthz")).status == 200
        assert await site.store.audit_records() == []
    assert [record for record in caplog.records if record.levelname in ("ERROR", "WARNING")] == []


async def test_a_port_that_is_taken_is_said_to_be(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        async with center(tmp_path) as site:
            app = aiohttp.web.Application()
            with pytest.raises(OSError, match="cannot listen on 127"):
                await serve(app, HttpSpec(("127.0.0.1", taken.getsockname()[1])))
            assert (await site.get("/healthz")).status == 200


async def test_what_is_being_answered_at_the_end_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with center(tmp_path) as site:
        await site.register(entry("cart", "web-1"))
        begun, may_go_on = asyncio.Event(), asyncio.Event()
        add = site.store.add_operation

        async def slow_add(*args, **more):  # type: ignore[no-untyped-def]
            begun.set()
            await may_go_on.wait()
            return await add(*args, **more)

        monkeypatch.setattr(site.store, "add_operation", slow_add)
        body = {"verb": "start", "selection": {"services": ["cart"]}}
        command = asyncio.create_task(site.post("/v1/operations", body))
        await begun.wait()
        ending = asyncio.create_task(site.serving.close())
        await asyncio.sleep(0.05)
        with pytest.raises(aiohttp.ClientError):
            await site.get("/healthz", Connection="close")
        may_go_on.set()
        assert (await asyncio.wait_for(command, 10)).status == 202
        await asyncio.wait_for(ending, 10)
