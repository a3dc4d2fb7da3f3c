"""The tables `drain` and `warmup`, and the requests and hooks in them."""

from __future__ import annotations

import signal
from time import process_time

import pytest

from supervisor.core.model import DrainSpec, Hook, HttpCall, InFlight, ServiceSpec, WarmupSpec
from tests.supervisor.config_files import MAIN, error, errors, loaded, unit, unit_error

SERVICE = "service = { port = 9080 }\n"


def test_a_table_that_is_there_makes_a_spec_and_one_that_is_not_makes_none() -> None:
    without, empty = unit(SERVICE), unit(SERVICE + "[unit.a.drain]\n[unit.a.warmup]")
    assert (without.drain, without.warmup) == (None, None)
    assert (empty.drain, empty.warmup) == (DrainSpec(), WarmupSpec())


def test_every_key_of_a_drain_arrives() -> None:
    spec = unit(
        SERVICE + "[unit.a.drain]\nnotify = { http = 'POST /drain', timeout = '2s' }\n"
        "resume = { exec = ['/bin/resume', '{unit}'], timeout = 1 }\nin_flight = { http = '/inflight' }\ntimeout = '1m'\nquiet = 0"
    )
    assert spec.drain == DrainSpec(
        Hook(http=HttpCall("POST", "/drain"), timeout=2.0), Hook(argv=("/bin/resume", "a"), timeout=1.0),
        InFlight.HTTP, HttpCall("GET", "/inflight"), 60.0, 0.0,
    )  # fmt: skip


def test_every_key_of_a_warmup_arrives() -> None:
    spec = unit(
        SERVICE + "[unit.a.warmup]\ninitial = 50\nstep = 100\nperiod = '5s'\nrequests_timeout = 3\n"
        "requests = ['GET /warm', '/warm', { path = '/{unit}', method = 'PUT', port = '{port}', headers = { B = '{port}', A = '' } }]"
    )
    put = HttpCall("PUT", "/a", 9080, (("A", ""), ("B", "9080")))
    assert spec.warmup == WarmupSpec(50, 100, 5.0, (HttpCall("GET", "/warm"), HttpCall("GET", "/warm"), put), 3.0)


@pytest.mark.parametrize(("written", "number"), [("'USR1'", signal.SIGUSR1), ("'SIGTERM'", signal.SIGTERM), ("34", 34)])
def test_a_unit_may_be_told_by_a_signal(written: str, number: int) -> None:
    assert unit(SERVICE + f"drain.notify.signal = {written}").drain == DrainSpec(Hook(signal=number))


@pytest.mark.parametrize(
    ("written", "way"),
    [('"connections"', InFlight.CONNECTIONS), ('"gateways"', InFlight.GATEWAYS), ('"none"', InFlight.NONE)],
)
def test_what_is_in_flight_may_be_told_by_connections_or_gateways_or_nobody(written: str, way: InFlight) -> None:
    assert unit(SERVICE + f"drain.in_flight = {written}").drain == DrainSpec(in_flight=way)


def test_a_request_may_go_to_a_port_of_its_own_in_each_process() -> None:
    config = loaded(
        '[unit.a]\ncommand = "x"\nnumprocs = 2\ndrain.notify.http = { path = "/drain", port = "808{number}" }'
    )
    assert [spec.drain and spec.drain.notify and spec.drain.notify.http for spec in config.units.values()] == [
        HttpCall("GET", "/drain", 8080), HttpCall("GET", "/drain", 8081),
    ]  # fmt: skip


