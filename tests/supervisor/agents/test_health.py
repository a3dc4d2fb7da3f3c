"""The health agents: what the lifecycle is told of a unit, and when."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from supervisor.agents.health import VOUCH_SECONDS, Health
from supervisor.core.events import Event, LivenessLost, ReadinessLost, ReadinessRegained, Ready
from supervisor.core.health import IMPLICIT_LIVENESS, ProbeStatus
from supervisor.core.model import ProbeSpec, ServiceSpec, UnitSpec
from supervisor.host.prober import GRID_SECONDS, SLACK_SECONDS, Prober
from supervisor.plugin_api import NotifyState, ProbeResult, Target
from tests.supervisor.fake_time import run_fake

SILENT = "silent"  # no answer at all
PLAIN = UnitSpec("web", "web", 0, ("web",), startsecs=1.0)
LATE = GRID_SECONDS + SLACK_SECONDS + 0.01


def probe(key: str, kind: str = "ask", **more: Any) -> ProbeSpec:
    return ProbeSpec(kind, options=json.dumps({"key": key}), **more)


class World:
    """Health agents whose probes answer as the test says, and whatever they posted."""

    def __init__(self, percent: float = 50) -> None:
        self.loop = asyncio.get_running_loop()
        self.answers = dict[tuple[str, str], str]()  # (unit, key) -> what is wrong
        self.asked = list[tuple[str, str]]()
        self.wrong = dict[str, str]()  # unit -> why it cannot be vouched for
        self.vouched = list[str]()
        self.posted = list[tuple[float, str, Event]]()
        self.on_post: Any = lambda unit, event: None
        self.health = Health(self._post, Prober(self._kind), self._vouch, mass_failure_percent=percent)

    def _post(self, unit: str, event: Event) -> None:
        self.posted.append((self.loop.time(), unit, event))
        self.on_post(unit, event)

    def _vouch(self, unit: str) -> str:
        self.vouched.append(unit)
        return self.wrong.get(unit, "")

    def _kind(self, name: str) -> Any:
        world = self

        class Probe:
            def __init__(self, options: Any) -> None:
                self.key = options.get("key", name)

            async def check(self, target: Target, timeout_seconds: float) -> ProbeResult:
                world.asked.append((target.unit, self.key))
                answer = world.answers.get((target.unit, self.key), "")
                if answer == SILENT:
                    await asyncio.sleep(3600)
                return ProbeResult(not answer, answer or "fine")

        return Probe

    def watch(self, spec: UnitSpec, notify: NotifyState | None = None, attempt: int = 1) -> None:
        service = spec.service
        port = service.port if service else None
        self.health.watch(spec, Target(spec.name, attempt, 4242, "127.0.0.1", port, notify=notify))

    def breaks(self, key: str, answer: str = "answered 500", unit: str = "web") -> float:
        self.answers[unit, key] = answer
        return self.loop.time()

    def heals(self, key: str, unit: str = "web") -> None:
        del self.answers[unit, key]

    def events(self, unit: str = "web") -> list[Event]:
        return [event for _, name, event in self.posted if name == unit]

    def kinds(self, unit: str = "web") -> list[str]:
        return [type(event).__name__ for event in self.events(unit)]

    def last(self) -> tuple[float, Event]:
        at, _, event = self.posted[-1]
        return at, event

    def probes(self, unit: str = "web") -> dict[str, ProbeStatus]:
        status = self.health.status(unit)
        assert status is not None
        return {each.role: each for each in status.probes}

    def why(self, unit: str = "web") -> str:
        status = self.health.status(unit)
        assert status is not None
        return status.why

    async def until(self, count: int, seconds: float = 300) -> None:
        """Until so many events were posted."""
        deadline = self.loop.time() + seconds
        while len(self.posted) < count:
            assert self.loop.time() < deadline, self.posted
            await asyncio.sleep(0.01)


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        yield listener.getsockname()[1]


def service(port: int, name: str = "web", **more: Any) -> UnitSpec:
    made = replace(PLAIN, name=name, service=ServiceSpec("shop", "127.0.0.1", port, ttl_seconds=9.0))
    return replace(made, **{"startsecs": 0.0, **more})


# Becoming ready.


def test_without_probes_a_unit_is_ready_when_it_has_been_alive_long_enough() -> None:
    async def scenario() -> None:
        world = World()
        began = world.loop.time()
        world.watch(PLAIN, attempt=3)
        assert "alive for 1 s" in world.why()
        await world.until(1)
        at, event = world.last()
        assert event == Ready(3, at)
        assert at == pytest.approx(began + 1)
        assert world.asked == []
        await world.health.close()

    run_fake(scenario())


def test_without_a_time_to_live_it_is_ready_at_once() -> None:
    async def scenario() -> None:
        world = World()
        world.watch(replace(PLAIN, startsecs=0.0))
        assert world.kinds() == ["Ready"]
        await world.health.close()

    run_fake(scenario())


def test_a_readiness_probe_takes_the_place_of_the_time_to_live() -> None:
    async def scenario() -> None:
        world = World()
        world.breaks("ready")
        world.watch(replace(PLAIN, startsecs=50.0, readiness=probe("ready")))
        await asyncio.sleep(3)
        assert world.posted == []
        assert world.why() == "its readiness probe has not succeeded yet: answered 500"
        world.heals("ready")
        healed = world.loop.time()
        await world.until(1)
        assert world.last()[0] - healed <= 1.01, "though its period is 10 s"
        await world.health.close()

    run_fake(scenario())


def test_no_failure_before_readiness_is_lost_readiness() -> None:
    async def scenario() -> None:
        world = World()
        world.breaks("ready")
        world.watch(replace(PLAIN, readiness=probe("ready")))
        await asyncio.sleep(100)
        assert world.posted == []
        assert world.probes()["readiness"].holds is False
        assert "has failed 10 times: answered 500" in world.why() or "has failed 9 times" in world.why()
        await world.health.close()

    run_fake(scenario())


def test_several_successes_in_a_row_may_be_asked_for() -> None:
    async def scenario() -> None:
        world = World()
        world.watch(replace(PLAIN, readiness=probe("ready", success_threshold=3, period=2.0)))
        await asyncio.sleep(0.1)
        assert world.posted == []
        assert "not yet succeeded 3 times in a row" in world.why()
        await world.until(1, seconds=6.2)
        await world.health.close()

    run_fake(scenario())


def test_the_startup_probe_comes_before_the_others() -> None:
    async def scenario() -> None:
        world = World()
        world.breaks("start")
        world.watch(
            replace(
                PLAIN,
                startup=probe("start", failure_threshold=30),
                readiness=probe("ready"),
                liveness=probe("live", period=1.0),
            )
        )
        await asyncio.sleep(100)
        assert {key for _, key in world.asked} == {"start"}
        status = world.health.status("web")
        assert status is not None and not status.started
        assert "its startup probe" in status.why
        world.heals("start")
        await world.until(1)
        await asyncio.sleep(1.1)
        assert {key for _, key in world.asked} == {"start", "ready", "live"}
        asked = world.asked.count(("web", "start"))
        await asyncio.sleep(30)
        assert world.asked.count(("web", "start")) == asked, "it has done its work"
        assert world.kinds() == ["Ready"]
        assert world.probes()["startup"].holds is True
        await world.health.close()

    run_fake(scenario())


def test_a_startup_probe_alone_is_enough() -> None:
    async def scenario() -> None:
        world = World()
        world.watch(replace(PLAIN, startup=probe("start"), startsecs=50.0))
        await world.until(1, seconds=0.1)
        await world.health.close()

    run_fake(scenario())


def test_a_startup_probe_that_fails_for_good_ends_the_attempt_after_its_whole_time() -> None:
    async def scenario() -> None:
        world = World()
        began = world.breaks("start", "answered 500, expected 200-399")
        world.watch(replace(PLAIN, startup=probe("start", period=10.0, failure_threshold=3)))
        await world.until(1)
        at, event = world.last()
        assert event == LivenessLost(1, "its startup probe has failed 3 times: answered 500, expected 200-399")
        assert at - began == pytest.approx(30, abs=LATE)
        await asyncio.sleep(100)
        assert len(world.posted) == 1
        status = world.health.status("web")
        assert status is not None
        assert (status.live, status.ready, status.started) == (False, False, False)
        assert status.why == event.reason
        await world.health.close()

    run_fake(scenario())


def test_a_registered_unit_must_also_accept_on_its_port() -> None:
    async def scenario() -> None:
        world = World()
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            number = listener.getsockname()[1]
            world.watch(service(number, readiness=probe("ready")))
            await asyncio.sleep(5)
            assert world.posted == []
            assert world.why() == f"port {number} does not accept connections: connection refused"
            listener.listen()
            await world.until(1, seconds=1.1)
            await world.health.close()

    run_fake(scenario())


def test_the_port_must_be_its_own(port: int) -> None:
    async def scenario() -> None:
        world = World()
        world.wrong["web"] = "process 77 listens on its port"
        world.watch(service(port))
        await asyncio.sleep(5)
        assert world.posted == []
        assert world.why() == "process 77 listens on its port"
        del world.wrong["web"]
        await world.until(1, seconds=1.1)
        await world.health.close()

    run_fake(scenario())


def test_readiness_that_is_lost_before_the_port_accepts_is_awaited_again(port: int) -> None:
    async def scenario() -> None:
        world = World()
        world.wrong["web"] = "not its own"
        world.watch(service(port, readiness=probe("ready", period=1.0, failure_threshold=1)))
        await asyncio.sleep(2)
        world.breaks("ready")
        await asyncio.sleep(2)
        del world.wrong["web"]
        await asyncio.sleep(5)
        assert world.posted == []
        world.heals("ready")
        await world.until(1)
        assert world.kinds() == ["Ready"]
        await world.health.close()

    run_fake(scenario())


# Losing and regaining readiness.


@pytest.mark.parametrize("answer", ["answered 500", SILENT])
@pytest.mark.parametrize(("period", "failures"), [(10.0, 3), (2.0, 1), (0.7, 5), (1.0, 2)])
def test_readiness_is_lost_within_the_promised_time(answer: str, period: float, failures: int) -> None:
    async def scenario() -> None:
        world = World()
        world.watch(replace(PLAIN, readiness=probe("ready", period=period, failure_threshold=failures)))
        await world.until(1)
        await asyncio.sleep(33.3)
        world.asked.clear()
        world.breaks("ready", answer)
        while not world.asked:
            await asyncio.sleep(0.01)
        missed = world.loop.time()
        await world.until(2)
        at, event = world.last()
        assert isinstance(event, ReadinessLost)
        word = "no answer within 1 s" if answer == SILENT else answer
        times = f"{failures} times" if failures > 1 else "once"
        assert event.reason == f"its readiness probe has failed {times}: {word}"
        cycle = max(period, 1.0 + SLACK_SECONDS) if answer == SILENT else period  # never two checks at once
        assert at - missed <= failures * cycle + 1.0 + LATE
        assert len(world.asked) == failures
        await world.health.close()

    run_fake(scenario())


def test_fewer_failures_than_the_threshold_change_nothing() -> None:
    async def scenario() -> None:
        world = World()
        world.watch(replace(PLAIN, readiness=probe("ready", period=1.0, failure_threshold=3)))
        await world.until(1)
        for _ in range(20):
            world.breaks("ready")
            await asyncio.sleep(2)
            world.heals("ready")
            await asyncio.sleep(1.1)
        assert world.kinds() == ["Ready"]
        await world.health.close()

    run_fake(scenario())


def test_readiness_comes_back_after_enough_successes() -> None:
    async def scenario() -> None:
        world = World()
        world.watch(replace(PLAIN, readiness=probe("ready", period=1.0, success_threshold=4)))
        await world.until(1)
        world.breaks("ready")
        await world.until(2)
        world.heals("ready")
        healed = world.loop.time()
        await world.until(3)
        at, event = world.last()
        assert event == ReadinessRegained(1, at)
        assert 3 <= at - healed <= 4.1
        world.breaks("ready")
        await world.until(4)
        assert world.kinds() == ["Ready", "ReadinessLost", "ReadinessRegained", "ReadinessLost"]
        await world.health.close()

    run_fake(scenario())


def test_a_registered_unit_without_a_readiness_probe_is_looked_at_through_the_kernel(port: int) -> None:
    async def scenario() -> None:
        world = World()
        world.watch(service(port))
        await world.until(1)
        missed = world.breaks("kernel", "its process is stopped")
        await world.until(2)
        at, event = world.last()
        assert event == ReadinessLost(1, "its readiness probe has failed 2 times: its process is stopped")
        assert at - missed <= 2 * 3 + 1 + LATE, "two thirds of its ttl"
        assert world.probes()["readiness"].implicit and world.probes()["liveness"].implicit
        await world.until(3)
        at, event = world.last()
        assert event == LivenessLost(1, "its liveness probe has failed 6 times: its process is stopped")
        assert at - missed <= 61 + LATE
        await world.health.close()

    run_fake(scenario())


def test_probes_that_are_written_are_not_implicit_and_units_without_a_service_get_none(port: int) -> None:
    async def scenario() -> None:
        world = World()
        world.watch(PLAIN)
        world.watch(service(port, "cart", readiness=probe("ready"), liveness=probe("live")))
        await world.until(2)
        assert world.probes() == {}
        assert [each.implicit for each in world.probes("cart").values()] == [False, False]
        await asyncio.sleep(60)
        assert {key for _, key in world.asked} == {"ready", "live"}
        await world.health.close()

    run_fake(scenario())


# Losing liveness.


def test_lost_liveness_is_said_once() -> None:
    async def scenario() -> None:
        world = World()
        world.watch(replace(PLAIN, liveness=probe("live", period=2.0, failure_threshold=3)))
        await world.until(1)
        missed = world.breaks("live", SILENT)
        await world.until(2)
        at, event = world.last()
        assert event == LivenessLost(1, "its liveness probe has failed 3 times: no answer within 1 s")
        assert at - missed <= 3 * 2 + 1 + LATE
        count = len(world.asked)
        await asyncio.sleep(100)
        assert (len(world.posted), len(world.asked)) == (2, count)
        for call in (world.health.poke, lambda unit: world.health.doubt(unit, "no")):
            call("web")
        world.health.changed(PLAIN)
        assert len(world.posted) == 2
        await world.health.close()

    run_fake(scenario())


# What units say, and what is a fact.


def test_a_unit_that_stops_by_its_own_word_is_out_at_once() -> None:
    async def scenario() -> None:
        world, notify = World(), NotifyState(ready=True)
        world.watch(replace(PLAIN, readiness=probe("ready")), notify)
        await world.until(1)
        notify.stopping = True
        world.health.poke("web")
        assert world.events()[-1] == ReadinessLost(1, "it said STOPPING=1")
        assert world.why() == "it said STOPPING=1"
        await asyncio.sleep(30)
        assert len(world.posted) == 2, "its probe still succeeds"
        notify.stopping = False
        world.health.poke("web")
        assert world.kinds()[-1] == "ReadinessRegained"
        await world.health.close()

    run_fake(scenario())


def test_a_unit_that_stops_while_it_starts_is_never_ready() -> None:
    async def scenario() -> None:
        world = World()
        world.watch(replace(PLAIN, readiness=probe("ready")), NotifyState(stopping=True))
        await asyncio.sleep(30)
        assert world.posted == []
        assert world.why() == "it said STOPPING=1"
        await world.health.close()

    run_fake(scenario())


def test_a_datagram_is_answered_at_once_where_it_matters() -> None:
    async def scenario() -> None:
        world = World()
        world.breaks("said")
        world.watch(
            replace(PLAIN, readiness=probe("said", "notify"), liveness=probe("live", initial_delay=1000.0)),
            NotifyState(),
        )
        await asyncio.sleep(20.55)
        world.heals("said")
        world.asked.clear()
        world.health.poke("web")
        await world.until(1, seconds=0.05)
        assert ("web", "live") not in world.asked
        await world.health.close()

    run_fake(scenario())


def test_a_probe_that_waits_for_the_watchdog_is_not_asked_by_datagrams() -> None:
    async def scenario() -> None:
        world = World()
        options = json.dumps({"key": "dog", "watchdog": True})
        world.watch(replace(PLAIN, liveness=ProbeSpec("notify", options)), NotifyState())
        await world.until(1)
        world.asked.clear()
        for _ in range(20):
            world.health.poke("web")
            await asyncio.sleep(0.01)
        assert len(world.asked) <= 1
        await world.health.close()

    run_fake(scenario())


def test_options_may_be_anything() -> None:
    async def scenario() -> None:
        world = World()
        world.watch(replace(PLAIN, readiness=ProbeSpec("notify", "true")), NotifyState())
        await asyncio.sleep(1)
        assert "AttributeError" in world.why(), "the kind of this test cannot use them"
        await world.health.close()

    run_fake(scenario())


def test_a_unit_that_wants_to_be_restarted_is() -> None:
    async def scenario() -> None:
        world, notify = World(), NotifyState()
        world.watch(PLAIN, notify)
        await world.until(1)
        notify.trigger = True
        world.health.poke("web")
        assert world.events()[-1] == LivenessLost(1, "it said WATCHDOG=trigger")
        world.health.poke("web")
        assert len(world.posted) == 2
        await world.health.close()

    run_fake(scenario())


def test_a_unit_in_doubt_is_out_at_once_and_back_as_soon_as_it_can_be_vouched_for(port: int) -> None:
    async def scenario() -> None:
        world = World()
        world.watch(service(port))
        await world.until(1)
        world.wrong["web"] = "process 77 listens on its port"
        world.health.doubt("web", "process 77 listens on its port")
        assert world.events()[-1] == ReadinessLost(1, "process 77 listens on its port")
        world.vouched.clear()
        await asyncio.sleep(10.5)
        assert len(world.vouched) == 10
        world.wrong["web"] = "process 78 listens on its port"
        await asyncio.sleep(VOUCH_SECONDS)
        assert world.why() == "process 78 listens on its port"
        del world.wrong["web"]
        await world.until(3, seconds=VOUCH_SECONDS + 0.1)
        assert world.kinds()[-1] == "ReadinessRegained"
        world.vouched.clear()
        await asyncio.sleep(10)
        assert world.vouched == [], "it is the heartbeat agent's again"
        await world.health.close()

    run_fake(scenario())


def test_doubts_add_up_to_one_loss_and_the_probe_must_hold_as_well(port: int) -> None:
    async def scenario() -> None:
        world = World()
        world.watch(service(port, readiness=probe("ready", period=1.0)))
        await world.until(1)
        world.wrong["web"] = "gone"
        world.health.doubt("web", "gone")
        world.health.doubt("web", "gone")
        world.breaks("ready")
        await asyncio.sleep(10)
        del world.wrong["web"]
        await asyncio.sleep(10)
        assert world.kinds() == ["Ready", "ReadinessLost"]
        assert "its readiness probe has failed" in world.why()
        world.heals("ready")
        await world.until(3)
        assert world.kinds()[-1] == "ReadinessRegained"
        await world.health.close()

    run_fake(scenario())


def test_doubts_about_units_that_are_not_ready_or_not_known_are_nothing_new(port: int) -> None:
    async def scenario() -> None:
        world = World()
        world.wrong["web"] = "not yet"
        world.watch(service(port))
        world.health.doubt("web", "not yet")
        world.health.doubt("unknown", "not yet")
        world.health.poke("unknown")
        world.health.changed(replace(PLAIN, name="unknown"))
        await asyncio.sleep(3)
        assert world.posted == []
        assert world.health.status("unknown") is None
        await world.health.close()

    run_fake(scenario())


# Attempts, and changes of the configuration.


def test_a_forgotten_unit_is_asked_nothing_and_says_nothing(port: int) -> None:
    async def scenario() -> None:
        world = World()
        world.watch(PLAIN)
        world.watch(service(port, "cart", readiness=probe("ready", period=1.0)))
        await asyncio.sleep(0.5)
        world.health.doubt("cart", "gone")
        for name in ("web", "cart", "unknown"):
            world.health.forget(name)
        count = len(world.asked)
        world.posted.clear()
        await asyncio.sleep(60)
        assert (world.posted, len(world.asked)) == ([], count)
        assert world.health.status("web") is None
        await world.health.close()

    run_fake(scenario())


def test_the_next_attempt_replaces_the_last() -> None:
    async def scenario() -> None:
        world = World()
        world.watch(PLAIN, attempt=1)
        world.watch(PLAIN, attempt=2)
        await asyncio.sleep(30)
        assert [event.attempt for event in world.events() if isinstance(event, Ready)] == [2]
        await world.health.close()

    run_fake(scenario())


def test_a_unit_may_be_forgotten_while_it_is_told_of() -> None:
    async def scenario() -> None:
        world = World()
        world.on_post = lambda unit, event: world.health.forget(unit)
        world.watch(replace(PLAIN, readiness=probe("ready", period=1.0), liveness=probe("live")))
        await asyncio.sleep(30)
        assert world.kinds() == ["Ready"]
        assert world.health.status("web") is None
        await world.health.close()

    run_fake(scenario())


def test_only_changed_probes_are_begun_anew_and_a_unit_that_serves_goes_on() -> None:
    async def scenario() -> None:
        world = World()
        spec = replace(PLAIN, readiness=probe("ready", period=1.0), liveness=probe("live", period=1.0))
        world.watch(spec)
        await world.until(1)
        await asyncio.sleep(10)
        streak = world.probes()["liveness"].streak
        world.breaks("other")
        world.health.changed(replace(spec, readiness=probe("other", period=1.0)))
        assert world.kinds() == ["Ready"]
        assert world.probes()["liveness"].streak == streak
        world.asked.clear()
        await world.until(2)
        assert isinstance(world.last()[1], ReadinessLost)
        assert ("web", "ready") not in world.asked
        await world.health.close()

    run_fake(scenario())


def test_a_better_probe_brings_a_unit_back_that_the_old_one_had_taken_out() -> None:
    async def scenario() -> None:
        world = World()
        spec = replace(PLAIN, readiness=probe("ready", period=1.0))
        world.watch(spec)
        await world.until(1)
        world.breaks("ready")
        await world.until(2)
        world.health.changed(replace(spec, readiness=probe("other", period=60.0)))
        assert world.kinds()[-1] == "ReadinessLost", "it has not answered yet"
        await world.until(3, seconds=0.1)
        assert world.kinds()[-1] == "ReadinessRegained"
        await world.health.close()

    run_fake(scenario())


def test_without_its_probe_a_unit_is_ready_again(port: int) -> None:
    async def scenario() -> None:
        world = World()
        for name, spec in (("web", PLAIN), ("cart", service(port, "cart"))):
            spec = replace(spec, readiness=probe("ready", period=1.0))
            world.watch(spec)
            world.breaks("ready", unit=name)
        await asyncio.sleep(20)
        world.health.changed(PLAIN)
        world.health.changed(service(port, "cart"))
        await world.until(2)
        assert world.kinds() == ["Ready"]
        assert world.kinds("cart") == ["Ready"]
        assert world.probes() == {}
        assert world.probes("cart")["liveness"].kind == IMPLICIT_LIVENESS.kind
        await world.health.close()

    run_fake(scenario())


def test_a_startup_probe_may_be_taken_away_or_replaced_while_it_is_awaited() -> None:
    async def scenario() -> None:
        world = World()
        spec = replace(PLAIN, startup=probe("start"))
        for name in ("web", "cart"):
            world.breaks("start", unit=name)
            world.watch(replace(spec, name=name))
        await asyncio.sleep(5)
        world.health.changed(PLAIN)
        world.health.changed(replace(spec, name="cart", startup=probe("other")))
        await world.until(2, seconds=0.1)
        assert (world.kinds(), world.kinds("cart")) == (["Ready"], ["Ready"])
        assert "startup" not in world.probes()
        await world.health.close()

    run_fake(scenario())


# Mass failures.


class Fleet(World):
    """Registered units that are all ready."""

    def __init__(self, port: int, count: int, percent: float = 50, **probes: ProbeSpec) -> None:
        super().__init__(percent)
        self.names = [f"web:{number}" for number in range(count)]
        default = {"readiness": probe("ready", period=1.0), "liveness": probe("live", period=1000.0)}
        self.specs = {name: service(port, name, **{**default, **probes}) for name in self.names}

    async def start(self) -> None:
        for spec in self.specs.values():
            self.watch(spec)
        await self.until(len(self.names))
        self.posted.clear()

    def break_all(self, key: str = "ready") -> None:
        for name in self.names:
            self.breaks(key, unit=name)

    def of(self, kind: type[Event]) -> list[str]:
        return [unit for _, unit, event in self.posted if isinstance(event, kind)]

    def held(self) -> list[str]:
        return [name for name in self.names if (status := self.health.status(name)) and status.held]


def test_probes_take_out_only_a_share_of_the_units_and_the_others_say_why(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        fleet = Fleet(port, 20)
        await fleet.start()
        with caplog.at_level(logging.WARNING):
            fleet.break_all()
            await asyncio.sleep(60)
        lost, held = fleet.of(ReadinessLost), fleet.held()
        assert (len(lost), len(held)) == (10, 10)
        assert set(lost).isdisjoint(held)
        status = fleet.health.status(held[0])
        assert status is not None and status.ready and status.live
        assert status.why.startswith(
            "its readiness probe fails; not withdrawn: more than 50 % of this host's units would be out, "
            "so the probe or the network is suspected (its readiness probe has failed "
        )
        assert len(caplog.records) == 10, "each is said once"
        await fleet.health.close()

    run_fake(scenario())


def test_three_units_may_always_go(port: int) -> None:
    async def scenario() -> None:
        fleet = Fleet(port, 4, percent=0)
        await fleet.start()
        fleet.break_all()
        await asyncio.sleep(60)
        assert (len(fleet.of(ReadinessLost)), len(fleet.held())) == (3, 1)
        await fleet.health.close()

    run_fake(scenario())


def test_units_without_a_service_are_neither_counted_nor_held(port: int) -> None:
    async def scenario() -> None:
        fleet = Fleet(port, 4, percent=0)
        await fleet.start()
        for number in range(10):
            fleet.watch(replace(PLAIN, name=f"job:{number}", readiness=probe("ready", period=1.0)))
            fleet.breaks("later", unit=f"job:{number}")
        await fleet.until(10)
        fleet.posted.clear()
        for number in range(10):
            fleet.breaks("ready", unit=f"job:{number}")
        await fleet.until(10)
        fleet.break_all()
        await asyncio.sleep(60)
        assert len(fleet.of(ReadinessLost)) == 13
        await fleet.health.close()

    run_fake(scenario())


def test_when_one_comes_back_another_one_that_still_fails_goes(port: int) -> None:
    async def scenario() -> None:
        fleet = Fleet(port, 8)
        await fleet.start()
        fleet.break_all()
        await asyncio.sleep(30)
        lost = fleet.of(ReadinessLost)
        assert len(lost) == 4
        fleet.posted.clear()
        fleet.heals("ready", unit=lost[0])
        await fleet.until(2)
        assert fleet.of(ReadinessRegained) == [lost[0]]
        assert len(fleet.of(ReadinessLost)) == 1
        assert len(fleet.held()) == 3
        await fleet.health.close()

    run_fake(scenario())


def test_a_held_unit_that_recovers_was_never_out(port: int) -> None:
    async def scenario() -> None:
        fleet = Fleet(port, 8)
        await fleet.start()
        fleet.break_all()
        await asyncio.sleep(30)
        held = fleet.held()
        fleet.answers.clear()  # all at once: those that come back first must not take out others by an old answer
        await asyncio.sleep(30)
        assert fleet.held() == []
        assert all(fleet.events(name) == [] for name in held)
        assert len(fleet.of(ReadinessRegained)) == 4
        await fleet.health.close()

    run_fake(scenario())


def test_facts_are_never_held_and_do_not_count(port: int) -> None:
    async def scenario() -> None:
        fleet = Fleet(port, 8)
        await fleet.start()
        for name in fleet.names:
            fleet.wrong[name] = "gone"
            fleet.health.doubt(name, "gone")
        assert len(fleet.of(ReadinessLost)) == 8
        fleet.wrong.clear()
        await asyncio.sleep(2)
        assert len(fleet.of(ReadinessRegained)) == 8
        fleet.posted.clear()
        fleet.break_all()
        await asyncio.sleep(30)
        held = fleet.held()
        assert len(held) == 4
        fleet.wrong[held[0]] = "gone"
        fleet.health.doubt(held[0], "gone")
        assert fleet.events(held[0]) == [ReadinessLost(1, "gone")]
        await fleet.health.close()

    run_fake(scenario())


def test_units_that_were_told_to_refuse_work_take_the_place_of_no_other(port: int) -> None:
    async def scenario() -> None:
        fleet = Fleet(port, 8)
        await fleet.start()
        for name in fleet.names[:6]:
            fleet.health.told_to_refuse(name)
            fleet.breaks("ready", unit=name)
        await fleet.until(6)
        assert set(fleet.of(ReadinessLost)) == set(fleet.names[:6]) and fleet.held() == []
        for name in fleet.names[6:]:
            fleet.breaks("ready", unit=name)
        await fleet.until(8)
        assert set(fleet.of(ReadinessLost)) == set(fleet.names), "none is held because others were told to say so"
        await fleet.health.close()

    run_fake(scenario())


def test_a_unit_that_may_take_work_again_is_asked_at_once_and_counts_again(port: int) -> None:
    async def scenario() -> None:
        fleet = Fleet(port, 1, readiness=probe("ready", period=100.0, failure_threshold=1))
        (name,) = fleet.names
        await fleet.start()
        fleet.health.told_to_refuse(name)
        fleet.breaks("ready", unit=name)
        await fleet.until(1)
        fleet.heals("ready", unit=name)
        fleet.health.told_to_serve(name)
        await fleet.until(2, seconds=1)
        assert [type(event) for event in fleet.events(name)] == [ReadinessLost, ReadinessRegained]
        asked = len(fleet.asked)
        fleet.health.told_to_serve(name)
        fleet.health.told_to_serve("unknown")
        await asyncio.sleep(1)
        assert len(fleet.asked) == asked, "one that is ready need not be asked"
        await fleet.health.close()

    run_fake(scenario())


def test_lost_liveness_is_held_by_the_same_count_until_units_are_ready_again(port: int) -> None:
    async def scenario() -> None:
        fleet = Fleet(port, 8, liveness=probe("live", period=1.0))
        ended = list[str]()

        def answer(unit: str, event: Event) -> None:
            if isinstance(event, LivenessLost):
                ended.append(unit)
                fleet.health.forget(unit)

        await fleet.start()
        fleet.on_post = answer
        fleet.break_all("live")
        await asyncio.sleep(60)
        assert len(ended) == 4, "that their attempts were forgotten does not free their places"
        assert "not restarted" in fleet.why(fleet.held()[0])
        back = ended[0]
        fleet.heals("live", unit=back)
        fleet.watch(fleet.specs[back], attempt=2)
        await asyncio.sleep(5)
        assert "Ready" in fleet.kinds(back)
        assert len(ended) == 5, "one is back, one may go"
        fleet.health.forget(ended[1], wanted=False)
        assert len(ended) == 5 and len(fleet.held()) == 3, "of seven only three may be out"
        await fleet.health.close()

    run_fake(scenario())


def test_units_that_were_restarted_in_vain_make_no_room_for_others(port: int) -> None:
    async def scenario() -> None:
        fleet = Fleet(port, 8, liveness=probe("live", period=1.0))
        attempts = dict.fromkeys(fleet.names, 1)

        def answer(unit: str, event: Event) -> None:
            if isinstance(event, LivenessLost):
                attempts[unit] += 1
                asyncio.get_running_loop().call_later(0.5, fleet.watch, fleet.specs[unit], None, attempts[unit])

        await fleet.start()
        fleet.on_post = answer
        fleet.break_all("live")
        await asyncio.sleep(60)
        restarted = [name for name, attempt in attempts.items() if attempt > 1]
        assert len(restarted) == 4, "what all of them are asked is wrong: not all are restarted in turn"
        assert min(attempts[name] for name in restarted) > 2, "they may be what is wrong: they are tried again"
        await fleet.health.close()

    run_fake(scenario())


def test_a_unit_whose_liveness_is_held_can_still_say_that_it_stops(port: int) -> None:
    async def scenario() -> None:
        fleet = Fleet(port, 4, percent=0, liveness=probe("live", period=1.0))
        await fleet.start()
        fleet.break_all("live")
        await asyncio.sleep(30)
        (held,) = fleet.held()
        fleet.posted.clear()
        fleet.wrong[held] = "gone"
        fleet.health.doubt(held, "gone")
        assert fleet.kinds(held)[0] == "ReadinessLost"
        await asyncio.sleep(5)
        assert fleet.kinds(held) == ["ReadinessLost", "LivenessLost"], "it is out of traffic, so nothing is lost"
        await fleet.health.close()

    run_fake(scenario())


def test_a_unit_that_probes_have_taken_out_may_be_ended_for_its_liveness(port: int) -> None:
    async def scenario() -> None:
        fleet = Fleet(port, 8, liveness=probe("live", period=30.0))
        await fleet.start()
        fleet.break_all()
        await asyncio.sleep(30)
        out = fleet.of(ReadinessLost)
        fleet.break_all("live")
        await asyncio.sleep(200)
        assert sorted(fleet.of(LivenessLost)) == sorted(out)
        await fleet.health.close()

    run_fake(scenario())


def test_a_liveness_that_was_held_through_an_outage_ends_no_unit_that_is_well_again(port: int) -> None:
    async def scenario() -> None:
        fleet = Fleet(port, 8, liveness=probe("live", period=50.0, failure_threshold=1))
        await fleet.start()
        fleet.break_all("live")
        await asyncio.sleep(60)
        ended = fleet.of(LivenessLost)
        assert len(ended) == 4
        fleet.answers.clear()
        for name in ended:
            fleet.watch(fleet.specs[name], attempt=2)
        await asyncio.sleep(60)
        assert fleet.of(LivenessLost) == ended
        assert fleet.held() == []
        await fleet.health.close()

    run_fake(scenario())
