"""Where `unitctl` looks for the daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.errors import ConfigError
from supervisor.unitctl import address as addresses
from supervisor.unitctl.address import find_address, parse_address


@pytest.mark.parametrize("url", ["unix:///run/x.sock", "/run/x.sock"])
def test_a_unix_socket_may_be_named_with_or_without_its_scheme(url: str) -> None:
    assert parse_address(url).path == "/run/x.sock"
    assert str(parse_address(url)) == "unix:///run/x.sock"


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://127.0.0.1:9301", "127.0.0.1", 9301),
        ("http://127.0.0.1:80/", "127.0.0.1", 80),
        ("http://localhost", "localhost", 9301),
        ("http://[::1]:9400", "::1", 9400),
        ("http://[::1]", "::1", 9301),
    ],
)
def test_loopback_may_be_named(url: str, host: str, port: int) -> None:
    found = parse_address(url)
    assert (found.host, found.port, found.path) == (host, port, None)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("unix://run/x.sock", "neither"),
        ("x.sock", "neither"),
        ("https://127.0.0.1:9301", "neither"),
        ("", "neither"),
        ("http://127.0.0.1:0", "no port"),
        ("http://127.0.0.1:99999", "no port"),
        ("http://127.0.0.1:http", "no port"),
        ("http://127.0.0.1:٣", "no port"),
        ("http://10.0.0.7:9301", "not a loopback address"),
        ("http://example.com", "not a loopback address"),
    ],
)
def test_anything_else_is_refused_with_the_reason(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_address(url)


@pytest.fixture
def default_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of the default configuration file, where there is none yet."""
    path = tmp_path / "unitd.toml"
    monkeypatch.setattr(addresses, "DEFAULT_CONFIG", str(path))
    return path


def test_the_option_wins_then_the_file_then_the_environment(tmp_path: Path, default_config: Path) -> None:
    default_config.write_text('[daemon]\nsocket = "/run/default.sock"\n')
    named = tmp_path / "named.toml"
    named.write_text('[daemon]\nsocket = "/run/named.sock"\n')
    environment = {"UNITCTL_SERVER": "unix:///run/env.sock"}
    assert find_address("/run/option.sock", str(named), environment).path == "/run/option.sock"
    assert find_address(None, str(named), environment).path == "/run/named.sock"
    assert find_address(None, None, environment).path == "/run/env.sock"
    assert find_address(None, None, {}).path == "/run/default.sock"


def test_without_anything_the_default_socket_is_meant(default_config: Path) -> None:
    assert str(find_address(None, None, {})) == "unix:///run/unitd/unitd.sock (the default)"


def test_an_empty_variable_says_nothing(default_config: Path) -> None:
    assert find_address(None, None, {"UNITCTL_SERVER": ""}).path == "/run/unitd/unitd.sock"


@pytest.mark.parametrize("text", ["", '[daemon]\nnode = "x"\n', "# no socket here\n", "socket = 1\n"])
def test_a_file_that_sets_no_socket_means_the_default_one(tmp_path: Path, text: str) -> None:
    file = tmp_path / "unitd.toml"
    file.write_text(text)
    assert find_address(None, str(file), {}).path == "/run/unitd/unitd.sock"


def test_a_relative_path_counts_from_the_files_folder(tmp_path: Path) -> None:
    file = tmp_path / "unitd.toml"
    file.write_text('[daemon]\nsocket = "run/x.sock"\n')
    assert find_address(None, str(file), {}).path == f"{tmp_path}/run/x.sock"


def test_mistakes_elsewhere_in_the_configuration_do_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "unitd.toml"
    file.write_text('colour = "blue"\n[daemon]\nsocket = "/run/x.sock"\nmood = 3\n')
    assert find_address(None, str(file), {}).path == "/run/x.sock"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[daemon]\nsocket = 3\n", "must be a path"),
        ('[daemon]\nsocket = ""\n', "must be a path"),
        ("[daemon\nsocket", "cannot read it"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_it(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "unitd.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"{file}.*{reason}"):
        find_address(None, str(file), {})


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        find_address(None, str(tmp_path / "none.toml"), {})


def test_a_wrong_default_file_falls_back_and_says_so(default_config: Path) -> None:
    default_config.write_text("[daemon\nsocket")
    found = find_address(None, None, {})
    assert found.path == "/run/unitd/unitd.sock"
    assert "cannot read it" in str(found)
