"""Channels to real daemons: over http and https, with tokens and certificates, and over a bad network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from control_center.channels import Channels, NodeCommand
from control_center.config import NodesSpec
from control_center.errors import NodeRefused, NodeUnreachable
from registry_client.model import Entry
from supervisor.core.access import token_hash
from supervisor.core.model import TlsSpec
from tests.end_to_end.host import SERVE, Host
from tests.servers.certificates import Certificates, write_certificates
from tests.servers.proxy import Proxy
from tests.supervisor.running import run, until

TOKEN = "a token of the center"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return write_certificates(tmp_path_factory.mktemp("tls"))


def _run(host: Host, tables: str = "") -> int:
    """A daemon with one unit that serves its API on the port that is answered."""
    port, api = host.port(), host.port()
    host.configure(
        f'{tables}\n[unit.web]\ncommand = "{SERVE} {port} /dev/null 0 0.2"\nstartsecs = 0.05\n'
        f"service = {{ port = {port}, ttl_seconds = 1 }}\n"
        'restart = { settle_seconds = 0.05, removal = "deregister" }\ndrain = { timeout = 0.1, quiet = 0.05 }\n',
        http=f"127.0.0.1:{api}",
    )
    host.run()
    host.until_registered("web")
    return api


def _entry(host: Host, port: int | None = None) -> Entry:
    """The daemon's own entry as it is in its registry; with another port if one is in between."""
    assert host.daemon is not None
    entry: dict[str, Any] = host.entry("unitd", "unitd")
    return Entry.from_json(entry | ({} if port is None else {"port": port}))


@asynccontextmanager
async def _channels(entry: Entry, **spec: Any) -> AsyncIterator[Channels]:
    made = Channels(NodesSpec(**{"timeout_seconds": 5.0, **spec}), None, lambda node: entry)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        await made.close()


def _restart(command_id: str | None = None, **more: Any) -> NodeCommand:
    command_id = command_id or uuid4().hex
    return NodeCommand(command_id, "POST", "/v1/units/web/restart", {"command_id": command_id, **more})


async def _carry_out(channels: Channels, command: NodeCommand) -> list[dict[str, Any]]:
    """Send a command again and again until it is answered, then follow it to its end."""
    async with asyncio.timeout(15):
        while True:
            try:
                await channels.send("here", command)
                while True:
                    found = await channels.operations("here", command.command_id, 5.0)
                    if all(item["finished"] for item in found):
                        return found
            except NodeUnreachable:
                await asyncio.sleep(0.05)


def test_a_command_is_taken_followed_and_seen(host: Host) -> None:
    _run(host)
    entry = _entry(host)
    assert entry.metadata == {"scheme": "http", "via": "push"}

    async def scenario() -> None:
        async with _channels(entry) as channels:
            node = await channels.heartbeat("here")
            assert (node["node"], node["units"], node["services"]) == ("here", 1, ["web"])
            (operation,) = await _carry_out(channels, _restart())
            assert operation["state"] == "succeeded"
            assert (await channels.get("here", "/v1/units/web"))["generation"] == 2

    run(scenario())


def test_what_the_node_refuses_is_refused(host: Host) -> None:
    _run(host)
    entry = _entry(host)

    async def refusal(call: Any) -> tuple[int, str]:
        with pytest.raises(NodeRefused) as caught:
            await call
        return caught.value.status, caught.value.code

    async def scenario() -> None:
        async with _channels(entry) as channels:
            assert await refusal(channels.operations("here", "unheard-of")) == (404, "not_found")
            assert await refusal(channels.send("here", _restart(expected_generation=9))) == (412, "generation_moved")
            assert await refusal(channels.send("here", _restart(deadline="2020-01-01T00:00:00Z"))) == (
                410,
                "deadline_passed",
            )
            await channels.send("here", _restart("c-1", center="x", epoch=5))
            assert await refusal(channels.send("here", _restart("c-2", center="x", epoch=4))) == (409, "stale_epoch")
            (operation,) = await channels.operations("here", "c-1", 10.0)
            assert await refusal(channels.abort("here", operation["id"])) == (409, "busy")

    run(scenario())


