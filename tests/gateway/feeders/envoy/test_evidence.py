"""From counters of one look and the next to findings, without an Envoy."""

from __future__ import annotations

from gateway.feeders.envoy_admin import Cluster, Host
from gateway.feeders.envoy_events import Ejection
from gateway.feeders.envoy_evidence import QUIET_SECONDS, Evidence, Sight
from gateway.model import Failure, Finding, Health, Look, Recovery, Server, Symptom

PLACE = ("10.0.0.1", 80)


def _server(generation: int = 1) -> Server:
    return Server(
        service="web", instance="n/web", generation=generation, address=PLACE[0], port=80, weight=5, full_weight=5
    )


class Looks:
    """One server, looked at once more with each call."""

    def __init__(self) -> None:
        self.evidence = Evidence()
        self.now = 100.0

    def look(
        self,
        *,
        check: bool = False,
        unchecked: bool = False,
        ejected: bool = False,
        event: Ejection | None = None,
        fed: bool = True,
        generation: int = 1,
        admins: tuple[str, ...] = ("a",),
        after: float = 1.0,
        **counters: int,
    ) -> Look:
        """The counters are the totals that Envoy shows."""
        self.now += after
        host = Host(PLACE, 5, "HEALTHY", check, unchecked, ejected, counters)
        seen = {admin: {"web": Cluster("web", {PLACE: host})} for admin in admins}
        sight = Sight(_server(generation), PLACE, fed)
        return self.evidence.look(seen, [sight], [event] if event else [], now=self.now)

    def findings(self, **shown: object) -> list[Finding]:
        """What is new."""
        return list(self.look(**shown).findings)  # type: ignore[arg-type]


def _failures(findings: list[Finding]) -> list[tuple[Symptom, int, bool]]:
    return [(each.symptom, each.count, each.down) for each in findings if isinstance(each, Failure)]


def test_what_had_happened_before_the_first_look_is_no_finding() -> None:
    """Counters are totals."""
    looks = Looks()
    assert looks.findings(rq_error=50, cx_connect_fail=10) == []
    assert looks.findings(rq_error=50, cx_connect_fail=10) == []
    assert _failures(looks.findings(rq_error=53, cx_connect_fail=13)) == [(Symptom.CONNECT_REFUSED, 3, False)]


def test_counters_that_begin_anew_count_from_zero() -> None:
    """Envoy has been restarted, or the server been taken out and in again."""
    looks = Looks()
    looks.look(cx_connect_fail=100)
    assert _failures(looks.findings(cx_connect_fail=2)) == [(Symptom.CONNECT_REFUSED, 2, False)]


def test_errors_and_timeouts_count_only_beside_few_good_answers() -> None:
    """Each kind by itself."""
    looks = Looks()
    looks.look()
    assert looks.findings(rq_error=3, rq_success=10) == []
    assert looks.findings(rq_error=6, rq_timeout=3, rq_success=20) == []
    assert looks.findings(rq_error=8, rq_timeout=3, rq_success=22) == []
    assert _failures(looks.findings(rq_error=8, rq_timeout=3, rq_success=22)) == [(Symptom.ERROR_ANSWERS, 2, False)]
    assert _failures(looks.findings(rq_error=12, rq_timeout=5, rq_success=22)) == [(Symptom.RESPONSE_TIMEOUT, 2, False)]
    assert _failures(looks.findings(rq_error=12, rq_timeout=5, rq_success=22)) == [(Symptom.ERROR_ANSWERS, 2, False)]


def test_a_timeout_that_is_seen_as_an_error_first_is_only_a_timeout() -> None:
    """Envoy's counters do not grow all at the same time."""
    looks = Looks()
    looks.look()
    assert looks.findings(rq_error=1) == []
    assert _failures(looks.findings(rq_error=1, rq_timeout=1)) == [(Symptom.RESPONSE_TIMEOUT, 1, False)]
    assert looks.findings(rq_error=1, rq_timeout=1) == []


