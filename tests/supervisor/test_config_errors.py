"""What is wrong is told with file, line and key, all of it, and soon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import process_time

import pytest

from supervisor.config import ConfigErrors, load
from supervisor.config.document import MAX_FILE_BYTES
from tests.supervisor.config_files import MAIN, error, errors, loaded, unit_error


def test_a_missing_main_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(str(tmp_path / "none.toml"))
    assert caught.value.path == str(tmp_path / "none.toml")
    assert "No such file" in caught.value.reason


def test_errors_of_all_units_are_collected_in_the_order_of_the_files() -> None:
    found = errors(
        """[unit.b]
command = "x"
stopsignal = "TREM"
prioriti = 1
[unit.a]
[unit.c]
command = "x {prot}"
[include]
files = ["inc.toml"]
""",
        **{"/etc/unitd/inc.toml": '[unit.d]\ncommand = "x"\nnumprocs = 0'},
    )
    assert [(each.path, each.line, each.key) for each in found] == [
        (MAIN, 3, "unit.b.stopsignal"),
        (MAIN, 4, "unit.b.prioriti"),
        (MAIN, 5, "unit.a.command"),
        (MAIN, 7, "unit.c.command"),
        ("/etc/unitd/inc.toml", 3, "unit.d.numprocs"),
    ]


def test_load_raises_the_first_error_with_all_of_them_attached() -> None:
    with pytest.raises(ConfigErrors) as caught:
        loaded("[unit.a]\n[unit.b]\n")
    assert [each.key for each in caught.value.errors] == ["unit.a.command", "unit.b.command"]
    assert str(caught.value) == f"{MAIN}:1: unit.a.command: missing: every unit needs a command"
    assert (caught.value.path, caught.value.line, caught.value.key) == (MAIN, 1, "unit.a.command")


def test_a_file_of_nothing_but_errors_ends_at_a_hundred_of_them() -> None:
    assert len(errors("\n".join(f"x{n} = 1" for n in range(100_000)))) == 100


def test_other_files_are_checked_though_one_cannot_be_read_but_dependencies_are_not() -> None:
    found = errors(
        '[include]\nfiles = ["a.toml", "b.toml"]\n[unit.web]\ncommand = "x"\ndepends_on = ["db"]',
        **{"/etc/unitd/a.toml": "broken", "/etc/unitd/b.toml": "[unit.b]\n"},
    )
    assert [each.path for each in found] == ["/etc/unitd/a.toml", "/etc/unitd/b.toml"]


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ('[program.x]\ncommand = "x"', "program", "[unit.NAME]"),
        ('[deamon]\nsocket = "/x"', "deamon", "did you mean daemon?"),
        ('[unit.a]\ncomand = "x"\ncommand = "x"', "unit.a.comand", "did you mean command?"),
        ('[unit.a]\ncommand = "x"\nzzzz = 1', "unit.a.zzzz", "known here: command"),
        (
            '[unit.a]\ncommand = "x"\nstdout_logfile = "/x"',
            "unit.a.stdout_logfile",
            "stdout in [unit.NAME.logs]",
        ),
        ('[unit.a]\ncommand = "x"\nkillasgroup = true', "unit.a.killasgroup", "always stopped"),
        ('[unit.a]\ncommand = "x"\nhealthcheck = {}', "unit.a.healthcheck", "[unit.NAME.liveness] for whether"),
        ('[unit.a]\ncommand = "x"\nlivenessProbe = {}', "unit.a.livenessProbe", "write [unit.NAME.liveness]"),
        ('[unit.a]\ncommand = "x"\nperiodSeconds = 5', "unit.a.periodSeconds", "as period"),
        ('[unit.a]\ncommand = "x"\nstop_grace_period = 5', "unit.a.stop_grace_period", "called stopwaitsecs"),
        ('[registry]\nbackend = "consol"', "registry.backend", "consul"),
        ('[registry]\nbackend = "center"', "registry.backend", "no control center"),
        ('[registry]\nbackend = "consul"', "registry.url", "missing: the consul backend"),
        ('[registry]\nbackend = "http"', "registry.url", "missing"),
        ('[registry]\nurl = "http://me:secret@x"', "registry.url", "no user and password"),
        ('[registry]\npassword = "secret"', "registry.password", "password_file"),
        ('[registry.tls]\nkey = "x"', "registry.tls.key", "means nothing without cert"),
        ('[registry.tls]\nverify = "no"', "registry.tls.verify", "true or false"),
        ("[registry.options]\na = []", "registry.options.a", "must be a string, a number"),
        ('[registry.options]\nurl = "http://x"', "registry.options.url", "one table higher"),
        ('[registry.also.old]\nbackend = "consul"', "registry.also.old.url", "missing"),
        ('[registry.also."a b"]\nurl = "http://x"', "registry.also.'a b'", "a name of 1 to 64"),
        ('[registry.also.main]\nbackend = "http"\nurl = "http://x"', "registry.also.main", "choose another"),
        ("[registry.also.old]\nttl_seconds = 5", "registry.also.old", "the same registry as main"),
        ('[http]\nlisten = "10.0.0.7:9301"', "http.listen", "without TLS and anybody who may use it: write [http.tls]"),
        ('[http]\nlisten = "127.0.0.300:9301"', "http.listen", "cannot listen"),
        ("[unit.a]\ncommand = 'x'\nnumprocs = true", "unit.a.numprocs", "not true"),
        ("[unit.a]\ncommand = 'x'\numask = 22", "unit.a.umask", "octal"),
        (f'[daemon]\nsocket = "{"s" * 100}"', "daemon.socket", "107 bytes"),
        ('[unit.a]\ncommand = "x"\ndepends_on = ["a"]', "unit.a.depends_on", "a -> a"),
        ('[unit.all]\ncommand = "x"', "unit.all", "all"),
    ],
)
def test_an_error_says_what_to_do(text: str, key: str, words: str) -> None:
    found = error(text)
    assert found.key == key
    assert words in found.reason


def test_a_section_of_supervisord_is_recognised() -> None:
    found = error("[program:cat]\ncommand=/bin/cat\n")
    assert found.line == 1
    assert "[unit.NAME]" in found.reason


def test_a_syntax_error_has_its_line_and_the_key_beside_it() -> None:
    found = error('[unit.a]\ncommand = "x"\npriority = \n')
    assert (found.line, found.key) == (3, "unit.a.priority")
    assert "not valid TOML" in found.reason


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (b"a = 1\n\nb = '\xff'", 3, "byte 12"),
        (b"\xef\xbb\xbf# \xff", 1, "byte 5"),
        (b"# a\n# \0", 2, "NUL"),
        (b"#" * (MAX_FILE_BYTES + 1), 0, "4 MiB"),
        (b"\nx = " + b"[" * 5000, 2, "deeply"),
        (b"\n\nx = " + b"1" * 5000, 3, "digits"),
    ],
)
def test_what_is_no_text_or_too_much_of_it_is_refused_with_its_line(data: bytes, line: int, words: str) -> None:
    found = error(data)
    assert (found.path, found.line) == (MAIN, line)
    assert words in found.reason


def test_what_is_too_long_for_registries_only_once_it_is_filled_in_is_refused() -> None:
    service = f"[unit.a.service]\nport = 80\nversion = '{'{unit}' * 80}'\nmetadata = {{ m = '{'{node}' * 200}' }}"
    assert [each.key for each in errors(f"[unit.a]\ncommand = 'x'\nnumprocs = 2\n{service}")] == [
        "unit.a.service.metadata",
    ]  # fmt: skip
    assert "255 bytes" in unit_error(f"[unit.a.service]\nport = 80\nversion = '{'v' * 256}'").reason


def test_an_octal_umask_in_each_of_many_units_costs_little(
    best_of: Callable[[Callable[[], object]], float],
) -> None:
    text = "".join(f'[unit.u{n}]\ncommand = "x"\numask = 0o027\n' for n in range(3000))
    assert best_of(lambda: loaded(text)) < 2.0


def test_two_units_on_one_port_are_refused_naming_both() -> None:
    found = error(
        '[unit.a]\ncommand = "x"\nnumprocs = 5\nservice = { port = 80 }\n'
        '[unit.b]\ncommand = "x"\nservice = { port = 83 }'
    )
    assert (found.key, found.line) == ("unit.b.service.port", 7)
    assert "unit a:3" in found.reason
    assert f"{MAIN}:4" in found.reason


def test_the_same_port_on_two_addresses_is_no_conflict() -> None:
    text = '[unit.{0}]\ncommand = "x"\nservice = {{ port = 80, address = "10.0.0.{1}" }}\n'
    assert len(loaded(text.format("a", 1) + text.format("b", 2)).units) == 2


def test_overlapping_ranges_of_ports_are_told_once() -> None:
    unit_text = '[unit.{0}]\ncommand = "x"\nnumprocs = 1000\nservice.port = 2000\n'
    assert len(errors(unit_text.format("a") + unit_text.format("b") + unit_text.format("c"))) == 2


def test_stdout_and_stderr_in_one_file_ask_for_redirect_stderr() -> None:
    found = unit_error('[unit.a.logs]\nstdout = "/l"\nstderr = "/x/../l"')
    assert found.key == "unit.a.logs.stderr"
    assert "redirect_stderr = true" in found.reason


def test_an_automatic_log_of_another_unit_cannot_be_written_to() -> None:
    found = error('[unit.a]\ncommand = "x"\nnumprocs = 2\n[unit."a-1"]\ncommand = "x"')
    assert "/var/log/unitd/a-1.out.log" in found.reason


def test_a_key_in_an_error_is_short_and_printable() -> None:
    found = error(f'"{"k" * 1000}\\n" = 1')
    assert len(str(found)) < 1000
    assert str(found).isprintable()


# Size.


@pytest.fixture
def thousand_units() -> str:
    return "".join(
        f'[unit.u{n}]\ncommand = "/bin/serve --port {{port}}"\nuser = "cart"\nenvironment = {{ A = "1" }}\n'
        f"[unit.u{n}.service]\nport = {1024 + n}\n[unit.u{n}.limits]\nnofile = 1024\n"
        for n in range(1000)
    )


def test_a_thousand_units_load_fast(thousand_units: str, best_of: Callable[[Callable[[], object]], float]) -> None:
    assert best_of(lambda: loaded(thousand_units)) < 0.5


@pytest.fixture
def best_of() -> Callable[[Callable[[], object]], float]:
    def measure(work: Callable[[], object]) -> float:
        """Seconds of processor time, so that a busy machine does not count."""
        times = []
        for _ in range(3):
            began = process_time()
            work()
            times.append(process_time() - began)
        return min(times)

    return measure


def test_more_than_ten_thousand_processes_are_refused_and_quickly() -> None:
    text = "".join(f'[unit.u{n}]\ncommand = "x"\nnumprocs = 1000\n' for n in range(11))
    found = error(text)
    assert found.key == "unit.u10.numprocs"
    assert "10000" in found.reason


def test_errors_in_a_big_file_are_found_fast(
    thousand_units: str, best_of: Callable[[Callable[[], object]], float]
) -> None:
    wrong = thousand_units.replace("user", "usr")
    assert best_of(lambda: errors(wrong)) < 2.0
