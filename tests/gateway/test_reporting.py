"""reporting.py: the control center hears of dead servers, however it behaves.

Against one in this process that refuses, hangs and drops as it is told; and once the real one.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from gateway.model import Failure, Pool, Recovery, Symptom
from gateway.reporting import MAX_REPORTS, Reporting, ReportingPace
from gateway.reports import ReportPolicy, Reports
from supervisor.core.model import CenterSpec, TlsSpec
from tests.end_to_end.fleet.center import Center
from tests.gateway.fakes import pool, server, until

PACE = ReportingPace(call_seconds=1, retry_seconds=0.02, max_retry_seconds=0.05, refused_seconds=0.05)
POLICY = ReportPolicy(failures=2, within_seconds=5, repeat_seconds=0.2, clear_seconds=0.2)
Behaviour = Callable[[web.Request], Coroutine[Any, Any, web.StreamResponse]]


class FakeCenter:
    """Keeps what it has taken. `behaves` is asked first; None: all is well."""

    def __init__(self) -> None:
        self.port = 0
        self.calls: list[dict[str, Any]] = []
        self.tokens: list[str | None] = []
        self.asked = 0
        self.behaves: Behaviour | None = None
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def states(self) -> list[str]:
        """Of all that was taken."""
        return [each["state"] for call in self.calls for each in call["reports"]]

    async def start(self, context: ssl.SSLContext | None = None) -> None:
        app = web.Application()
        app.router.add_post("/v1/reports", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=context)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        if self.behaves is not None:
            return await self.behaves(request)
        self.calls.append(await request.json())
        self.tokens.append(request.headers.get("Authorization"))
        return web.json_response({"accepted": 1, "decisions": []}, status=202)


def answers(status: int, detail: str = "because", **headers: str) -> Behaviour:
    async def behave(_: web.Request) -> web.StreamResponse:
        return web.json_response({"detail": detail}, status=status, headers=headers)

    return behave


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    raise AssertionError("nobody waits so long")


async def drop(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def mumble(_: web.Request) -> web.StreamResponse:
    return web.Response(status=400, text="no JSON")


POOLS = {"cart": pool(1, server("n/1"), server("n/2"))}


def fail(reporting: Reporting, instance: str = "n/1", *, down: bool = True) -> None:
    reporting.note(Failure("cart", instance, 1, Symptom.CONNECT_REFUSED, down=down, detail="refused"), "edge")


@asynccontextmanager
async def reporting_to(
    *urls: str,
    pools: dict[str, Pool] | None = None,
    pace: ReportingPace = PACE,
    reports: Reports | None = None,
    **more: Any,
) -> AsyncIterator[Reporting]:
    spec = CenterSpec(urls, **more) if urls else None
    reporting = Reporting("gw-1", spec, reports or Reports(POLICY), lambda: POOLS if pools is None else pools, pace)
    task = asyncio.create_task(reporting.run())
    try:
        yield reporting
        assert not task.done(), "it has ended by itself"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await reporting.close()


@asynccontextmanager
async def center() -> AsyncIterator[FakeCenter]:
    found = FakeCenter()
    await found.start()
    try:
        yield found
    finally:
        await found.stop()


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scene())


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == "unit-gateway.reporting"]


def closed_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# What is told.


def test_a_dead_server_is_told_again_and_again_and_cleared_once() -> None:
    """With nothing to say nothing is sent."""

    async def scene() -> None:
        async with center() as heard, reporting_to(heard.url) as reporting:
            fail(reporting)
            await until("it is told twice", lambda: len(heard.calls) == 2)
            call = heard.calls[0]
            assert call["gateway"] == "gw-1"
            (report,) = call["reports"]
            assert (report["instance"], report["symptom"], report["state"]) == ("n/1", "connect_refused", "dead")
            assert (report["backends"], report["service_backends"]) == (2, 2)
            assert [each["instance"] for each in reporting.current()] == ["n/1"]
            reporting.note(Recovery("cart", "n/1", 1), "edge")
            await until("it is cleared", lambda: "cleared" in heard.states)
            asked = heard.asked
            reporting.note(Recovery("cart", "n/1", 1), "edge")
            await asyncio.sleep(0.5)  # longer than it takes to say it again
            assert (heard.asked, heard.states.count("cleared"), reporting.current()) == (asked, 1, [])
            assert (reporting.error, reporting.failed) == ("", 0)
            assert reporting.delivered == asked

    play(scene)


def test_several_failures_are_told_and_too_few_are_not() -> None:
    """In one call, as soon as they are enough."""

    async def scene() -> None:
        async with center() as heard, reporting_to(heard.url) as reporting:
            for instance in ("n/1", "n/2"):
                fail(reporting, instance, down=False)
            await asyncio.sleep(0.2)
            assert heard.asked == 0
            for instance in ("n/1", "n/2"):
                fail(reporting, instance, down=False)
            await until("they are told", lambda: heard.calls)
            assert len(heard.calls[0]["reports"]) == 2

    play(scene)


def test_what_one_gateway_has_taken_out_is_forgotten_when_it_does_not_answer() -> None:
    """It may have been started anew."""

    async def scene() -> None:
        async with center() as heard, reporting_to(heard.url) as reporting:
            fail(reporting)
            await until("it is told", lambda: heard.calls)
            reporting.lose("edge")
            await until("it is cleared", lambda: "cleared" in heard.states)

    play(scene)


def test_very_many_reports_go_in_several_calls() -> None:
    """The center takes so many at a time."""

    async def scene() -> None:
        many = {"cart": pool(1, *(server(f"n/{number}") for number in range(MAX_REPORTS + 5)))}
        async with center() as heard, reporting_to(heard.url, pools=many) as reporting:
            for each in many["cart"].servers:
                fail(reporting, each.instance)

            def told() -> set[str]:
                return {each["instance"] for call in heard.calls for each in call["reports"]}

            await until("all are told", lambda: len(told()) == MAX_REPORTS + 5)
            assert all(len(call["reports"]) <= MAX_REPORTS for call in heard.calls)

    play(scene)


def test_without_a_center_what_is_dead_can_be_seen_all_the_same() -> None:
    """And is over when it is over."""

    async def scene() -> None:
        async with reporting_to() as reporting:
            fail(reporting)
            await until("it is shown", reporting.current)
            reporting.note(Recovery("cart", "n/1", 1), "edge")
            await until("it is over", lambda: not reporting.current())

    play(scene)


# A center that is not well.


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (answers(503), "it answered 503"),
        (answers(429), "it answered 429"),
        (answers(307, Location="/elsewhere"), "it answered 307"),
        (hang, "no answer within 1 s"),
        (drop, "closed the connection"),
    ],
    ids=["not ready", "busy", "moved", "hangs", "drops"],
)
def test_who_cannot_take_reports_now_gets_them_later(
    behaviour: Behaviour, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once, and when it is over."""
    caplog.set_level(logging.INFO)

    async def scene() -> None:
        async with center() as heard, reporting_to(heard.url) as reporting:
            heard.behaves = behaviour
            fail(reporting)
            await until("it is noticed", lambda: reporting.failed >= 2)
            assert reason in reporting.error
            assert f"cannot report to the control center at {heard.url}: " in reporting.error
            heard.behaves = None
            await until("it is told", lambda: heard.calls)
            await until("all is well", lambda: reporting.error == "")

    play(scene)
    words = complaints(caplog)
    assert len(words) == 2 and words[1] == "the control center takes reports again"


