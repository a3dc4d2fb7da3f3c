"""Files become a `Config`, with every key in its place; errors name file, line and key."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from supervisor.config import check, load, read_file
from supervisor.core.model import (
    Autorestart,
    Config,
    DaemonSpec,
    HttpSpec,
    Limits,
    LogFormat,
    LogSpec,
    RegistrySpec,
    Removal,
    RestartPolicy,
    ServiceSpec,
    TlsSpec,
    UnitSpec,
)
from tests.supervisor.config_files import MAIN, Files, error, loaded, unit


def test_an_empty_file_is_a_configuration_without_units() -> None:
    assert loaded("") == Config(DaemonSpec(node="here"), {}, (MAIN,))


def test_a_unit_with_a_command_only_has_the_defaults_of_the_model() -> None:
    logs = LogSpec("/var/log/unitd/a.out.log", "/var/log/unitd/a.err.log")
    assert unit("") == UnitSpec("a", "a", 0, ("x",), logs=logs)


def test_the_host_name_is_the_name_of_the_node_unless_the_file_has_one() -> None:
    files = Files(**{MAIN: ""})
    assert load(MAIN, read=files.read).daemon.node
    assert loaded('node = "web-7"').daemon.node == "web-7"


def test_a_host_name_that_cannot_be_a_node_name_asks_for_one() -> None:
    files = Files(**{MAIN: ""})
    (found,) = check(MAIN, read=files.read, node="a b")
    assert found.key == "node"
    assert "host's name" in found.reason
    assert not check(MAIN, read=Files(**{MAIN: 'node = "ok"'}).read, node="a b")


def test_every_key_of_the_daemon_arrives() -> None:
    config = loaded(
        """
        node = "web-7"
        [daemon]
        socket = "/run/s.sock"
        socket_group = ""
        state_dir = "state"
        log_dir = "../log"
        watch = true
        cgroup = "/sys/fs/cgroup/x"
        restarts_per_minute = 5
        mass_failure_percent = 20
        sigterm = "leave"
        log_level = "debug"
        [http]
        listen = "[::1]:9301"
        [registry]
        backend = "consul"
        url = "https://10.0.0.5:8501/prefix"
        ttl_seconds = "5s"
        timeout_seconds = 0.7
        prefix = "shop"
        user = "unitd"
        password_file = "secrets/password"
        token_file = "/run/token"
        tls = { verify = false, ca = "ca.pem", cert = "/c.pem", key = "k.pem", server_name = "consul" }
        options = { datacenter = "dc2", number = 3 }
        [registry.also.old]
        backend = "http"
        url = "http://10.0.0.5:9301"
        """
    )
    assert config.daemon == DaemonSpec(
        "web-7", "/run/s.sock", None, "/etc/unitd/state", "/etc/log", True, "/sys/fs/cgroup/x", 5, 20, "debug", "leave",
        "/etc/unitd/state/audit.jsonl", HttpSpec(("::1", 9301)), (
            RegistrySpec(
                "main", "consul", "https://10.0.0.5:8501/prefix", 5.0, 0.7, "shop", "unitd",
                "/etc/unitd/secrets/password", "/run/token",
                TlsSpec(False, "/etc/unitd/ca.pem", "/c.pem", "/etc/unitd/k.pem", "consul"),
                (("datacenter", "dc2"), ("number", 3)),
            ),
            RegistrySpec("old", "http", "http://10.0.0.5:9301"),
        ),
    )  # fmt: skip
    assert config.daemon.registry_ttl_seconds == 5.0


def test_every_key_of_a_unit_arrives() -> None:
    config = loaded(
        """
        [daemon]
        log_dir = "/log"
        [unit.db]
        command = ["db"]
        [unit.cart]
        command = "serve --port {port} --name '{unit} of {group} on {node}'"
        numprocs = 2
        numprocs_start = 3
        autostart = false
        autorestart = true
        exitcodes = [0, 2]
        startsecs = "500ms"
        start_timeout = "2m"
        startretries = 5
        stopsignal = "SIGINT"
        stopwaitsecs = 3
        priority = 7
        user = "cart"
        group = 33
        umask = 0o027
        directory = "work/{number}"
        environment = { B = "{port}", A = "1" }
        envfile = "{group}.env"
        depends_on = ["db"]
        [unit.cart.service]
        name = "addToCart"
        port = 9080
        address = "10.0.0.7"
        weight = 50
        ttl_seconds = 4
        version = "1.{number}"
        zone = "a"
        metadata = { team = "{group}", a = "b" }
        [unit.cart.restart]
        removal = "deregister"
        settle_seconds = 1
        backoff_initial = 0.5
        backoff_factor = 3
        backoff_max = "1m"
        backoff_jitter = 0
        stable_seconds = 20
        [unit.cart.logs]
        stdout = "/var/log/cart-{number}.log"
        stderr = "NONE"
        max_bytes = "1GB"
        backups = 0
        format = "json"
        [unit.cart.limits]
        memory_max = "1GB"
        pids_max = 100
        nofile = [1024, 4096]
        core = "infinity"
        as = "2GB"
        nice = -5
        oom_score_adj = 100
        """,
        **{"/etc/unitd/cart.env": "A=overruled\nC='from file'\n"},
    )
    assert list(config.units) == ["db", "cart:3", "cart:4"]
    assert config.files == (MAIN, "/etc/unitd/cart.env")
    assert config.units["cart:4"] == UnitSpec(
        name="cart:4", group="cart", number=4,
        argv=("serve", "--port", "9084", "--name", "cart:4 of cart on here"),
        autostart=False, startsecs=0.5, start_timeout=120.0, stopsignal=signal.SIGINT, stopwaitsecs=3.0, priority=7,
        user="cart", os_group="33", umask=0o027, directory="/etc/unitd/work/4",
        environment=(("A", "1"), ("B", "9084"), ("C", "from file")), depends_on=("db",),
        service=ServiceSpec("addToCart", "10.0.0.7", 9084, 50, 4.0, "1.4", "a", (("a", "b"), ("team", "cart"))),
        restart=RestartPolicy(
            Autorestart.ALWAYS, (0, 2), 5, 0.5, 3.0, 60.0, 0.0, 20.0, Removal.DEREGISTER, 1.0
        ),
        logs=LogSpec("/var/log/cart-4.log", None, False, 2**30, 0, LogFormat.JSON),
        limits=Limits(
            (("AS", 2**31, 2**31), ("CORE", -1, -1), ("NOFILE", 1024, 4096)), 2**30, 100, -5, 100
        ),
    )  # fmt: skip


def test_a_service_takes_its_name_address_and_ttl_from_elsewhere_when_it_names_none() -> None:
    files = Files(**{MAIN: '[registry]\nttl_seconds = 3\n[unit.a]\ncommand = "x"\n[unit.a.service]\nport = 80'})
    config = load(MAIN, read=files.read, node="here", default_address="10.0.0.7")
    assert config.units["a"].service == ServiceSpec("a", "10.0.0.7", 80, ttl_seconds=3.0)


def test_automatic_logs_of_processes_have_a_dash_for_the_colon() -> None:
    assert unit("numprocs = 2", "a:1").logs.stdout == "/var/log/unitd/a-1.out.log"


def test_stderr_that_joins_stdout_has_no_file() -> None:
    logs = unit("[unit.a.logs]\nredirect_stderr = true").logs
    assert (logs.stdout, logs.stderr, logs.redirect_stderr) == ("/var/log/unitd/a.out.log", None, True)


def test_several_processes_may_write_to_a_device() -> None:
    assert unit('numprocs = 2\n[unit.a.logs]\nstdout = "/dev/stdout"\nstderr = "/dev/stdout"', "a:1")


@pytest.mark.parametrize(
    ("written", "policy"),
    [
        ("true", Autorestart.ALWAYS), ('"always"', Autorestart.ALWAYS), ("false", Autorestart.NEVER),
        ('"never"', Autorestart.NEVER), ('"unexpected"', Autorestart.UNEXPECTED),
    ],
)  # fmt: skip
def test_autorestart_takes_booleans_and_words(written: str, policy: Autorestart) -> None:
    assert unit(f"autorestart = {written}").restart.autorestart is policy


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("7", 7.0),
        ("0.25", 0.25),
        ('"250ms"', 0.25),
        ('"10s"', 10.0),
        ('"1.5m"', 90.0),
        ('"1h"', 3600.0),
        ("0", 0.0),
    ],
)
def test_durations_are_seconds_or_text_with_a_unit(written: str, seconds: float) -> None:
    assert unit(f"stopwaitsecs = {written}").stopwaitsecs == seconds


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("0", 0),
        ("5000", 5000),
        ('"64KB"', 65536),
        ('"2 mb"', 2 * 1024**2),
        ('"1GB"', 1024**3),
        ('"1TB"', 1024**4),
    ],
)
def test_sizes_are_bytes_or_text_with_a_unit(written: str, count: int) -> None:
    assert unit(f"[unit.a.logs]\nmax_bytes = {written}").logs.max_bytes == count


@pytest.mark.parametrize(
    ("written", "number"),
    [('"TERM"', 15), ('"SIGTERM"', 15), ('"usr1"', signal.SIGUSR1), ("9", 9), ("34", 34)],
)
def test_stop_signals_are_names_or_numbers(written: str, number: int) -> None:
    assert unit(f"stopsignal = {written}").stopsignal == number


@pytest.mark.parametrize(("written", "mask"), [('"022"', 0o22), ('"27"', 0o27), ("0o077", 0o77), ("0", 0)])
def test_umask_is_octal(written: str, mask: int) -> None:
    assert unit(f"umask = {written}").umask == mask


def test_exit_codes_may_be_one_number() -> None:
    assert unit("exitcodes = 3").restart.exitcodes == (3,)


@pytest.mark.parametrize(
    ("written", "argv"),
    [
        ("\"bash -c 'a ; b' # no comment\"", ("bash", "-c", "a ; b", "#", "no", "comment")),
        ("'''a \"b c\" d\\ e'''", ("a", "b c", "d e")),
        ('["a b", "", "c"]', ("a b", "", "c")),
        ("'echo %d 100%'", ("echo", "%d", "100%")),
    ],
)
def test_commands_are_split_like_a_shell_does_or_taken_as_lists(written: str, argv: tuple[str, ...]) -> None:
    assert loaded(f"[unit.a]\ncommand = {written}").units["a"].argv == argv


def test_what_a_placeholder_stands_for_is_not_split() -> None:
    config = loaded('[unit.a]\ncommand = "x {unit}"\nnumprocs = 2')
    assert config.units["a:1"].argv == ("x", "a:1")


def test_a_long_startsecs_makes_the_start_timeout_longer_by_itself() -> None:
    assert unit("startsecs = 90").start_timeout == 180.0


def test_a_long_first_delay_makes_the_longest_delay_longer_by_itself() -> None:
    assert unit("[unit.a.restart]\nbackoff_initial = 90").restart.backoff_max == 90.0


@pytest.mark.parametrize(
    ("written", "listen"),
    [
        ("127.0.0.1:9301", ("127.0.0.1", 9301)),
        ("127.8.0.1:1", ("127.8.0.1", 1)),
        ("localhost:80", ("127.0.0.1", 80)),
    ],
)
def test_the_http_api_may_listen_on_loopback(written: str, listen: tuple[str, int]) -> None:
    assert loaded(f'[http]\nlisten = "{written}"').daemon.http == HttpSpec(listen)


def test_equal_parts_of_units_are_kept_once() -> None:
    text = "".join(
        f'[unit.u{n}]\ncommand = "x"\nuser = "www-data"\nenvironment = {{ A = "some value" }}\n' for n in range(2)
    )
    one, two = loaded(text).units.values()
    assert one.restart is two.restart
    assert one.limits is two.limits
    assert one.environment is two.environment
    assert one.argv is two.argv
    assert one.user is two.user


def test_the_order_of_variables_limits_and_metadata_in_the_file_means_nothing() -> None:
    one = unit('environment = { B = "1", A = "2" }\n[unit.a.limits]\ncore = 0\nas = 9')
    two = unit('environment = { A = "2", B = "1" }\n[unit.a.limits]\nas = 9\ncore = 0')
    assert one == two


def test_a_byte_order_mark_and_windows_line_ends_are_fine() -> None:
    assert list(loaded('\ufeff[unit.a]\r\ncommand = "x"\r\n').units) == ["a"]


# Included files.


def test_included_files_add_their_units_in_sorted_order() -> None:
    config = loaded(
        '[include]\nfiles = ["b.toml", "units.d/*.toml", "none*.toml"]\n[unit.main]\ncommand = "x"',
        **{
            "/etc/unitd/units.d/2.toml": '[unit.two]\ncommand = "x"\ndirectory = "."',
            "/etc/unitd/units.d/1.toml": '[unit.one]\ncommand = "x"\ndepends_on = ["main", "two"]',
            "/etc/unitd/b.toml": '[unit.b]\ncommand = "x"',
        },
    )
    assert list(config.units) == ["main", "b", "one", "two"]
    assert config.units["two"].directory == "/etc/unitd/units.d"
    assert config.files == (
        MAIN, "/etc/unitd/b.toml", "/etc/unitd/units.d/1.toml", "/etc/unitd/units.d/2.toml",
    )  # fmt: skip
    assert config.patterns == ("/etc/unitd/b.toml", "/etc/unitd/units.d/*.toml", "/etc/unitd/none*.toml")


def test_a_unit_in_two_files_is_refused_with_both_places() -> None:
    found = error(
        '[include]\nfiles = ["b.toml"]\n[unit.a]\ncommand = "x"',
        **{"/etc/unitd/b.toml": '\n[unit.a]\ncommand = "y"'},
    )
    assert (found.path, found.line, found.key) == ("/etc/unitd/b.toml", 2, "unit.a")
    assert f"{MAIN}:3" in found.reason


def test_real_files_are_found_by_patterns_but_hidden_ones_and_folders_of_other_names_are_not(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "with [brackets]" / "units.d"
    folder.mkdir(parents=True)
    main = folder.parent / "unitd.toml"
    main.write_text('[include]\nfiles = ["units.d/*.toml"]')
    for name in ("b.toml", "a.toml", ".hidden.toml", "a.toml~"):
        stem = re.sub(r"\W", "", name)
        (folder / name).write_text(f'[unit.{stem}]\ncommand = "x"')
    assert list(load(str(main)).units) == ["atoml", "btoml"]


def test_a_file_under_two_names_is_included_once_only(tmp_path: Path) -> None:
    (tmp_path / "unitd.toml").write_text('[include]\nfiles = ["*.inc"]')
    (tmp_path / "a.inc").write_text('[unit.a]\ncommand = "x"')
    (tmp_path / "b.inc").symlink_to("a.inc")
    (found,) = check(str(tmp_path / "unitd.toml"))
    assert (found.key, found.line) == ("include.files", 2)
    assert "already" in found.reason


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(OSError, match=r"directory|regular"):
            read_file(str(path))


def test_a_relative_path_of_the_main_file_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unitd.toml").write_text('[unit.a]\ncommand = "x"\ndirectory = "sub"')
    monkeypatch.chdir(tmp_path)
    config = load("unitd.toml")
    assert config.files == (str(tmp_path / "unitd.toml"),)
    assert config.units["a"].directory == str(tmp_path / "sub")
