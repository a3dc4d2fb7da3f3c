"""What the gateway finds out by asking a server itself, and what its failures are called."""

from __future__ import annotations

import errno
import os

import pytest

from gateway.model import Server, Symptom
from gateway.proxy.probing import ask
from gateway.proxy.trouble import no_connection
from tests.end_to_end.machine import free_ports
from tests.gateway.proxy.running import Unit, Visit, asynchronous, ok


def server(port: int) -> Server:
    return Server(service="cart", instance="n/0", generation=1, address="127.0.0.1", port=port, weight=1, full_weight=1)


@pytest.mark.parametrize(("answer", "probe", "reason"), [
    (ok(), "*", ""),
    (b"HTTP/1.1 405 Method Not Allowed\r\n\r\n", "*", ""),
    (b"HTTP/1.0 500\r\n\r\n", "*", ""),
    (ok(), "/healthz", ""),
    (b"HTTP/1.1 404 Not Found\r\n\r\n", "/healthz", ""),
    (b"HTTP/1.1 503 No\r\n\r\n", "/healthz", "asked for /healthz, it answers 503"),
    (b"SSH-2.0-x\r\n", "*", "asked for *, it does not answer in HTTP"),
    (b"", "*", "asked for *, it does not answer in HTTP"),
    (b"x" * 10_000, "*", "asked for *: Separator is not found"),
])  # fmt: skip
@asynchronous
async def test_any_answer_is_one_but_a_path_must_not_fail(answer: bytes, probe: str, reason: str) -> None:
    async def talk(visit: Visit) -> None:
        first, fields, _ = await visit.request()
        asked.append((first, fields["host"]))
        visit.send(answer)

    asked: list[tuple[str, str]] = []
    unit = await Unit(talk).start()
    said = await ask(server(unit.port), probe, 5.0)
    assert said.startswith(reason) and bool(said) == bool(reason)
    assert asked == [("OPTIONS * HTTP/1.1" if probe == "*" else f"GET {probe} HTTP/1.1", f"127.0.0.1:{unit.port}")]
    await unit.stop()


@asynchronous
async def test_silence_and_refusal_are_no_answers() -> None:
    async def silent(visit: Visit) -> None:
        await visit.reader.read()

    unit = await Unit(silent).start()
    assert await ask(server(unit.port), "*", 0.05) == "asked for *, it does not answer within 0.05 s"
    await unit.stop()
    assert "Connect call failed" in await ask(server(free_ports(1)), "*", 5.0)


@pytest.mark.parametrize(("number", "status", "code", "symptom"), [
    (errno.ECONNREFUSED, 502, "connect_refused", Symptom.CONNECT_REFUSED),
    (errno.EHOSTUNREACH, 504, "connect_timeout", Symptom.CONNECT_TIMEOUT),
    (errno.ETIMEDOUT, 504, "connect_timeout", Symptom.CONNECT_TIMEOUT),
    (errno.EMFILE, 503, "gateway_exhausted", None),
    (errno.EADDRNOTAVAIL, 503, "gateway_exhausted", None),
])  # fmt: skip
def test_only_what_is_the_servers_fault_is_held_against_it(
    number: int, status: int, code: str, symptom: Symptom | None
) -> None:
    trouble = no_connection(server(80), OSError(number, os.strerror(number)), 1.0)
    assert (trouble.status, trouble.code, trouble.symptom) == (status, code, symptom)
    assert trouble.refusal().retry
    assert "n/0 (127.0.0.1:80)" in trouble.detail


def test_a_name_that_does_not_resolve_is_a_refusal_and_no_time_a_timeout() -> None:
    assert no_connection(server(80), OSError("no such name"), 1.0).code == "connect_refused"
    assert no_connection(server(80), TimeoutError(), 1.5).detail == "no connection to n/0 (127.0.0.1:80) within 1.5 s"
