"""The probe kind `http`."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from supervisor.host.probes.http import HttpProbe
from supervisor.plugin_api import ProbeResult
from tests.supervisor.host.answering import OK, Speak, answering, closed_port, saying, until_it_hangs_up
from tests.supervisor.host.probes.probing import check, refusal, target
from tests.supervisor.running import run, until


def probe(
    options: Any, speak: Speak | bytes = OK, seconds: float = 10.0, context: ssl.SSLContext | None = None
) -> ProbeResult:
    async def scenario() -> ProbeResult:
        async with answering(speak, context=context) as server:
            return await HttpProbe(options).check(target(server.port), seconds)

    return run(scenario())


def status(code: int) -> bytes:
    return f"HTTP/1.1 {code} Words\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("code", "ok"), [(200, True), (204, True), (302, True), (399, True), (404, False), (503, False)]
)
def test_without_more_words_an_answer_from_200_to_399_is_expected(code: int, ok: bool) -> None:
    detail = f"answered {code}" if ok else f"answered {code}, expected 200-399"
    assert probe("/health", status(code)) == ProbeResult(ok, detail)


@pytest.mark.parametrize(
    ("expected", "code", "ok"),
    [
        (503, 503, True),
        (503, 200, False),
        ("200", 200, True),
        ("200-299", 302, False),
        (["200-204", 401], 401, True),
        (["200-204", 401], 205, False),
    ],
)
def test_other_answers_can_be_expected(expected: Any, code: int, ok: bool) -> None:
    result = probe({"path": "/", "status": expected}, status(code))
    assert result.ok is ok
    assert ok or result.detail.startswith(f"answered {code}, expected ")


def test_what_was_expected_is_said() -> None:
    detail = probe({"status": ["200-204", 401]}, status(500)).detail
    assert detail == "answered 500, expected 200-204 or 401"


def test_a_path_method_and_headers_are_sent() -> None:
    async def scenario() -> None:
        options = {"path": "/deep?x=1", "method": "POST", "headers": {"Host": "shop.test", "X-Deep": "1"}}
        async with answering() as server:
            assert (await HttpProbe(options).check(target(server.port), 10)).ok
            head = server.heard[0].decode()
            assert head.startswith("POST /deep?x=1 HTTP/1.1\r\n")
            assert "\r\nHost: shop.test\r\n" in head and "\r\nX-Deep: 1\r\n" in head

    run(scenario())


@pytest.mark.parametrize("as_text", [False, True])
def test_another_port_and_host_can_be_asked(as_text: bool) -> None:
    async def scenario() -> None:
        async with answering(host="::1") as server:
            port = str(server.port) if as_text else server.port
            asked = HttpProbe({"path": "/", "port": port, "host": "::1"})
            assert (await asked.check(target(closed_port()), 10)).ok

    run(scenario())


PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nstate: up, 3 workers"


@pytest.mark.parametrize(
    ("options", "ok", "detail"),
    [
        ({"body": "up"}, True, "answered 200"),
        ({"body": "down"}, False, "answered 200, but its body does not hold 'down'"),
        ({"body_regex": "[1-9] workers$"}, True, "answered 200"),
        ({"body_regex": "^up"}, False, "answered 200, but its body does not match '^up'"),
        ({"body": "up", "body_regex": "idle"}, False, "answered 200, but its body does not match 'idle'"),
    ],
)
def test_a_body_can_be_expected(options: dict[str, Any], ok: bool, detail: str) -> None:
    assert probe(options, PAGE) == ProbeResult(ok, detail)


def test_only_the_beginning_of_a_huge_body_is_searched() -> None:
    huge = saying(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 70_000 + b"up", for_ever=b"y" * 65536)
    assert probe("/", huge).ok
    assert probe({"body": "up"}, huge) == ProbeResult(
        False, "answered 200, but the first 65536 bytes of its body does not hold 'up'"
    )


def test_a_server_that_does_not_answer_in_time() -> None:
    assert probe("/", until_it_hangs_up, 0.2) == ProbeResult(False, "no answer within 0.2 s")


def test_a_port_where_nobody_listens() -> None:
    assert check(HttpProbe("/"), target(closed_port())) == ProbeResult(False, "connection refused")


def test_a_unit_without_a_port_cannot_be_asked() -> None:
    result = check(HttpProbe("/"), target(None))
    assert not result.ok and "port" in result.detail


def test_https_verifies_only_if_it_is_told_to(tmp_path: Path) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("shop.test").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    verified = {"verify": True, "ca": str(tmp_path / "ca.pem")}
    assert probe({"scheme": "https"}, context=context).ok
    refused = probe({"scheme": "https", "tls": verified}, context=context)
    assert not refused.ok and "mismatch" in refused.detail
    assert probe({"scheme": "https", "tls": {**verified, "server_name": "shop.test"}}, context=context).ok
    assert probe({"scheme": "https", "tls": verified, "headers": {"Host": "shop.test"}}, context=context).ok


def test_a_cancelled_check_hangs_up() -> None:
    async def scenario() -> None:
        async with answering(until_it_hangs_up) as server:
            checking = asyncio.create_task(HttpProbe("/").check(target(server.port), 100))
            await until(lambda: server.open)
            checking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await checking
            await server.all_gone()

    run(scenario())


@pytest.mark.parametrize(
    ("options", "key", "words"),
    [
        (7, "", "must be true or a table, not 7"),
        (None, "", "must be true or a table"),
        ({"pth": "/"}, "pth", "did you mean path?"),
        ("health", "path", "must be a path"),
        ("/a b", "path", "must be a path"),
        ("/a#b", "path", "must be a path"),
        ({"path": "/\n"}, "path", "must be a path"),
        ({"port": 0}, "port", "from 1 to 65535"),
        ({"port": True}, "port", "from 1 to 65535"),
        ({"port": "http"}, "port", "from 1 to 65535"),
        ({"scheme": "ftp"}, "scheme", '"http" or "https"'),
        ({"scheme": []}, "scheme", '"http" or "https"'),
        ({"method": "get"}, "method", "a method such as GET"),
        ({"method": "CONNECT"}, "method", "must not be CONNECT"),
        ({"method": "HEAD", "body": "x"}, "method", "must not be HEAD"),
        ({"host": "a b"}, "host", "a host name"),
        ({"headers": ["a"]}, "headers", "must be a table"),
        ({"headers": {"a b": "c"}}, "headers", "name"),
        ({"headers": {"A": "b\nC: d"}}, "headers", "visible ASCII"),
        ({"headers": {"A": 1}}, "headers", "string"),
        ({"headers": {"Content-Length": "1"}}, "headers", "sent by the probe itself"),
        ({"status": 99}, "status", "must be a status"),
        ({"status": 600}, "status", "must be a status"),
        ({"status": True}, "status", "must be a status"),
        ({"status": "2xx"}, "status", "must be a status"),
        ({"status": "299-200"}, "status", "write 200-299"),
        ({"status": []}, "status", "must name a status"),
        ({"status": [[200]]}, "status", "must be a status"),
        ({"body": ""}, "body", "must not be empty"),
        ({"body_regex": "("}, "body_regex", "no regular expression"),
        ({"tls": {"verify": True}}, "tls", "means nothing without scheme"),
        ({"scheme": "https", "tls": True}, "tls", "must be a table"),
        ({"scheme": "https", "tls": {"verfy": True}}, "tls.verfy", "did you mean verify?"),
        ({"scheme": "https", "tls": {"verify": 1}}, "tls.verify", "true or false"),
        ({"scheme": "https", "tls": {"ca": "/ca.pem"}}, "tls.ca", "without verify"),
        ({"scheme": "https", "tls": {"verify": True, "ca": "ca.pem"}}, "tls.ca", "absolute path"),
        ({"scheme": "https", "tls": {"key": "/key.pem"}}, "tls.key", "without cert"),
    ],
)
def test_options_that_cannot_be_used_are_refused_by_their_key(options: Any, key: str, words: str) -> None:
    found, reason = refusal(HttpProbe, options)
    assert found == key and words in reason
