"""What happens while no daemon is there: processes end, files change, time passes; the next one makes sense of it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.end_to_end.killed.scene import LIFE, Order, Scene, until_equal
from tests.end_to_end.machine import CGROUPS, is_alive, kill, started_at, until


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

    assert "ended while unitd was not there" in scene.host.unit("web")["last_exit"]["reason"]
    scene.check_registered("web")
    begun = scene.notes("web")[-1].at
    beats = [beat.arrived_at for beat in scene.registry.beats if beat.generation == generation]
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


def test_a_process_goes_on_that_was_never_recorded(scene: Scene) -> None:
    scene.kill()
    with _journal(scene) as journal:
        journal.execute("DELETE FROM process")
        journal.execute("DELETE FROM entry")
    first = _life(scene)
    scene.run()

    scene.check_registered("web")
    assert _life(scene) == first
    scene.check_alone()


def test_a_process_of_which_nothing_is_known_is_found_and_replaced(scene: Scene) -> None:
    """Another version may have written of it in words that this one does not know."""
    scene.kill()
    with _journal(scene) as journal:
        journal.execute("DELETE FROM fact WHERE kind IN ('unit', 'spec')")
    first = _life(scene)
    scene.run()

    until("there is another process", lambda: _life(scene) != first)
    assert not is_alive(first)
    scene.check_registered("web")
    scene.check_alone()


def test_a_daemon_may_be_killed_while_it_takes_up_what_a_killed_one_has_left(scene: Scene) -> None:
    order = Order.new("restart", "web")
    assert scene.die_in(order, 4, "after")
    for number in (3, 4, 5, 6):
        scene.run_and_die(number, "before")
    scene.run()

    [restarted] = scene.host.finish(scene.give(order))

    assert restarted["state"] == "succeeded"
    scene.check_registered("web")
    scene.check_alone()
    scene.check_fences()


@pytest.mark.parametrize("verb", ["", "restart"])
def test_without_the_registry_a_process_that_serves_is_kept(waiting: Scene, verb: str) -> None:
    scene = waiting
    order = Order.new(verb, "web")
    if verb:
        assert scene.die_in(order, 3, "after")
    else:
        scene.kill()
    scene.registry.away = True
    scene.run()

    scene.host.until_state("web", "RUNNING")
    if verb:
        [operation] = scene.host.finish(scene.give(order))
        assert operation["state"] == "failed" and "not stopped" in operation["error"], operation
    scene.registry.away = False

    scene.check_registered("web")
    assert scene.registered() == {"web": 1}, "it is the same process"
    scene.check_alone()


def test_what_is_left_of_a_tree_whose_leader_ended_meanwhile_ends_before_the_unit_starts_again(scene: Scene) -> None:
    folder, port = scene.host.folder, scene.host.port()
    life = f"{sys.executable} -S {LIFE} {port} {folder}/notes.9 {folder}/lock.9"
    scene.configure(
        f"""
        [unit.pair]
        command = ["/bin/sh", "-c", "{life} & wait"]
        startsecs = 0.05
        """
    )
    assert scene.host.ask("POST", "/v1/config/apply", {}).status == 202
    leader = scene.host.until_state("pair", "RUNNING")["pid"]
    until("its child has begun", lambda: scene.notes("pair:9"))
    scene.kill()
    kill({leader})
    assert is_alive(scene.notes("pair:9")[0].pid)
    scene.run()

    assert scene.host.until_state("pair", "RUNNING")["generation"] == 2
    until("the next one has begun", lambda: len([note for note in scene.notes("pair:9") if note.what == "begin"]) == 2)
    assert [note.what for note in scene.notes("pair:9")] == ["begin", "term", "begin"]


ESCAPE = """
import os, time
while "unitd-" not in open("/proc/self/cgroup").read():
    time.sleep(0.01)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve("/bin/sleep", ["sleep", "987654"], {})
    os._exit(0)
os.wait()
time.sleep(1000)
"""


@pytest.mark.skipif(os.geteuid() != 0 or CGROUPS is None, reason="a delegated cgroup v2 needs root and such a kernel")
def test_what_hides_from_the_next_daemon_is_found_in_the_units_cgroup() -> None:
    scene = Scene(cgroup="auto")
    try:
        script = scene.host.file("escape.py", ESCAPE)
        table = f'[unit.escape]\ncommand = "{sys.executable} -S {script}"\nstartsecs = 0.05\n'
        scene.configure(table, without_web=True)
        scene.run()
        scene.host.until_state("escape", "RUNNING")
        folder = next(scene.host.cgroup_folder.glob("unitd-*/escape-1"))  # type: ignore[union-attr]
        members = until("both are in it", lambda: len(found := _members(folder)) == 2 and found)
        scene.kill()
        scene.run()

        assert scene.host.until_state("escape", "RUNNING")["generation"] == 1
        scene.host.do("restart", "escape")
        assert not any(map(is_alive, members))
        assert not folder.exists()
        scene.host.do("stop", "escape")
        assert scene.host.cgroups() == []
    finally:
        scene.close()


def _members(folder: Path) -> list[int]:
    return [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]


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
