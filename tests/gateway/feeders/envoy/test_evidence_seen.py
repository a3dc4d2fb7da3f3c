"""What Envoy sees of servers that die, freeze or answer badly is found, and told once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.errors import GatewayUnreachable
from gateway.model import Failure, Finding, Health, Recovery, Symptom
from tests.end_to_end.machine import until
from tests.servers.envoy import Envoy

from .conftest import Feed
from .scene import Load, Unit, ask, server

pytestmark = pytest.mark.real


def _about(unit: Unit, *symptoms: Symptom, down: bool | None = None) -> Callable[[Finding], bool]:
    def wanted(finding: Finding) -> bool:
        return (
            isinstance(finding, Failure)
            and (finding.instance, finding.generation) == server(unit).key
            and finding.symptom in symptoms
            and down in (None, finding.down)
        )

    return wanted


def _well(unit: Unit) -> Callable[[Finding], bool]:
    return lambda finding: isinstance(finding, Recovery) and (finding.instance, finding.generation) == server(unit).key


def test_a_killed_server_refuses_connections_and_its_next_life_is_well(
    envoy: Envoy, units: list[Unit], feed: Feed
) -> None:
    """Requests are tried elsewhere; the new life serves at once, though the old one was ejected."""
    fed = feed(envoy)
    fed.apply(*map(server, units))
    with Load(envoy.port) as load:
        load.goes_on()
        fed.look()
        units[0].kill()
        refused = fed.finding("it refuses", _about(units[0], Symptom.CONNECT_REFUSED))
        assert isinstance(refused, Failure)
        assert refused.count >= 1
        fed.finding("it is ejected", _about(units[0], Symptom.CONNECT_REFUSED, down=True))
        view = fed.view(units[0])
        assert view is not None
        assert view.health is Health.DOWN
        units[0].launch()
        units[0].wait()
        fed.apply(*map(server, units))
        view = fed.view(units[0])
        assert view is not None
        assert view.health is Health.UP
        until("it serves", lambda: units[0].count > 0)


def test_a_frozen_server_is_found_by_requests_without_an_answer(
    start_envoy: Callable[..., Envoy], units: list[Unit], feed: Feed
) -> None:
    """And it is well when it answers again, once its time out is over."""
    envoy = start_envoy(request_seconds=0.3)
    fed = feed(envoy)
    fed.apply(*map(server, units))
    with Load(envoy.port, clients=8) as load:
        load.goes_on()
        fed.look()
        units[0].freeze()
        fed.finding("it is silent", _about(units[0], Symptom.RESPONSE_TIMEOUT, down=False))
        fed.finding("it is ejected", _about(units[0], Symptom.RESPONSE_TIMEOUT, down=True))
        units[0].thaw()
        fed.finding("it is well", _well(units[0]))


def test_a_server_that_answers_only_errors_is_found_and_one_that_fails_now_and_then_is_not(
    start_envoy: Callable[..., Envoy], units: list[Unit], feed: Feed
) -> None:
    """A service may answer 500 to some requests, and be well."""
    envoy = start_envoy(outlier=False)
    fed = feed(envoy)
    fed.apply(*map(server, units[:1]))
    for _ in range(5):
        assert [ask(envoy.port, path)[0] for path in ("/fail", "/", "/")] == [500, 200, 200]
    assert fed.look().findings == ()
    fed.apply(*map(server, units))
    fed.look()
    ask(units[1].port, "/broken")
    with Load(envoy.port):
        broken = fed.finding("it is broken", _about(units[1], Symptom.ERROR_ANSWERS))
    assert isinstance(broken, Failure)
    assert not broken.down
    assert {each.instance for each in fed.look().findings} <= {broken.instance}
    units[1].kill()


def test_a_failed_health_check_is_told_once_and_its_end_too(
    start_envoy: Callable[..., Envoy], units: list[Unit], feed: Feed
) -> None:
    """Without any request."""
    envoy = start_envoy(checks="/healthz")
    fed = feed(envoy)
    fed.apply(*map(server, units))
    assert fed.look().findings == ()  # what has not been checked yet is not down
    until("all are well", lambda: all(view.health is Health.UP for view in fed.look().views))
    units[0].freeze()
    failed = fed.finding("its check fails", _about(units[0], Symptom.CHECK_FAILED, down=True))
    assert isinstance(failed, Failure)
    assert "health check" in failed.detail
    assert [finding for finding in fed.look().findings if isinstance(finding, Failure) and finding.down] == []
    units[0].thaw()
    fed.finding("its check passes", _well(units[0]))
    assert fed.look().findings == ()


def test_connections_that_nobody_accepts_are_not_called_refused(
    start_envoy: Callable[..., Envoy], units: list[Unit], feed: Feed, silent_port: int
) -> None:
    """Here: a server whose queue of connections is full, as that of a frozen one becomes."""
    envoy = start_envoy(retries=0)
    fed = feed(envoy)
    fed.apply(replace(server(units[0]), port=silent_port))
    fed.look()
    assert ask(envoy.port)[0] == 503
    fed.finding("nobody accepts", _about(units[0], Symptom.CONNECT_TIMEOUT))


def test_an_envoy_that_was_away_is_believed_anew(
    start_envoy: Callable[..., Envoy], units: list[Unit], feed: Feed
) -> None:
    """What it called down before is told again, if it still is; its counters have begun anew."""
    envoy = start_envoy(checks="/healthz")
    fed = feed(envoy)
    fed.apply(*map(server, units))
    units[0].freeze()
    fed.finding("its check fails", _about(units[0], Symptom.CHECK_FAILED, down=True))
    envoy.kill()
    with pytest.raises(GatewayUnreachable):
        fed.look()
    envoy.start()
    again = fed.finding("its check fails again", _about(units[0], Symptom.CHECK_FAILED, down=True))
    assert isinstance(again, Failure)
    assert again.count == 1
    units[0].thaw()
