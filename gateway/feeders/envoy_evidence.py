"""From what Envoys show, look by look, to what is wrong with servers. Pure: time is an argument.

Errors and timeouts count only when they are at least as many as
the answers that were good: a service may answer 500 now and then, and be well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..model import Failure, Finding, Health, Key, Look, Recovery, Server, ServerView, Symptom
from .envoy_admin import Cluster, Host
from .envoy_counting import Counting, Counts, Seen
from .envoy_events import Ejection
from .envoy_file import Place

QUIET_SECONDS = 10.0  # without a failure, a server that Envoy sends to again is taken for well


@dataclass(frozen=True, slots=True)
class Sight:
    """One server at one look. `fed`: it is in its pool and serves, so what it does wrong is of interest.

    `counts`: what is open there is shown until it is over, though the server may have left.
    """

    server: Server
    place: Place
    fed: bool
    counts: bool = True


@dataclass(slots=True)
class _Case:
    """What is known of one life of a server."""

    down: dict[str, Symptom] = field(default_factory=dict)  # by admin
    failing: bool = False
    failed_at: float = 0.0
    symptom: Symptom | None = None


class Evidence:
    """The memory of all looks at the Envoys of one feeder."""

    def __init__(self) -> None:
        self._counting = Counting()
        self._cases: dict[tuple[str, Key], _Case] = {}

    def lose(self) -> None:
        """The Envoys cannot be asked: what they call down is told again when they can."""
        for case in self._cases.values():
            case.down = {}

    def connect_failures(self, admin: str, service: str, cluster: Cluster) -> bool:
        """Whether connections have failed since the look before: only then it is of interest how."""
        return any(self._counting.growth(admin, service, host).connects for host in cluster.hosts.values())

    def look(
        self,
        seen: Seen,
        sights: Iterable[Sight],
        ejections: Iterable[Ejection] = (),
        *,
        now: float,
        timed_out: frozenset[str] = frozenset(),
    ) -> Look:
        """Views and findings. `timed_out`: services whose failed connections got no answer at all."""
        kinds = {(event.cluster, event.place): event for event in ejections}
        views, findings, cases = [], [], {}
        for sight in sights:
            service = sight.server.service
            hosts = {
                admin: host
                for admin, clusters in seen.items()
                if service in clusters and (host := clusters[service].hosts.get(sight.place)) is not None
            }
            views.append(_view(sight, hosts))
            if sight.fed:
                case = cases[service, sight.server.key] = self._cases.get((service, sight.server.key), _Case())
                grown = {admin: self._counting.growth(admin, service, host) for admin, host in hosts.items()}
                refused = Symptom.CONNECT_TIMEOUT if service in timed_out else Symptom.CONNECT_REFUSED
                event = kinds.get((service, sight.place))
                found = list(_findings(_Round(sight.server, case, hosts, grown, refused, event, now)))
                findings += found
        self._cases = cases
        self._counting.remember(seen)
        return Look(tuple(views), tuple(findings))


@dataclass(frozen=True, slots=True)
class _Round:
    """One server in one look."""

    server: Server
    case: _Case
    hosts: Mapping[str, Host]
    grown: Mapping[str, Counts]
    refused: Symptom
    event: Ejection | None
    now: float

    def failure(self, symptom: Symptom, detail: str, *, count: int = 1, down: bool = False) -> Failure:
        self.case.failing, self.case.failed_at, self.case.symptom = True, self.now, symptom
        server = self.server
        return Failure(server.service, server.instance, server.generation, symptom, count, down, detail)


def _findings(round_: _Round) -> Iterator[Finding]:
    found: list[Finding] = []
    for admin in round_.hosts:
        found += _counted(round_, admin)
    found += _taken_out(round_)
    yield from found
    if not found and _is_well(round_):
        round_.case.failing, round_.case.symptom = False, None
        yield Recovery(round_.server.service, round_.server.instance, round_.server.generation)


def _counted(round_: _Round, admin: str) -> Iterator[Finding]:
    grown = round_.grown[admin]
    if grown.sure > 0 and grown.sure >= grown.good:
        detail = f"answers of 5xx or none, says Envoy at {admin}"
        yield round_.failure(Symptom.ERROR_ANSWERS, detail, count=grown.sure)
    if grown.timeouts > 0 and grown.timeouts >= grown.good:
        detail = f"no answer in time, says Envoy at {admin}"
        yield round_.failure(Symptom.RESPONSE_TIMEOUT, detail, count=grown.timeouts)
    if grown.connects > 0:
        yield round_.failure(round_.refused, f"connections failed, says Envoy at {admin}", count=grown.connects)


def _taken_out(round_: _Round) -> Iterator[Finding]:
    """Told once, when Envoy begins to send it nothing."""
    case, event = round_.case, round_.event
    down: dict[str, Symptom] = {}
    for admin, host in round_.hosts.items():
        if host.failed_check:
            down[admin] = Symptom.CHECK_FAILED
        elif host.ejected:
            told = event.symptom if event is not None else None
            down[admin] = case.down.get(admin) or case.symptom or told or Symptom.ERROR_ANSWERS
        if admin in down and case.down.get(admin) is not down[admin]:
            yield round_.failure(down[admin], _why_out(admin, host, event), down=True)
    if event is not None and not down and not case.down:  # it was back before we looked
        yield round_.failure(event.symptom or case.symptom or Symptom.ERROR_ANSWERS, _ejected(event))
    case.down = down


def _is_well(round_: _Round) -> bool:
    case = round_.case
    if not case.failing or case.down or not round_.hosts:
        return False
    answered = any(grown.good > 0 for grown in round_.grown.values())
    checked = case.symptom is Symptom.CHECK_FAILED  # and it is not any more
    return answered or checked or round_.now - case.failed_at >= QUIET_SECONDS


def _why_out(admin: str, host: Host, event: Ejection | None) -> str:
    if host.failed_check:
        return f"its health check fails, says Envoy at {admin}"
    return f"{_ejected(event)}, says Envoy at {admin}" if event is not None else f"ejected, says Envoy at {admin}"


def _ejected(event: Ejection) -> str:
    return f"ejected for {event.kind.lower()} (time {event.number})"


def _view(sight: Sight, hosts: Mapping[str, Host]) -> ServerView:
    states = list(hosts.values())
    health, detail = Health.UNKNOWN, ""
    if states:
        out = {admin: host for admin, host in hosts.items() if host.failed_check or host.ejected}
        unchecked = any(host.unchecked for host in states)
        health = Health.DOWN if out else Health.UNKNOWN if unchecked else Health.UP
        detail = "; ".join(_why_out(admin, host, None) for admin, host in out.items())
    return ServerView(
        sight.server.service,
        sight.server.instance,
        sight.server.generation,
        health,
        in_flight=sum(host.in_flight for host in states) if states and sight.counts else None,
        weight=max(host.weight for host in states) if states else None,
        total=sum(host.counters.get("rq_total", 0) for host in states) if states else None,
        detail=detail,
    )
