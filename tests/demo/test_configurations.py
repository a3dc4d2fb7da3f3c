"""The configurations that come with the project are valid, and say what their comments say."""

from __future__ import annotations

import re
from pathlib import Path

from control_center.config import load as load_center
from gateway.config import load as load_gateway
from supervisor.config import load
from supervisor.core.model import DaemonSpec, HttpSpec, Removal, RestartPolicy, UnitSpec

ETC = Path(__file__).parents[2] / "etc"


def test_the_demo_runs_a_whole_system_in_its_own_folder() -> None:
    config = load(str(ETC / "demo" / "unitd.toml"))
    folder = str(ETC / "demo")
    daemon = config.daemon
    assert (daemon.socket, daemon.state_dir, daemon.log_dir) == (
        f"{folder}/unitd.sock",
        f"{folder}/state",
        f"{folder}/logs",
    )
    assert daemon.http == HttpSpec(("127.0.0.1", 9301))
    shops = [f"addToCart:{number}" for number in range(4)]
    assert list(config.units) == [*shops, "center", "gateway", "customers"]
    for number, unit in enumerate(config.units[name] for name in shops):
        assert unit.argv[-4:] == ("--port", str(9080 + number), "--database", "shop.sqlite")
        assert unit.directory == folder
        assert unit.service is not None
        assert (unit.service.name, unit.service.port, unit.service.ttl_seconds) == (
            "addToCart",
            9080 + number,
            3,
        )
        assert unit.restart.removal is Removal.EXPIRE


def test_the_demos_control_center_and_gateway_know_where_the_others_are() -> None:
    center = load_center(str(ETC / "demo" / "unit-center.toml"))
    gateway = load_gateway(str(ETC / "demo" / "unit-gateway.toml"))
    assert center.registry.url == gateway.registry.url == "http://127.0.0.1:9301"
    assert gateway.center is not None and gateway.center.urls == (f"http://127.0.0.1:{center.http.listen[1]}",)
    [front] = [each.spec for each in gateway.feeders]
    assert front.listen == ("127.0.0.1", 9000) and front.services == ("addToCart",)
    customers = load(str(ETC / "demo" / "unitd.toml")).units["customers"]
    assert "http://127.0.0.1:9000" in customers.argv


def test_the_host_configuration_is_the_default_but_leaves_units_and_has_the_example_unit() -> None:
    config = load(str(ETC / "unitd.toml"))
    assert config.daemon == DaemonSpec(node=config.daemon.node, sigterm="leave")
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