def test_an_operation_is_called_off(host: Host) -> None:
    _run(host)
    entry = _entry(host)

    async def scenario() -> None:
        async with _channels(entry) as channels:
            answer = await channels.send("here", _restart("c-1"))
            await channels.abort("here", answer.body["operations"][0]["id"])
            (operation,) = await channels.operations("here", "c-1", 5.0)
            assert operation["state"] == "aborted"

    run(scenario())


def test_a_log_is_followed(host: Host) -> None:
    _run(host, "[unit.talk]\ncommand = \"sh -c 'while echo hello; do sleep 0.05; done'\"\n")
    entry = _entry(host)

    async def scenario() -> None:
        async with _channels(entry) as channels:
            stream = channels.stream("here", "/v1/units/talk/logs?lines=0&follow=1")
            await stream.open()
            heard = b""
            while heard.count(b"hello\n") < 3:
                heard += await anext(stream)
            await stream.aclose()

    run(scenario())


# Who asks, and whom.


def _https(certificates: Certificates, *access: str) -> str:
    return (
        f'[http.tls]\ncert = "{certificates.server_certificate}"\nkey = "{certificates.server_key}"\n'
        f'client_ca = "{certificates.ca}"\n' + "\n".join(access)
    )


def _tokens(role: str = "admin") -> str:
    return f'[http.access.center]\nrole = "{role}"\ntoken_sha256 = "{token_hash(TOKEN)}"\n'


def test_a_token_opens_a_node_over_tls(host: Host, certificates: Certificates, tmp_path: Path) -> None:
    _run(host, _https(certificates, _tokens()))
    entry, token = _entry(host), tmp_path / "token"
    token.write_text("wrong\n")
    assert entry.metadata["scheme"] == "https"

    async def scenario() -> None:
        async with _channels(entry, token_file=str(token), tls=TlsSpec(ca=str(certificates.ca))) as channels:
            with pytest.raises(NodeRefused) as caught:
                await channels.heartbeat("here")
            assert (caught.value.status, caught.value.code) == (401, "unauthenticated")
            token.write_text(TOKEN)
            assert (await channels.heartbeat("here"))["node"] == "here"
            assert (await _carry_out(channels, _restart()))[0]["state"] == "succeeded"

    run(scenario())


def test_too_weak_a_token_is_refused(host: Host, certificates: Certificates, tmp_path: Path) -> None:
    _run(host, _https(certificates, _tokens("read")))
    entry, token = _entry(host), tmp_path / "token"
    token.write_text(TOKEN)

    async def scenario() -> None:
        async with _channels(entry, token_file=str(token), tls=TlsSpec(ca=str(certificates.ca))) as channels:
            assert (await channels.heartbeat("here"))["node"] == "here"
            with pytest.raises(NodeRefused) as caught:
                await channels.send("here", _restart())
            assert (caught.value.status, caught.value.code) == (403, "forbidden")

    run(scenario())


