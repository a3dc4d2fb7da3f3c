"""TLS of our own server, byte by byte: what comes in pieces, at once, half closed, or is nonsense in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from supervisor.core.model import ServerTlsSpec
from supervisor.host import http_connection
from supervisor.host.http import HttpServer, Request, Response
from supervisor.host.tls import TlsFailed
from supervisor.host.tls_server import ServerTls
from tests.supervisor.running import run

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Site:
    """Certificates in a folder."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.pem, self.ca_file = folder / "server.pem", folder / "ca.pem"
        self.ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(self.pem))
        self.ca.cert_pem.write_to_path(str(self.ca_file))

    def context(self, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


class Client:
    """A TLS client that decides which bytes go out when."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext) -> None:
        self.reader, self.writer = reader, writer
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing, server_hostname="127.0.0.1")
        self.piece = 0  # so many bytes at most at a time; 0: all

    async def step(self, call: Callable[[], Any]) -> Any:
        """Do something that may need bytes from the other side."""
        while True:
            try:
                result = call()
            except ssl.SSLWantReadError:
                await self.flush()
                data = await self.reader.read(self.piece or 65536)
                if data:
                    self.incoming.write(data)
                else:
                    self.incoming.write_eof()
            else:
                await self.flush()
                return result

    async def flush(self) -> None:
        data = self.outgoing.read()
        size = self.piece or len(data) or 1
        for at in range(0, len(data), size):
            self.writer.write(data[at : at + size])
            await self.writer.drain()
            if self.piece:
                await asyncio.sleep(0)

    async def shake_hands(self) -> None:
        await self.step(self.object.do_handshake)

    async def send(self, data: bytes) -> None:
        await self.step(lambda: self.object.write(data))

    async def read(self) -> bytes:
        """b"" when they have said that nothing more comes."""
        try:
            return await self.step(lambda: self.object.read(65536))  # type: ignore[no-any-return]
        except ssl.SSLZeroReturnError:
            return b""

    async def until(self, enough: Callable[[bytes], bool]) -> bytes:
        data = b""
        while not enough(data):
            more = await self.read()
            assert more, data[-500:]
            data += more
        return data

    async def rest(self) -> bytes:
        data = b""
        while more := await self.read():
            data += more
        return data

    async def say_goodbye(self) -> None:
        """Nothing more comes from us; we still listen."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.object.unwrap()
        await self.flush()


@contextlib.asynccontextmanager
async def serving(
    site: Site, handler: Callable[[Request], Awaitable[Response]], *, client_ca: bool = False, **more: Any
) -> AsyncIterator[Callable[..., Awaitable[Client]]]:
    server = HttpServer(handler, max_body_bytes=more.pop("max_body_bytes", 2_000_000), **more)
    tls = ServerTls(ServerTlsSpec(str(site.pem), None, str(site.ca_file) if client_ca else None))
    await server.listen_tcp("127.0.0.1", 0, tls.encrypt)
    clients: list[Client] = []

    async def connect(context: ssl.SSLContext | None = None) -> Client:
        (address,) = server.addresses
        reader, writer = await asyncio.open_connection(*address)
        clients.append(Client(reader, writer, context or site.context()))
        return clients[-1]

    try:
        yield connect
    finally:
        for client in clients:
            client.writer.close()
            with contextlib.suppress(ConnectionError):
                await client.writer.wait_closed()
        await server.close(1.0)


async def echo(request: Request) -> Response:
    return Response(200, request.body, "application/octet-stream")


def post(body: bytes, *headers: str) -> bytes:
    return "\r\n".join(["POST / HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers, "", ""]).encode() + body


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
@pytest.mark.parametrize("piece", [1, 7, 1500])
def test_bytes_in_any_pieces_make_the_same_requests(site: Site, version: ssl.TLSVersion, piece: int) -> None:
    async def scenario() -> None:
        async with serving(site, echo) as connect:
            client = await connect(site.context(version))
            client.piece = piece
            await client.shake_hands()
            for size in (0, 1, 300, 20_000 if piece > 1 else 2_000):
                body = random.Random(size).randbytes(size)
                await client.send(post(body))
                data = await client.until(lambda data, body=body: data.endswith(b"\r\n\r\n" + body))  # type: ignore[misc]
                assert data.startswith(b"HTTP/1.1 200 ")

    run(scenario())


def test_a_large_answer_to_a_slow_reader_arrives_whole(site: Site) -> None:
    body = random.Random(1).randbytes(1_500_000)

    async def scenario() -> None:
        async with serving(site, echo) as connect:
            client = await connect()
            await client.shake_hands()
            await client.send(post(body))
            await asyncio.sleep(0.1)  # the answer fills what there is of buffers meanwhile
            client.piece = 4096
            data = await client.until(lambda data: len(data) > len(body))
            assert data.endswith(body)

    run(scenario())


def test_many_requests_sent_ahead_are_answered_although_reading_pauses(site: Site) -> None:
    async def slow(request: Request) -> Response:
        await asyncio.sleep(0)
        return Response(200, request.body)

    async def scenario() -> None:
        async with serving(site, slow) as connect:
            client = await connect()
            await client.shake_hands()
            bodies = [bytes([number]) * 30_000 for number in range(40)]
            sending = asyncio.ensure_future(client.send(b"".join(map(post, bodies))))
            data = await client.until(lambda data: data.count(b"HTTP/1.1 200") == 40 and data.endswith(bodies[-1]))
            await sending
            assert all(body in data for body in bodies)

    run(scenario())


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_who_says_that_nothing_more_comes_still_gets_the_answer(site: Site, version: ssl.TLSVersion) -> None:
    release = asyncio.Event()

    async def slow(request: Request) -> Response:
        await release.wait()
        return Response(200, b"done")

    async def scenario() -> None:
        async with serving(site, slow) as connect:
            client = await connect(site.context(version))
            await client.shake_hands()
            await client.send(post(b"x"))
            await client.say_goodbye()
            release.set()
            assert (await client.rest()).endswith(b"done")

    run(scenario())


def test_an_answer_to_a_request_that_is_not_read_to_its_end_arrives(site: Site) -> None:
    async def scenario() -> None:
        async with serving(site, echo, max_body_bytes=100) as connect:
            client = await connect()
            await client.shake_hands()
            await client.send(post(b"x" * 100_000))
            data = await client.rest()
            assert data.startswith(b"HTTP/1.1 413 ") and b'"too_large"' in data

    run(scenario())


def test_the_end_is_said_so_that_nobody_can_cut_an_answer_short_unseen(site: Site) -> None:
    async def scenario() -> None:
        async with serving(site, echo) as connect:
            client = await connect()
            await client.shake_hands()
            await client.send(post(b"x", "Connection: close"))
            assert (await client.rest()).endswith(b"x"), "read() raises if the end was not said"

    run(scenario())


def test_nonsense_after_the_handshake_ends_the_connection_and_nothing_else(site: Site) -> None:
    called: list[str] = []

    async def note(request: Request) -> Response:
        called.append(request.path)
        return Response(200, b"ok")

    async def scenario() -> None:
        async with serving(site, note) as connect:
            for number in range(20):
                client = await connect()
                await client.shake_hands()
                client.writer.write(random.Random(number).randbytes(100))
                with contextlib.suppress(ConnectionError, ssl.SSLError):
                    await client.rest()
            last = await connect()
            await last.shake_hands()
            await last.send(post(b""))
            assert (await last.until(lambda data: data.endswith(b"ok"))).startswith(b"HTTP/1.1 200")
            assert called == ["/"]

    run(scenario())


def test_a_handshake_that_does_not_end_is_cut(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "HEAD_SECONDS", 0.1)

    async def scenario() -> None:
        async with serving(site, echo) as connect:
            silent, halting, shaken = await connect(), await connect(), await connect()
            halting.writer.write(b"\x16\x03\x01\x02\x00\x01\x00")
            await shaken.shake_hands()
            for client in (silent, halting, shaken):
                with contextlib.suppress(ConnectionError):
                    async with asyncio.timeout(5):
                        while await client.reader.read(1000):
                            pass

    run(scenario())


def test_the_server_ends_while_hands_are_being_shaken(site: Site) -> None:
    async def scenario() -> None:
        async with serving(site, echo) as connect:
            client = await connect()
            client.writer.write(b"\x16\x03\x01\x02\x00\x01\x00")
            await asyncio.sleep(0.01)

    run(scenario())


def test_the_names_in_a_verified_certificate_reach_the_handler(site: Site, tmp_path: Path) -> None:
    names: list[tuple[str, ...]] = []

    async def note(request: Request) -> Response:
        names.append(request.peer.names)
        return Response(200, b"ok")

    async def scenario() -> None:
        async with serving(site, note, client_ca=True) as connect:
            shown = site.ca.issue_cert("a.example", "b.example", "10.0.0.1", "x@example.org", common_name="c")
            shown.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "client.pem"))
            for certificate in (None, tmp_path / "client.pem"):
                context = site.context()
                if certificate is not None:
                    context.load_cert_chain(certificate)
                client = await connect(context)
                await client.shake_hands()
                await client.send(post(b""))
                await client.until(lambda data: data.endswith(b"ok"))
            assert names == [(), ("a.example", "b.example", "c")]

    run(scenario())


def test_no_session_is_resumed(site: Site) -> None:
    """It would keep a client certificate that has expired meanwhile."""

    async def scenario() -> None:
        async with serving(site, echo) as connect:
            for version in VERSIONS:
                context, session = site.context(version), None
                for _ in range(2):
                    client = await connect(context)
                    if session is not None and session.has_ticket:
                        client.object.session = session
                    await client.shake_hands()
                    await client.send(post(b"x"))
                    await client.until(lambda data: data.endswith(b"x"))
                    session = client.object.session
                    assert not client.object.session_reused
                    assert session is None or not session.has_ticket

    run(scenario())


@pytest.mark.parametrize("spoiled", ["missing", "empty", "key of another", "encrypted"])
def test_files_that_cannot_be_used_are_an_error_at_the_start(site: Site, tmp_path: Path, spoiled: str) -> None:
    path = tmp_path / "other.pem"
    if spoiled == "empty":
        path.write_bytes(b"")
    elif spoiled == "key of another":
        path.write_bytes(trustme.CA().issue_cert("x").private_key_pem.bytes())
    elif spoiled == "encrypted":
        path.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
    with pytest.raises(TlsFailed) as caught:
        ServerTls(ServerTlsSpec(str(site.pem), str(path)))
    assert str(path) in caught.value.reason
