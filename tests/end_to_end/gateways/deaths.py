"""A unit dies, or freezes, behind a gateway: what happens, and when, until a new one has its whole share of the requests."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime

from bench.load import Request
from tests.end_to_end.fleet.center import Center
from tests.end_to_end.gateways.gateway_process import GatewayProcess
from tests.end_to_end.gateways.scenario import Play, wait_for_requests
from tests.end_to_end.gateways.stage import SERVICE, Settings, Stage
from tests.end_to_end.host import Json
from tests.end_to_end.machine import until

LOOK_SECONDS = 0.03
RECOVERY_SECONDS = 60.0
HURT_SECONDS = 0.3  # a request is hurt when its answer comes so much later than it should
# One gateway and the node agree, or the node cannot tell. Deaths follow each other faster here than they would.
MODE = 'mode = "full"'
GUARD = """
[nodes]
heartbeat_seconds = 0.5
[guard]
min_interval_seconds = 1
backoff_initial = 0.1
backoff_max = 0.1
fatal_restarts = 1000
service_per_minute = 1000
service_burst = 1000
node_per_minute = 1000
node_burst = 1000
fleet_per_minute = 1000
fleet_burst = 1000
max_unavailable_percent = 50
"""
REPORTS = '[center]\nurl = "{url}"\n[reports]\nfailures = 3\nwithin_seconds = 5\n'
# The node sees it too, but is in no hurry to act on it: what is looked at is who is quicker.
PROBED = """
        readiness = { http = "/healthz", period = 1, timeout = 0.5, failure_threshold = 5 }
        stopwaitsecs = 1
"""
ALONE = 'liveness = { http = "/healthz", period = 1, timeout = 0.5, failure_threshold = 3 }\n'  # nobody else will act
WARMUP = "initial = 25, step = 25, period = 0.5"
DRAIN = 'timeout = 2, quiet = 0.2, in_flight = "gateways"'

REPORTED, DECIDED, GONE, ENDED, STARTED, LISTED, FULL, SENT = (
    "reported by the gateway", "center decides to restart", "gone from the registry", "its process has ended",
    "next process", "in the registry again", "full weight", "gateway sends to it",
)  # fmt: skip
MILESTONES = (REPORTED, DECIDED, GONE, ENDED, STARTED, LISTED, FULL, SENT)


@dataclass(slots=True)
class Death:
    """One death. `moments`: milestone -> seconds after it, as far as it was seen."""

    unit: str
    at: float  # wall time
    moments: dict[str, float] = field(default_factory=dict)
    rule: str = ""  # by which the center decided; "": it did not
    requests: list[Request] = field(default_factory=list)  # that ended between the death and the end of it all
    slow_seconds: float = 0.0

    @property
    def failures(self) -> list[Request]:
        """The requests that failed."""
        return [request for request in self.requests if request.failure]

    @property
    def last_hurt(self) -> float | None:
        """When, after the death, the last request was begun that failed or took much too long; None: none was."""
        hurt = [request.intended for request in self.requests if request.failure or self._is_late(request)]
        return max(hurt) - self.at if hurt else None

    def _is_late(self, request: Request) -> bool:
        fair = self.slow_seconds if request.kind == "slow" else 0.0
        return request.took_seconds > fair + HURT_SECONDS


def center_for_deaths() -> Center:
    """A control center that may act on one gateway's word; it hosts the registry."""
    center = Center()
    center.configure(center=MODE, more=GUARD)
    return center


def settings_for_deaths(kind: str) -> Settings:
    """Units whose nodes look at them, behind a gateway as its page says."""
    more = PROBED + ALONE if kind == "haproxy-checks" else PROBED
    return Settings(warmup=WARMUP, drain=DRAIN, more=more, as_documented=True)


@contextmanager
def deadly(kind: type[Stage], center: Center) -> Iterator[Stage]:
    """The stage with that center, started."""
    stage = kind(settings_for_deaths(kind.kind), center.url)
    stage.more_gateway = REPORTS.format(url=center.url)
    try:
        stage.start()
        yield stage
    finally:
        stage.close()


def die(play: Play, center: Center, number: int, how: signal.Signals) -> Death:
    """Let a unit die by a signal, and wait until another life of it has its share."""
    stage, unit = play.stage, f"{SERVICE}:{number}"
    before, known = stage.host.unit(unit), max((each["id"] for each in center.decisions()), default=0)
    pid, slow_seconds = before["pid"], play.load.slow_seconds
    over = threading.Event()
    death = Death(unit, time.time(), slow_seconds=slow_seconds)
    os.kill(pid, how)
    watcher = threading.Thread(target=_watch, args=(death, stage, pid, before["generation"], over))
    watcher.start()
    try:
        until(f"{unit} is at full weight again", lambda: SENT in death.moments, RECOVERY_SECONDS)
        stage.until_right()
        wait_for_requests(play.load, 50)
    except AssertionError as error:
        raise AssertionError(
            f"{error}\nseen: {death.moments}\n{stage.explain()}\n{stage.host.said()[-3000:]}"
        ) from error
    finally:
        over.set()
        watcher.join()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)  # if it was left frozen: else the daemon could not end it in order
    _remember_decision(death, center, known)
    death.requests = [each for each in list(play.load.requests) if each.took_seconds and each.ended >= death.at]
    play.note_pids()
    return death


def _remember_decision(death: Death, center: Center, known: int) -> None:
    instance = f"here/{death.unit}"
    decisions = [each for each in center.decisions(instance=instance) if each["id"] > known]
    made = next((each for each in reversed(decisions) if each["verdict"] == "restart"), None)
    if made is not None:
        death.rule = made["rule"]
        death.moments[DECIDED] = datetime.fromisoformat(made["at"]).timestamp() - death.at


def _watch(death: Death, stage: Stage, pid: int, generation: int, over: threading.Event) -> None:
    """Note when each milestone is first seen."""
    looks = _looks(stage, death.unit, pid, generation)
    while not over.wait(LOOK_SECONDS):
        for milestone, look in looks.items():
            if milestone not in death.moments:
                with suppress(OSError, AssertionError):
                    if look():
                        death.moments[milestone] = time.time() - death.at


def _looks(stage: Stage, unit: str, pid: int, generation: int) -> dict[str, Callable[[], bool]]:
    host, instance = stage.host, f"here/{unit}"

    def entry() -> Json:
        return next((each for each in stage.entries() if each["unit"] == unit), None)

    def is_new(found: Json) -> bool:
        return found is not None and found["generation"] > generation

    def full() -> bool:
        found = entry()
        return is_new(found) and found["weight"] == found["full_weight"]

    def gone() -> bool:
        found = entry()
        return found is None or is_new(found)

    looks = {
        GONE: gone,
        ENDED: lambda: host.unit(unit)["pid"] != pid,
        STARTED: lambda: host.unit(unit)["generation"] > generation and host.unit(unit)["pid"] is not None,
        LISTED: lambda: is_new(entry()),
        FULL: full,
        SENT: lambda: full() and stage.is_right(),
    }
    if stage.unit_gateway is not None:
        gateway: GatewayProcess = stage.unit_gateway
        looks[REPORTED] = lambda: any(each["instance"] == instance for each in gateway.reports())
    return looks
