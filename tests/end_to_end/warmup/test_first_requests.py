"""The first requests of a new process are the daemon's own, and come before anybody can find it."""

from __future__ import annotations

import os
import signal

from tests.end_to_end.drain.scene import Registry, notes, step_names, worker
from tests.end_to_end.host import Host
from tests.end_to_end.machine import until

WARMUP = """
    [unit.NAME.warmup]
    initial = 100
    requests = [{requests}]
    requests_timeout = {seconds}
"""


def _warmup(*requests: str, seconds: float = 10) -> str:
    return WARMUP.format(requests=", ".join(f'"{request}"' for request in requests), seconds=seconds)


def test_they_come_in_their_order_and_marked_before_the_entry_in_each_generation(host: Host) -> None:
    requests = ("GET /first", "POST /second", "/third")
    host.configure(worker(host, "shop", host.port(), settings="autostart = false", tables=_warmup(*requests)))
    host.run()

    with Registry(host, "shop") as registry:
        [start] = host.do("start", "shop")
        registry.wait("shop", 1)
        [restart] = host.do("restart", "shop")
        registry.wait("shop", 2)

    for generation, operation in enumerate((start, restart), 1):
        got = notes(host, "shop", "got", generation)
        assert [note.detail for note in got] == ["/first warmup", "/second warmup", "/third warmup"]
        assert got[-1].at <= registry.first_seen("shop", generation)
        assert step_names(operation)[-4:] == ["spawn", "ready", "prewarm", "register"]
    assert notes(host, "shop", "got", 2)[0].at >= notes(host, "shop", "term", 1)[0].at


def test_while_they_are_under_way_nobody_finds_the_unit_and_people_read_what_it_does(host: Host) -> None:
    host.configure(worker(host, "shop", host.port(), tables=_warmup("/slow?2", "/after")))
    host.run()

    status = until("it is in its first requests", lambda: _prewarming(host))
    assert host.entry("shop", "shop") is None
    assert (status["state"], status["ready"], status["weight"]) == ("STARTING", False, 0)
    assert "first 2 requests" in status["why"]
    assert "STARTING" in host.unitctl("status").stdout
    host.until_registered("shop")
    assert [note.detail for note in notes(host, "shop", "got")] == ["/after warmup"]


def _prewarming(host: Host) -> dict[str, object] | None:
    status: dict[str, object] = host.unit("shop")
    return status if status["phase"] == "prewarming" else None


def test_those_that_fail_are_a_warning_and_the_unit_gets_its_traffic(host: Host) -> None:
    first = host.port(2)
    host.configure(
        worker(host, "refused", first, tables=_warmup("POST /fail", "/after"))
        + worker(host, "late", first + 1, tables=_warmup("POST /hang", "/never", seconds=0.5))
    )
    host.run()

    for name in ("refused", "late"):
        entry = host.until_registered(name)
        assert (entry["status"], entry["weight"]) == ("up", 100)
        assert host.unit(name)["state"] == "RUNNING"
    assert "POST /fail: it answered 500" in host.unit("refused")["why"]
    assert "POST /hang: not answered" in host.unit("late")["why"]
    assert [note.detail for note in notes(host, "refused", "got")] == ["/fail warmup", "/after warmup"]
    assert [note.detail for note in notes(host, "late", "got")] == ["/hang"]
    said = host.said()
    assert "refused: warm-up requests failed" in said and "late: warm-up requests failed" in said


def test_a_unit_that_is_stopped_in_the_middle_of_them_was_never_found(host: Host) -> None:
    host.configure(
        worker(host, "shop", host.port(), settings="autostart = false", tables=_warmup("/slow?30", seconds=60))
    )
    host.run()

    with Registry(host, "shop") as registry:
        start = host.order("start", "shop")
        until("it is in its first requests", lambda: _prewarming(host))
        host.do("stop", "shop")
        [start] = host.finish(start)

    assert start["state"] == "aborted" and host.unit("shop")["state"] == "STOPPED"
    assert not any(look.entries for look in registry.looks)
    assert len(notes(host, "shop", "term")) == 1


def test_a_process_that_dies_of_them_is_started_again_and_was_never_found(host: Host) -> None:
    host.configure(
        worker(host, "shop", host.port(), settings="autostart = false", tables=_warmup("/slow?30", seconds=60))
    )
    host.run()

    with Registry(host, "shop") as registry:
        [start] = host.order("start", "shop")
        os.kill(until("it is in its first requests", lambda: _prewarming(host))["pid"], signal.SIGKILL)
        until("the next one is in them", lambda: (_prewarming(host) or {}).get("generation") == 2)
        host.do("stop", "shop")
        host.finish([start])
    assert not any(look.entries for look in registry.looks)
