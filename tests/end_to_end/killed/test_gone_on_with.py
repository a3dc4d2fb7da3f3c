"""Orders that a daemon was in the middle of, and what people have said of traffic, in the hands of the next one."""

from __future__ import annotations

import signal
import time

import pytest

from tests.end_to_end.killed.scene import Order, Scene
from tests.end_to_end.machine import until

# Operations.


def test_an_order_that_had_not_begun_and_came_too_late_expires() -> None:
    scene = Scene(processes=2)
    try:
        scene.run()
        scene.check_registered(*scene.names)
        order = Order.new("restart", "web")
        deadline = time.time() + 2
        order.body["deadline"] = _iso(deadline)
        assert scene.die_in(order, 3, "after")
        until("the deadline has passed", lambda: time.time() > deadline)
        scene.run()

        first, second = scene.host.finish(scene.give(order))

        assert first["state"] == "succeeded", "it had begun"
        assert (second["state"], second["error"]) == ("expired", "its deadline passed before it could be started")
        scene.check_registered(*scene.names)
        scene.check_alone()
    finally:
        scene.close()


def _iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def test_people_see_that_an_order_was_gone_on_with(scene: Scene) -> None:
    order = Order.new("restart", "web")
    assert scene.die_in(order, 5, "after")
    scene.run()
    scene.host.finish(scene.give(order))

    [operation] = [each for each in scene.host.ask("GET", "/v1/operations").json["operations"]
                   if each["command_id"] == order.body["command_id"]]  # fmt: skip
    assert "resume" in [step["name"] for step in operation["steps"]]
    assert all(step["state"] in ("succeeded", "failed") for step in operation["steps"])
    assert "resume" in scene.host.unitctl("why", "web").stdout


def test_a_commands_id_belongs_to_it_after_the_daemons_death(scene: Scene) -> None:
    order = Order.new("restart", "web")
    assert scene.die_in(order, 5, "after")
    scene.run()

    body = {**order.body, "reason": "another one"}
    assert scene.host.ask("POST", "/v1/units/web/restart", body).status == 422
    assert len(scene.give(order)) == 1


def test_what_was_restarted_after_a_stop_is_up_with_the_next_daemon(scene: Scene) -> None:
    scene.host.do("stop", "web")
    scene.host.do("restart", "web")
    scene.kill()
    scene.run()

    scene.check_registered("web")
    assert scene.registered() == {"web": 2}


def test_a_signal_that_may_have_been_sent_is_not_sent_again(scene: Scene) -> None:
    order = Order.new("signal", "web", signal="USR1")
    assert scene.die_in(order, 1, "after")
    scene.run()

    [operation] = scene.give(order)

    assert operation["state"] == "failed" and "order it again" in operation["error"]


def test_a_shutdown_that_was_cut_short_leaves_no_unit_down(scene: Scene) -> None:
    scene.configure(
        """
        [unit.slow]
        command = ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"]
        startsecs = 0.05
        stopwaitsecs = 1
        """
    )
    assert scene.host.ask("POST", "/v1/config/apply", {}).status == 202
    scene.host.until_state("slow", "RUNNING")
    scene.host.signal(signal.SIGTERM)
    until("it is on its way", lambda: "slow: STOPPING" in scene.host.said())
    scene.kill()
    scene.run()

    assert scene.host.until_state("slow", "RUNNING")["generation"] == 2
    scene.check_registered("web")
    stops = [each for each in scene.host.ask("GET", "/v1/operations").json["operations"] if each["verb"] == "stop"]
    assert {stop["state"] for stop in stops if stop["unit"] == "slow"} == {"aborted"}
    scene.host.do("stop", "slow")


# Traffic.


def test_a_drained_unit_stays_drained_over_any_number_of_daemons(scene: Scene) -> None:
    scene.host.do("drain", "web", owner="a person")
    known = len(scene.registry.beats)
    for _ in range(2):
        scene.kill()
        scene.run()
        unit = scene.host.until_state("web", "DRAINED")
        assert unit["maintenance"]["owner"] == "a person"
        scene.check_alone()
    assert scene.registry.beats[known:] == []

    scene.host.do("undrain", "web")
    scene.check_registered("web")


def test_a_fixed_weight_stays(scene: Scene) -> None:
    scene.host.do("weight", "web", weight=30)
    known = len(scene.registry.beats)
    scene.kill()
    scene.run()
    scene.check_registered("web")
    scene.host.do("restart", "web")
    scene.check_registered("web")

    weights = {beat.weight for beat in scene.registry.beats[known:]}
    assert weights - {None} == {30}


@pytest.mark.parametrize("record", [1, 3, 5])
def test_a_drain_whose_time_ended_meanwhile_is_over(scene: Scene, record: int) -> None:
    order = Order.new("drain", "web", for_seconds=1.0)
    assert scene.die_in(order, record, "after")
    asked = time.time()
    until("its time is over", lambda: time.time() > asked + 1)
    scene.run()

    [operation] = scene.host.finish(scene.give(order))

    assert operation["state"] in ("expired", "aborted"), operation
    scene.check_registered("web")
    assert scene.host.unit("web")["maintenance"] is None
    scene.check_alone()


def test_a_drain_ends_when_it_was_to_though_the_daemon_was_killed(scene: Scene) -> None:
    scene.host.do("drain", "web", for_seconds=2.0)
    ends = scene.host.unit("web")["maintenance"]["until"]
    scene.kill()
    scene.run()

    assert scene.host.until_state("web", "DRAINED")["maintenance"]["until"] == ends
    scene.check_registered("web")
    assert scene.host.unit("web")["maintenance"] is None
