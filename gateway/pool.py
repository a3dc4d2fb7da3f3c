"""What gateways should know, decided from what the registry says and has said. Pure: time is an argument.

The registry's word is obeyed where it is an order, and doubted where it may be silence:

    entry listed                                its server is in the pool, serving or draining as the entry says
    entry gone after it was seen draining       gone at once: somebody took it out
    entry gone without that, one of many        gone at once: it has crashed, or its lease has ended
    ... the last one that served, or too many   *held*: rather nobody could renew than all have died; it goes when the
        of a service in a short time            registry, asked again `confirm_seconds` later, still does not list it
    entry missing in another epoch              held for `young_seconds`: a registry without memory fills again

Time alone changes nothing: what is held goes with an *answer* of the registry, so while it is away everything stays as
it is. Within an epoch an instance's generation never goes back: what lists an older one is a late write.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from registry_client.gateways import GATEWAY_SERVICE
from registry_client.model import Entry, Snapshot

from .model import NODE_SERVICE, Pool, Server, Standing

ASK_AGAIN_SECONDS = 1.0  # when the registry did not answer though something is held
REMEMBER_SECONDS = 3600.0  # who has gone; nothing that was sent before then is still on its way

MASS = "the registry lists it no more, but too many are missing at once"
LAST = "the registry lists it no more, but it was the last one"
YOUNG = "the registry has begun anew and does not list it yet"

_NO_POOLS = frozenset((NODE_SERVICE, GATEWAY_SERVICE))


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPolicy:
    """When the registry is believed that servers are not there any more."""

    confirm_seconds: float = 10.0  # how long it must insist before a mass disappearance is believed
    hold_percent: float = 50.0  # more of a service's serving servers than that vanishing is a mass disappearance
    young_seconds: float = 15.0  # a registry that has begun anew gets this long to be filled again


@dataclass(frozen=True, slots=True)
class _Gone:
    """An instance that has left. `vanished_at`: when, if it served until then; it adds to a mass disappearance."""

    generation: int
    at: float
    vanished_at: float = -math.inf


@dataclass(frozen=True, slots=True)
class _Hold:
    """Until when, at least, a server is kept that is not listed. `is_foreign`: this epoch has never listed it."""

    until: float
    why: str
    is_foreign: bool = False


@dataclass(frozen=True, slots=True)
class _Known:
    """What is remembered of one service. `entries`: as last listed; `held`, `gone`: by instance."""

    pool: Pool
    entries: tuple[Entry, ...] | None = None
    held: Mapping[str, _Hold] = field(default_factory=dict)
    gone: Mapping[str, _Gone] = field(default_factory=dict)

    def newest(self) -> dict[str, int]:
        """Instance -> the newest generation that was seen of it in this epoch."""
        gone = {instance: each.generation for instance, each in self.gone.items()}
        return gone | {server.instance: server.generation for server in self.pool.servers if self.knows(server)}

    def knows(self, server: Server) -> bool:
        """Whether this epoch has ever listed the server, one of the pool."""
        hold = self.held.get(server.instance)
        return hold is None or not hold.is_foreign


@dataclass(frozen=True, slots=True)
class Pools:
    """All that has been decided; `Pools()` is the beginning. Immutable.

    `by_service` is the same object as long as no pool has changed. `next_at`: when the registry should be asked again,
    and `decide` be called with what it says, though nothing has changed; None: on changes only.
    """

    by_service: Mapping[str, Pool] = field(default_factory=dict)
    next_at: float | None = None
    epoch: str | None = None
    revision: int = 0
    known: Mapping[str, _Known] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class _Moment:
    """What holds for all services of one snapshot. `is_anew`: it is the first of its epoch."""

    now: float
    epoch: str
    revision: int
    is_anew: bool
    policy: PoolPolicy


def restored(pools: Iterable[Pool]) -> Pools:
    """The last good set, from before a restart. Where its epoch is still the registry's, the usual rules hold."""
    by_service = {pool.service: pool for pool in pools}
    epochs = {pool.epoch for pool in by_service.values()}
    known = {service: _Known(pool) for service, pool in by_service.items()}
    return Pools(by_service, epoch=epochs.pop() if len(epochs) == 1 else None, known=known)


def decide(before: Pools, snapshot: Snapshot | None, now: float, policy: PoolPolicy) -> Pools:
    """What gateways should know from now on (monotonic seconds). Equal inputs give equal answers.

    `snapshot` is of all services (else ValueError) and may be one that was seen already: the registry was asked again.
    None: it did not answer. One that a newer one has overtaken is no answer.
    """
    if snapshot is None or (snapshot.epoch == before.epoch and snapshot.revision < before.revision):
        return _unanswered(before, now)
    if snapshot.service is not None:
        raise ValueError(f"cannot decide on a snapshot of {snapshot.service} alone: it says nothing of other services")
    moment = _Moment(now, snapshot.epoch, snapshot.revision, snapshot.epoch != before.epoch, policy)
    listed = _by_service(snapshot)
    known = {
        service: _follow(before.known.get(service) or _unknown(service, moment), listed.get(service, ()), moment)
        for service in before.known.keys() | listed.keys()
    }
    pools, next_at = _pools_of(known, before), _next_at(known)
    return Pools(pools, next_at, snapshot.epoch, snapshot.revision, known)