def test_a_client_certificate_opens_a_node_and_a_new_one_is_used_from_the_next_connection_on(
    host: Host, certificates: Certificates, tmp_path: Path
) -> None:
    _run(host, _https(certificates, '[http.access.center]\nrole = "admin"\ncertificate = "client"\n'))
    entry, others = _entry(host), write_certificates(tmp_path / "others")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def show(whose: Certificates) -> None:
        cert.write_bytes(whose.client_certificate.read_bytes())
        key.write_bytes(whose.client_key.read_bytes())

    async def scenario() -> None:
        tls = TlsSpec(ca=str(certificates.ca), cert=str(cert), key=str(key))
        show(others)
        async with _channels(entry, tls=tls) as channels:
            with pytest.raises(NodeUnreachable):
                await channels.heartbeat("here")
            show(certificates)
            assert (await channels.heartbeat("here"))["node"] == "here"
            assert (await channels.send("here", _restart())).status == 202
            cert.write_text("broken")
            assert (await channels.heartbeat("here"))["node"] == "here", "the last good one is still used"

    run(scenario())


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (TlsSpec(), "its certificate is not accepted"),
        (TlsSpec(server_name="another.example"), "its certificate is not accepted"),
        (TlsSpec(ca="/no/such/file"), "cannot use /no/such/file"),
    ],
)
def test_a_node_that_cannot_be_trusted_is_told_nothing(
    host: Host, certificates: Certificates, spec: TlsSpec, words: str
) -> None:
    _run(host, _https(certificates, _tokens()))
    entry = _entry(host)
    if spec.server_name:
        spec = TlsSpec(ca=str(certificates.ca), server_name=spec.server_name)

    async def scenario() -> None:
        async with _channels(entry, tls=spec) as channels:
            with pytest.raises(NodeUnreachable) as caught:
                await channels.send("here", _restart("c-1"))
            assert words in caught.value.reason
            assert not caught.value.may_have_counted

    run(scenario())
    assert host.ask("GET", "/v1/operations?command_id=c-1").status == 404


def test_the_right_server_name_is_asked_for_at_any_address(host: Host, certificates: Certificates) -> None:
    _run(host, _https(certificates, '[http.access.center]\nrole = "read"\ncertificate = "client"\n'))
    entry = _entry(host)
    tls = TlsSpec(
        True, str(certificates.ca), str(certificates.client_certificate), str(certificates.client_key), "localhost"
    )

    async def scenario() -> None:
        async with _channels(entry, tls=tls) as channels:
            assert (await channels.heartbeat("here"))["node"] == "here"

    run(scenario())


# The network.


@pytest.mark.parametrize("fault", ["cut_after_request", "reset", "cut", "stall", "delay_requests", "rubbish"])
def test_whatever_the_network_does_a_command_runs_once(host: Host, fault: str) -> None:
    with Proxy(_run(host)) as proxy:
        entry = _entry(host, proxy.port)

        async def scenario() -> None:
            async with _channels(entry, timeout_seconds=0.4) as channels:
                await channels.heartbeat("here")
                if fault == "cut_after_request":
                    proxy.cut_after_request(b"/restart")
                elif fault == "reset":
                    proxy.reset_connections()
                elif fault == "cut":
                    proxy.cut()
                elif fault == "stall":
                    proxy.stall()
                elif fault == "delay_requests":
                    proxy.delay_requests(0.6)
                else:
                    proxy.answer_with(b"\x00\x01nonsense\r\n\r\n")
                carried = asyncio.create_task(_carry_out(channels, _restart("c-1")))
                if fault not in ("cut_after_request", "reset"):
                    await asyncio.sleep(0.7)  # how long the fault lasts
                    proxy.mend()
                (operation,) = await carried
                assert operation["state"] == "succeeded"
                await until(lambda: fault != "cut_after_request" or proxy.calls_cut == 1)
                assert len(await channels.operations("here", "c-1")) == 1
                assert (await channels.get("here", "/v1/units/web"))["generation"] == 2

        run(scenario())


def test_a_node_that_is_killed_and_comes_back_is_spoken_to_again(host: Host) -> None:
    _run(host)
    entry = _entry(host)

    async def scenario() -> None:
        async with _channels(entry, timeout_seconds=1.0) as channels:
            await channels.send("here", _restart("c-1"))
            host.signal(9)
            host.wait()
            with pytest.raises(NodeUnreachable) as caught:
                await channels.send("here", _restart("c-1"))
            assert caught.value.reason == "connection refused"
            host.run()
            (operation,) = await _carry_out(channels, _restart("c-1"))
            assert operation["state"] == "succeeded"
            assert (await channels.get("here", "/v1/units/web"))["generation"] == 2

    run(scenario())