def test_a_server_is_down_once_and_for_what_was_seen_of_it() -> None:
    """An ejection does not say why by itself."""
    looks = Looks()
    looks.look()
    looks.look(rq_timeout=3, rq_error=3)
    assert _failures(looks.findings(rq_timeout=3, rq_error=3, ejected=True)) == [(Symptom.RESPONSE_TIMEOUT, 1, True)]
    assert looks.findings(rq_timeout=3, rq_error=3, ejected=True) == []


def test_an_ejection_whose_reason_nobody_saw_has_that_of_the_log() -> None:
    """Or else the answers were wrong."""
    refused = Ejection("web", PLACE, "CONSECUTIVE_LOCAL_ORIGIN_FAILURE", Symptom.CONNECT_REFUSED, 2)
    assert _failures(Looks().findings(ejected=True, event=refused)) == [(Symptom.CONNECT_REFUSED, 1, True)]
    assert _failures(Looks().findings(ejected=True)) == [(Symptom.ERROR_ANSWERS, 1, True)]


def test_an_ejection_that_was_over_before_the_look_is_a_failure_and_not_down() -> None:
    """The log knows of it."""
    event = Ejection("web", PLACE, "CONSECUTIVE_5XX", None, 1)
    looks = Looks()
    looks.look()
    found = looks.findings(event=event)
    assert _failures(found) == [(Symptom.ERROR_ANSWERS, 1, False)]
    assert isinstance(found[0], Failure)
    assert "consecutive_5xx" in found[0].detail


def test_a_server_that_has_not_been_checked_yet_is_not_down() -> None:
    """Nothing is known of it."""
    look = Looks().look(unchecked=True)
    assert look.findings == ()
    assert look.views[0].health is Health.UNKNOWN


def test_a_server_is_well_when_it_answers_or_passes_its_check_or_nothing_was_seen_for_long() -> None:
    """Told once each time."""
    well = [Recovery("web", "n/web", 1)]
    looks = Looks()
    looks.look()
    looks.look(ejected=True)
    assert looks.findings(rq_success=1, ejected=True) == []
    assert looks.findings(rq_success=2) == well
    assert looks.findings(rq_success=3) == []
    looks.look(check=True, rq_success=3)
    assert looks.findings(rq_success=3) == well
    looks.look(cx_connect_fail=1, rq_success=3)
    assert looks.findings(cx_connect_fail=1, rq_success=3) == []
    assert looks.findings(cx_connect_fail=1, rq_success=3, after=QUIET_SECONDS) == well


def test_a_server_is_well_only_if_no_envoy_has_it_down() -> None:
    """Each Envoy has its own word, and one that is away has none."""
    looks = Looks()
    looks.look(admins=("a", "b"))
    assert len(_failures(looks.findings(admins=("a", "b"), check=True))) == 2
    assert looks.findings(admins=("a",), check=True) == []
    assert looks.findings(admins=("a",)) == [Recovery("web", "n/web", 1)]


def test_another_life_is_another_server() -> None:
    """It is not well again, for it was never ill."""
    looks = Looks()
    looks.look()
    looks.look(check=True)
    assert looks.findings(generation=2, rq_success=5) == []


def test_who_drains_or_has_left_is_shown_and_not_accused() -> None:
    """Requests that wait for a connection are open, too."""
    look = Looks().look(fed=False, check=True, cx_connect_fail=9, rq_active=2, rq_pending_active=1, rq_total=7)
    assert look.findings == ()
    view = look.views[0]
    assert (view.health, view.in_flight, view.weight, view.total) == (Health.DOWN, 3, 5, 7)


def test_a_server_that_no_envoy_knows_is_shown_as_unknown() -> None:
    """It has been told of, and not been taken over."""
    look = Evidence().look({"a": {}}, [Sight(_server(), PLACE, True)], now=0.0)
    assert (look.views[0].health, look.views[0].in_flight, look.findings) == (Health.UNKNOWN, None, ())


def test_what_is_open_is_not_shown_where_it_cannot_be_followed_to_its_end() -> None:
    """Where draining servers are left out of the file."""
    host = Host(PLACE, 5, "HEALTHY", False, False, False, {"rq_active": 2})
    seen = {"a": {"web": Cluster("web", {PLACE: host})}}
    look = Evidence().look(seen, [Sight(_server(), PLACE, True, counts=False)], now=0.0)
    assert look.views[0].in_flight is None
