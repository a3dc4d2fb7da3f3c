"""A drain that lasts: out of traffic with the process alive, for as long as somebody wants, and back with warm-up."""

from __future__ import annotations

import os
import signal

from tests.end_to_end.drain.scene import Registry, apply, ask, clients, notes, step_names, worker
from tests.end_to_end.host import Host
from tests.end_to_end.machine import is_alive, until

DRAIN = """
    [unit.NAME.drain]
    notify = { http = "POST /drain" }
    resume = { http = "POST /undrain" }
    quiet = 0.2
"""
WARMUP = """
    [unit.NAME.warmup]
    initial = 20
    step = 40
    period = 0.4
"""


def _start(host: Host, tables: str = DRAIN, **more: str) -> tuple[int, int]:
    """The unit `shop`: its port, and the pid of its process."""
    port = host.port()
    host.configure(worker(host, "shop", port, tables=tables, **more))  # type: ignore[arg-type]
    host.run()
    host.until_registered("shop")
    return port, host.unit("shop")["pid"]


def test_a_drained_unit_finishes_and_stays_out_of_traffic_until_it_is_taken_back_with_warm_up(host: Host) -> None:
    port, pid = _start(host, DRAIN + WARMUP)
    until("it has its full weight", lambda: host.entry("shop", "shop")["weight"] == 100)

    with clients() as at_it, Registry(host, "shop") as registry:
        [asked] = at_it.slow(host, "shop", port, 0.8)
        at_it.keep(port)
        [order] = host.order("drain", "shop", owner="anna")
        assert host.until_state("shop", "DRAINING")["pid"] == pid
        [operation] = host.finish([order])
        assert asked.result() == f"{pid} 1"
        status = host.unit("shop")
        assert (status["state"], status["pid"], status["weight"], status["ready"]) == ("DRAINED", pid, 0, True)
        assert status["maintenance"]["owner"] == "anna" and status["maintenance"]["until"] is None
        assert "kept out of traffic by anna" in status["why"]
        [told] = notes(host, "shop", "drain")
        assert registry.last_seen("shop", 1) <= told.at
        assert ask(port, "/") == f"{pid} 1", "its process serves whoever still comes"

        host.do("undrain", "shop")
        registry.wait("shop", weight=100)

    assert operation["cut"] is None and step_names(operation)[-1] == "drain"
    [back] = notes(host, "shop", "undrain")
    assert told.at < back.at
    weights = registry.said("shop", "status", "weight")
    assert weights[0] == ("up", 100) and weights[-3:] == [("warming", 20), ("warming", 60), ("up", 100)], weights
    status = host.unit("shop")
    assert (status["pid"], status["generation"], status["maintenance"]) == (pid, 1, None)
    assert notes(host, "shop", "term") == []


def test_a_unit_stays_drained_over_a_restart_a_crash_and_a_new_daemon(host: Host) -> None:
    port, first = _start(host)
    host.do("drain", "shop", owner="anna")

    with Registry(host, "shop") as registry:
        [operation] = host.do("restart", "shop")
        status = host.unit("shop")
        second = status["pid"]
        assert (status["state"], status["generation"]) == ("DRAINED", 2) and second != first
        os.kill(second, signal.SIGKILL)
        until("it is back", lambda: host.unit("shop")["generation"] == 3)
        status = host.until_state("shop", "DRAINED")
    assert registry.looks[-1].entries == {} and all(not look.entries for look in registry.looks)
    assert status["maintenance"]["owner"] == "anna"
    host.stop()

    host.run()
    status = host.until_state("shop", "DRAINED")
    assert status["maintenance"]["owner"] == "anna" and host.entry("shop", "shop") is None
    host.do("undrain", "shop")
    assert host.entry("shop", "shop")["generation"] == host.unit("shop")["generation"] == 4


def test_a_drained_unit_that_was_told_is_told_only_once(host: Host) -> None:
    _start(host)
    host.do("drain", "shop")
    host.do("drain", "shop")
    host.do("stop", "shop")
    assert len(notes(host, "shop", "drain")) == len(notes(host, "shop", "term")) == 1
    assert notes(host, "shop", "undrain") == []


def test_a_unit_that_cannot_take_it_back_is_told_only_when_it_is_to_end(host: Host) -> None:
    port, pid = _start(host, '[unit.NAME.drain]\nnotify = { http = "POST /drain" }\nquiet = 0.2')
    host.do("drain", "shop")
    assert notes(host, "shop", "drain") == []
    host.do("undrain", "shop")
    assert ask(port, "/") == f"{pid} 1" and host.entry("shop", "shop")["status"] == "up"

    host.do("drain", "shop")
    host.do("stop", "shop")

    [told], [term] = notes(host, "shop", "drain"), notes(host, "shop", "term")
    assert told.at <= term.at


