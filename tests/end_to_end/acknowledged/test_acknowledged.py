"""A unit that leaves serves on until the gateways that sent to it say that they do no more."""

from __future__ import annotations

import os
import signal

from tests.end_to_end.acknowledged.scene import Scene
from tests.end_to_end.machine import until


def test_a_restart_waits_for_a_slow_gateway_and_needs_no_settling_then(scene: Scene) -> None:
    scene.run(ttl=30.0)
    before = scene.host.unit("shop")
    scene.main.say("gw-1.edge", scene.life)
    [operation] = scene.host.order("restart", "shop")

    status = scene.waits_for("gateway gw-1.edge")
    assert status["why"].endswith("s of at most 10.0 s; it serves until then"), status
    assert (status["pid"], status["state"]) == (before["pid"], "EXPIRING")
    assert scene.entry(scene.main)["status"] == "draining", "it is deleted when the gateway has heard of that"
    shown = scene.host.unitctl("ops", operation["id"]).stdout
    assert "gateways" in shown and "waiting for gateway gw-1.edge" in shown
    scene.stays("gateway gw-1.edge", 0.5)

    scene.main.say("gw-1.edge")
    [ended] = scene.host.finish([operation])
    assert ended["state"] == "succeeded", ended
    steps = [step["name"] for step in ended["steps"]]
    assert steps[:4] == ["withdraw", "gateways", "gone", "drain"], steps
    assert scene.life[1] == before["generation"] + 1


def test_a_gateway_that_never_answers_is_given_up_and_named(scene: Scene) -> None:
    scene.run("gateway_seconds = 0.4")
    scene.main.say("gw-1.edge", scene.life)
    scene.main.say("gw-2.edge", scene.life)
    [operation] = scene.host.order("restart", "shop")
    scene.waits_for("gateways gw-1.edge, gw-2.edge")
    scene.main.say("gw-2.edge")
    [ended] = scene.host.finish([operation])
    assert ended["state"] == "succeeded", ended
    said = "gw-1.edge has not said within 0.4 s to send to it no more"
    steps = scene.steps(operation)
    assert steps["gateways"]["detail"] == said
    assert "settle" in steps, "what it still sends may be on its way"
    assert f"shop: {said}" in scene.host.said()


def test_a_gateway_that_vanishes_is_not_waited_for(scene: Scene) -> None:
    scene.run()
    scene.main.say("gw-1.edge", scene.life)
    [operation] = scene.host.order("restart", "shop")
    scene.waits_for("gateway gw-1.edge")
    scene.main.vanish("gw-1.edge")
    [ended] = scene.host.finish([operation])
    assert ended["state"] == "succeeded" and "settle" in scene.steps(operation), ended


def test_a_gateway_that_never_sent_to_it_changes_nothing(scene: Scene) -> None:
    scene.run()
    scene.main.say("gw-1.edge", ("here/other", 1))
    [ended] = scene.host.do("restart", "shop")
    assert [step["name"] for step in ended["steps"]][:4] == ["withdraw", "gone", "settle", "drain"], ended


def test_a_crash_waits_for_no_gateway(scene: Scene) -> None:
    scene.run()
    before = scene.host.unit("shop")
    scene.main.say("gw-1.edge", scene.life)
    os.kill(before["pid"], signal.SIGKILL)
    until("the next one is up", lambda: scene.host.unit("shop")["generation"] > before["generation"])
    scene.host.until_state("shop", "RUNNING")
    assert "gateway" not in scene.host.said()


def test_the_waiting_ends_with_the_process(scene: Scene) -> None:
    scene.run()
    before = scene.host.unit("shop")
    scene.main.say("gw-1.edge", scene.life)
    [operation] = scene.host.order("restart", "shop")
    scene.waits_for("gateway gw-1.edge")
    os.kill(before["pid"], signal.SIGKILL)
    [ended] = scene.host.finish([operation])
    assert ended["state"] == "succeeded", ended
    assert scene.life[1] == before["generation"] + 1


def test_an_abort_while_gateways_are_waited_for_puts_the_unit_back(scene: Scene) -> None:
    scene.run()
    before = scene.host.unit("shop")
    scene.main.say("gw-1.edge", scene.life)
    [operation] = scene.host.order("stop", "shop")
    scene.waits_for("gateway gw-1.edge")
    assert scene.host.ask("POST", f"/v1/operations/{operation['id']}/abort").status == 200
    scene.host.until_state("shop", "RUNNING")
    until("it is registered again", lambda: scene.entry(scene.main))
    assert scene.host.unit("shop")["pid"] == before["pid"]

    scene.main.say("gw-1.edge")
    [ended] = scene.host.do("restart", "shop")
    assert "gateways" not in [step["name"] for step in ended["steps"]]


def test_a_daemon_that_was_killed_meanwhile_waits_again(scene: Scene) -> None:
    scene.run()
    before = scene.host.unit("shop")
    scene.main.say("gw-1.edge", scene.life)
    [operation] = scene.host.order("restart", "shop")
    scene.waits_for("gateway gw-1.edge")
    scene.host.signal(signal.SIGKILL)
    scene.host.wait()
    scene.host.run()

    status = scene.waits_for("gateway gw-1.edge")
    assert status["pid"] == before["pid"], "it serves on"
    scene.main.say("gw-1.edge")
    [ended] = scene.host.finish([operation])
    assert ended["state"] == "succeeded", ended
    assert scene.life[1] == before["generation"] + 1


def test_gateways_of_two_registries_are_waited_for(migrating: Scene) -> None:
    """With entries that expire: the gateways may speak as soon as they are told, long before the end of the ttl."""
    scene = migrating
    [old] = scene.also
    scene.run(removal="expire")
    scene.main.say("gw-1.edge", scene.life)
    old.say("gw-2.edge", scene.life)
    [operation] = scene.host.order("restart", "shop")
    until("the old registry says that it leaves", lambda: scene.entry(old)["status"] == "draining")
    scene.main.say("gw-1.edge")
    scene.waits_for("gateway gw-2.edge")
    old.say("gw-2.edge")
    [ended] = scene.host.finish([operation])
    assert ended["state"] == "succeeded" and "settle" not in scene.steps(operation), ended


def test_a_shutdown_waits_for_gateways_too(scene: Scene) -> None:
    scene.run("gateway_seconds = 0.5")
    scene.main.say("gw-1.edge", scene.life)
    scene.host.stop()
    assert "shop: gw-1.edge has not said within 0.5 s" in scene.host.said()
