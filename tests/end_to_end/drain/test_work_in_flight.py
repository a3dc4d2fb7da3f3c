"""What a unit that leaves still works on: how it is told to finish, who knows what is left, and what a deadline cuts."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.end_to_end.drain.scene import WORKER, Registry, ask, clients, notes, notes_of, step_names, worker
from tests.end_to_end.host import Host
from tests.end_to_end.machine import DEADLINE_SECONDS, boottime, until

ONE_BY_ONE = f"{sys.executable} -S {Path(__file__).with_name('one_by_one.py')}"
PATIENCE_SECONDS = 12.0  # well below the time that the drains below may take


def _start(host: Host, name: str, drain: str, *, port: int | None = None, **more: str) -> int:
    port = host.port() if port is None else port
    host.configure(worker(host, name, port, tables=f"[unit.NAME.drain]\n{drain}", **more))  # type: ignore[arg-type]
    host.run()
    host.until_registered(name)
    return port


def test_connections_that_are_kept_alive_and_idle_hold_nobody_up(host: Host) -> None:
    port = _start(host, "shop", "quiet = 0.2\ntimeout = 60")

    with clients() as at_it:
        at_it.keep(port, 20)
        [operation] = host.finish(host.order("stop", "shop"), PATIENCE_SECONDS)

    assert (operation["state"], operation["cut"]) == ("succeeded", None)
    assert len(notes(host, "shop", "term")) == 1


def test_what_is_still_open_when_the_time_is_over_is_cut_and_counted(host: Host) -> None:
    port = _start(host, "shop", "quiet = 0.2\ntimeout = 0.6")

    with clients() as at_it:
        at_it.keep(port, 2)
        [short] = at_it.slow(host, "shop", port, 0.3)
        long = at_it.slow(host, "shop", port, 30, count=3)
        done = host.unitctl("stop", "shop")
        answers = [each.result() for each in long]

    [term] = notes(host, "shop", "term")
    assert short.result() == f"{term.pid} 1"
    assert all(answer.startswith("failed") for answer in answers), answers
    [operation] = host.ask("GET", "/v1/operations").json["operations"][-1:]
    assert (operation["state"], operation["cut"], term.detail) == ("succeeded", 3, "3")
    [drain] = [step for step in operation["steps"] if step["name"] == "drain"]
    assert "3 requests were still open" in drain["detail"]
    assert done.returncode == 0 and "3 requests" in done.stdout + done.stderr


def test_a_unit_that_knows_what_it_has_in_flight_is_believed(host: Host) -> None:
    port = _start(host, "shop", 'in_flight = { http = "/in-flight" }\ntimeout = 60')

    with clients() as at_it:
        assert ask(port, "/job", "POST").startswith(str(host.unit("shop")["pid"]))
        at_it.keep(port)
        [operation] = host.order("stop", "shop")
        until("it says what is left", lambda: "1 request in flight, says the unit" in host.unit("shop")["why"])
        assert notes(host, "shop", "term") == []
        ask(port, "/finish", "POST")
        [operation] = host.finish([operation], PATIENCE_SECONDS)

    [job], [term] = notes(host, "shop", "job"), notes(host, "shop", "term")
    assert job.at <= term.at and term.detail == "0"
    assert operation["cut"] is None


def test_what_only_the_unit_knows_of_is_cut_and_counted_when_the_time_is_over(host: Host) -> None:
    port = _start(host, "shop", 'in_flight = { http = "/in-flight" }\ntimeout = 0.5')

    for _ in range(2):
        ask(port, "/job", "POST")
    [operation] = host.do("restart", "shop")

    [term] = notes(host, "shop", "term")
    assert (operation["cut"], term.detail) == (2, "2")


def test_where_nobody_can_tell_the_unit_gets_the_whole_time(host: Host) -> None:
    seconds = 0.8
    _start(host, "shop", f'in_flight = "none"\ntimeout = {seconds}')

    with Registry(host, "shop") as registry:
        [operation] = host.do("stop", "shop")

    [term] = notes(host, "shop", "term")
    assert term.at - registry.last_seen("shop", 1) >= seconds
    assert operation["cut"] is None


def test_a_unit_whose_own_word_fails_is_looked_at_by_the_kernel(host: Host) -> None:
    port = _start(host, "shop", 'in_flight = { http = "/fail" }\nquiet = 0.2\ntimeout = 60')

    with clients() as at_it:
        [asked] = at_it.slow(host, "shop", port, 0.8)
        host.finish(host.order("stop", "shop"), PATIENCE_SECONDS)
        answer = asked.result()

    [term] = notes(host, "shop", "term")
    assert answer == f"{term.pid} 1"


def test_requests_that_wait_for_a_unit_that_takes_one_at_a_time_are_answered(host: Host) -> None:
    port = host.port()
    host.configure(
        f"""
        [unit.shop]
        command = "{ONE_BY_ONE} {{port}} 0.3"
        startsecs = 0.1
        service = {{ port = {port}, ttl_seconds = 1 }}
        restart = {{ removal = "deregister", settle_seconds = 0.05 }}
        drain = {{ quiet = 0.1, timeout = 60 }}
        """
    )
    host.run()
    host.until_registered("shop")
    pid = host.unit("shop")["pid"]

    with clients() as at_it:
        asked = [at_it.ask(port, "/") for _ in range(4)]
        until("they wait for it", lambda: host.unit("shop")["in_flight"] == 4)
        [operation] = host.finish(host.order("restart", "shop"), PATIENCE_SECONDS)
        assert [answer.result() for answer in asked] == [f"{pid} 1"] * 4

    assert operation["cut"] is None


def test_units_are_told_in_each_of_three_ways_after_their_entry_is_gone_and_before_the_signal(host: Host) -> None:
    told, first = host.folder / "told", host.port(3)
    script = host.file(
        "tell", f"#!/bin/sh\necho $UNITD_UNIT $UNITD_GENERATION $(cut -d' ' -f1 /proc/uptime) >> {told}\n", 0o755
    )
    hooks = {
        "by-http": '{ http = "POST /drain" }',
        "by-signal": '{ signal = "USR1" }',
        "by-exec": f'{{ exec = ["{script}"] }}',
    }
    host.configure(
        "".join(
            worker(host, name, port, tables=f"[unit.NAME.drain]\nquiet = 0.2\nnotify = {hook}")
            for port, (name, hook) in enumerate(hooks.items(), first)
        )
    )
    host.run()
    for name in hooks:
        host.until_registered(name)

    with (
        Registry(host, "by-http") as http,
        Registry(host, "by-signal") as by_signal,
        Registry(host, "by-exec") as by_exec,
    ):
        host.do("stop", "all")

    for name, word, registry in (("by-http", "drain", http), ("by-signal", "usr1", by_signal)):
        [hook], [term] = notes(host, name, word), notes(host, name, "term")
        assert registry.last_seen(name, 1) <= hook.at <= term.at, name
    [line] = told.read_text().splitlines()
    unit, generation, at = line.split()
    [term] = notes(host, "by-exec", "term")
    assert (unit, generation) == ("by-exec", "1")
    assert by_exec.last_seen("by-exec", 1) <= float(at) + 0.01 and float(at) <= term.at  # uptime has two digits


def test_hooks_that_fail_or_hang_do_not_stop_the_way_out(host: Host) -> None:
    first = host.port(6)
    hooks = {
        "answers-500": '{ http = "POST /fail" }',
        "hangs": '{ http = "POST /hang", timeout = 0.4 }',
        "refuses": f'{{ http = {{ method = "POST", path = "/drain", port = {first + 5} }} }}',
        "exits": '{ exec = ["/bin/false"] }',
        "sleeps": '{ exec = ["/bin/sleep", "1000"], timeout = 0.4 }',
        "no-file": '{ exec = ["/no/such/file"] }',
    }
    host.configure(
        "".join(
            worker(host, name, port, tables=f"[unit.NAME.drain]\nquiet = 0.2\ntimeout = 60\nnotify = {hook}")
            for port, (name, hook) in enumerate(hooks.items(), first)
        ).replace(f"port = {first + 5}\n    ttl", f"port = {host.port()}\n    ttl")
    )
    host.run()
    for name in hooks:
        host.until_registered(name)

    with clients() as at_it:
        asked = {name: at_it.slow(host, name, port, 1)[0] for port, name in enumerate([*hooks][:3], first)}
        operations = host.finish(host.order("stop", "all"), PATIENCE_SECONDS)
        for name, answer in asked.items():
            assert answer.result().split()[1:] == ["1"], name

    assert {operation["state"] for operation in operations} == {"succeeded"}
    said = host.said()
    for name in hooks:
        assert f"{name}: its drain hook failed" in said, name
    assert notes(host, "hangs", "got")[0].at <= notes(host, "hangs", "term")[0].at


def test_a_stream_that_goes_on_is_cut_by_the_deadline_and_one_that_falls_silent_is_not_waited_for(host: Host) -> None:
    first = host.port(2)
    table = "[unit.NAME.drain]\nquiet = 0.4\ntimeout = {timeout}"
    host.configure(
        worker(host, "busy", first, tables=table.format(timeout=1.2))
        + worker(host, "silent", first + 1, tables=table.format(timeout=60))
    )
    host.run()
    for name in ("busy", "silent"):
        host.until_registered(name)

    with _stream(first, "/events?0.1,1000") as busy, _stream(first + 1, "/events?100,2") as silent:
        operations = host.finish(host.order("stop", "all"), PATIENCE_SECONDS)
        assert b"data: 5" in _rest(busy) and b"data: 1" not in _rest(silent)

    cut = {operation["unit"]: operation["cut"] for operation in operations}
    assert cut["silent"] is None
    assert all("drain" in step_names(operation) for operation in operations)


@contextmanager
def _stream(port: int, target: str) -> Iterator[socket.socket]:
    """A stream that has begun."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS)) as stream:
        stream.sendall(f"GET {target} HTTP/1.1\r\nHost: unit\r\n\r\n".encode())
        assert stream.recv(10, socket.MSG_PEEK | socket.MSG_WAITALL)
        yield stream


