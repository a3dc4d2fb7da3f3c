"""Which paths are answered, and who may use them; without a server."""

import json

import pytest

from unit_app import Flag
from unit_app.control import Control
from unit_app.peer import is_local
from unit_app.warmup import WarmUp


def control(prefix="/-/", token=None):
    flag = Flag()
    return Control(flag, WarmUp(flag, None), prefix, token)


def refusal(name, method="POST", peer="127.0.0.1", token=None, **headers):
    given = {key.replace("_", "-"): value for key, value in headers.items()}
    answer = control(token=token).refusal(name, method, peer, given.get)
    return answer and answer.status


def test_only_known_paths_are_ours():
    ours = control("/unit/")
    assert ours.name_of("/unit/drain") == "drain"
    assert ours.name_of("/unit/health/ready") == "health/ready"
    assert [ours.name_of(path) for path in ("/-/drain", "/unit/", "/unit/other", "/unit/drain/", "")] == [None] * 5


@pytest.mark.parametrize("prefix", ["", "x/", "/x"])
def test_a_prefix_without_its_slashes_is_refused(prefix):
    with pytest.raises(ValueError, match="slash"):
        control(prefix)


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_orders_are_taken_from_loopback(peer):
    assert refusal("drain", peer=peer) is None


@pytest.mark.parametrize("peer", ["192.0.2.7", "2001:db8::7", "0.0.0.0", "255.255.255.255", "", "unix:", "fe80::1%9"])
def test_orders_are_not_taken_from_elsewhere(peer):
    assert not is_local(peer)
    for name in ("drain", "undrain", "warm"):
        assert refusal(name, peer=peer) == 403
    for name in ("in-flight", "health/ready", "health/live"):
        assert refusal(name, "GET", peer) is None


@pytest.mark.parametrize("header", ["x_forwarded_for", "forwarded", "via", "x_real_ip", "origin", "sec_fetch_site"])
def test_orders_with_the_marks_of_a_proxy_or_a_browser_are_refused(header):
    assert refusal("drain", **{header: ""}) == 403
    assert refusal("drain", token="right", x_unit_token="right", **{header: "x"}) == 403
    assert refusal("health/ready", "GET", **{header: "x"}) is None


def test_a_token_decides_alone():
    assert refusal("drain", peer="192.0.2.7", token="right", x_unit_token="right") is None
    assert refusal("drain", peer="127.0.0.1", token="right", x_unit_token="wröng") == 403
    assert refusal("drain", peer="127.0.0.1", token="right") == 403


def test_methods_are_a_fixed_table():
    assert refusal("drain", "GET") == 405
    assert refusal("health/live", "POST") == 405
    assert refusal("health/live", "HEAD") is None
    answer = control().refusal("in-flight", "DELETE", "127.0.0.1", {}.get)
    assert dict(answer.headers)["allow"] == "GET, HEAD"


def test_the_state_is_told_in_plain_json():
    ours = control()
    running = ours.flag.enter()
    assert json.loads(ours.in_flight().body) == {"in_flight": 1, "draining": False, "processes": 1}
    running.end()
    assert json.loads(ours.drain().body) == {"in_flight": 0, "draining": True, "processes": 1}
    assert ours.not_ready().status == 503
    assert (ours.undrain().status, ours.not_ready()) == (200, None)


def test_without_a_hook_the_unit_is_warm():
    ours = control()
    assert ours.warm(ours.warm_up.verdict()).status == 200
    assert ours.warm(None).status == 202
