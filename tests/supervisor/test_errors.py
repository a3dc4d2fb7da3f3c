"""Errors: facts are attributes, messages are for people."""

from __future__ import annotations

import pytest

from supervisor import errors
from supervisor.errors import (
    ConfigError,
    DaemonUnreachable,
    SpawnError,
    SupervisorError,
    UnknownUnit,
    WireError,
)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            ConfigError("unknown key", path="/etc/u.toml", line=7, key="unit.web.x"),
            "/etc/u.toml:7: unit.web.x: unknown key",
        ),
        (ConfigError("unknown key", path="/etc/u.toml"), "/etc/u.toml: unknown key"),
        (ConfigError("cannot listen", key="daemon.socket"), "daemon.socket: cannot listen"),
        (ConfigError("cannot listen", line=7), "cannot listen"),
    ],
)
def test_a_mistake_in_the_configuration_says_where_as_far_as_known(error: ConfigError, words: str) -> None:
    assert str(error) == words


def test_facts_are_attributes() -> None:
    mistake = ConfigError("unknown key", path="/etc/u.toml", line=7, key="unit.web.x")
    assert (mistake.reason, mistake.path, mistake.line, mistake.key) == (
        "unknown key",
        "/etc/u.toml",
        7,
        "unit.web.x",
    )
    spawn = SpawnError("exec", 2, "no such file: /x")
    assert (spawn.stage, spawn.errno, spawn.reason, str(spawn)) == (
        "exec",
        2,
        "no such file: /x",
        "no such file: /x",
    )
    away = DaemonUnreachable("/run/unitd.sock", "nobody listens")
    assert (away.address, away.reason) == ("/run/unitd.sock", "nobody listens")
    assert str(away) == "cannot reach unitd at /run/unitd.sock: nobody listens"


def test_an_unknown_unit_comes_with_the_nearest_name() -> None:
    assert str(UnknownUnit("kart")) == "no unit is called kart"
    error = UnknownUnit("kart", "cart")
    assert (error.name, error.nearest) == ("kart", "cart")
    assert str(error) == "no unit is called kart (did you mean cart?)"


def test_whoever_catches_the_base_catches_all() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert {ConfigError, UnknownUnit, SpawnError, WireError, DaemonUnreachable} <= set(kinds)
    assert all(issubclass(kind, SupervisorError) for kind in kinds)