def _rest(stream: socket.socket) -> bytes:
    found = b""
    try:
        while part := stream.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    return found


def test_a_queue_worker_without_a_service_is_told_to_finish_and_then_stopped(host: Host) -> None:
    script = host.file("finish", "#!/bin/sh\nsleep 0.4\n", 0o755)
    drains = {
        "waited": f'notify = {{ exec = ["{script}"] }}',
        "timed": 'notify = { signal = "USR1" }\nin_flight = "none"\ntimeout = 0.8',
    }
    units = (
        f'[unit.{name}]\ncommand = "{WORKER} 0 {notes_of(host, name)}"\nstartsecs = 0.3\n[unit.{name}.drain]\n{drain}\n'
        for name, drain in drains.items()
    )
    host.configure("".join(units))
    host.run()
    for name in drains:
        host.until_state(name, "RUNNING")

    ordered = boottime()
    operations = host.do("stop", "all")

    assert all(step_names(operation) == ["drain", "terminate"] for operation in operations), operations
    [told], [term] = notes(host, "timed", "usr1"), notes(host, "timed", "term")
    assert term.at - told.at >= 0.5, "nobody can tell when it is done, so it gets its time"
    assert notes(host, "waited", "term")[0].at - ordered >= 0.4, "the command that waits for its work is waited for"


