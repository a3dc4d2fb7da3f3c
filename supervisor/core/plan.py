"""What applying another configuration would do to each unit.

One table says it for every field: the key that people write for it, and what a change of it asks for. Live are the
keys that are read only when something is decided (a restart, a stop); re-registered is what only the registry
entry holds; all else is part of the process that runs, and needs another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from .model import UnitSpec


class Effect(Enum):
    """What happens to a unit when a configuration is applied; the first four in order of weight."""

    NONE = "none"
    LIVE = "live"  # the running process stays, the new value counts from the next decision on
    REREGISTER = "reregister"  # the running process stays, its registry entry is written anew
    RESTART = "restart"
    NEW = "new"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one unit, and because of which keys."""

    unit: str
    effect: Effect
    keys: tuple[str, ...] = ()


_LIVE, _REREGISTER, _RESTART = Effect.LIVE, Effect.REREGISTER, Effect.RESTART

# Parts that a spec may lack. The key of a probe's `kind` and `options` is the kind itself, such as `readiness.http`.
_OPTIONAL = ("service", "startup", "readiness", "liveness", "drain", "warmup")
_PROBE = ("kind", "options", "period", "timeout", "initial_delay", "success_threshold", "failure_threshold")


def _live(part: str, *fields: str) -> dict[str, tuple[str, Effect]]:
    """A part whose changes are all live, and its fields, which have the names of their keys."""
    return {name: (name, _LIVE) for name in (part, *(f"{part}.{field}" for field in fields))}


# Field of UnitSpec (dotted within its parts) -> the key as written in the unit's table, and the effect of a change.
FIELDS: dict[str, tuple[str, Effect]] = {
    "name": ("name", _RESTART),  # these two never differ between specs of one name; here for completeness
    "group": ("name", _RESTART),
    "number": ("numprocs_start", _RESTART),
    "argv": ("command", _RESTART),
    "autostart": ("autostart", _LIVE),
    "startsecs": ("startsecs", _LIVE),
    "start_timeout": ("start_timeout", _LIVE),
    "stopsignal": ("stopsignal", _LIVE),
    "stopwaitsecs": ("stopwaitsecs", _LIVE),
    "priority": ("priority", _LIVE),
    "user": ("user", _RESTART),
    "os_group": ("group", _RESTART),
    "umask": ("umask", _RESTART),
    "directory": ("directory", _RESTART),
    "environment": ("environment", _RESTART),
    "depends_on": ("depends_on", _LIVE),
    # The port is in the process's command and environment: with or without a service it is another process.
    "service": ("service", _RESTART),
    "service.name": ("service.name", _RESTART),
    "service.address": ("service.address", _RESTART),
    "service.port": ("service.port", _RESTART),
    "service.own_port": ("service.own_port", _LIVE),
    "service.weight": ("service.weight", _REREGISTER),
    "service.ttl_seconds": ("service.ttl_seconds", _REREGISTER),
    "service.version": ("service.version", _REREGISTER),
    "service.zone": ("service.zone", _REREGISTER),
    "service.metadata": ("service.metadata", _REREGISTER),
    # What watches a unit begins anew with the new values; its process is not told.
    **_live("startup", *_PROBE),
    **_live("readiness", *_PROBE),
    **_live("liveness", *_PROBE),
    **_live("drain", "notify", "resume", "in_flight", "timeout", "quiet"),
    "drain.in_flight_call": ("drain.in_flight", _LIVE),
    **_live("warmup", "initial", "step", "period", "requests", "requests_timeout"),
    "restart.autorestart": ("autorestart", _LIVE),
    "restart.exitcodes": ("exitcodes", _LIVE),
    "restart.startretries": ("startretries", _LIVE),
    "restart.backoff_initial": ("restart.backoff_initial", _LIVE),
    "restart.backoff_factor": ("restart.backoff_factor", _LIVE),
    "restart.backoff_max": ("restart.backoff_max", _LIVE),
    "restart.backoff_jitter": ("restart.backoff_jitter", _LIVE),
    "restart.stable_seconds": ("restart.stable_seconds", _LIVE),
    "restart.removal": ("restart.removal", _LIVE),
    "restart.settle_seconds": ("restart.settle_seconds", _LIVE),
    "restart.gateway_seconds": ("restart.gateway_seconds", _LIVE),
    # Pipes and files are those that the process was started with.
    "logs.stdout": ("logs.stdout", _RESTART),
    "logs.stderr": ("logs.stderr", _RESTART),
    "logs.redirect_stderr": ("logs.redirect_stderr", _RESTART),
    "logs.max_bytes": ("logs.max_bytes", _RESTART),
    "logs.backups": ("logs.backups", _RESTART),
    "logs.format": ("logs.format", _RESTART),
    "logs.pipe_bytes": ("logs.pipe_bytes", _RESTART),
    # A limit is inherited at exec.
    "limits.rlimits": ("limits", _RESTART),
    "limits.memory_max": ("limits.memory_max", _RESTART),
    "limits.pids_max": ("limits.pids_max", _RESTART),
    "limits.nice": ("limits.nice", _RESTART),
    "limits.oom_score_adj": ("limits.oom_score_adj", _RESTART),
}
_WEIGHT = {Effect.NONE: 0, _LIVE: 1, _REREGISTER: 2, _RESTART: 3}


def plan(old: Mapping[str, UnitSpec], new: Mapping[str, UnitSpec]) -> tuple[Change, ...]:
    """One change per unit: those of `new` in their order, then those that are only in `old`.

    Units that stay as they are are there too, with `Effect.NONE`.
    """
    kept = (_change(old.get(name), spec) for name, spec in new.items())
    removed = (Change(name, Effect.REMOVED) for name in old if name not in new)
    return (*kept, *removed)


def _change(old: UnitSpec | None, new: UnitSpec) -> Change:
    if old is None:
        return Change(new.name, Effect.NEW)
    fields = tuple(_differing(old, new)) if old != new else ()
    effects = (FIELDS[field][1] for field in fields)
    effect = max(effects, key=_WEIGHT.__getitem__, default=Effect.NONE)
    keys = (key for field in fields for key in _keys(field, old, new))
    return Change(new.name, effect, tuple(dict.fromkeys(keys)))


def _differing(old: UnitSpec, new: UnitSpec) -> Iterator[str]:
    """The fields that differ. Of a part that one of the two lacks, only the part itself."""
    lacking = {part for part in _OPTIONAL if (getattr(old, part) is None) != (getattr(new, part) is None)}
    for field in FIELDS:
        part = field.partition(".")[0]
        if field in _OPTIONAL:
            differs = field in lacking
        else:
            differs = part not in lacking and _value(old, field) != _value(new, field)
        if differs:
            yield field


def _value(spec: UnitSpec, field: str) -> Any:
    value: Any = spec
    for part in field.split("."):
        value = getattr(value, part, None)
    return value


def _keys(field: str, old: UnitSpec, new: UnitSpec) -> Iterator[str]:
    """The keys behind a field: one for most, one for each resource limit and each kind of a probe."""
    part, _, name = field.partition(".")
    if field == "limits.rlimits":
        differing = set(old.limits.rlimits) ^ set(new.limits.rlimits)
        yield from sorted({f"limits.{each.lower()}" for each, _, _ in differing})
    elif name in ("kind", "options"):
        yield from (f"{part}.{_value(spec, f'{part}.kind')}" for spec in (old, new))
    else:
        yield FIELDS[field][0]
