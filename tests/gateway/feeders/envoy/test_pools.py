"""Envoy sends to whom the pool names, as often as their weights say, and `apply` returns when it does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.errors import GatewayRefused, GatewayUnreachable
from gateway.model import Applied, Health
from tests.end_to_end.machine import until
from tests.servers.envoy import ASSIGNMENT, Envoy

from .conftest import Feed
from .scene import Load, Unit, ask, in_background, server

pytestmark = pytest.mark.real


def test_a_drained_server_gets_no_request_after_apply_has_returned(envoy: Envoy, units: list[Unit], feed: Feed) -> None:
    """On kept-alive connections of clients and to servers; nobody notices, and the last of the service may drain, too."""
    fed = feed(envoy)
    assert fed.apply(*map(server, units)).serving == {server(unit).key for unit in units}
    with Load(envoy.port) as load:
        load.goes_on()
        for drained in range(1, 4):
            servers = [server(unit, draining=number < drained) for number, unit in enumerate(units)]
            applied = fed.apply(*servers)
            before = [unit.count for unit in units[:drained]]
            load.goes_on()
            assert [unit.count for unit in units[:drained]] == before
            assert applied.serving == {server(unit).key for unit in units[drained:]}
        assert set(load.statuses) == {200}
    assert fed.apply(*(server(unit, draining=True) for unit in units)).serving == frozenset()
    assert ask(envoy.port)[0] == 503


def test_draining_is_acted_on_by_all_threads_of_envoy(
    start_envoy: Callable[..., Envoy], units: list[Unit], feed: Feed
) -> None:
    """Here of two, that may merge updates for a second, as Envoy does if nobody says otherwise."""
    envoy = start_envoy(merge_seconds=1.0, workers=2)
    fed = feed(envoy)
    fed.apply(*map(server, units))
    with Load(envoy.port, clients=8) as load:
        load.goes_on()
        fed.apply(*(server(unit, draining=unit is units[0]) for unit in units))
        before = units[0].count
        load.goes_on()
        assert units[0].count == before


def test_a_drained_server_gets_nothing_though_envoy_panics(
    start_envoy: Callable[..., Envoy], units: list[Unit], feed: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    """With its default Envoy sends to all that it knows when fewer than half are well, also to those that drain."""
    envoy = start_envoy(panic_percent=50.0, checks="/healthz", outlier=False, retries=0)
    fed = feed(envoy)
    fed.apply(*map(server, units))
    for unit in units[2:]:
        unit.kill()
    until("two fail their checks", lambda: [view.health for view in fed.look().views].count(Health.DOWN) == 2)
    applied = fed.apply(*(server(unit, draining=unit is units[0]) for unit in units))
    assert applied.serving == {server(unit).key for unit in units[1:]}
    before = units[0].count
    with Load(envoy.port) as load:
        load.goes_on(50)
    assert units[0].count == before
    assert load.by_port[str(units[1].port)] > 0
    assert int(envoy.ask("/stats?filter=web.lb_healthy_panic").split()[1]) > 0
    assert "set healthy_panic_threshold to 0" in caplog.text


def test_what_a_drained_or_removed_server_was_asked_is_answered_and_counted_until_then(
    envoy: Envoy, units: list[Unit], feed: Feed
) -> None:
    """Who stops the server learns what is open there, also when the server has left the pool."""
    fed = feed(envoy)
    fed.apply(server(units[0]))
    with in_background(envoy.port, "/slow/0.8") as answers:
        until("the request is there", lambda: units[0].count and fed.view(units[0]).in_flight == 1)  # type: ignore[union-attr]
        fed.apply(server(units[0], draining=True), server(units[1]))
        view = fed.view(units[0])
        assert view is not None
        assert (view.in_flight, view.health) == (1, Health.UP)
        assert fed.apply(server(units[1])).serving == {server(units[1]).key}
        view = fed.view(units[0])
        assert view is not None
        assert view.in_flight == 1
        assert envoy.host(units[0].port) is not None
    assert answers == [(200, str(units[0].port))]
    until("it is gone from what a look shows", lambda: fed.view(units[0]) is None)
    until("Envoy has forgotten it", lambda: envoy.host(units[0].port) is None)


def test_a_removed_server_gets_nothing_on_connections_that_are_still_open(
    envoy: Envoy, units: list[Unit], feed: Feed
) -> None:
    """Nor does it when it never drained."""
    fed = feed(envoy)
    fed.apply(*map(server, units))
    with Load(envoy.port) as load:
        load.goes_on()
        fed.apply(*map(server, units[1:]))
        fed.look()
        before = units[0].count
        load.goes_on()
        assert units[0].count == before
        assert set(load.statuses) == {200}


def test_a_server_that_is_taken_back_serves_again(envoy: Envoy, units: list[Unit], feed: Feed) -> None:
    """From draining, and from having been removed."""
    fed = feed(envoy)
    fed.apply(*map(server, units))
    for way_out in ([server(units[0], draining=True)], []):
        fed.apply(*way_out, *map(server, units[1:]))
        assert fed.apply(*map(server, units)).serving == {server(unit).key for unit in units}
        before = units[0].count
        with Load(envoy.port) as load:
            until("it serves", lambda before=before: units[0].count > before)
        assert set(load.statuses) == {200}


def test_shares_follow_weights(envoy: Envoy, units: list[Unit], feed: Feed) -> None:
    """As Envoy itself counts them; a weight of 65535 beside one of 1 is taken, too."""
    fed = feed(envoy)
    fed.apply(*map(server, units))
    for weights in ((100, 100, 100, 100), (10, 100, 100, 100), (40, 100, 10, 50)):
        fed.apply(*(server(unit, weight=weight) for unit, weight in zip(units, weights)))
        before = [envoy.requests_to(unit.port) for unit in units]
        for _ in range(310):
            assert ask(envoy.port)[0] == 200
        grown = [envoy.requests_to(unit.port) - then for unit, then in zip(units, before)]
        for share, weight in zip(grown, weights):
            assert share / 310 == pytest.approx(weight / sum(weights), abs=0.03)
        assert [view.weight for view in fed.look().views] == list(weights)
    fed.apply(server(units[0], weight=65535), server(units[1], weight=1))
    assert ask(envoy.port) == (200, str(units[0].port))


def test_servers_are_added_and_a_service_may_become_empty(envoy: Envoy, units: list[Unit], feed: Feed) -> None:
    """Nobody is left, and then somebody is there again."""
    fed = feed(envoy)
    assert fed.apply().serving == frozenset()
    assert ask(envoy.port)[0] == 503
    for number in range(1, 5):
        assert len(fed.apply(*map(server, units[:number])).serving) == number
        assert {ask(envoy.port)[1] for _ in range(20)} == {str(unit.port) for unit in units[:number]}
    fed.apply()
    assert ask(envoy.port)[0] == 503


def test_the_same_again_writes_nothing(envoy: Envoy, units: list[Unit], feed: Feed) -> None:
    """Neither does another unit-gateway that finds what it would have written."""
    fed = feed(envoy)
    fed.apply(*map(server, units))
    before = os.stat(envoy.eds_file).st_ino
    fed.apply(*map(server, units))
    fed.apply(*map(server, units), full=True)
    feed(envoy).apply(*map(server, units))
    assert os.stat(envoy.eds_file).st_ino == before


def test_zones_are_localities_if_asked_for(envoy: Envoy, units: list[Unit], feed: Feed) -> None:
    """Each with the weight of its servers that serve."""
    zones = ("a", "a", "b", "b")
    servers = [server(unit, zone=zone, draining=unit is units[3]) for unit, zone in zip(units, zones)]
    feed(envoy, zones=True).apply(*servers)
    localities = json.loads(envoy.eds_file.read_text())["resources"][0]["endpoints"]
    assert [(each["locality"]["zone"], each["load_balancing_weight"]) for each in localities] == [
        ("a", 200),
        ("b", 100),
    ]
    assert {ask(envoy.port)[1] for _ in range(20)} == {str(unit.port) for unit in units[:3]}


def test_two_envoys_that_read_one_file_must_both_act_on_it(
    envoy: Envoy, units: list[Unit], feed: Feed, start_envoy: Callable[..., Envoy]
) -> None:
    """One that is away fails the apply, and the other one goes on being fed and looked at."""
    other = start_envoy(eds_file=envoy.eds_file)
    fed = feed(envoy, other)
    fed.apply(*map(server, units[:2]))
    for each in (envoy, other):
        assert {ask(each.port)[1] for _ in range(10)} == {str(unit.port) for unit in units[:2]}
    assert [view.total for view in fed.look().views] == [10, 10]
    other.kill()
    with pytest.raises(GatewayUnreachable, match=other.admin):
        fed.apply(*map(server, units))
    assert {ask(envoy.port)[1] for _ in range(20)} == {str(unit.port) for unit in units}
    assert len(fed.look().views) == 4
    other.start()
    assert len(fed.apply(*map(server, units)).serving) == 4
    assert {ask(other.port)[1] for _ in range(20)} == {str(unit.port) for unit in units}


def test_a_server_that_is_known_by_a_name_is_found(envoy: Envoy, units: list[Unit], feed: Feed) -> None:
    """Envoy takes addresses only, and would refuse all for one name; a name that means nothing is left out."""
    fed = feed(envoy)
    by_name = replace(server(units[0]), address="localhost")
    nobody = replace(server(units[1]), address="nobody.invalid")
    assert fed.apply(by_name, nobody).serving == {by_name.key}
    assert ask(envoy.port)[1] == str(units[0].port)


def test_a_file_that_somebody_else_has_replaced_is_repaired_by_a_full_apply(
    envoy: Envoy, units: list[Unit], feed: Feed
) -> None:
    """Whatever stands in it."""
    fed = feed(envoy)
    fed.apply(*map(server, units))
    empty = {"version_info": "7", "resources": [{"@type": ASSIGNMENT, "cluster_name": "web"}]}
    for text in (json.dumps(empty), "{", "[]", ""):
        candidate = envoy.eds / "strange"
        candidate.write_text(text)
        candidate.rename(envoy.eds_file)
        fed.apply(*map(server, units), full=True)
        assert {ask(envoy.port)[1] for _ in range(20)} == {str(unit.port) for unit in units}
    envoy.eds_file.unlink()
    fed.apply(*map(server, units[:1]), full=True)
    assert ask(envoy.port)[1] == str(units[0].port)
    assert [path.name for path in envoy.eds.iterdir()] == ["web.json"]


def test_an_envoy_that_is_away_finds_the_file_when_it_is_back(envoy: Envoy, units: list[Unit], feed: Feed) -> None:
    """`apply` says that nobody acts on it, and writes it all the same."""
    fed = feed(envoy)
    fed.apply(*map(server, units))
    envoy.kill()
    with pytest.raises(GatewayUnreachable, match=envoy.admin):
        fed.apply(*map(server, units[:2]))
    with pytest.raises(GatewayUnreachable, match=envoy.admin):
        fed.look()
    envoy.start()
    assert {ask(envoy.port)[1] for _ in range(20)} == {str(unit.port) for unit in units[:2]}
    assert fed.apply(*map(server, units[:2])).serving == {server(unit).key for unit in units[:2]}


def test_an_envoy_that_does_not_answer_is_not_waited_for_longer_than_is_allowed(
    envoy: Envoy, units: list[Unit], feed: Feed
) -> None:
    """Frozen, it acts on the file as soon as it goes on."""
    feed(envoy).apply(*map(server, units))
    fed = feed(envoy, apply_seconds=0.3)
    envoy.freeze()
    with pytest.raises(GatewayUnreachable, match="does not answer"):
        fed.apply(server(units[0]))
    envoy.thaw()
    assert until("it is applied", lambda: _retried(lambda: fed.apply(server(units[0])))).serving == {
        server(units[0]).key
    }
    assert ask(envoy.port)[1] == str(units[0].port)


def test_a_folder_that_cannot_be_written_is_for_the_operator(envoy: Envoy, units: list[Unit], feed: Feed) -> None:
    """The message names the file; Envoy goes on with what it had."""
    feed(envoy).apply(server(units[0]))
    for folder in (envoy.folder / "missing", envoy.event_log):
        with pytest.raises(GatewayRefused, match=r"cannot write .*web\.json"):
            feed(envoy, folder=str(folder)).apply(*map(server, units))
    assert ask(envoy.port)[1] == str(units[0].port)


def test_a_file_that_envoy_does_not_read_is_no_success(envoy: Envoy, units: list[Unit], feed: Feed) -> None:
    """It could be tried for ever: the message asks whether it is the right file."""
    with pytest.raises(GatewayUnreachable, match="is that the file it reads"):
        feed(envoy, file="other-{service}.json", apply_seconds=1.0).apply(*map(server, units))


def test_what_envoy_does_not_accept_is_for_the_operator(envoy: Envoy, units: list[Unit], feed: Feed) -> None:
    """Here: a port that is none. Envoy goes on with what it had."""
    fed = feed(envoy)
    fed.apply(*map(server, units))
    for _ in range(2):
        with pytest.raises(GatewayRefused, match="does not accept"):
            fed.apply(server(units[0]), replace(server(units[1]), port=70000))
    assert {ask(envoy.port)[1] for _ in range(20)} == {str(unit.port) for unit in units}
    assert fed.apply(server(units[0])).serving == {server(units[0]).key}


def test_a_server_that_envoy_keeps_because_its_checks_pass_is_told_of(
    start_envoy: Callable[..., Envoy], units: list[Unit], feed: Feed
) -> None:
    """Without ignore_health_on_host_removal, Envoy goes on sending to who is no longer in the file."""
    envoy = start_envoy(checks="/healthz", keep_removed=True, panic_percent=50.0)
    fed = feed(envoy)
    fed.apply(*map(server, units))
    until("the checks have passed", lambda: {ask(envoy.port)[1] for _ in range(20)} == {str(u.port) for u in units})
    with pytest.raises(GatewayRefused, match="set ignore_health_on_host_removal"):
        fed.apply(*map(server, units[1:]))


def test_a_service_that_envoy_does_not_know_waits_in_its_file(units: list[Unit], feed: Feed, envoy: Envoy) -> None:
    """Nothing is sent to it, so all that is told is acted on."""
    fed = feed(envoy, cluster="other-{service}")
    assert fed.apply(server(units[0])).serving == {server(units[0]).key}
    assert json.loads(envoy.eds_file.read_text())["resources"][0]["cluster_name"] == "other-web"


def test_only_services_that_are_meant_are_wanted(envoy: Envoy, feed: Feed) -> None:
    """By their patterns; a name that cannot be a file's never is."""
    feeder = feed(envoy, services=("web", "cart*")).feeder
    assert [name for name in ("web", "webs", "cart:v2", "cart/x") if feeder.wants(name)] == ["web", "cart:v2"]
    assert (feeder.name, feeder.kind, feeder.look_seconds) == ("mesh", "envoy", 1.0)


def _retried(action: Callable[[], Applied]) -> Applied | None:
    try:
        return action()
    except GatewayUnreachable:
        return None
