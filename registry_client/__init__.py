"""A client for service registries: register an address under a service's name, keep it alive, look others up.

    import random
    from registry_client import Entry, RegistryClient, open_backend, select

    async def main() -> None:
        async with RegistryClient(open_backend("http", url="http://127.0.0.1:9301")) as client:
            entry = Entry(
                service="cart", instance="web-7/cart", node="web-7", unit="cart", address="192.168.1.2", port=9080,
                generation=1, started_at="2026-11-23T06:29:10.123Z",
            )
            async with await client.register(entry, ttl_seconds=10):  # renewed until the block ends
                async for snapshot in client.watch("stock"):  # every instance, again after each change
                    print(snapshot.revision, select(snapshot.entries, random.random()))

Scripts without an event loop use `BlockingRegistryClient`, tests `registry_client.testing.FakeBackend`, and whoever
writes a backend starts with `registry_client.backend`. Names are loaded when they are first used: importing this
package, or one of its pure modules, does not import asyncio.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it for typing's own, which would have to be imported
if TYPE_CHECKING:
    from .backend import Backend, Capability, Inspection
    from .blocking import BlockingLease, BlockingRegistryClient
    from .client import HeldLease, RegistryClient, open_backend
    from .errors import BadOption, LeaseLost, RegistryError, RegistryRejected, RegistryUnavailable, Unsupported
    from .lease import LeaseState
    from .model import Entry, Grant, LeaseKey, Snapshot
    from .options import Secret, Tls
    from .selection import select

__all__ = [
    "Backend", "BadOption", "BlockingLease", "BlockingRegistryClient", "Capability", "Entry", "Grant",
    "HeldLease", "Inspection", "LeaseKey", "LeaseLost", "LeaseState", "RegistryClient", "RegistryError",
    "RegistryRejected", "RegistryUnavailable", "Secret", "Snapshot", "Tls", "Unsupported", "open_backend",
    "select",
]  # fmt: skip

_MODULES = {
    "backend": ("Backend", "Capability", "Inspection"),
    "blocking": ("BlockingLease", "BlockingRegistryClient"),
    "client": ("HeldLease", "RegistryClient", "open_backend"),
    "errors": ("BadOption", "LeaseLost", "RegistryError", "RegistryRejected", "RegistryUnavailable", "Unsupported"),
    "lease": ("LeaseState",),
    "model": ("Entry", "Grant", "LeaseKey", "Snapshot"),
    "options": ("Secret", "Tls"),
    "selection": ("select",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
