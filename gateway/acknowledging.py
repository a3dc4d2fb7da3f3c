"""Tells the registry to whom gateways still send: one entry for each gateway and service, kept while the gateway lives.

Whoever stops an instance reads these entries, so they must never say that a gateway does not send to somebody to whom
it does. Therefore:

- Who is about to be added is claimed before the gateway is told (`applying`), and who is removed only when it has
  taken that over (`applied`). A gateway that was told half of something may do either, so both is claimed.
- An entry that claims too little is not renewed: should the right one not arrive, the wrong one ends with its lease.
- A write without an answer may still arrive. The next one comes in a higher generation, which no older one overwrites.
- What cannot be said (too many servers, a refusal) is not said: an entry that is not there proves nothing.

Nothing here holds up those who feed gateways: a task writes what is the newest when its turn comes, another one renews
all leases in one call.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain, islice

from registry_client.backend import Backend, Capability
from registry_client.errors import LeaseLost, RegistryError, RegistryRejected
from registry_client.gateways import GATEWAY_SERVICE, Acknowledgement, to_metadata, token
from registry_client.lease import rpc_timeout
from registry_client.model import Entry, LeaseKey

from .claims import Claim, is_same
from .model import Applied, Key, Pool

log = logging.getLogger("unit-gateway.acknowledging")

AT_ONCE = 8  # writes; more would only wait inside of the backend until its time limit
BUSY_SECONDS = 0.5  # numbers of open requests are written at most so often
RETRY_SECONDS, MAX_RETRY_SECONDS = 0.1, 2.0
REFUSED_SECONDS = 10.0  # what the registry does not take is tried again after so long
UNREACHABLE_SECONDS = 30.0  # nobody waits longer for a gateway that does not answer us
CLOSE_SECONDS = 3.0


class Acknowledgements:
    """All that the gateways of this process say. Belongs to one event loop; nothing but `close` waits.

    Feeders are named as in the configuration, and their gateways in the registry `<gateway>.<feeder>`.
    """

    def __init__(
        self,
        backend: Backend,
        gateway: str,
        address: tuple[str, int] | None,
        ttl_seconds: float,
        *,
        unreachable_seconds: float = UNREACHABLE_SECONDS,
    ) -> None:
        """`address` is where this process answers people; None: nowhere. The backend is not closed here."""
        self._backend, self._gateway, self._ttl_seconds = backend, gateway, ttl_seconds
        self._address, self._port = address or ("127.0.0.1", 1)
        self._unreachable_seconds = unreachable_seconds
        self._started_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._claims: dict[tuple[str, str], Claim] = {}
        self._dirty: dict[Claim, None] = {}  # in the order in which they are written
        self._timers: dict[Claim, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._leaving: dict[str, asyncio.TimerHandle] = {}
        self._granted_seconds = ttl_seconds
        self._outage = ""
        self._failures = 0  # in a row, of writes
        self._refusals: dict[str, str] = {}  # name -> why
        self._is_closed = False

    @property
    def error(self) -> str:
        """Why not all that should be said is in the registry; "": it is."""
        return self._outage or next(iter(self._refusals.values()), "")

    # What those tell who feed gateways.

    def applying(self, feeder: str, pool: Pool) -> None:
        """The gateway is about to be told this: it may send to all of its serving servers, whatever comes of it."""
        claim = self._claims.get((feeder, pool.service))
        if claim is not None and claim.is_wanted:
            claim.expect(server.key for server in pool.serving)
            self._look(claim)

    def applied(self, feeder: str, kind: str, applied: Applied, *, counted: bool = False) -> None:
        """The gateway acts on this. `counted`: `busy` has told since what is open at those that it has left."""
        claim = self._claim(feeder, applied.service)
        claim.kind, claim.revision, claim.is_wanted = kind, applied.revision, True
        claim.take_over(applied, _now(), counted=counted)
        self._look(claim)

    def busy(self, feeder: str, service: str, in_flight: Mapping[Key, int]) -> None:
        """What is open at servers that get nothing new, all of it; to be told after each look, also when it is nothing.

        Of a gateway that cannot count nothing is told.
        """
        claim = self._claim(feeder, service)
        numbers = {token(*key): number for key, number in in_flight.items() if number > 0}
        if not claim.counts or claim.uncounted or numbers != claim.busy:
            claim.counts, claim.busy, claim.uncounted = True, numbers, frozenset()
            self._look(claim)

    def unreachable(self, feeder: str) -> None:
        """The gateway does not answer; after a while nothing is said of it any more, so that nobody waits for it."""
        if feeder not in self._leaving and not self._is_closed:
            loop = asyncio.get_running_loop()
            self._leaving[feeder] = loop.call_later(self._unreachable_seconds, self.withdraw, feeder)

    def reachable(self, feeder: str) -> None:
        """It answers. What was withdrawn comes back when it has taken over something."""
        if (timer := self._leaving.pop(feeder, None)) is not None:
            timer.cancel()

    def withdraw(self, feeder: str) -> None:
        """Say nothing more of this gateway, until it takes over something."""
        for claim in self._claims.values():
            if claim.feeder == feeder:
                claim.leave()
                self._look(claim)

    async def close(self, *, on_their_own: Collection[str] = ()) -> None:
        """Take all entries out of the registry; if that takes too long, they expire. May be called twice.

        Those of the feeders `on_their_own` expire in any case: their gateways go on sending to whom they know, and
        until somebody feeds them again, or it is clear that nobody does, they are to be waited for.
        """
        self._is_closed = True
        for timer in (*self._leaving.values(), *self._timers.values()):
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._remove_all(on_their_own)
        except TimeoutError:
            log.warning("not all that was said of gateways could be taken back in time: it ends with its leases")

    async def _remove_all(self, but: Collection[str]) -> None:
        left = [claim for claim in self._claims.values() if claim.may_be_there and claim.feeder not in but]
        left *= 2  # one answer may be lost

        async def remove() -> None:
            while left:
                if (claim := left.pop()).may_be_there:
                    with suppress(RegistryError):
                        await self._remove(claim)

        await asyncio.gather(*(remove() for _ in range(AT_ONCE)))

    # When something is to be written.

    def _claim(self, feeder: str, service: str) -> Claim:
        if (claim := self._claims.get((feeder, service))) is None:
            claim = self._claims[feeder, service] = Claim(feeder, service, int(time.time() * 1000))
        return claim

    def _look(self, claim: Claim) -> None:
        """See to it that the registry gets what it does not have; a task does it."""
        if self._is_closed:
            return
        due_at = self._due_at(claim, now := _now())
        if due_at <= now:
            self._dirty[claim] = None
            self._wake.set()
            if not self._tasks:
                self._tasks = [asyncio.create_task(self._write_all()), asyncio.create_task(self._renew_all())]
        self._arm(claim, min(at for at in (due_at, claim.uncounted_until, math.inf) if at > now))

    def _due_at(self, claim: Claim, now: float) -> float:
        """When it is to be written; infinity: not before something changes."""
        if not claim.is_wanted:
            return now if claim.may_be_there else math.inf
        said = claim.said(self._gateway, now)
        if claim.refused is not None and claim.refused.serving == said.serving:
            return now if claim.may_be_there else claim.written_at + REFUSED_SECONDS
        if claim.written is None or not is_same(claim.written, said):
            return now
        return math.inf if claim.written.busy == said.busy else claim.written_at + BUSY_SECONDS

    def _arm(self, claim: Claim, at: float) -> None:
        timer = self._timers.get(claim)
        if timer is not None and timer.when() != at:
            timer.cancel()
            del self._timers[claim]
        if at < math.inf and claim not in self._timers:
            self._timers[claim] = asyncio.get_running_loop().call_at(at, self._ring, claim)

    def _ring(self, claim: Claim) -> None:
        del self._timers[claim]
        self._look(claim)

    # Writing.

    async def _write_all(self) -> None:
        while True:
            await self._wake.wait()
            claims = [*islice(self._dirty, AT_ONCE)]
            for claim in claims:
                del self._dirty[claim]
            if not claims:
                self._wake.clear()
                continue
            answers = await asyncio.gather(*(self._settle(claim) for claim in claims))
            if all(answers):
                self._failures = 0
                self._answered()
                continue
            self._failures = 1 if any(answers) else self._failures + 1
            await asyncio.sleep(_pause(self._failures))

    async def _settle(self, claim: Claim) -> bool:
        """Bring what is the newest; False: no answer, so that it is to be brought again."""
        try:
            await self._bring(claim)
        except Exception as error:  # whatever a backend fails with, the others are to be written
            self._unanswered(error)
            self._dirty[claim] = None
            return False
        self._look(claim)  # it may have changed meanwhile
        return True

    async def _bring(self, claim: Claim) -> None:
        said = claim.said(self._gateway, _now())
        if not claim.is_wanted or self._is_refused(claim, said):
            await self._remove(claim)
            return
        if claim.written is not None and is_same(claim.written, said) and claim.written.busy == said.busy:
            return
        try:
            metadata = to_metadata(said)
            if metadata is None:
                self._refuse(claim, said, f"{len(said.serving)} servers are too many for one entry", "")
            else:
                await self._write(claim, said, metadata)
                self._accept(claim)
        except RegistryRejected as error:
            self._refuse(claim, said, str(error), error.code)

    async def _write(self, claim: Claim, said: Acknowledgement, metadata: dict[str, str]) -> None:
        entry = self._entry(claim, metadata)
        is_sure, claim.written = claim.written is not None, None
        if claim.floor is not None:
            claim.floor &= said.serving
        if is_sure:
            try:
                await self._backend.update(entry)
            except LeaseLost:
                claim.is_lost()
            else:
                self._is_written(claim, said)
                return
        # Whatever has got no answer, or is still on its way from before, is older than this.
        claim.generation += 1
        claim.may_be_there = True
        if claim.floor is None:
            claim.floor = said.serving
        grant = await self._backend.register(replace(entry, generation=claim.generation), self._ttl_seconds)
        self._granted_seconds = min(self._ttl_seconds, grant.ttl_seconds)
        self._is_written(claim, said)

    def _is_written(self, claim: Claim, said: Acknowledgement) -> None:
        claim.written, claim.floor, claim.written_at = said, said.serving, _now()
        claim.answered_generation = claim.generation

    def _entry(self, claim: Claim, metadata: dict[str, str]) -> Entry:
        return Entry(
            service=GATEWAY_SERVICE,
            instance=self._instance(claim),
            node=self._gateway,
            unit=claim.feeder,
            address=self._address,
            port=self._port,
            generation=claim.generation,
            started_at=self._started_at,
            metadata=metadata,
        )

    def _instance(self, claim: Claim) -> str:
        return f"{self._gateway}.{claim.feeder}/{claim.service}"

    async def _remove(self, claim: Claim) -> None:
        """Take its entry out, whichever of those is there that were sent."""
        claim.is_lost()
        if claim.may_be_there and Capability.DEREGISTER in self._backend.capabilities:
            try:
                await self._backend.deregister(LeaseKey(GATEWAY_SERVICE, self._instance(claim), claim.generation))
            except RegistryRejected as error:  # of somebody else then; or it is not to be removed, and expires
                log.debug("cannot take out what was said: %s", error)
        claim.may_be_there = False

    # What the registry does not take.

    def _is_refused(self, claim: Claim, said: Acknowledgement) -> bool:
        """The same was refused just now."""
        refused = claim.refused
        again_at = claim.written_at + REFUSED_SECONDS
        return refused is not None and refused.serving == said.serving and _now() < again_at

    def _refuse(self, claim: Claim, said: Acknowledgement, reason: str, code: str) -> None:
        """It is not said, and what is there, which says something else, is taken out next."""
        claim.refused, claim.written_at = said, _now()
        name = self._instance(claim)
        if code == "stale_generation":
            reason = f"another unit-gateway is called {self._gateway}; give each a name of its own ({reason})"
        if reason not in self._refusals.values():
            log.error("cannot say in the registry to whom %s sends, so nobody waits for it: %s", name, reason)
        self._refusals[name] = reason

    def _accept(self, claim: Claim) -> None:
        claim.refused = None
        if self._refusals and self._refusals.pop(self._instance(claim), None) is not None:
            log.info("the registry takes again to whom %s sends", self._instance(claim))

    def _unanswered(self, error: Exception) -> None:
        if not self._outage:
            is_known = isinstance(error, RegistryError | TimeoutError)
            reason = str(error) or "no answer in time"
            log.warning(
                "cannot say in the registry to whom gateways send: %s; trying on", reason, exc_info=not is_known
            )
        self._outage = str(error) or repr(error)

    def _answered(self) -> None:
        if self._outage:
            log.info("the registry takes again to whom gateways send")
        self._outage = ""

    # Renewing.

    async def _renew_all(self) -> None:
        while True:
            await asyncio.sleep(self._granted_seconds / 3 * random.uniform(0.9, 1.1))
            keys = {claim: self._keys(claim) for claim in self._claims.values() if claim.may_be_renewed}
            if not keys:
                continue
            try:
                async with asyncio.timeout(rpc_timeout(self._granted_seconds)):
                    lost = await self._backend.renew([*chain.from_iterable(keys.values())])
            except Exception as error:
                self._unanswered(error)
                continue
            if not self._failures:
                self._answered()
            for claim, asked in keys.items():
                if lost.issuperset(asked) and self._keys(claim) == asked:  # else something newer is on its way
                    claim.is_lost()
                    self._look(claim)

    def _keys(self, claim: Claim) -> list[LeaseKey]:
        instance = self._instance(claim)
        return [LeaseKey(GATEWAY_SERVICE, instance, generation) for generation in sorted(claim.generations)]


def _pause(failures: int) -> float:
    return min(RETRY_SECONDS * 2.0 ** min(failures - 1, 20), MAX_RETRY_SECONDS) * random.uniform(0.5, 1)


def _now() -> float:
    return asyncio.get_running_loop().time()
