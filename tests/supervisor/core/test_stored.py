"""Dataclasses go into JSON and come back as they were; what is of another version is said to be so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from supervisor.config import load
from supervisor.core.model import (
    Autorestart,
    DrainSpec,
    Exit,
    Hook,
    HttpCall,
    InFlight,
    Limits,
    LogFormat,
    LogSpec,
    Phase,
    ProbeSpec,
    RestartPolicy,
    ServiceSpec,
    Unit,
    UnitSpec,
    WarmupSpec,
)
from supervisor.core.stored import StoredError, from_plain, to_plain
from tests.demo.test_configurations import ETC

FULL = UnitSpec(
    "cart:1", "cart", 1, ("/bin/serve", "--port", "9081"), autostart=False, startsecs=2, user="cart",
    environment=(("A", "1"), ("B", "ü")), depends_on=("db",),
    service=ServiceSpec("cart", "127.0.0.1", 9081, metadata=(("team", "t1"),)), startup=ProbeSpec("http", '{"path":"/"}'),
    drain=DrainSpec(Hook(http=HttpCall("POST", "/drain", 80, (("X", "1"),))), Hook(signal=12), InFlight.GATEWAYS),
    warmup=WarmupSpec(20, 20, 5.0, (HttpCall("GET", "/warm"),)),
    restart=RestartPolicy(Autorestart.ALWAYS, exitcodes=(0, 2)), logs=LogSpec("/log", format=LogFormat.JSON),
    limits=Limits((("NOFILE", 100, -1),), nice=5),
)  # fmt: skip


def there_and_back(value: Any) -> Any:
    return from_plain(type(value), json.loads(json.dumps(to_plain(value))))


@pytest.mark.parametrize(
    "value",
    [
        FULL, UnitSpec("a", "a", 0, ("x",)), Unit(),
        Unit(Phase.DRAINING, wanted=True, attempt=7, pid=42, ready_at=1.5, last_exit=Exit("killed", signal=9, wall=2.0)),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    assert there_and_back(value) == value


def test_every_unit_of_the_demo_comes_back_as_it_was() -> None:
    for spec in load(str(ETC / "demo" / "unitd.toml")).units.values():
        assert there_and_back(spec) == spec


def test_what_has_its_default_is_left_out() -> None:
    assert to_plain(Unit(attempt=3)) == {"attempt": 3}


@dataclass(frozen=True)
class Pair:
    """Something with a tuple of fixed length and a number."""

    both: tuple[str, int]
    share: float = 1.0


def test_a_whole_number_stands_for_a_broken_one() -> None:
    assert from_plain(Pair, {"both": ["a", 1], "share": 2}) == Pair(("a", 1), 2.0)


@pytest.mark.parametrize(
    ("cls", "plain", "said"),
    [
        (Unit, [], "must be an object"),
        (Unit, {"mood": "good"}, "unknown mood"),
        (Unit, {"phase": "floating"}, "floating"),
        (Unit, {"attempt": "seven"}, "must be of the type int"),
        (Unit, {"attempt": True}, "must be of the type int"),
        (Unit, {"last_exit": {}}, "reason"),
        (UnitSpec, {"name": "a", "group": "a", "number": 0, "argv": "x"}, "must be a list"),
        (UnitSpec, {"name": "a"}, "missing"),
        (Pair, {"both": ["a"]}, "must have 2 items, not 1"),
    ],
)
def test_what_is_of_another_version_is_said_to_be_so(cls: type, plain: Any, said: str) -> None:
    with pytest.raises(StoredError, match=said):
        from_plain(cls, plain)
