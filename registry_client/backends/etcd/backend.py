"""The backend for etcd v3, over its JSON gateway (etcd 3.4 and later). entries.py says how an entry lies there.

Each entry has a lease of its own, so it lives exactly as long as its own renewals go on. Changes are transactions
that compare the revision of what was read before: whoever races, an older generation never overwrites or removes a
newer one, and no entry is ever put without its lease (it would stay for ever). Reads are linearizable.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...backend import Capability, Inspection, check_ttl, stale_generation
from ...errors import BadOption, LeaseLost, RegistryError, RegistryRejected, RegistryUnavailable
from ...model import Entry, Grant, LeaseKey, Snapshot
from ...options import Secret, Tls
from ..connection import HttpAddress
from .entries import Held, Layout, keepalives, pairs_in, revision_in, unchanged, value_of
from .gateway import NOT_FOUND, Call, Gateway, Refused, new_lease, read
from .inspection import inspect
from .watch import Reader, Watch

MIN_TTL_SECONDS = (
    2  # what etcd grants at least with its usual election timeout of 1 s (1.5 times that, in whole seconds)
)
LATENESS_SECONDS = 2.0

_BATCH = 512  # leases renewed by one request
_OPERATIONS = 128  # in one transaction, etcd's usual limit
_ROUNDS = 4  # of a renewal whose entries change their leases meanwhile
_MAX_SPARE = 4  # leases of one entry whose fate is unknown; older ones have expired


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Of a transaction: whether it was carried out; if not, what is there instead."""

    succeeded: bool
    revision: int
    held: Held | None