def test_two_processes_that_leave_together_are_each_waited_for(host: Host) -> None:
    port = host.port(2)
    host.configure(worker(host, "shop", port, count=2, tables="[unit.NAME.drain]\nquiet = 0.2\ntimeout = 1.4"))
    host.run()
    for name in ("shop:0", "shop:1"):
        host.until_registered(name)

    with clients() as at_it:
        [short] = at_it.slow(host, "shop", port, 0.8)
        long = at_it.slow(host, "shop", port + 1, 30, count=2)
        pid = host.unit("shop:0")["pid"]
        operations = host.finish(host.order("stop", "shop"), PATIENCE_SECONDS)
        assert short.result() == f"{pid} 1"
        assert all(each.result().startswith("failed") for each in long)

    assert {operation["unit"]: operation["cut"] for operation in operations} == {"shop:0": None, "shop:1": 2}
    by_pid = {term.pid: term for term in notes(host, "shop", "term")}
    assert by_pid.pop(pid).detail == "0" and [term.detail for term in by_pid.values()] == ["2"]


def test_a_unit_that_dies_while_it_drains_is_stopped_or_comes_back_as_was_ordered(host: Host) -> None:
    first = host.port(2)
    host.configure("".join(worker(host, name, port) for port, name in enumerate(("stopped", "restarted"), first)))
    host.run()
    for name in ("stopped", "restarted"):
        host.until_registered(name)

    with clients() as at_it:
        [a] = at_it.slow(host, "stopped", first, 30)
        [b] = at_it.slow(host, "restarted", first + 1, 30)
        operations = host.order("stop", "stopped") + host.order("restart", "restarted")
        for name in ("stopped", "restarted"):
            os.kill(host.until_state(name, "DRAINING")["pid"], signal.SIGKILL)
        operations = host.finish(operations, PATIENCE_SECONDS)
        assert a.result().startswith("failed") and b.result().startswith("failed")

    assert {operation["state"] for operation in operations} == {"succeeded"}
    assert host.unit("stopped")["state"] == "STOPPED" and host.entry("stopped", "stopped") is None
    assert host.entry("restarted", "restarted")["generation"] == 2
    assert host.unit("restarted")["restarts"] == 0, "what was to be restarted has not crashed"