def test_a_center_that_is_not_there_yet_is_told_when_it_comes() -> None:
    """And the moment when it began is that of the failure."""

    async def scene() -> None:
        heard = FakeCenter()
        heard.port = closed_port()
        async with reporting_to(heard.url) as reporting:
            fail(reporting)
            await until("it is noticed", lambda: "connection refused" in reporting.error)
            first = reporting.current()[0]["first_seen"]
            await heard.start()
            try:
                await until("it is told", lambda: heard.calls)
            finally:
                await heard.stop()
            assert heard.calls[0]["reports"][0]["first_seen"] == first

    play(scene)


def test_where_one_url_is_dead_the_other_one_is_used_and_kept() -> None:
    """Until that one is dead as well."""

    async def scene() -> None:
        async with center() as one, center() as other:
            one.behaves = hang
            async with reporting_to(one.url, other.url) as reporting:
                fail(reporting)
                await until("the other one is told", lambda: len(other.calls) >= 2)
                assert (one.asked, reporting.failed) == (1, 0)
                one.behaves, other.behaves = None, answers(503)
                await until("the first one is told", lambda: one.calls)

    play(scene)


# A center that refuses.


@pytest.mark.parametrize(
    ("behaviour", "advice"),
    [
        (answers(401), "token_file"),
        (answers(403), "principal called gw-1"),
        (answers(404), "url"),
        (answers(422), "it answered 422 (because); look at its log"),
        (mumble, "it answered 400; look at its log"),
    ],
    ids=["unknown", "forbidden", "no center", "not understood", "mumbles"],
)
def test_a_refusal_is_logged_once_with_what_to_do(
    behaviour: Behaviour, advice: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And tried again, for somebody may do it."""

    async def scene() -> None:
        async with center() as heard, reporting_to(heard.url) as reporting:
            heard.behaves = behaviour
            fail(reporting)
            await until("it is tried again", lambda: heard.asked >= 3)
            assert advice in reporting.error
            heard.behaves = None
            await until("it is told", lambda: heard.calls)

    play(scene)
    assert [advice in each for each in complaints(caplog)] == [True]


def test_a_refusal_says_more_than_that_another_url_is_dead() -> None:
    """In whatever order they are tried."""

    async def scene() -> None:
        async with center() as heard:
            heard.behaves = answers(403)
            for urls in ((heard.url, "http://127.0.0.1:1"), ("http://127.0.0.1:1", heard.url)):
                async with reporting_to(*urls) as reporting:
                    fail(reporting)
                    await until("it is noticed", lambda: reporting.error)
                    assert "403" in reporting.error

    play(scene)


def test_a_token_that_was_replaced_is_used_at_once(tmp_path: Path) -> None:
    """Nobody restarts a gateway for it. A file that is not there yet is complained of."""
    token = tmp_path / "token"

    async def scene() -> None:
        async with center() as heard, reporting_to(heard.url, token_file=str(token)) as reporting:
            fail(reporting)
            await until("it is noticed", lambda: f"{token}: no such file" in reporting.error)
            assert heard.asked == 0
            token.write_text("first\n")
            await until("it is told", lambda: "Bearer first" in heard.tokens)
            token.write_text("second\n")
            await until("it is told", lambda: "Bearer second" in heard.tokens)

    play(scene)


# TLS.


def test_over_tls_a_center_is_trusted_whose_authority_is_and_files_may_be_renewed(tmp_path: Path) -> None:
    """Nobody else hears anything."""
    authorities = [trustme.CA(), trustme.CA()]
    ca = tmp_path / "ca.pem"
    authorities[0].cert_pem.write_to_path(str(ca))

    async def scene() -> None:
        heard = FakeCenter()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authorities[1].issue_cert("center.example").configure_cert(context)
        await heard.start(context)
        url = f"https://127.0.0.1:{heard.port}"
        try:
            async with reporting_to(url, tls=TlsSpec(ca=str(ca), server_name="center.example")) as reporting:
                fail(reporting)
                await until("it is noticed", lambda: "certificate is not accepted" in reporting.error)
                assert heard.asked == 0
                ca.unlink()
                await until("it is noticed", lambda: f"cannot use {ca}" in reporting.error)
                authorities[1].cert_pem.write_to_path(str(ca))
                await until("it is told", lambda: heard.calls)
        finally:
            await heard.stop()

    play(scene)


# The end.


def test_it_ends_at_once_also_in_the_middle_of_a_call() -> None:
    """And lets go of the connection."""

    async def scene() -> None:
        async with center() as heard:
            heard.behaves = hang
            async with reporting_to(heard.url, pace=ReportingPace(call_seconds=60)) as reporting:
                fail(reporting)
                await until("it is asked", lambda: heard.asked)
                async with asyncio.timeout(5):
                    await reporting.close()
                    await reporting.close()

    play(scene)


# The real thing.


def test_a_real_center_takes_what_is_reported() -> None:
    """All that a report can say; also that it is cleared."""
    real = Center()

    async def scene() -> None:
        reports = Reports(POLICY)
        async with reporting_to(real.url, reports=reports) as reporting:
            fail(reporting)
            await until("it is taken", lambda: reporting.delivered)
            reporting.note(Recovery("cart", "n/1", 1), "edge")
            await until("that it is cleared is taken, too", lambda: reports.is_idle)
            assert (reporting.error, reporting.failed) == ("", 0)

    try:
        real.configure()
        real.run()
        play(scene)
        metrics = real.ask("GET", "/metrics").body.decode()
        assert 'unit_center_reports_total{symptom="connect_refused"}' in metrics
    finally:
        real.close()
