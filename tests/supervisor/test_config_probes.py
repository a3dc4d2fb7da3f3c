"""The tables of probes: kinds are plugins, and what stands after a kind's key is the kind's own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.core.model import ProbeSpec
from tests.supervisor.config_files import MAIN, error, errors, loaded, unit, unit_error
from tests.supervisor.plugin_files import GOOD, installer

Install = Callable[..., None]
SERVICE = "service = { port = 9080 }\n"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    return installer(tmp_path, monkeypatch)


def test_a_unit_without_tables_of_probes_has_none() -> None:
    spec = unit(SERVICE)
    assert (spec.startup, spec.readiness, spec.liveness) == (None, None, None)


def test_a_probe_with_a_kind_only_has_the_defaults_of_the_model() -> None:
    spec = unit(
        SERVICE + "[unit.a.readiness]\nhttp = '/healthz'\n[unit.a.startup]\ntcp = {}\n[unit.a.liveness]\nkernel = true"
    )
    assert spec.readiness == ProbeSpec("http", '"/healthz"')
    assert spec.startup == ProbeSpec("tcp", "{}")
    assert spec.liveness == ProbeSpec("kernel", "true")


def test_every_key_of_a_probe_arrives() -> None:
    spec = unit(
        SERVICE
        + "[unit.a.readiness]\nexec = ['/bin/true', '-v']\nperiod = '500ms'\ntimeout = 2\ninitial_delay = '1m'\n"
        "success_threshold = 2\nfailure_threshold = 5"
    )
    assert spec.readiness == ProbeSpec("exec", '["/bin/true","-v"]', 0.5, 2.0, 60.0, 2, 5)


def test_placeholders_are_replaced_in_all_texts_of_the_options() -> None:
    config = loaded(
        '[unit.a]\ncommand = "x"\nnumprocs = 2\nservice = { port = 9080 }\n[unit.a.readiness]\n'
        'http = { path = "/{unit}/{{x}}", port = "{port}", headers = { Host = "{group}.{node}" }, status = ["200-299", 404] }'
    )
    spec = config.units["a:1"].readiness
    assert spec is not None
    assert json.loads(spec.options) == {
        "path": "/a:1/{x}", "port": "9081", "headers": {"Host": "a.here"}, "status": ["200-299", 404],
    }  # fmt: skip


def test_the_order_of_options_in_the_file_means_nothing() -> None:
    one = unit(SERVICE + 'readiness.http = { path = "/u", port = 80 }').readiness
    two = unit(SERVICE + 'readiness.http = { port = 80, path = "/u" }').readiness
    assert one == two == ProbeSpec("http", '{"path":"/u","port":80}')


def test_equal_probes_of_many_units_are_kept_once() -> None:
    text = "".join(
        f'[unit.u{n}]\ncommand = "x"\nservice.port = {80 + n}\nreadiness.http = "/healthz"\n' for n in range(2)
    )
    one, two = loaded(text).units.values()
    assert one.readiness is two.readiness


def test_a_timeout_may_be_longer_than_the_period() -> None:
    assert unit("readiness = { exec = ['x'], period = 1, timeout = 5 }").readiness is not None


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("liveness = {}", "liveness", "needs a key for its kind, one of "),
        ("liveness = { period = 5 }", "liveness", "kernel"),
        ("liveness = true", "liveness", "must be a table, not true"),
        ("liveness.htpp = '/'", "liveness.htpp", "did you mean http?; kinds of probes here: "),
        ("liveness = { kernel = true, perid = 5 }", "liveness.perid", "did you mean period?"),
        ("liveness.zzzzz = 1", "liveness.zzzzz", "known here: period"),
        ("liveness.httpGet = {}", "liveness.httpGet", 'write http = { path = "/healthz" }'),
        ("liveness = { kernel = true, periodSeconds = 5 }", "liveness.periodSeconds", "it is called period"),
        ("liveness = { kernel = true, retries = 5 }", "liveness.retries", "it is called failure_threshold"),
        (
            "liveness = { kernel = true, notify = true }",
            "liveness.notify",
            "a probe has one kind: kernel is given already",
        ),
        ("liveness = { kernel = true, success_threshold = 2 }", "liveness.success_threshold", "must be 1"),
        ("startup = { kernel = true, success_threshold = 2 }", "startup.success_threshold", "must be 1"),
        ("liveness.http = '/'", "liveness.http", "needs a port: the unit has no service"),
        ("liveness.http = { path = '/' }", "liveness.http", "needs a port: the unit has no service"),
        ("liveness.tcp = true", "liveness.tcp", "needs a port: the unit has no service"),
        ("liveness.kernel = { queue = true }", "liveness.kernel", "needs a port: the unit has no service"),
        ("liveness.http = { port = '{port}' }", "liveness.http.port", "the unit has no port"),
        ("liveness.tcp = { prot = 80, port = 80 }", "liveness.tcp.prot", "did you mean port?"),
        ("liveness.exec = ['{nubmer}']", "liveness.exec", "did you mean {number}?"),
        ("liveness.exec = 'true'", "liveness.exec", "must be a list"),
        ("liveness.exec = [2026-11-24]", "liveness.exec", "must not hold a date or time"),
        ("liveness.tcp = { port = nan }", "liveness.tcp", "must not hold NaN or infinity"),
        ("liveness.tcp" + ".a" * 9 + " = 1", "liveness.tcp", "nested more than 8 deep"),
    ],
)
def test_a_mistake_in_a_probe_is_told_at_its_key(text: str, key: str, words: str) -> None:
    found = unit_error(text)
    place = f"unit.a.{key}"
    assert (found.path, found.line) == (MAIN, 3)
    assert found.key == place or (words.startswith("nested") and found.key.startswith(place))
    assert words in found.reason


@pytest.mark.parametrize(
    "text", ["http = { port = 80 }", "tcp.port = 80", "kernel = true", "kernel.queue = false", "notify = true"]
)
def test_a_probe_that_asks_no_port_of_a_service_needs_no_service(text: str) -> None:
    assert unit(f"[unit.a.liveness]\n{text}").liveness is not None


def test_all_mistakes_of_a_probe_are_told_at_once() -> None:
    found = errors(
        '[unit.a]\ncommand = "x"\n[unit.a.readiness]\nperiod = 0\nhtpp = "/"\ntimeout = "x"\n'
        "[unit.a.liveness]\nexec = []\nfailure_threshold = 0\n[unit.b]\n"
    )
    assert [(each.line, each.key) for each in found] == [
        (4, "unit.a.readiness.period"), (5, "unit.a.readiness.htpp"), (6, "unit.a.readiness.timeout"),
        (8, "unit.a.liveness.exec"), (9, "unit.a.liveness.failure_threshold"), (10, "unit.b.command"),
    ]  # fmt: skip


def test_a_port_that_only_the_last_process_cannot_have_is_told() -> None:
    found = error(
        '[unit.a]\ncommand = "x"\nnumprocs = 11\nservice.port = 80\n[unit.a.readiness]\ntcp = { port = "6553{number}" }'
    )
    assert (found.key, found.line) == ("unit.a.readiness.tcp.port", 6)


# Kinds of others.


def test_a_plugin_gets_its_options_as_plain_values_and_once_for_equal_ones(install: Install) -> None:
    source = "calls = []\nclass Kind:\n    def __init__(self, options):\n        calls.append(options)\n"
    install("acme-probes", {"acme": "acme_counting:Kind"}, acme_counting=source)
    loaded('[unit.a]\ncommand = "x"\nnumprocs = 9\nliveness.acme = { a = [1, 2.5, true, "{group}"], b = {} }')
    assert sys.modules["acme_counting"].calls == [{"a": [1, 2.5, True, "a"], "b": {}}]


def test_an_option_that_a_plugin_refuses_is_told_at_its_key(install: Install) -> None:
    source = (
        "from supervisor.plugin_api import OptionError\ndef Kind(options):\n"
        "    raise OptionError(options['key'], 'must be\\nbetter')\n"
    )
    install("acme-probes", {"acme": "acme_refusing:Kind"}, acme_refusing=source)
    text = '[unit.a.liveness]\n\n[unit.a.liveness.acme]\nkey = "{}"\nvolume = {{ size = 1 }}'
    for key, place, line in (("", "", 5), ("volume", ".volume", 7), ("volume.size", ".volume.size", 7)):
        found = unit_error(text.format(key))
        assert (found.key, found.line, found.reason) == (f"unit.a.liveness.acme{place}", line, "must be better")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import nothing_like_it", "cannot use the plugin acme of acme_probes: acme_bad:Kind cannot be imported"),
        ("def Kind(options): raise RuntimeError('oops')", "acme_probes: it raised RuntimeError: oops"),
        ("def Kind(): pass", "acme_probes: it raised TypeError"),
    ],
)
def test_a_plugin_that_fails_is_an_error_at_the_key_that_names_its_distribution(
    install: Install, source: str, words: str
) -> None:
    install("acme_probes", {"acme": "acme_bad:Kind"}, acme_bad=source)
    found = unit_error("liveness.acme = {}")
    assert (found.key, found.line) == ("unit.a.liveness.acme", 3)
    assert words in found.reason
    assert str(found).isprintable()


def test_kinds_of_others_are_listed_among_the_known_ones(install: Install) -> None:
    install("acme-probes", {"acme": "acme_listed:Kind"}, acme_listed=GOOD)
    assert "acme, exec, http" in unit_error("liveness.amce = {}").reason
    assert "did you mean acme?" in unit_error("liveness.amce = {}").reason


def test_a_configuration_without_probes_imports_no_kind_and_one_with_a_probe_only_that() -> None:
    script = (
        "import sys; from supervisor.config import load\n"
        "text = sys.argv[1].encode(); load('/x', read=lambda path: text, node='n')\n"
        "print(*sorted(name for name in sys.modules if name.startswith('supervisor.host.probes.') or name == 'importlib.metadata'))"
    )

    def imported(text: str) -> list[str]:
        command = [sys.executable, "-c", script, text]
        return subprocess.run(command, capture_output=True, text=True, timeout=15, check=True).stdout.split()

    assert imported('[unit.a]\ncommand = "x"\ndrain.notify.signal = "USR1"') == []
    with_exec = imported('[unit.a]\ncommand = "x"\nliveness.exec = ["x"]')
    assert "supervisor.host.probes.exec" in with_exec
    assert not {"supervisor.host.probes.http", "supervisor.host.probes.kernel", "importlib.metadata"} & set(with_exec)
