"""The registries of a host in tests: one, or several, of backends that tests hold in their hands."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from registry_client.backend import Backend
from supervisor.agents.heartbeat import Heartbeats
from supervisor.agents.registries import Registries, Registry


def one_registry(backend: Backend, on_confirmed: Callable[[str], None], **options: Any) -> Registries:
    """The registries of a host that has one."""
    return some_registries({"main": backend}, on_confirmed, **options)


def some_registries(
    backends: dict[str, Backend],
    on_confirmed: Callable[[str], None],
    *,
    ttl_seconds: dict[str, float] | None = None,
    **options: Any,
) -> Registries:
    """All of them, by name; `options` are of each one's `Heartbeats`."""
    registries = Registries(on_confirmed)
    for name, backend in backends.items():
        heartbeats = Heartbeats(
            backend, partial(registries.confirmed, name), name=name if len(backends) > 1 else "", **options
        )
        ttl = (ttl_seconds or {}).get(name)
        registries.add(Registry(name, backend, heartbeats, ttl, "", len(backends) > 1))
    return registries
