"""What applying another configuration does to each unit."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from supervisor.core.model import (
    Autorestart,
    DrainSpec,
    Hook,
    HttpCall,
    InFlight,
    Limits,
    LogFormat,
    LogSpec,
    ProbeSpec,
    Removal,
    RestartPolicy,
    ServiceSpec,
    UnitSpec,
    WarmupSpec,
)
from supervisor.core.plan import FIELDS, Change, Effect, plan

PROBES = ("startup", "readiness", "liveness")
CART = UnitSpec(
    "cart", "cart", 0, ("serve",), service=ServiceSpec("cart", "127.0.0.1", 9080), startup=ProbeSpec("tcp"),
    readiness=ProbeSpec("http"), liveness=ProbeSpec("kernel"), drain=DrainSpec(), warmup=WarmupSpec(),
)  # fmt: skip
PARTS: dict[str, type[Any]] = {
    "service": ServiceSpec, "restart": RestartPolicy, "logs": LogSpec, "limits": Limits, "drain": DrainSpec,
    "warmup": WarmupSpec, **dict.fromkeys(PROBES, ProbeSpec),
}  # fmt: skip

OTHER: dict[str, Any] = {
    "name": "other", "group": "other", "number": 1, "argv": ("serve", "-v"), "autostart": False, "startsecs": 2.0,
    "start_timeout": 5.0, "stopsignal": 2, "stopwaitsecs": 1.0, "priority": 1, "user": "cart", "os_group": "cart",
    "umask": 0o027, "directory": "/srv", "environment": (("A", "1"),), "depends_on": ("database",), "service": None,
    "service.name": "other", "service.address": "10.0.0.7", "service.port": 9081, "service.weight": 50,
    "service.ttl_seconds": 5.0, "service.version": "2", "service.zone": "b", "service.metadata": (("a", "b"),),
    "restart.autorestart": Autorestart.NEVER, "restart.exitcodes": (1,), "restart.startretries": 9,
    "restart.backoff_initial": 0.5, "restart.backoff_factor": 3.0, "restart.backoff_max": 5.0,
    "restart.backoff_jitter": 0.0, "restart.stable_seconds": 1.0, "restart.removal": Removal.DEREGISTER,
    "restart.settle_seconds": 1.0, "restart.gateway_seconds": 2.0,
    "logs.stdout": "/a", "logs.stderr": "/b", "logs.redirect_stderr": True,
    "logs.max_bytes": 1, "logs.backups": 1, "logs.format": LogFormat.JSON, "logs.pipe_bytes": 1,
    "limits.rlimits": (("NOFILE", 1, 1),),
    "limits.memory_max": 1, "limits.pids_max": 1, "limits.nice": 1, "limits.oom_score_adj": 1,
    "service.own_port": False, "drain": None, "drain.notify": Hook(signal=10), "drain.resume": Hook(signal=12),
    "drain.in_flight": InFlight.NONE, "drain.in_flight_call": HttpCall("GET", "/"), "drain.timeout": 1.0,
    "drain.quiet": 0.0, "warmup": None, "warmup.initial": 20, "warmup.step": 20, "warmup.period": 5.0,
    "warmup.requests": (HttpCall("GET", "/"),), "warmup.requests_timeout": 1.0, **dict.fromkeys(PROBES),
    **{
        f"{probe}.{name}": value
        for probe in PROBES
        for name, value in (
            ("kind", "exec"), ("options", '{"port":1}'), ("period", 1.0), ("timeout", 2.0), ("initial_delay", 1.0),
            ("success_threshold", 2), ("failure_threshold", 1),
        )
    },
}  # fmt: skip


def changed(spec: UnitSpec, field: str, value: Any) -> UnitSpec:
    part, _, name = field.rpartition(".")
    if not part:
        return replace(spec, **{field: value})
    return replace(spec, **{part: replace(getattr(spec, part), **{name: value})})


def only(old: UnitSpec, new: UnitSpec) -> Change:
    (change,) = plan({"cart": old}, {"cart": new})
    return change


def test_every_field_of_a_spec_and_of_its_parts_has_an_effect() -> None:
    expected = {item.name for item in fields(UnitSpec)} - {"restart", "logs", "limits"}
    for part, kind in PARTS.items():
        expected |= {f"{part}.{item.name}" for item in fields(kind)}
    assert set(FIELDS) == expected


@pytest.mark.parametrize("field", list(FIELDS))
def test_a_change_of_any_field_is_seen_with_its_effect_and_key(field: str) -> None:
    new = changed(CART, field, OTHER[field])
    change = only(CART, new)
    key, effect = FIELDS[field]
    assert change.effect is effect
    assert change.keys == _KEYS.get(field, (key,))


_KEYS = {
    "limits.rlimits": ("limits.nofile",),
    "startup.kind": ("startup.tcp", "startup.exec"), "startup.options": ("startup.tcp",),
    "readiness.kind": ("readiness.http", "readiness.exec"), "readiness.options": ("readiness.http",),
    "liveness.kind": ("liveness.kernel", "liveness.exec"), "liveness.options": ("liveness.kernel",),
}  # fmt: skip


@pytest.mark.parametrize("part", [*PROBES, "drain", "warmup"])
@pytest.mark.parametrize("comes", [True, False])
def test_a_probe_a_drain_or_a_warmup_that_comes_or_goes_is_told_as_one_live_change(part: str, comes: bool) -> None:
    pair = [replace(CART, **{part: None}), CART]
    old, new = pair if comes else reversed(pair)
    assert only(old, new) == Change("cart", Effect.LIVE, (part,))


def test_what_watches_drains_and_warms_up_a_unit_changes_without_another_process() -> None:
    parts = (*PROBES, "drain", "warmup")
    fields_of_them = [field for field in FIELDS if field.partition(".")[0] in parts]
    assert len(fields_of_them) == 5 + 3 * 7 + 6 + 5
    assert {FIELDS[field][1] for field in (*fields_of_them, "service.own_port")} == {Effect.LIVE}


@pytest.mark.parametrize(
    ("field", "effect"),
    [
        ("argv", Effect.RESTART), ("environment", Effect.RESTART), ("service.port", Effect.RESTART),
        ("service.address", Effect.RESTART), ("logs.backups", Effect.RESTART), ("limits.nice", Effect.RESTART),
        ("service.weight", Effect.REREGISTER), ("service.metadata", Effect.REREGISTER),
        ("service.ttl_seconds", Effect.REREGISTER), ("stopsignal", Effect.LIVE), ("depends_on", Effect.LIVE),
        ("restart.startretries", Effect.LIVE), ("restart.removal", Effect.LIVE), ("autostart", Effect.LIVE),
    ],
)  # fmt: skip
def test_what_the_process_holds_restarts_it_what_only_the_registry_holds_does_not(field: str, effect: Effect) -> None:
    assert FIELDS[field][1] is effect


def test_equal_units_have_no_effect() -> None:
    assert plan({"cart": CART}, {"cart": replace(CART)}) == (Change("cart", Effect.NONE),)


def test_units_are_new_or_removed_and_removed_ones_come_last() -> None:
    a, b, c = (replace(CART, name=name) for name in "abc")
    assert plan({"a": a, "b": b}, {"c": c, "b": b}) == (
        Change("c", Effect.NEW), Change("b", Effect.NONE), Change("a", Effect.REMOVED),
    )  # fmt: skip
    assert plan({}, {}) == ()


def test_the_heaviest_effect_of_several_changes_counts_and_all_keys_are_told() -> None:
    new = changed(changed(CART, "service.weight", 50), "stopsignal", 2)
    assert only(CART, new) == Change("cart", Effect.REREGISTER, ("stopsignal", "service.weight"))
    assert only(CART, changed(new, "argv", ("other",))).effect is Effect.RESTART


@pytest.mark.parametrize("reverse", [False, True])
def test_a_service_that_comes_or_goes_restarts_the_unit_and_is_told_as_one_change(reverse: bool) -> None:
    pair = [CART, replace(CART, service=None)]
    old, new = reversed(pair) if reverse else pair
    assert only(old, new) == Change("cart", Effect.RESTART, ("service",))


def test_no_service_before_and_after_is_no_change_of_it() -> None:
    old = replace(CART, service=None)
    assert only(old, replace(old, priority=1)) == Change("cart", Effect.LIVE, ("priority",))


def test_resource_limits_are_told_by_their_own_keys() -> None:
    old = changed(CART, "limits.rlimits", (("CORE", 0, 0), ("NOFILE", 1, 1), ("STACK", 1, 1)))
    new = changed(CART, "limits.rlimits", (("NOFILE", 2, 2), ("NPROC", 1, 1), ("STACK", 1, 1)))
    assert only(old, new).keys == ("limits.core", "limits.nofile", "limits.nproc")
