"""The configurations that come with the project are valid, and say what their comments say."""

from __future__ import annotations

import re
from pathlib import Path

from supervisor.config import load
from supervisor.core.model import DaemonSpec, HttpSpec, Removal, RestartPolicy, UnitSpec

ETC = Path(__file__).parents[2] / "etc"


def test_the_demo_runs_two_registered_shops_in_its_own_folder() -> None:
    config = load(str(ETC / "demo" / "unitd.toml"))
    folder = str(ETC / "demo")
    daemon = config.daemon
    assert (daemon.socket, daemon.state_dir, daemon.log_dir) == (
        f"{folder}/unitd.sock",
        f"{folder}/state",
        f"{folder}/logs",
    )
    assert daemon.http == HttpSpec(("127.0.0.1", 9301))
    assert list(config.units) == ["addToCart:0", "addToCart:1"]
    for number, unit in enumerate(config.units.values()):
        assert unit.argv[-4:] == ("--port", str(9080 + number), "--database", "shop.sqlite")
        assert unit.directory == folder
        assert unit.service is not None
        assert (unit.service.name, unit.service.port, unit.service.ttl_seconds) == (
            "addToCart",
            9080 + number,
            3,
        )
        assert unit.restart.removal is Removal.EXPIRE


def test_the_host_configuration_is_the_default_with_the_example_unit() -> None:
    config = load(str(ETC / "unitd.toml"))
    assert config.daemon == DaemonSpec(node=config.daemon.node)
    unit = config.units["example"]
    assert not unit.autostart, "an example must not start on a host by itself"
    assert unit.argv[-1] == "9080"


def test_defaults_in_comments_of_the_example_are_the_defaults() -> None:
    text = (ETC / "units.d" / "example.toml").read_text()
    told = dict(re.findall(r"^# (\w+) = ([\d]+)\b", text, re.MULTILINE))
    spec = UnitSpec("x", "x", 0, ("x",))
    assert {name: float(value) for name, value in told.items() if name not in ("numprocs", "weight")} == {
        "startsecs": spec.startsecs,
        "startretries": RestartPolicy().startretries,
        "stopwaitsecs": spec.stopwaitsecs,
    }
