"""Draining: who is asked what is in flight, what a unit is told, and when a drain is over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import pytest

from supervisor.agents.drain import LOOK_SECONDS, Drains, Load
from supervisor.core.events import Drained, Event
from supervisor.core.model import DrainSpec, Hook, HttpCall, InFlight, ServiceSpec, UnitSpec
from supervisor.core.traffic import Connection
from supervisor.host.http_client import HttpAnswer, HttpFailed
from tests.supervisor.core.test_traffic import ANSWERED, JUST_ANSWERED, UNUSED, WORKING
from tests.supervisor.fake_time import run_fake

WAITING = replace(WORKING, accepted=False)
SPEC = UnitSpec("cart", "cart", 0, ("cart",), service=ServiceSpec("cart", "127.0.0.1", 9080))
OTHER = UnitSpec("shop", "shop", 0, ("shop",), service=ServiceSpec("shop", "127.0.0.2", 9090))
WORKER = UnitSpec("worker", "worker", 0, ("worker",))
FLAG = HttpCall("POST", "/drain", headers=(("X-Why", "drain"),))
COUNT = HttpCall("GET", "/load", port=9999)
ASKED = replace(SPEC, drain=DrainSpec(in_flight=InFlight.HTTP, in_flight_call=COUNT, timeout=5.0))


def told(hook: Hook, **more: Any) -> UnitSpec:
    return replace(SPEC, drain=DrainSpec(notify=hook, timeout=5.0, **more))


class Source:
    """Somebody else who can count."""

    def __init__(self, *answers: Load | None) -> None:
        self.answers = list(answers)

    async def load(self, spec: UnitSpec) -> Load | None:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Host:
    """A kernel, a unit that answers HTTP, and a mailbox."""

    def __init__(self, *sources: Source) -> None:
        self.posted = list[tuple[float, str, Event]]()
        self.connections_by_port = dict[int, list[Connection]]()
        self.trouble: Exception | None = None
        self.looks = list[tuple[tuple[str, int], ...]]()
        self.requests, self.signals, self.runs = list[tuple[Any, ...]](), list[tuple[str, int]](), list[Sequence[str]]()
        self.answer: Callable[[], Awaitable[HttpAnswer]] = self.answers(200, b"0")
        self.reached, self.ran = True, True
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self.drains = Drains(
            self.post, request=self.request, run=self.run, signal=self.signal, sockets=self, sources=sources,
            ignored={("127.0.0.1", 7)},
        )  # fmt: skip

    def post(self, unit: str, event: Event) -> None:
        self.posted.append((self.loop.time() - self.began, unit, event))

    def answers(self, status: int, body: bytes) -> Callable[[], Awaitable[HttpAnswer]]:
        async def answer() -> HttpAnswer:
            return HttpAnswer(status, (), body, False)

        return answer

    async def request(self, address: str, port: int, method: str, path: str, **more: Any) -> HttpAnswer:
        self.requests.append((address, port, method, path, more["headers"], more["timeout_seconds"]))
        return await self.answer()

    async def run(self, spec: UnitSpec, attempt: int, argv: Sequence[str], timeout_seconds: float) -> bool:
        self.runs.append((spec.name, str(attempt), *argv, str(timeout_seconds)))
        return self.ran

    def signal(self, unit: str, number: int) -> bool:
        self.signals.append((unit, number))
        return self.reached

    def connections(self, address: str, port: int) -> list[Connection]:
        return self.connections_of([(address, port)])[address, port]

    def connections_of(self, places: Collection[tuple[str, int]]) -> dict[tuple[str, int], list[Connection]]:
        self.looks.append(tuple(sorted(places)))
        if self.trouble is not None:
            raise self.trouble
        return {place: self.connections_by_port.get(place[1], []) for place in places}

    async def end(self, count: int = 1) -> tuple[float, Drained]:
        """When the last of so many drains was over, and what it said."""
        while len(self.posted) < count:
            await asyncio.sleep(0.01)
        at, _, event = self.posted[-1]
        assert isinstance(event, Drained)
        return at, event


@pytest.fixture(autouse=True)
def _one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.agents.drain.monotonic", lambda: asyncio.get_running_loop().time())


# What the kernel sees.


def test_nothing_in_flight_is_believed_when_it_was_seen_twice() -> None:
    async def scenario() -> None:
        host = Host()
        host.connections_by_port[9080] = [UNUSED, ANSWERED]
        host.drains.drain(SPEC, 3, notify=False)
        at, event = await host.end()
        assert event == Drained(3, 0)
        assert (len(host.looks), at) == (2, pytest.approx(LOOK_SECONDS, abs=0.02))
        assert host.drains.describe("cart") == ""

    run_fake(scenario())


@pytest.mark.parametrize("busy", [WORKING, WAITING, JUST_ANSWERED])
def test_a_drain_lasts_as_long_as_anybody_would_notice_an_end(busy: Connection) -> None:
    """Also a connection on which the unit goes on speaking by itself, as over a WebSocket."""

    async def scenario() -> None:
        host = Host()
        host.connections_by_port[9080] = [busy, UNUSED]
        host.drains.drain(SPEC, 1, notify=False)
        await asyncio.sleep(7.0)
        assert host.posted == []
        host.connections_by_port[9080] = [ANSWERED]
        at, event = await host.end()
        assert (event, at) == (Drained(1, 0), pytest.approx(7.1, abs=0.2))

    run_fake(scenario())


def test_one_quiet_look_between_two_busy_ones_is_no_end() -> None:
    async def scenario() -> None:
        host = Host()
        host.connections_by_port[9080] = [WORKING]
        host.drains.drain(SPEC, 1, notify=False)
        await asyncio.sleep(1.05)
        host.connections_by_port[9080] = []
        await asyncio.sleep(LOOK_SECONDS)
        host.connections_by_port[9080] = [WORKING]
        await asyncio.sleep(1.0)
        assert host.posted == []
        await host.drains.close()

    run_fake(scenario())


def test_when_its_time_is_over_what_is_still_open_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        host = Host()
        host.connections_by_port[9080] = [WORKING, WORKING, WAITING, UNUSED]
        host.drains.drain(SPEC, 1, notify=False)
        await asyncio.sleep(10.0)
        assert host.drains.describe("cart").startswith("3 requests in flight: 10.")
        assert host.drains.describe("cart").endswith(" s of at most 30.0 s")
        at, event = await host.end()
        assert (event, at) == (Drained(1, 3), pytest.approx(30.0, abs=0.05))
        assert "cart: after 30 s there was still this: 3 requests in flight" in caplog.text

    run_fake(scenario())


def test_a_stream_that_goes_on_is_cut_and_counted() -> None:
    async def scenario() -> None:
        host = Host()
        host.connections_by_port[9080] = [JUST_ANSWERED]
        host.drains.drain(replace(SPEC, drain=DrainSpec(timeout=2.0)), 1, notify=False)
        await asyncio.sleep(0.5)
        assert host.drains.describe("cart").startswith("0 requests in flight, 1 connection just answered: 0.5 s of")
        at, event = await host.end()
        assert (event, at) == (Drained(1, 1), pytest.approx(2.0, abs=0.05))

    run_fake(scenario())


def test_how_long_silence_must_last_is_the_units_to_say() -> None:
    async def scenario() -> None:
        host = Host()
        host.connections_by_port[9080] = [JUST_ANSWERED]
        host.drains.drain(replace(SPEC, drain=DrainSpec(quiet=0.5)), 1, notify=False)
        at, _ = await host.end()
        assert at < 1.0

    run_fake(scenario())


def test_our_own_connections_do_not_count() -> None:
    async def scenario() -> None:
        host = Host()
        host.connections_by_port[9080] = [replace(WORKING, peer=("127.0.0.1", 7))]
        host.drains.drain(SPEC, 1, notify=False)
        at, event = await host.end()
        assert (event.cut, at < 1.0) == (0, True)

    run_fake(scenario())


def test_where_the_kernel_does_not_tell_the_unit_gets_its_time() -> None:
    async def scenario() -> None:
        host = Host()
        host.trouble = OSError(1, "Operation not permitted")
        host.drains.drain(SPEC, 1, notify=False)
        await asyncio.sleep(1.0)
        words = "cannot see what is in flight (Operation not permitted): it gets its time: 1.0 s of at most 30.0 s"
        assert host.drains.describe("cart") == words
        at, event = await host.end()
        assert (event, at) == (Drained(1, 0), pytest.approx(30.0, abs=0.05))

    run_fake(scenario())


def test_a_mistake_of_ours_does_not_keep_a_unit_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        host = Host()
        host.trouble = RuntimeError("a mistake")
        host.drains.drain(SPEC, 1, notify=False)
        _, event = await host.end()
        assert event == Drained(1, 0)
        assert "cannot tell what it has in flight; it is stopped without waiting" in caplog.text

    run_fake(scenario())


def test_many_drains_share_their_looks() -> None:
    async def scenario() -> None:
        host = Host()
        host.connections_by_port = {9080: [WORKING], 9090: [WORKING]}
        host.drains.drain(SPEC, 1, notify=False)
        host.drains.drain(OTHER, 1, notify=False)
        await asyncio.sleep(2.0)
        both = (("127.0.0.1", 9080), ("127.0.0.2", 9090))
        assert set(host.looks) == {both}
        assert len(host.looks) < 25
        host.connections_by_port = {9080: [], 9090: [WORKING, WORKING]}
        await host.end(1)
        assert host.posted[0][1] == "cart"
        at, event = await host.end(2)
        assert (event, at) == (Drained(1, 2), pytest.approx(30.0, abs=0.05))

    run_fake(scenario())


# Who knows better.


@pytest.mark.parametrize("body", [b"2", b'{"in_flight": 2, "queue": 9}'])
def test_the_units_own_word_counts_first(body: bytes) -> None:
    async def scenario() -> None:
        host = Host(Source(Load(9, quiet=False)))
        host.connections_by_port[9080] = [WORKING]
        host.answer = host.answers(200, body)
        host.drains.drain(ASKED, 1, notify=False)
        await asyncio.sleep(1.0)
        assert host.requests[0] == ("127.0.0.1", 9999, "GET", "/load", (), 1.0)
        assert host.drains.describe("cart") == "2 requests in flight, says the unit: 1.0 s of at most 5.0 s"
        assert host.drains.in_flight(ASKED) == 2
        host.answer = host.answers(200, b"0")
        at, event = await host.end()
        assert (event, at < 2.0, host.looks) == (Drained(1, 0), True, [])

    run_fake(scenario())


@pytest.mark.parametrize(
    ("status", "body"),
    [(503, b"0"), (302, b"0"), (200, b"many"), (200, b"-1"), (200, b"true"), (200, b"1.5"), (200, b"{}"), (200, b"[]")],
)
def test_a_unit_that_cannot_say_it_is_not_believed(status: int, body: bytes) -> None:
    async def scenario() -> None:
        host = Host(Source(None))
        host.connections_by_port[9080] = [WORKING]
        host.answer = host.answers(status, body)
        host.drains.drain(ASKED, 1, notify=False)
        _, event = await host.end()
        assert event == Drained(1, 1), "the kernel is asked instead"

    run_fake(scenario())


def test_a_unit_that_does_not_answer_is_counted_by_others() -> None:
    async def scenario() -> None:
        async def silent() -> HttpAnswer:
            raise HttpFailed("it does not answer")

        host = Host(Source(None), Source(Load(4, quiet=False, detail="the gateway sees 4")))
        host.answer = silent
        host.drains.drain(ASKED, 1, notify=False)
        await asyncio.sleep(1.0)
        assert host.drains.describe("cart").startswith("the gateway sees 4: ")
        _, event = await host.end()
        assert (event, host.looks) == (Drained(1, 4), [])

    run_fake(scenario())


def test_a_source_that_does_not_know_any_more_is_followed_by_the_kernel() -> None:
    async def scenario() -> None:
        host = Host(Source(Load(4, quiet=False), Load(4, quiet=False), None))
        host.drains.drain(SPEC, 1, notify=False)
        _, event = await host.end()
        assert event == Drained(1, 0)
        assert len(host.looks) == 2

    run_fake(scenario())


def test_where_nobody_can_tell_the_drain_takes_its_whole_time() -> None:
    async def scenario() -> None:
        host = Host(Source(Load(0, quiet=True)))
        spec = replace(SPEC, drain=DrainSpec(in_flight=InFlight.NONE, timeout=5.0))
        host.drains.drain(spec, 1, notify=False)
        at, event = await host.end()
        assert (event, at, host.looks) == (Drained(1, 0), pytest.approx(5.0, abs=0.05), [])
        assert host.drains.in_flight(spec) is None

    run_fake(scenario())


def test_a_unit_without_a_port_is_told_and_then_stopped_unless_it_can_be_asked() -> None:
    async def scenario() -> None:
        host = Host()
        host.drains.drain(replace(WORKER, drain=DrainSpec(Hook(signal=10))), 1, notify=True)
        at, event = await host.end()
        assert (event, at, host.signals) == (Drained(1, 0), pytest.approx(0.0, abs=0.02), [("worker", 10)])
        host.answer = host.answers(200, b"1")
        asked = replace(WORKER, drain=ASKED.drain)
        host.drains.drain(asked, 1, notify=False)
        _, event = await host.end(2)
        assert event == Drained(1, 1)
        assert host.requests[0][:2] == ("127.0.0.1", 9999)
        host.answer = host.answers(500, b"")
        host.drains.drain(asked, 1, notify=False)
        await asyncio.sleep(0.5)
        assert host.drains.describe("worker").startswith("nobody can tell what is in flight: ")
        _, event = await host.end(3)
        assert (event, host.looks) == (Drained(1, 0), [])

    run_fake(scenario())


# What a unit is told.


@pytest.mark.parametrize("notify", [True, False])
def test_a_unit_is_told_over_http_if_it_is_to_be_told(notify: bool) -> None:
    async def scenario() -> None:
        host = Host()
        host.drains.drain(told(Hook(http=FLAG, timeout=2.5)), 1, notify=notify)
        await host.end()
        said = [("127.0.0.1", 9080, "POST", "/drain", FLAG.headers, 2.5)]
        assert host.requests == (said if notify else [])

    run_fake(scenario())


def test_a_unit_is_told_by_a_command_and_only_then_looked_at() -> None:
    async def scenario() -> None:
        host = Host()
        host.drains.drain(told(Hook(argv=("finish", "now"), timeout=3.0)), 8, notify=True)
        assert host.drains.describe("cart") == "telling the unit to finish: 0.0 s of at most 5.0 s"
        await host.end()
        assert host.runs == [("cart", "8", "finish", "now", "3.0")]

    run_fake(scenario())


def test_the_time_for_work_begins_when_the_unit_was_told() -> None:
    async def scenario() -> None:
        async def slow() -> HttpAnswer:
            await asyncio.sleep(4.0)
            return HttpAnswer(204, (), b"", False)

        host = Host()
        host.answer = slow
        host.connections_by_port[9080] = [WORKING]
        host.drains.drain(told(Hook(http=FLAG)), 1, notify=True)
        at, event = await host.end()
        assert (event, at) == (Drained(1, 1), pytest.approx(9.0, abs=0.05))

    run_fake(scenario())


async def _refused() -> HttpAnswer:
    raise HttpFailed("connection refused")


async def _broken() -> HttpAnswer:
    raise OSError(24, "Too many open files")


@pytest.mark.parametrize(
    ("hook", "prepare", "words"),
    [
        (Hook(http=FLAG), {"answer": _refused}, "its drain hook failed: connection refused"),
        (Hook(http=FLAG), {"answer": _broken}, "Too many open files"),
        (Hook(http=FLAG), {"status": 404}, "its drain hook failed: POST /drain was answered 404"),
        (Hook(signal=10), {"reached": False}, "its drain hook failed: cannot send SIGUSR1: it has no running process"),
        (Hook(argv=("finish",)), {"ran": False}, "its drain hook failed: finish failed"),
    ],
)
def test_a_unit_that_does_not_listen_is_drained_all_the_same(
    caplog: pytest.LogCaptureFixture, hook: Hook, prepare: dict[str, Any], words: str
) -> None:
    async def scenario() -> None:
        host = Host()
        if "status" in prepare:
            host.answer = host.answers(prepare["status"], b"")
        else:
            for name, value in prepare.items():
                setattr(host, name, value)
        host.drains.drain(told(hook), 1, notify=True)
        _, event = await host.end()
        assert event == Drained(1, 0)
        assert words in caplog.text

    run_fake(scenario())


def test_a_unit_that_listens_is_not_complained_of(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        host = Host()
        for hook in (Hook(http=FLAG), Hook(signal=10), Hook(argv=("finish",))):
            host.drains.drain(told(hook), 1, notify=True)
            await host.end(len(host.posted) + 1)
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []

    run_fake(scenario())


def test_a_unit_is_told_to_take_work_again_if_it_can_be(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        host = Host()
        spec = told(Hook(signal=10), resume=Hook(signal=12))
        host.drains.resume(SPEC, 1)
        host.drains.resume(told(Hook(signal=10)), 1)
        assert host.signals == []
        host.drains.resume(spec, 1)
        await asyncio.sleep(0.1)
        assert caplog.text == ""
        host.reached = False
        host.drains.resume(spec, 1)
        while len(host.signals) < 2:
            await asyncio.sleep(0.01)
        assert host.signals == [("cart", 12)] * 2
        assert caplog.text.count("its resume hook failed") == 1
        assert host.posted == []

    run_fake(scenario())


def test_who_waits_until_a_unit_takes_work_again_is_called_then_or_at_once_if_there_is_nothing_to_wait_for() -> None:
    async def scenario() -> None:
        async def slow() -> HttpAnswer:
            await asyncio.sleep(4.0)
            return HttpAnswer(204, (), b"", False)

        host = Host()
        host.answer = slow
        called = list[str]()
        host.drains.when_resumed("cart", lambda: called.append("at once"))
        assert called == ["at once"]
        spec = told(Hook(signal=10), resume=Hook(http=FLAG))
        host.drains.resume(spec, 1)
        host.drains.when_resumed("cart", lambda: called.append("of the first"))
        await asyncio.sleep(1.0)
        host.drains.resume(spec, 1)
        host.drains.when_resumed("cart", lambda: called.append("of the second"))
        await asyncio.sleep(3.5)
        assert called == ["at once"]
        await asyncio.sleep(1.0)
        assert called == ["at once", "of the second"], "the first was overtaken"
        host.drains.when_resumed("cart", lambda: called.append("later"))
        assert called[-1] == "later"

    run_fake(scenario())


def test_a_unit_hears_that_it_is_drained_again_after_it_has_heard_that_it_was_not() -> None:
    async def scenario() -> None:
        async def slow() -> HttpAnswer:
            await asyncio.sleep(3.0)
            return HttpAnswer(204, (), b"", False)

        host = Host()
        host.answer = slow
        spec = told(Hook(signal=10), resume=Hook(http=FLAG))
        host.drains.resume(spec, 1)
        host.drains.drain(spec, 1, notify=True)
        await asyncio.sleep(2.9)
        assert (len(host.requests), host.signals) == (1, [])
        at, event = await host.end()
        assert (event, at, host.signals) == (Drained(1, 0), pytest.approx(3.1, abs=0.05), [("cart", 10)])

    run_fake(scenario())


# Ends that come from elsewhere.


def test_a_drain_that_was_called_off_says_nothing() -> None:
    async def scenario() -> None:
        host = Host()
        host.connections_by_port[9080] = [WORKING]
        host.drains.drain(SPEC, 1, notify=False)
        await asyncio.sleep(1.0)
        host.drains.call_off("cart")
        host.drains.call_off("cart")
        assert host.drains.describe("cart") == ""
        host.connections_by_port[9080] = []
        await asyncio.sleep(60.0)
        assert host.posted == []

    run_fake(scenario())


def test_a_second_drain_takes_the_place_of_the_first() -> None:
    async def scenario() -> None:
        host = Host()
        host.connections_by_port[9080] = [WORKING]
        host.drains.drain(SPEC, 1, notify=False)
        await asyncio.sleep(20.0)
        host.drains.drain(told(Hook(signal=10)), 1, notify=True)
        at, event = await host.end()
        assert (event, at, host.signals) == (Drained(1, 1), pytest.approx(25.0, abs=0.05), [("cart", 10)])
        await asyncio.sleep(60.0)
        assert len(host.posted) == 1

    run_fake(scenario())


def test_close_ends_everything_without_an_answer() -> None:
    async def scenario() -> None:
        async def never() -> HttpAnswer:
            return await asyncio.get_running_loop().create_future()

        host = Host()
        host.answer = never
        spec = told(Hook(http=FLAG), resume=Hook(http=FLAG))
        host.drains.drain(spec, 1, notify=True)
        host.drains.resume(replace(spec, name="other"), 1)
        await asyncio.sleep(0.1)
        assert len(host.requests) == 2
        await host.drains.close()
        await asyncio.sleep(60.0)
        assert host.posted == []

    run_fake(scenario())


# What people ask.


def test_what_is_in_flight_can_be_asked_of_a_unit_that_serves() -> None:
    async def scenario() -> None:
        host = Host()
        host.connections_by_port[9080] = [WORKING, WAITING, UNUSED]
        assert host.drains.in_flight(SPEC) == 2
        assert host.drains.in_flight(WORKER) is None
        host.trouble = OSError(1, "Operation not permitted")
        assert host.drains.in_flight(SPEC) is None

    run_fake(scenario())


def test_many_units_are_looked_at_in_one_look() -> None:
    async def scenario() -> None:
        host = Host()
        host.connections_by_port = {9080: [WORKING], 9090: []}
        host.drains.look([SPEC, OTHER, WORKER])
        assert (host.drains.in_flight(SPEC), host.drains.in_flight(OTHER)) == (1, 0)
        assert len(host.looks) == 1
        await asyncio.sleep(1.0)
        host.connections_by_port[9080] = []
        assert host.drains.in_flight(SPEC) == 0, "an old look is none"
        host.trouble = OSError(1, "Operation not permitted")
        host.drains.look([SPEC])
        assert host.drains.in_flight(SPEC) is None

    run_fake(scenario())