class EtcdBackend:
    """The Backend over etcd, `http[s]://host:port[,http[s]://host:port ...]`: the members of one cluster.

    The first member is used until it fails. `prefix` is the folder of our keys: a `user` needs the right to read and
    write `/<prefix>/` and all keys that begin so (readers: to read it). `tls` may hold a certificate; etcd does not
    take its name for a user's over this API. `watch_wait_seconds` is how long a silent watch is believed to be alive.
    """

    name = "etcd"
    capabilities = frozenset(Capability)

    def __init__(
        self,
        url: str = "http://127.0.0.1:2379",
        *,
        timeout_seconds: float = 2.0,
        user: str | None = None,
        password: str | Secret | None = None,
        tls: Tls | None = None,
        prefix: str = "unitd",
        watch_wait_seconds: float = 30.0,
    ) -> None:
        given = {"url": url, "timeout_seconds": timeout_seconds, "user": user, "password": password, "prefix": prefix}
        self.check_options({**given, "watch_wait_seconds": watch_wait_seconds})
        self.timeout_seconds, self._watch_wait_seconds = timeout_seconds, watch_wait_seconds
        self._gateway = Gateway(
            HttpAddress.parse_all(self.name, url),
            timeout_seconds=timeout_seconds,
            tls=tls,
            user=user,
            password=Secret.of(password),
        )
        self._layout = Layout(prefix)
        self._reader = Reader(self._gateway, self._layout)
        self._leases: dict[tuple[str, str], tuple[int, int]] = {}  # service, instance -> generation, lease
        self._spare: dict[tuple[str, str], list[int]] = {}  # leases that were asked for, and may be of no use
        self._granted: dict[int, int] = {}  # ttl that was asked for -> that was granted

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """Raise BadOption for a value that cannot be used."""
        if "url" in options:
            for address in HttpAddress.parse_all(cls.name, options["url"]):
                if address.socket is not None:
                    raise BadOption(cls.name, "url", "must be http:// or https://")
        prefix = options.get("prefix", "unitd")
        if not isinstance(prefix, str) or not prefix.isprintable() or not prefix.strip("/"):
            raise BadOption(cls.name, "prefix", "must be printable, and more than slashes")
        for option, other in (("user", "password"), ("password", "user")):
            if options.get(option) is not None and options.get(other) is None:
                raise BadOption(cls.name, other, f"missing: it belongs to the option {option}")
        for option in ("timeout_seconds", "watch_wait_seconds"):
            value = options.get(option, 1)
            if type(value) not in (int, float) or not 0 < value < math.inf:
                raise BadOption(cls.name, option, "must be a number of seconds above 0")

    # -- holders -------------------------------------------------------------------------------------------------

    async def register(self, entry: Entry, ttl_seconds: float) -> Grant:
        """See `Backend.register`. The ttl is whole seconds, rounded up, and at least what the server wants."""
        asked, name = math.ceil(check_ttl(ttl_seconds)), (entry.service, entry.instance)
        asking: list[int] = []  # leases that this call has asked for ...
        others: list[int] = []  # ... and what it has taken away from the entry, or failed calls may have left
        async with self._gateway.call(f"register {entry.key}") as call:
            others += self._spare.pop(name, ())
            try:
                grant, lease = await self._register(call, entry, asked, asking, others)
            except BaseException as error:
                if isinstance(error, RegistryRejected):
                    await self._revoke(call, asking)
                    asking.clear()
                if left := [*self._spare.get(name, ()), *others, *asking]:
                    self._spare[name] = left[-_MAX_SPARE:]
                raise
            self._leases[name] = entry.generation, lease
            await self._revoke(call, {*asking, *others} - {lease})
            return grant

    async def _register(
        self, call: Call, entry: Entry, asked: int, asking: list[int], others: list[int]
    ) -> tuple[Grant, int]:
        """The grant and the lease.

        While the fate of other leases is unknown even what is known already is put: a late put of theirs then fails.
        """
        held = await self._read(call, entry.key)
        while True:
            if held is not None and held.generation > entry.generation:
                raise stale_generation("register", entry.key, held.generation)
            ttl = await self._kept_ttl(call, entry, asked, held)
            if held is not None and ttl:
                lease, known = held.lease, held.entry == entry and not others
            else:
                (lease, ttl), known = await self._grant(call, asked, asking), False
                others += [held.lease] if held is not None and held.lease else []
            outcome = await self._transact(call, entry.key, held, () if known else [self._put(entry, lease)])
            if outcome.succeeded:
                return Grant(ttl, outcome.revision), lease
            held = outcome.held

    async def _kept_ttl(self, call: Call, entry: Entry, asked: int, held: Held | None) -> int:
        """Restart the ttl of an entry that is there in this generation. 0: it has to get another lease."""
        if held is None or not _is_held(held, entry.key):
            return 0
        ttl = (await self._keep_alive(call, [held.lease]))[held.lease]
        return ttl if ttl == self._granted.get(asked, asked) else 0

    def _put(self, entry: Entry, lease: int) -> dict[str, object]:
        key = self._layout.key(entry.service, entry.instance)
        return {"request_put": {"key": key, "value": value_of(entry), "lease": str(lease)}}

    async def _grant(self, call: Call, asked: int, asking: list[int]) -> tuple[int, int]:
        """A new lease and its ttl. Its number is ours, so that one whose answer is lost is known, too."""
        lease = new_lease()
        asking.append(lease)
        answer = await call.ask("/v3/lease/grant", {"TTL": str(asked), "ID": str(lease)})
        self._granted[asked] = read(call.verb, lambda: int(answer["TTL"]))
        return lease, self._granted[asked]

    async def _revoke(self, call: Call, leases: Iterable[int]) -> None:
        """End leases that no entry has, or has any more. Those that etcd cannot be told of now expire."""
        for lease in leases:
            try:
                await call.ask("/v3/lease/revoke", {"ID": str(lease)})
            except RegistryError:
                continue

    async def renew(self, keys: Sequence[LeaseKey]) -> frozenset[LeaseKey]:
        """See `Backend.renew`. An entry that has lost its lease, and would stay for ever, is lost, too.

        A lease that etcd renews is no proof that the entry is there (before 3.5.23 and 3.6.5 not even that the lease
        is), so the entries are looked at afterwards.
        """
        lost: set[LeaseKey] = set()
        for start in range(0, len(keys), _BATCH):
            batch: Iterable[LeaseKey] = keys[start : start + _BATCH]
            async with self._gateway.call(f"renew {len(keys)} lease" + "s" * (len(keys) != 1)) as call:
                call.counted = start > 0
                lost |= await self._renew_batch(call, batch)
        return frozenset(lost)

    async def _renew_batch(self, call: Call, keys: Iterable[LeaseKey]) -> set[LeaseKey]:
        lost: set[LeaseKey] = set()
        for _ in range(_ROUNDS):
            known = {key: lease for key in keys if (lease := self._lease(key)) is not None}
            known |= await self._learn(call, [key for key in keys if key not in known])
            lost.update(key for key in keys if key not in known)
            ttls = await self._keep_alive(call, list(known.values()))
            there = await self._ranges(call, list(known), keys_only=True)
            lost.update(key for key in known if there[key] is None)
            keys = [key for key, held in there.items() if held and (held.lease != known[key] or ttls[held.lease] <= 0)]
            for key in [*keys, *lost]:
                self._forget(key)
            if not keys:
                return lost
        raise RegistryUnavailable(f"cannot {call.verb}: the leases of {len(list(keys))} of them change all the time")

    async def _learn(self, call: Call, keys: Sequence[LeaseKey]) -> dict[LeaseKey, int]:
        """The leases of those entries that are there; somebody else has registered them."""
        found = {}
        for key, held in (await self._ranges(call, keys)).items():
            if held is not None and _is_held(held, key):
                found[key] = held.lease
                self._leases[key.service, key.instance] = key.generation, held.lease
        return found

    async def _keep_alive(self, call: Call, leases: Sequence[int]) -> dict[int, int]:
        """Renew leases; answers the ttl of each, 0 for one that is not there."""
        ttls: dict[int, int] = {}
        left = leases
        while left:
            for value in await call.ask_many("/v3/lease/keepalive", keepalives(left), counts=True):
                lease, ttl = read(call.verb, partial(_ttl_in, value))
                ttls[lease] = ttl
            unanswered = [lease for lease in left if lease not in ttls]
            if len(unanswered) == len(left):
                raise RegistryUnavailable(f"cannot {call.verb}: the answer is about other leases")
            left = unanswered  # the gateway may have read only the first ones
        return ttls

    def _lease(self, key: LeaseKey) -> int | None:
        generation, lease = self._leases.get((key.service, key.instance), (-1, 0))
        return lease if generation == key.generation else None

    def _forget(self, key: LeaseKey) -> None:
        if self._lease(key) is not None:
            del self._leases[key.service, key.instance]

    async def update(self, entry: Entry) -> None:
        """See `Backend.update`. Never prolongs."""
        async with self._gateway.call(f"update {entry.key}") as call:
            held = await self._read(call, entry.key)
            while True:
                if held is not None and held.generation > entry.generation:
                    raise stale_generation("update", entry.key, held.generation)
                if held is None or not _is_held(held, entry.key):
                    raise LeaseLost(f"cannot {call.verb}: it is not registered")
                if held.entry == entry:
                    return
                outcome = await self._transact(call, entry.key, held, [self._put(entry, held.lease)])
                if outcome.succeeded:
                    return
                held = outcome.held

    async def deregister(self, key: LeaseKey) -> bool:
        """See `Backend.deregister`. False also when the answer to a first attempt was lost with its connection."""
        async with self._gateway.call(f"deregister {key}") as call:
            held = await self._read(call, key)
            while held is not None and held.entry is not None:
                if held.generation > key.generation:
                    raise stale_generation("deregister", key, held.generation)
                deletion = {"request_delete_range": {"key": self._layout.key(key.service, key.instance)}}
                outcome = await self._transact(call, key, held, [deletion])
                if outcome.succeeded:
                    break
                held = outcome.held
            else:
                held = None
            self._forget(key)
            spare = self._spare.pop((key.service, key.instance), [])
            await self._revoke(call, spare if held is None or not held.lease else [*spare, held.lease])
            return held is not None

    # -- readers -------------------------------------------------------------------------------------------------

    async def get(self, service: str, instance: str) -> Entry | None:
        """See `Backend.get`. A value that is no entry is none, as in lists."""
        key = LeaseKey(service, instance, 0)
        async with self._gateway.call(f"read {instance} of {service}") as call:
            held = await self._read(call, key)
        return None if held is None else held.entry

    async def list(self, service: str | None = None) -> Snapshot:
        """See `Backend.list`."""
        return (await self._reader.listing(service)).snapshot(service)

    def watch(
        self, service: str | None = None, since: int = 0, epoch: str | None = None
    ) -> AsyncGenerator[Snapshot, None]:
        """See `Backend.watch`."""
        return Watch(self._reader, service, since, epoch, self._watch_wait_seconds).snapshots()

    async def inspect(self, ttl_seconds: float) -> Inspection:
        """See `Backend.inspect`. Asks for a lease of that ttl and gives it back."""
        asked = math.ceil(check_ttl(ttl_seconds))
        async with self._gateway.call("inspect etcd") as call:
            return await inspect(call, asked, len(self._gateway.addresses))

    def removal_bound(self, ttl_seconds: float) -> float:
        """See `Backend.removal_bound`. The granted ttl, and 2 s.

        etcd looks for expired leases every half second and revokes at most 1000 a second (`lease/lessor.go`); measured:
        0.5 s for one, 1.6 s for 5000 at the same time. A new leader starts every ttl anew.
        """
        asked = math.ceil(ttl_seconds)
        return max(asked, self._granted.get(asked, MIN_TTL_SECONDS)) + LATENESS_SECONDS

    async def close(self) -> None:
        """See `Backend.close`."""
        self._gateway.close()
        await asyncio.sleep(0)  # lets the loop close the sockets

    # -- requests ------------------------------------------------------------------------------------------------

    async def _read(self, call: Call, key: LeaseKey) -> Held | None:
        return (await self._ranges(call, [key]))[key]

    async def _ranges(
        self, call: Call, keys: Sequence[LeaseKey], *, keys_only: bool = False
    ) -> dict[LeaseKey, Held | None]:
        """What is at these keys; without the entries with `keys_only`."""
        found: dict[LeaseKey, Held | None] = {}
        for start in range(0, len(keys), _OPERATIONS):
            part = keys[start : start + _OPERATIONS]
            ranges = [{"key": self._layout.key(key.service, key.instance), "keys_only": keys_only} for key in part]
            answer = await call.ask("/v3/kv/txn", {"success": [{"request_range": item} for item in ranges]})
            helds = read(call.verb, partial(self._helds, answer, keys_only))
            if len(helds) != len(part):
                raise RegistryUnavailable(f"cannot {call.verb}: the answer is about other keys")
            found.update(zip(part, helds, strict=True))
        return found

    def _helds(self, answer: Mapping[str, Any], keys_only: bool) -> Sequence[Held | None]:
        return [self._held(response, keys_only) for response in answer["responses"]]

    def _held(self, response: Mapping[str, Any], keys_only: bool = False) -> Held | None:
        for pair in pairs_in(response):
            if keys_only:
                return Held(None, int(pair.get("lease", 0)), int(pair["mod_revision"]))
            return self._layout.held(pair)
        return None

    async def _transact(
        self, call: Call, key: LeaseKey, held: Held | None, operations: Sequence[Mapping[str, object]]
    ) -> _Outcome:
        """Do it if the key is as it was read; else read it again."""
        name = self._layout.key(key.service, key.instance)
        epoch = {"request_range": {"key": self._layout.epoch, "count_only": True}}
        body = {
            "compare": [unchanged(name, held)],
            "success": [epoch, *operations],
            "failure": [{"request_range": {"key": name}}],
        }
        try:
            answer = await call.ask("/v3/kv/txn", body, counts=True)
        except Refused as error:
            if error.code != NOT_FOUND:
                raise
            return _Outcome(False, 0, await self._read(call, key))  # the lease is over
        succeeded = answer.get("succeeded") is True
        first = read(call.verb, lambda: answer["responses"][0])
        revision = read(call.verb, lambda: revision_in(answer))
        if succeeded and not read(call.verb, lambda: int(first["response_range"].get("count", 0))):
            with suppress(RegistryUnavailable):  # the next one will
                await self._reader.begin_epoch(call)
        return _Outcome(succeeded, revision, None if succeeded else read(call.verb, lambda: self._held(first)))


def _is_held(held: Held, key: LeaseKey) -> bool:
    """Whether it is there in this generation, and not for ever."""
    return held.generation == key.generation and held.lease != 0


def _ttl_in(value: Mapping[str, Any]) -> tuple[int, int]:
    """The lease that an answer is about, and its ttl."""
    return int(value["ID"]), int(value.get("TTL", 0))
