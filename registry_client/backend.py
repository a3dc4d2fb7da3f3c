"""The one interface of every registry. Whoever writes a backend implements `Backend` and reads this page.

A backend translates its vendor's errors at its edge and raises only this package's. It has one time limit,
`timeout_seconds`, given at construction; when a call exceeds it, or is cancelled, the backend closes the
connection that the call was on, so that nothing is sent any more, and raises RegistryUnavailable.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from .errors import RegistryRejected, Unsupported
from .model import Entry, Grant, LeaseKey, Snapshot

ENTRY_POINT_GROUP = "unitd.registry_backends"

# What the registry of this package (embedded, or behind HTTP) promises.
MIN_TTL_SECONDS, MAX_TTL_SECONDS = 0.5, 3600.0
LATENESS_SECONDS = 0.3


class Capability(Enum):
    """What some registries can do and others cannot."""

    UPDATE_WITHOUT_RENEWAL = "update_without_renewal"  # `update` leaves the expiry where it was
    BATCH_RENEWAL = "batch_renewal"  # `renew` costs about one call, however many keys
    WATCH = "watch"  # changes are pushed; without it, `watch` polls
    DEREGISTER = "deregister"  # entries can be deleted; without it, they can only expire
    STATUS = "status"  # readers see `status` and `weight` of the entry


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a registry tells of itself; None where it tells nothing."""

    granted_ttl_seconds: float  # for the ttl that was asked about
    version: str | None = None
    clock: float | None = None  # its wall clock when it answered, unix seconds ...
    clock_resolution_seconds: float = 0.0  # ... cut to multiples of this
    warnings: tuple[str, ...] = ()  # what cannot work as configured, one sentence each


class Backend(Protocol):
    """A registry. All methods raise RegistryUnavailable; what else they raise is said below."""

    @property
    def name(self) -> str:
        """The name in the configuration, such as `consul`."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this registry can do."""

    async def register(self, entry: Entry, ttl_seconds: float) -> Grant:
        """Put the whole entry there and (re)start its ttl. Idempotent; the same generation refreshes.

        A newer generation replaces an older one; one older than the held one raises RegistryRejected
        (`stale_generation`). The grant tells the ttl that is really kept.
        """

    async def renew(self, keys: Sequence[LeaseKey]) -> frozenset[LeaseKey]:
        """Restart the ttl of many entries; answers the keys that are LOST: to be registered again.

        Lost is what is not there or is there in another generation. Never creates an entry.
        """

    async def update(self, entry: Entry) -> None:
        """Replace the value of an entry that is there in the same generation (weight, status, ...).

        Raises LeaseLost when it is not there or in an older generation, RegistryRejected (`stale_generation`)
        when in a newer one. Where UPDATE_WITHOUT_RENEWAL is missing this prolongs the lease like `renew`.
        """

    async def deregister(self, key: LeaseKey) -> bool:
        """Delete the entry of this generation or of an older one. False: it was not there.

        RegistryRejected (`stale_generation`): a newer generation is there, and stays.
        """

    async def get(self, service: str, instance: str) -> Entry | None:
        """The entry as it is now: a strongly consistent read. None only if the registry says that it is not there."""

    async def list(self, service: str | None = None) -> Snapshot:
        """All entries of a service, or of all services."""

    def watch(
        self, service: str | None = None, since: int = 0, epoch: str | None = None
    ) -> AsyncGenerator[Snapshot, None]:
        """Complete snapshots: the first at once, then one after each change (several changes may be one).

        `since` and `epoch` of the last snapshot that was seen resume: the first one then comes when something
        is newer. Revisions grow within an epoch; a new epoch gives a fresh snapshot. An unreachable registry gives
        none (so the last one stays the best known) and is tried again with growing delays. Ends at `close`.
        Raises RegistryRejected only before the first answer. Close it with contextlib.aclosing.
        """

    async def inspect(self, ttl_seconds: float) -> Inspection:
        """Ask the registry about itself, and what an entry of that ttl would really get. Changes nothing."""

    def removal_bound(self, ttl_seconds: float) -> float:
        """Seconds after the last renewal that could have counted within which the entry is gone.

        As long as the registry is not restarted meanwhile. `ttl_seconds` is what was asked for or granted.
        """

    async def close(self) -> None:
        """End watches and connections. Later calls raise RegistryRejected (`closed`). May be called twice."""


def require(backend: Backend, *capabilities: Capability) -> None:
    """Raise Unsupported unless the backend can do all of that; to be called at construction of its user."""
    missing = sorted(item.value for item in capabilities if item not in backend.capabilities)
    if missing:
        raise Unsupported(f"cannot use the registry backend {backend.name}: it lacks {', '.join(missing)}")


def check_ttl(ttl_seconds: float) -> float:
    """A ttl that can be asked for, as a float. Raises RegistryRejected (`bad_ttl`)."""
    if type(ttl_seconds) not in (int, float) or not 0 < ttl_seconds < math.inf:
        raise RegistryRejected(
            f"cannot register with a ttl of {ttl_seconds!r}: it must be a number of seconds above 0",
            code="bad_ttl",
        )
    return float(ttl_seconds)


def granted_ttl(ttl_seconds: float) -> float:
    """What the registry of this package keeps when that is asked for. Raises RegistryRejected (`bad_ttl`)."""
    return min(max(check_ttl(ttl_seconds), MIN_TTL_SECONDS), MAX_TTL_SECONDS)


def stale_generation(verb: str, key: LeaseKey, held_generation: int) -> RegistryRejected:
    """The error of a call about a generation that is older than the one in the registry."""
    return RegistryRejected(
        f"cannot {verb} {key}: generation {held_generation} is registered, which is newer",
        code="stale_generation",
        held_generation=held_generation,
    )