def test_a_drain_for_a_time_ends_by_itself(host: Host) -> None:
    _, pid = _start(host)
    host.do("drain", "shop", for_seconds=1)
    until_then = host.unit("shop")["maintenance"]["until"]
    assert until_then is not None and until_then in host.unit("shop")["why"]

    host.until_registered("shop")

    status = host.unit("shop")
    assert (status["state"], status["pid"], status["maintenance"]) == ("RUNNING", pid, None)
    assert len(notes(host, "shop", "undrain")) == 1


def test_a_changed_configuration_leaves_a_drained_unit_drained(host: Host) -> None:
    port, pid = _start(host)
    host.do("drain", "shop")
    host.configure(worker(host, "shop", port, tables=DRAIN, settings='environment = { COLOUR = "red" }'))

    host.finish(apply(host))

    status = host.unit("shop")
    assert (status["state"], status["generation"]) == ("DRAINED", 2) and status["maintenance"] is not None
    assert not is_alive(pid) and host.entry("shop", "shop") is None


def test_a_removed_unit_takes_its_drain_and_its_weight_with_it(host: Host) -> None:
    port, _ = _start(host)
    whole = worker(host, "shop", port, tables=DRAIN)
    host.do("weight", "shop", weight=40)
    host.do("drain", "shop")
    host.configure("")
    host.finish(apply(host))
    assert host.units() == {}

    host.configure(whole)
    host.finish(apply(host))

    status = host.unit("shop")
    assert (status["state"], status["weight"], status["maintenance"]) == ("RUNNING", 100, None)
    assert host.entry("shop", "shop")["weight"] == 100


def test_a_stopped_unit_that_is_drained_comes_up_drained(host: Host) -> None:
    _start(host)
    host.do("stop", "shop")
    host.do("drain", "shop")
    assert host.unit("shop")["state"] == "STOPPED"
    host.do("start", "shop")
    assert host.unit("shop")["state"] == "DRAINED" and host.entry("shop", "shop") is None
    host.do("undrain", "shop")
    assert host.entry("shop", "shop")["generation"] == 2


def test_a_drain_can_be_called_off_while_work_finishes_and_the_unit_serves_on(host: Host) -> None:
    port, pid = _start(host)

    with clients() as at_it:
        [asked] = at_it.slow(host, "shop", port, 1)
        [operation] = host.order("drain", "shop", owner="anna")
        until("it was told", lambda: notes(host, "shop", "drain"))
        answer = host.ask("POST", f"/v1/operations/{operation['id']}/abort")
        assert answer.status == 200, answer
        host.until_registered("shop")
        status = host.unit("shop")
        assert (status["state"], status["pid"], status["maintenance"]) == ("RUNNING", pid, None)
        until("it was told that it goes on", lambda: notes(host, "shop", "undrain"))
        assert asked.result() == f"{pid} 1"

    [operation] = host.finish([operation])
    assert operation["state"] == "aborted"
    assert notes(host, "shop", "term") == []


def test_a_stop_cannot_be_called_off_when_the_unit_was_told_to_refuse_work(host: Host) -> None:
    port, pid = _start(host)

    with clients() as at_it:
        [asked] = at_it.slow(host, "shop", port, 0.8)
        [operation] = host.order("stop", "shop")
        until("it was told", lambda: notes(host, "shop", "drain"))
        assert host.ask("POST", f"/v1/operations/{operation['id']}/abort").status == 409
        host.finish([operation])
        assert asked.result() == f"{pid} 1"
    assert host.unit("shop")["state"] == "STOPPED"


def test_an_undrain_in_the_middle_of_a_drain_ends_it(host: Host) -> None:
    port, pid = _start(host)

    with clients() as at_it:
        [asked] = at_it.slow(host, "shop", port, 0.8)
        [drain] = host.order("drain", "shop")
        host.until_state("shop", "DRAINING")
        host.do("undrain", "shop")
        [drain] = host.finish([drain])
        assert asked.result() == f"{pid} 1"

    assert drain["state"] == "aborted"
    assert host.entry("shop", "shop")["status"] == "up" and host.unit("shop")["state"] == "RUNNING"


def test_a_stop_in_the_middle_of_a_drain_waits_for_the_same_work_and_then_stops(host: Host) -> None:
    port, pid = _start(host)

    with clients() as at_it:
        [asked] = at_it.slow(host, "shop", port, 0.8)
        drain = host.order("drain", "shop")
        host.until_state("shop", "DRAINING")
        host.do("stop", "shop")
        assert asked.result() == f"{pid} 1"
        [drain] = host.finish(drain)

    assert host.unit("shop")["state"] == "STOPPED" and host.unit("shop")["maintenance"] is not None
    assert drain["state"] == "succeeded", "it is out of traffic"
    assert len(notes(host, "shop", "drain")) == 1