def test_a_unit_without_a_service_may_be_told_to_finish() -> None:
    assert unit("drain.notify.signal = 'USR1'").drain == DrainSpec(Hook(signal=signal.SIGUSR1))
    asked = unit("drain.in_flight.http = { path = '/busy', port = 8080 }").drain
    assert asked == DrainSpec(in_flight=InFlight.HTTP, in_flight_call=HttpCall("GET", "/busy", 8080))


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("drain = {}", "drain", "needs notify, or a service"),
        ("drain.in_flight = 'none'", "drain", "needs notify, or a service"),
        ("drain = 30", "drain", "must be a table, not 30"),
        ("drain.notify.http = 'POST /drain'", "drain.notify.http", 'write { path = "/drain", port = 8080 }'),
        ("drain.in_flight.http = '/busy'", "drain.in_flight.http", "needs a port"),
        ("drain = { notify.signal = 'USR1', resume.http = '/x' }", "drain.resume.http", "needs a port"),
        ("warmup = {}", "warmup", "needs a service"),
        ("warmup.requests = ['/x']", "warmup", "needs a service"),
        (SERVICE + "drain.resume.signal = 'USR2'", "drain.resume", "needs notify"),
        (SERVICE + "drain.notify = {}", "drain.notify", "exactly one of http, signal, exec: none is given"),
        (SERVICE + "drain.notify = { http = '/a', exec = ['x'] }", "drain.notify.exec", "not http and exec"),
        (SERVICE + "drain.notify = 'POST /drain'", "drain.notify", 'such as { http = "POST /drain" }'),
        (SERVICE + "drain.notify.htpp = '/a'", "drain.notify.htpp", "did you mean http?"),
        (SERVICE + "drain.notify.signal = 'KILL'", "drain.notify.signal", "KILL and STOP it cannot"),
        (SERVICE + "drain.notify = { signal = 'USR1', timeout = 1 }", "drain.notify.timeout", "takes no time"),
        (SERVICE + "drain.notify.exec = '/bin/drain now'", "drain.notify.exec", "must be a list of strings"),
        (SERVICE + "drain.notify.http = 'post /drain'", "drain.notify.http", 'such as "POST /drain"'),
        (SERVICE + "drain.notify.http = { port = 80 }", "drain.notify.http.path", "missing"),
        (SERVICE + "drain.notify.http = { path = '/a b' }", "drain.notify.http.path", "must be a path"),
        (SERVICE + "drain.notify.http = { path = '/', method = 'post' }", "drain.notify.http.method", "method such as"),
        (SERVICE + "drain.notify.http = { path = '/', port = '{prot}' }", "drain.notify.http.port", "mean {port}?"),
        (
            SERVICE + "drain.notify.http = { path = '/', port = '0' }",
            "drain.notify.http.port",
            "from 1 to 65535, not 0",
        ),
        (
            SERVICE + "drain.notify.http = { path = '/', headers.Content-Length = '5' }",
            "drain.notify.http.headers.Content-Length",
            "cannot be chosen",
        ),
        (
            SERVICE + 'drain.notify.http = { path = "/", headers.A = "b\\r\\nC: d" }',
            "drain.notify.http.headers.A",
            "on one line",
        ),
        (SERVICE + "drain.in_flight = {}", "drain.in_flight", "it is empty"),
        (SERVICE + "drain.in_flight = 'requests'", "drain.in_flight", '"connections", "gateways", "none", or a table'),
        ("drain = { notify = { signal = 'USR1' }, in_flight = 'gateways' }", "drain.in_flight", "needs a service"),
        (SERVICE + "drain.http = '/drain'", "drain.http", "write notify = "),
        (SERVICE + "warmup.step = 0", "warmup.step", "from 1 to 100"),
        (SERVICE + "warmup.slow = 1", "warmup.slow", "unknown key"),
        (SERVICE + "warmup.duration = 60", "warmup.duration", "periods of one step"),
        (SERVICE + "warmup.requests = ['/a', 'warm']", "warmup.requests", "item 2 must be a request"),
        (SERVICE + "warmup.requests = [{ path = 1 }]", "warmup.requests", "item 1"),
    ],
)
def test_a_mistake_is_told_at_its_key(text: str, key: str, words: str) -> None:
    found = unit_error(text)
    assert (found.path, found.line, found.key) == (MAIN, 2 + len(text.split("\n")), f"unit.a.{key}")
    assert words in found.reason


def test_mistakes_here_are_told_together_with_those_elsewhere() -> None:
    found = errors(
        '[unit.a]\nservice.port = 0\n[unit.a.drain]\nnotify = { http = "/{port}" }\nquiet = -1\n[unit.a.warmup]\nstep = 0'
    )
    assert [each.key for each in found] == [
        "unit.a.command", "unit.a.service.port", "unit.a.drain.quiet", "unit.a.warmup.step",
    ]  # fmt: skip


def test_a_port_that_only_the_last_process_cannot_have_is_told() -> None:
    found = error('[unit.a]\ncommand = "x"\nnumprocs = 11\ndrain.notify.http = { path = "/", port = "6553{number}" }')
    assert (found.key, found.line) == ("unit.a.drain.notify.http.port", 4)


def test_a_service_may_share_a_socket_of_others() -> None:
    assert unit(SERVICE).service == ServiceSpec("a", "127.0.0.1", 9080, own_port=True)
    assert unit("service = { port = 9080, own_port = false }").service == ServiceSpec(
        "a", "127.0.0.1", 9080, own_port=False
    )


def test_a_thousand_units_with_all_tables_load_fast_and_share_what_is_equal() -> None:
    text = "".join(
        f'[unit.u{n}]\ncommand = "x"\nservice.port = {1024 + n}\nreadiness.http = "/healthz"\nliveness.kernel = true\n'
        'drain.notify.http = "POST /drain"\nwarmup.requests = ["GET /warm"]\n'
        for n in range(1000)
    )
    began = process_time()
    units = list(loaded(text).units.values())
    assert process_time() - began < 3.0
    assert units[0].drain is units[-1].drain
    assert units[0].warmup is units[-1].warmup
    assert units[0].liveness is units[-1].liveness
