"""Units as people see them: every phase has its sentence, every field its place."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from registry_client.testing import FakeBackend
from supervisor.agents.entry import unit_entry
from supervisor.agents.maintenance import Maintenance
from supervisor.agents.restart import RestartAgents
from supervisor.agents.view import Agents, summary
from supervisor.core.events import (
    Drain,
    Gone,
    Kill,
    Prewarm,
    Publish,
    ReadinessLost,
    Ready,
    Spawn,
    Spawned,
    Terminate,
    TimerFired,
    Withdraw,
)
from supervisor.core.health import HealthStatus, ProbeStatus
from supervisor.core.model import Exit, HttpCall, Phase, RestartPolicy, Unit, UnitSpec, WarmupSpec
from supervisor.host.clock import monotonic
from supervisor.wire import ExitStatus, LeaseStatus, UnitStatus, to_json
from tests.supervisor.agents.fleet import Fleet, plain, service
from tests.supervisor.agents.registries import one_registry
from tests.supervisor.running import run, until

WARM = WarmupSpec(requests=(HttpCall("GET", "/a"), HttpCall("GET", "/b")))
WEB = plain("web", startsecs=1.0)
CART = service("cart:0", startsecs=1.0, restart=RestartPolicy(settle_seconds=30.0))
LATE = plain("late", "web")
HOT = service("hot", warmup=WARM)


class Known:
    """What the agents know, as a test says."""

    def __init__(self) -> None:
        self.waits, self.draining, self.warming, self.trouble, self.cold = "", "", "", "", ""
        self.in_flight: int | None = 7
        self.weight = 40
        self.health: HealthStatus | None = None
        self.maintenance: Maintenance | None = None
        self.lease: Any = None

    def __call__(self) -> Agents:
        return cast(Agents, SimpleNamespace(
            registries=SimpleNamespace(
                trouble=lambda name: self.trouble, lease=lambda name: self.lease, leases=lambda name: {}
            ),
            restart=SimpleNamespace(describe=lambda name: self.waits),
            drains=SimpleNamespace(describe=lambda name: self.draining, in_flight=lambda spec: self.in_flight),
            health=SimpleNamespace(status=lambda name: self.health),
            publisher=SimpleNamespace(
                warming=lambda name: self.warming, words=lambda name: self.warming, weight=lambda runner: self.weight
            ),
            prewarms=SimpleNamespace(trouble=lambda name: self.cold),
            maintenances=SimpleNamespace(of=lambda name: self.maintenance),
        ))  # fmt: skip


def healthy(**more: Any) -> HealthStatus:
    return replace(HealthStatus(1, True, True, True, 0.0, "", False, ()), **more)


@asynccontextmanager
async def fleet(folder: Path, *specs: UnitSpec, agents: Any = None) -> AsyncIterator[Fleet]:
    made = Fleet(folder, specs or (WEB, CART, LATE, HOT), agents=agents or (lambda: None))
    try:
        yield made
    finally:
        made.close()


# Sentences. Each case brings a unit into its phase and says what people read there.


def starting(it: Fleet, name: str = "web") -> None:
    it.held = {Spawn}
    it.start(name)


def started(it: Fleet, name: str) -> None:
    starting(it, name)
    it.runners.post(name, Spawned(1, 4242))


def expiring(it: Fleet) -> None:
    it.up("cart:0")
    it.held = {Withdraw, Drain, Terminate}
    it.stop("cart:0")


def settling(it: Fleet) -> None:
    expiring(it)
    it.runners.post("cart:0", Gone(1, 1))


def draining(it: Fleet) -> None:
    settling(it)
    it.runners.post("cart:0", TimerFired(it.runners.by_name["cart:0"].unit.timer))


def stopping(it: Fleet) -> None:
    it.up("web")
    it.held = {Terminate, Kill}
    it.stop("web")


def killing(it: Fleet) -> None:
    stopping(it)
    it.runners.post("web", TimerFired(it.runners.by_name["web"].unit.timer))


def stuck(it: Fleet) -> None:
    killing(it)
    it.runners.post("web", TimerFired(it.runners.by_name["web"].unit.timer))


def stopped(it: Fleet) -> None:
    it.up("web")
    it.stop("web")


def rested(it: Fleet) -> None:
    it.up("web")
    it.exits("web", code=0)


def given_up(it: Fleet) -> None:
    starting(it)
    it.exits("web", stage="exec", errno=2, can_heal=False, reason="no such file: /web")


def backing_off(it: Fleet) -> None:
    starting(it)
    it.exits("web", code=1)


def backing_off_published(it: Fleet) -> None:
    it.up("cart:0")
    it.held = {Withdraw, Spawn}
    it.exits("cart:0", code=1)
    it.words["cart:0"] = ""


def prewarming(it: Fleet) -> None:
    it.held = {Prewarm}
    it.start("hot")


def not_stopped(it: Fleet) -> None:
    expiring(it)
    it.unconfirm("cart:0")


SENTENCES: dict[str, tuple[Any, str, Phase, str, str]] = {
    "not started": (lambda it: None, "web", Phase.STOPPED, "STOPPED", "not started"),
    "waiting": (lambda it: starting(it, "late"), "late", Phase.WAITING, "STARTING", "waits for web to be ready"),
    "being started": (starting, "web", Phase.STARTING, "STARTING", "its process is being started"),
    "started": (
        lambda it: started(it, "web"), "web", Phase.STARTING, "STARTING",
        r"started 0\.\d s ago; it is being looked at; given up after 60 s",
    ),
    "prewarming": (
        prewarming, "hot", Phase.PREWARMING, "STARTING",
        "ready; it gets its first 2 requests before anybody else may send to it",
    ),
    "running": (lambda it: it.up("web"), "web", Phase.RUNNING, "RUNNING", "running"),
    "serving": (lambda it: it.up("cart:0"), "cart:0", Phase.RUNNING, "RUNNING", "running"),
    "not stopped": (
        not_stopped, "cart:0", Phase.RUNNING, "RUNNING", "running; not stopped: the registry is away",
    ),
    "expiring": (
        expiring, "cart:0", Phase.EXPIRING, "EXPIRING",
        "waiting for the registry entry to go; it serves until then",
    ),
    "settling": (
        settling, "cart:0", Phase.SETTLING, "EXPIRING",
        r"its entry is gone; gateways get (30\.0|29\.9) s more to act on that",
    ),
    "draining": (draining, "cart:0", Phase.DRAINING, "DRAINING", "work in flight finishes"),
    "stopping": (
        stopping, "web", Phase.STOPPING, "STOPPING",
        r"SIGTERM was sent 0\.\d s ago; SIGKILL follows in (10\.0|9\.9) s if its process tree has not ended",
    ),
    "killing": (killing, "web", Phase.KILLING, "STOPPING", "SIGKILL was sent to its whole process tree"),
    "stuck": (
        stuck, "web", Phase.KILLING, "STOPPING",
        "cannot kill it: a process is stuck in the kernel; tried again every 30 s",
    ),
    "stopped": (
        stopped, "web", Phase.STOPPED, "STOPPED", r"stopped; last time it killed by SIGTERM after 1\.0 s|stopped; .*",
    ),
    "rested": (
        rested, "web", Phase.STOPPED, "EXITED",
        r"exited with code 0 after 1\.0 s; its autorestart setting leaves it so",
    ),
    "given up": (
        given_up, "web", Phase.FATAL, "FATAL", "given up: no such file: /web; not retried until that changes",
    ),
    "backing off": (
        backing_off, "web", Phase.BACKOFF, "BACKOFF",
        r"exited with code 1 after 1\.0 s; next start in (1\.\d|0\.9) s \(failure 1\)",
    ),
    "backing off with an entry": (
        backing_off_published, "cart:0", Phase.BACKOFF, "BACKOFF",
        r"exited with code 1 after 1\.0 s; waiting for the registry entry to go",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SENTENCES)
def test_every_phase_says_in_one_sentence_where_a_unit_stands(tmp_path: Path, case: str) -> None:
    prepare, name, phase, state, words = SENTENCES[case]

    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            prepare(it)
            status = it.view.status(name)
            assert (status.phase, status.state) == (phase.value, state)
            assert re.fullmatch(words, status.why), status.why

    run(scenario())


def test_all_phases_are_among_the_cases() -> None:
    assert {phase for _, _, phase, _, _ in SENTENCES.values()} == set(Phase)


# The object.


def test_a_unit_that_was_never_started_has_null_where_there_is_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            assert to_json(it.view.status("web")) == {
                "unit": "web", "service": None, "state": "STOPPED", "wanted": "down", "phase": "stopped",
                "ready": False, "live": False, "pid": None, "generation": 0, "uptime_seconds": None, "weight": None,
                "full_weight": None, "lease": None, "in_flight": None, "restarts": 0, "last_exit": None,
                "operation": None, "why": "not started", "warmup": None, "probes": [], "maintenance": None, "leases": [],
            }  # fmt: skip

    run(scenario())


def test_every_phase_has_exactly_the_keys_that_were_promised(tmp_path: Path) -> None:
    async def scenario() -> None:
        for number, (prepare, name, *_) in enumerate(SENTENCES.values()):
            async with fleet(tmp_path / str(number)) as it:
                prepare(it)
                plain_value = json.loads(json.dumps(to_json(it.view.status(name))))
                assert list(plain_value) == list(UnitStatus.__slots__)
                for key, kind in (("lease", LeaseStatus), ("last_exit", ExitStatus)):
                    if plain_value[key] is not None:
                        assert list(plain_value[key]) == list(kind.__slots__)

    run(scenario())


def test_a_running_unit_shows_its_process_and_its_operation(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.held = {Publish}
            (operation,) = it.start("cart:0")
            status = it.view.status("cart:0")
            assert (status.pid, status.generation, status.live, status.ready) == (4001, 1, True, True)
            assert (status.wanted, status.restarts) == ("up", 0)
            assert status.uptime_seconds is not None and 0 <= status.uptime_seconds < 5
            assert status.operation == operation.id
            assert (status.weight, status.full_weight, status.service) == (100, 100, "cart")
            it.release(Publish)
            assert it.view.status("cart:0").operation is None

    run(scenario())


def test_a_unit_on_its_way_out_has_no_weight(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            expiring(it)
            status = it.view.status("cart:0")
            assert (status.weight, status.full_weight, status.wanted, status.ready) == (0, 100, "down", False)
            assert status.live and status.pid == 4001, "its process serves on"

    run(scenario())


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"code": 3}, (3, None, "exited with code 3 after 1.0 s")),
        (
            {"signal": 9, "reason": "killed by SIGKILL after 1.0 s"},
            (None, "SIGKILL", "killed by SIGKILL after 1.0 s"),
        ),
        ({"signal": 40, "reason": "killed by signal 40"}, (None, "signal 40", "killed by signal 40")),
    ],
)
def test_the_last_exit_is_shown_with_its_time(tmp_path: Path, how: dict[str, Any], expected: tuple[Any, ...]) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.up("web")
            it.held = {Spawn}
            it.exits("web", **how)
            last = it.view.status("web").last_exit
            assert last is not None
            assert (last.code, last.signal, last.reason) == expected
            assert last.at == "2027-01-15T08:00:00.500Z"
            assert it.view.status("web").restarts == 1

    run(scenario())


def test_a_start_that_took_too_long_is_shown_with_the_time_of_its_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            started(it, "web")
            it.held = {Spawn, Terminate}
            it.runners.post("web", TimerFired(it.runners.by_name["web"].unit.timer))
            assert it.phase("web") is Phase.STOPPING
            during = it.view.status("web").last_exit
            assert during is None or not during.at.startswith("1970")
            it.exits("web", signal=15, reason="killed by SIGTERM after 60.0 s")
            last = it.view.status("web").last_exit
            assert last is not None
            assert last.reason == "was not ready within 60 s"
            assert last.at == "2027-01-15T08:00:00.500Z"

    run(scenario())


def test_an_unknown_unit_is_no_status(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            with pytest.raises(KeyError):
                it.view.status("nobody")

    run(scenario())


# Leases.


def test_the_lease_is_what_the_heartbeat_knows_of_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        known, backend = Known(), FakeBackend()
        beats = one_registry(backend, lambda name: None)
        agents = RestartAgents(beats, lambda name, event: None, lambda name, step: None)

        def joined() -> Any:
            return SimpleNamespace(**{**vars(known()), "registries": beats, "restart": agents})

        async with fleet(tmp_path, CART, agents=joined) as it:
            assert it.view.status("cart:0").lease == LeaseStatus("absent", 10.0, None)
            it.up("cart:0")
            assert CART.service is not None
            entry = unit_entry("n", CART, CART.service, 1, "2026-11-24T03:41:46.123Z")
            beats.publish("cart:0", entry, 0.6)

            def state() -> str:
                lease = it.view.status("cart:0").lease
                assert lease is not None
                return lease.state

            await until(lambda: state() == "held")
            lease = it.view.status("cart:0").lease
            assert lease is not None and lease.ttl_seconds == 0.6
            assert lease.renewed_seconds_ago is not None and 0 <= lease.renewed_seconds_ago < 0.6
            backend.fail_next(1000)
            await until(lambda: state() == "suspended")
            assert it.view.why("cart:0").startswith("serving; unconfirmed: cannot reach the registry")
            await until(lambda: state() == "lost")
            agents.take_out(CART, 1, 1)
            await until(lambda: it.view.waits_for("cart:0").startswith("waiting for the registry entry to go: "))
            assert state() == "absent"
            assert it.view.waits_for("nobody") == ""
        await agents.close()
        await beats.close()

    run(scenario())


def test_a_unit_without_a_service_has_no_lease(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.up("web")
            status = it.view.status("web")
            assert (status.lease, status.weight, status.full_weight, status.service) == (
                None,
                None,
                None,
                None,
            )

    run(scenario())


# What the agents know.


def test_a_serving_unit_says_all_that_is_not_as_it_should_be(tmp_path: Path) -> None:
    async def scenario() -> None:
        known = Known()
        async with fleet(tmp_path, agents=known) as it:
            it.up("cart:0")
            assert it.view.why("cart:0") == "serving"
            known.warming, known.trouble, known.cold = "warming: 40 %", "unconfirmed: no answer", "GET /a: 500"
            known.health = healthy(why="its readiness probe failed once")
            status = it.view.status("cart:0")
            assert status.why == (
                "serving; warming: 40 %; unconfirmed: no answer; its readiness probe failed once; GET /a: 500"
            )
            assert (status.state, status.warmup, status.weight, status.full_weight) == (
                "WARMING", "warming: 40 %", 40, 100,
            )  # fmt: skip
            assert (status.in_flight, status.ready) == (7, True)

    run(scenario())


def test_an_unready_unit_says_why_and_what_is_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        known = Known()
        async with fleet(tmp_path, agents=known) as it:
            it.up("cart:0")
            it.held = {Withdraw}
            it.runners.post("cart:0", ReadinessLost(1, "GET /ready: 503"))
            known.waits = "waiting for the registry entry to go: 1.0 s of 10.0 s"
            status = it.view.status("cart:0")
            assert status.state == "UNHEALTHY"
            assert status.why == f"not serving; GET /ready: 503; {known.waits}"
            assert (status.ready, status.live, status.phase) == (False, True, "running")

    run(scenario())


@pytest.mark.parametrize(
    ("maintenance", "words"),
    [
        (None, "kept out of traffic"),
        (Maintenance("ops", "disk swap", 0.0), "kept out of traffic by ops: disk swap; until it is undrained"),
        (Maintenance("", "", 0.0, 1_800_000_000.5), "kept out of traffic; until 2027-01-15T08:00:00.500Z"),
    ],
)
def test_a_drained_unit_says_who_keeps_it_out_and_until_when(
    tmp_path: Path, maintenance: Maintenance | None, words: str
) -> None:
    async def scenario() -> None:
        known = Known()
        async with fleet(tmp_path, agents=known) as it:
            it.up("cart:0")
            known.maintenance = maintenance
            it.drain("cart:0")
            it.runners.post("cart:0", TimerFired(it.runners.by_name["cart:0"].unit.timer))
            status = it.view.status("cart:0")
            assert (status.state, status.phase, status.why) == ("DRAINED", "running", words)
            assert status.maintenance == (maintenance.status() if maintenance else None)

    run(scenario())


def test_a_starting_unit_says_what_it_waits_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        known = Known()
        async with fleet(tmp_path, agents=known) as it:
            started(it, "web")
            known.health = healthy(ready=False, why="GET /ready: connection refused")
            words = r"started 0\.\d s ago; GET /ready: connection refused; given up after 60 s"
            assert re.fullmatch(words, it.view.why("web"))

    run(scenario())


def test_probes_are_shown_with_the_age_of_their_answers(tmp_path: Path) -> None:
    async def scenario() -> None:
        known = Known()
        async with fleet(tmp_path, agents=known) as it:
            it.up("cart:0")
            asked = ProbeStatus("readiness", "http", False, True, 4, "200 OK", monotonic() - 100.0)
            known.health = healthy(probes=(asked, ProbeStatus("liveness", "kernel", True, None, 0, "", None)))
            first, second = it.view.status("cart:0").probes
            assert (first.role, first.kind, first.ok, first.streak, first.detail) == (
                "readiness", "http", True, 4, "200 OK",
            )  # fmt: skip
            assert first.seconds_ago is not None and 99.9 < first.seconds_ago < 115
            assert (second.ok, second.seconds_ago) == (None, None)

    run(scenario())


def test_a_draining_unit_says_what_is_in_flight(tmp_path: Path) -> None:
    async def scenario() -> None:
        known = Known()
        async with fleet(tmp_path, agents=known) as it:
            draining(it)
            known.draining = "3 requests in flight: 1.0 s of at most 30.0 s"
            assert it.view.why("cart:0") == known.draining

    run(scenario())


# The summary of a transition.


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        (Unit(), "STOPPED (generation 0)"),
        (Unit(phase=Phase.RUNNING, attempt=3, pid=42), "RUNNING (generation 3, pid 42)"),
        (Unit(phase=Phase.FATAL, attempt=3, reason="no such file"), "FATAL (generation 3): no such file"),
    ],
)
def test_a_transition_is_summed_up_in_a_few_words(unit: Unit, words: str) -> None:
    assert summary(unit) == words


def test_readiness_is_no_news_to_the_view(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            started(it, "web")
            assert not it.view.status("web").ready
            it.runners.post("web", Ready(1, monotonic()))
            assert it.view.status("web").ready
            assert replace(it.runners.by_name["web"].unit).last_exit is None
            assert Exit("x").code is None

    run(scenario())