def test_a_unit_that_dies_while_it_drains_to_stay_comes_back_drained(host: Host) -> None:
    port, pid = _start(host)

    with clients() as at_it:
        [asked] = at_it.slow(host, "shop", port, 30)
        drain = host.order("drain", "shop")
        host.until_state("shop", "DRAINING")
        os.kill(pid, signal.SIGKILL)
        [drain] = host.finish(drain)
        assert asked.result().startswith("failed")

    assert drain["state"] == "succeeded", drain
    until("its next process runs", lambda: host.unit("shop")["generation"] == 2)
    status = host.until_state("shop", "DRAINED")
    assert status["restarts"] == 1 and host.entry("shop", "shop") is None


def test_nobody_finds_a_unit_again_before_it_has_heard_that_it_may_take_new_work(host: Host) -> None:
    heard = host.folder / "heard"
    late = host.file("late", f"#!/bin/sh\nsleep 0.4\ncut -d' ' -f1 /proc/uptime >> {heard}\n", 0o755)
    _start(
        host,
        f'''
        [unit.NAME.drain]
        notify = {{ http = "POST /drain" }}
        resume = {{ exec = ["{late}"] }}
        quiet = 0.2
    ''',
    )
    host.do("drain", "shop")

    with Registry(host, "shop") as registry:
        host.do("undrain", "shop")
        registry.wait("shop")

    assert registry.first_seen("shop", 1) >= float(heard.read_text())


def test_a_unit_that_is_wanted_out_again_while_it_is_told_to_come_back_stays_out(host: Host) -> None:
    late = host.file("late", "#!/bin/sh\nsleep 0.4\n", 0o755)
    _start(
        host,
        f'''
        [unit.NAME.drain]
        notify = {{ http = "POST /drain" }}
        resume = {{ exec = ["{late}"] }}
        quiet = 0.2
    ''',
    )
    host.do("drain", "shop")

    with Registry(host, "shop") as registry:
        [undrain] = host.order("undrain", "shop")
        host.do("stop", "shop")
        [undrain] = host.finish([undrain])
    assert undrain["state"] == "succeeded", "nobody wants it out of traffic"
    assert not any(look.entries for look in registry.looks)


READINESS = """
    [unit.NAME.readiness]
    http = "/ready"
    period = 0.2
    failure_threshold = 1
"""


def test_units_that_say_what_they_were_told_to_say_are_no_mass_failure(host: Host) -> None:
    port = host.port(8)
    host.configure(worker(host, "shop", port, count=8, tables=DRAIN + READINESS))
    host.run()
    names = [f"shop:{number}" for number in range(8)]
    for name in names:
        host.until_registered(name)
    drained, ill = names[:6], names[6]
    operations = [operation for name in drained for operation in host.order("drain", name)]
    host.finish(operations)
    until("they say that they are not ready", lambda: not any(host.units()[name]["ready"] for name in drained))

    ask(port + 6, "/sick", "POST")

    until("one that is really ill is let go", lambda: host.entry("shop", ill) is None)
    assert host.unit(ill)["state"] == "UNHEALTHY"
    assert {host.unit(name)["state"] for name in drained} == {"DRAINED"}
    ask(port + 6, "/well", "POST")
    operations = [operation for name in drained for operation in host.order("undrain", name)]
    assert {operation["state"] for operation in host.finish(operations)} == {"succeeded"}
    assert {entry["unit"] for entry in host.entries("shop")} >= {*drained, names[7]}


def test_what_is_open_when_the_time_is_over_is_counted_and_goes_on_for_as_long_as_the_process_stays(host: Host) -> None:
    port, pid = _start(host, DRAIN + "timeout = 0.4")

    with clients() as at_it:
        [asked] = at_it.slow(host, "shop", port, 1)
        [operation] = host.do("drain", "shop")
        assert operation["cut"] == 1
        assert host.unit("shop")["state"] == "DRAINED"
        assert asked.result() == f"{pid} 1"


def test_a_weight_that_somebody_has_fixed_outlives_a_drain(host: Host) -> None:
    _start(host, DRAIN + WARMUP)
    host.do("weight", "shop", weight=30)
    host.do("drain", "shop")
    host.do("undrain", "shop")
    entry = host.entry("shop", "shop")
    assert (entry["status"], entry["weight"]) == ("up", 30)
