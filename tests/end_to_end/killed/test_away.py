"""What happens while no daemon is there: processes end, files change, time passes; the next one makes sense of it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.end_to_end.killed.scene import Order, Scene, until_equal
from tests.end_to_end.machine import is_alive, kill, started_at, until


def _life(scene: Scene) -> int:
    """The pid of the newest life of the service's process."""
    return scene.notes("web")[-1].pid


def _end(scene: Scene) -> None:
    """The process of the service ends while no daemon is there."""
    kill({_life(scene)})


@pytest.fixture
def waiting() -> Iterator[Scene]:
    """A scene whose entries are left to expire."""
    made = Scene(removal="expire", ttl_seconds=1.0)
    try:
        made.run()
        made.check_registered("web")
        yield made
    finally:
        made.close()


# Processes.


@pytest.mark.parametrize("verb", ["", "restart"])
def test_a_process_that_ended_meanwhile_is_started_again_when_its_entry_has_gone(waiting: Scene, verb: str) -> None:
    scene = waiting
    order = Order.new(verb, "web")
    if verb:
        assert scene.die_in(order, 2, "after")
    else:
        scene.kill()
    _end(scene)
    generation = scene.registered()["web"]
    scene.run()

    assert "ended while unitd was not there" in scene.host.unit("web")["why"]
    scene.check_registered("web")
    begun = scene.notes("web")[-1].at
    beats = [beat.at for beat in scene.registry.beats if beat.generation == generation]
    assert begun > max(beats) + scene.ttl_seconds, "the entry of the last one is gone"
    if verb:
        assert [operation["state"] for operation in scene.host.finish(scene.give(order))] == ["succeeded"]
    scene.check_alone()
    scene.check_fences()


def test_a_stop_has_ended_when_the_entry_of_a_process_that_ended_meanwhile_has_gone(waiting: Scene) -> None:
    scene = waiting
    order = Order.new("stop", "web")
    assert scene.die_in(order, 3, "after")
    _end(scene)
    assert scene.registered() == {"web": 1}
    scene.run()

    [stopped] = scene.host.finish(scene.give(order))

    assert (stopped["state"], scene.registered()) == ("succeeded", {})
    assert scene.host.unit("web")["state"] == "STOPPED"
    scene.check_alone()


def _bystander() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True, env={})


@pytest.mark.parametrize("what", ["another process with its pid", "another boot"])
def test_a_process_that_is_not_the_units_is_left_alone(scene: Scene, what: str) -> None:
    scene.kill()
    _end(scene)
    bystander = _bystander()
    try:
        began = started_at(bystander.pid)
        assert began is not None
        ticks = round(began * os.sysconf("SC_CLK_TCK"))
        with _journal(scene) as journal:
            if what == "another boot":
                journal.execute("UPDATE process SET pid = ?, ticks = ?, boot = 'b'", (bystander.pid, ticks))
            else:
                journal.execute("UPDATE process SET pid = ?, ticks = ?", (bystander.pid, ticks - 1))
            assert journal.total_changes == 1
        scene.run()
        scene.check_registered("web")
        scene.host.do("stop", "web")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def _journal(scene: Scene) -> closing[sqlite3.Connection]:
    """The dead daemon's journal, to be changed."""
    return closing(sqlite3.connect(scene.host.folder / "state/journal.sqlite", isolation_level=None))


def test_a_process_that_was_never_recorded_is_found(scene: Scene) -> None:
    scene.kill()
    with _journal(scene) as journal:
        journal.execute("DELETE FROM process")
        journal.execute("DELETE FROM entry")
    first = _life(scene)
    scene.run()

    until("there is another process", lambda: _life(scene) != first)
    assert not is_alive(first)
    scene.check_registered("web")
    scene.check_alone()


def test_a_daemon_may_be_killed_while_it_takes_up_what_a_killed_one_has_left(scene: Scene) -> None:
    order = Order.new("restart", "web")
    assert scene.die_in(order, 4, "after")
    for number in (5, 7, 9, 11):
        assert scene.run_and_die(number, "before")
    scene.run()

    [restarted] = scene.host.finish(scene.give(order))

    assert restarted["state"] == "succeeded"
    scene.check_registered("web")
    scene.check_alone()
    scene.check_fences()


def test_without_the_registry_a_process_that_serves_is_kept(waiting: Scene) -> None:
    scene = waiting
    scene.kill()
    scene.registry.away = True
    scene.run()

    scene.host.until_state("web", "EXPIRING")
    scene.host.until_state("web", "RUNNING")
    scene.registry.away = False

    scene.check_registered("web")
    assert scene.registered() == {"web": 1}, "it is the same process"
    scene.check_alone()


# Configuration.


def test_a_unit_that_is_not_configured_any_more_is_stopped_and_forgotten(scene: Scene) -> None:
    order = Order.new("restart", "web")
    assert scene.die_in(order, 3, "after")
    scene.configure(without_web=True)
    scene.run()

    until("it is forgotten", lambda: "web" not in scene.host.units())
    assert scene.registered() == {}
    until_equal(scene.host.processes, set())
    [restart] = scene.known(order)
    assert (restart["state"], restart["error"]) == ("failed", "the unit was removed from the configuration")

    scene.configure()
    assert scene.host.ask("POST", "/v1/config/apply", {}).status == 202
    scene.check_registered("web")
    assert scene.registered()["web"] > 1, "its generations go on"


def test_an_entry_is_waited_for_though_its_unit_is_not_configured_any_more(waiting: Scene) -> None:
    scene = waiting
    scene.kill()
    _end(scene)
    scene.configure(without_web=True)
    scene.run()

    assert scene.host.unit("web")["state"] == "EXPIRING"
    until("it is forgotten", lambda: "web" not in scene.host.units())
    assert scene.registered() == {}


def test_the_daemons_own_entry_is_no_units(scene: Scene) -> None:
    scene.host.stop()
    scene.configure(http=f"127.0.0.1:{scene.host.port()}")
    scene.run()
    until("it is registered", lambda: scene.registry.entries("unitd"))
    scene.kill()
    scene.run()

    until("it is registered again", lambda: [entry["generation"] for entry in scene.registry.entries("unitd")] == [2])
    assert set(scene.host.units()) == {"web"}
    scene.check_registered("web")
    assert [entry["generation"] for entry in scene.registry.entries("unitd")] == [2]


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
    scene.kill()
    scene.run()
    until("there is another process", lambda: scene.registered().get("web") == 2)
    scene.check_registered("web")

    weights = {beat.weight for beat in scene.registry.beats if beat.generation == 2}
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