def _unanswered(before: Pools, now: float) -> Pools:
    if before.next_at is None or before.next_at > now:
        return before
    return replace(before, next_at=now + ASK_AGAIN_SECONDS)


def _by_service(snapshot: Snapshot) -> dict[str, tuple[Entry, ...]]:
    services: dict[str, list[Entry]] = {}
    for entry in snapshot.entries:
        if entry.service not in _NO_POOLS:
            services.setdefault(entry.service, []).append(entry)
    return {service: tuple(entries) for service, entries in services.items()}


def _unknown(service: str, moment: _Moment) -> _Known:
    return _Known(Pool(service, moment.revision, moment.epoch))


def _pools_of(known: Mapping[str, _Known], before: Pools) -> Mapping[str, Pool]:
    """Sorted by service; the mapping of before, where it says the same."""
    is_same = len(known) == len(before.by_service) and all(
        each.pool is before.by_service.get(service) for service, each in known.items()
    )
    return before.by_service if is_same else {service: known[service].pool for service in sorted(known)}


def _next_at(known: Mapping[str, _Known]) -> float | None:
    return min((hold.until for each in known.values() for hold in each.held.values()), default=None)


# One service.


def _follow(known: _Known, entries: tuple[Entry, ...], moment: _Moment) -> _Known:
    """What is known of the service once the registry has said this."""
    if entries == known.entries and not known.held and not moment.is_anew:
        return known
    newest = {} if moment.is_anew else known.newest()
    believed = [entry for entry in entries if entry.generation >= newest.get(entry.instance, 0)]
    listed = {entry.instance: _server(entry) for entry in believed}
    kept, held = _kept(known, listed, moment)
    servers = tuple(sorted((*listed.values(), *kept), key=lambda server: server.instance))
    pool = known.pool
    if servers != pool.servers or moment.epoch != pool.epoch:
        pool = Pool(pool.service, moment.revision, moment.epoch, servers)
    return _Known(pool, entries, held, _gone(known, pool, moment))


def _server(entry: Entry) -> Server:
    drains = entry.status == "draining" or entry.weight == 0
    return Server(
        service=entry.service,
        instance=entry.instance,
        generation=entry.generation,
        address=entry.address,
        port=entry.port,
        weight=0 if drains else entry.weight,
        full_weight=max(entry.full_weight, 1),
        standing=Standing.DRAINING if drains else Standing.SERVING,
        zone=entry.zone,
    )


def _kept(known: _Known, listed: Mapping[str, Server], moment: _Moment) -> tuple[list[Server], dict[str, _Hold]]:
    """The servers that are held although they are not listed, and how each of them is."""
    doubt = _doubt(known, listed, moment)
    taken = {server.place for server in listed.values()}  # who listens there now is somebody else
    kept, held = [], {}
    for server in known.pool.servers:
        if server.instance in listed or server.place in taken:
            continue
        hold = _hold(server, known.held.get(server.instance), doubt, moment)
        if moment.now < hold.until:
            kept.append(server if server.held == hold.why else replace(server, held=hold.why))
            held[server.instance] = hold
    return kept, held


def _hold(server: Server, before: _Hold | None, doubt: str, moment: _Moment) -> _Hold:
    """How a server that is not listed is kept; until a time that is over: it is not."""
    if before is not None and not moment.is_anew:
        return before
    until = moment.now + moment.policy.young_seconds if moment.is_anew else -math.inf
    if doubt and server.standing is Standing.SERVING:
        until = max(until, moment.now + moment.policy.confirm_seconds)
    return _Hold(until, YOUNG if moment.is_anew else doubt, moment.is_anew)


def _doubt(known: _Known, listed: Mapping[str, Server], moment: _Moment) -> str:
    """Why it is hard to believe that all serving servers that are missing have really gone; "": it is not."""
    missing = sum(1 for server in known.pool.serving if server.instance not in listed)
    since = moment.now - moment.policy.confirm_seconds
    before = sum(1 for name, each in known.gone.items() if each.vanished_at > since and name not in listed)
    if not any(server.standing is Standing.SERVING for server in listed.values()):
        return LAST
    is_mass = (missing + before) * 100 > moment.policy.hold_percent * (len(known.pool.serving) + before)
    return MASS if is_mass else ""


def _gone(known: _Known, pool: Pool, moment: _Moment) -> dict[str, _Gone]:
    """Who has left in this epoch, and not long ago."""
    here = {server.instance for server in pool.servers}
    since = moment.now - REMEMBER_SECONDS
    old = {} if moment.is_anew else known.gone
    gone = {name: each for name, each in old.items() if name not in here and each.at > since}
    for server in known.pool.servers:
        if server.instance not in here and known.knows(server):
            vanished = server.standing is Standing.SERVING and not server.held
            gone[server.instance] = _Gone(server.generation, moment.now, moment.now if vanished else -math.inf)
    return gone
