"""Who still sends to units that are being taken out: gateways say it in the registry, or along with their checks.

A gateway that has an entry of its own (service `unit-gateway`) lists there to whom it may send; one that asks on the
checks port is seen there (`sightings.py`). Those that send to a unit when its withdrawal begins, before anybody is
told of it, are the ones to hear from: all of them have *acknowledged* when each says that it sends no more. A gateway
that has vanished meanwhile cannot be waited for, and has acknowledged nothing.

The registry is asked only while a unit is being taken out, by one reader for all of them.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from registry_client.errors import RegistryError
from registry_client.gateways import GATEWAY_SERVICE, Acknowledgement, from_entry
from registry_client.model import Entry

from ..core.model import DrainSpec, InFlight, UnitSpec
from ..host.clock import monotonic
from .drain import Load
from .registries import Registries, Registry
from .sightings import Sightings

log = logging.getLogger("unitd.gateways")

FIRST_SECONDS = 0.3  # so long the first look may delay the word that a unit leaves
LOOK_SECONDS = 0.2


class Said:
    """What all gateways say in all registries: one look."""

    __slots__ = ("_by_service", "_entries", "began", "silent")

    def __init__(self, began: float, entries: dict[str, list[Entry] | None]) -> None:
        self.began = began
        self.silent = {name for name, found in entries.items() if found is None}  # registries without an answer
        self._entries = [(name, entry) for name, found in entries.items() for entry in found or ()]
        self._by_service: dict[str, list[tuple[str, Acknowledgement]]] = {}

    def of(self, service: str) -> list[tuple[str, Acknowledgement]]:
        """(registry, word) of the gateways of a service. Read once, for many units may ask."""
        if service not in self._by_service:
            wanted = ((name, item) for name, item in self._entries if item.metadata.get("service") == service)
            words = ((name, from_entry(item)) for name, item in wanted)
            self._by_service[service] = [(name, word) for name, word in words if word is not None]
        return self._by_service[service]


NOTHING = Said(-math.inf, {})


@dataclass(slots=True)
class Senders:
    """Who sends to one life of a unit, from its withdrawal on."""

    unit: str
    service: str
    instance: str
    generation: int
    complete: bool = False  # the first look was answered in time, by all registries
    # Who sent then: gateway -> the registry that says so; None: it was seen by its checks.
    known: dict[str, str | None] = field(default_factory=dict)
    expects: bool = False  # somebody may have something to say
    asks_registry: bool = False
    pending: tuple[str, ...] = ()  # gateways that still send, of those that were last heard
    settled: bool = False  # all that are known have said that they send no more
    since: float = math.inf  # when the waiting for them began
    deadline: float = math.inf

    @property
    def outcome(self) -> str:
        """What has come of the waiting."""
        if self.pending:
            return "unanswered"
        return "acknowledged" if self.settled else "vanished"

    def describe(self) -> str:
        """Whom a withdrawal waits for, with its time; "" if for nobody."""
        if not self.pending:
            return ""
        noun = "gateway" if len(self.pending) == 1 else "gateways"
        passed, most = monotonic() - self.since, self.deadline - self.since
        return f"waiting for {noun} {named(self.pending)}: {passed:.1f} s of at most {most:.1f} s"


class Acknowledgements:
    """What is known of gateways, for units on their way out. A unit has one withdrawal at most."""

    def __init__(self, registries: Registries) -> None:
        self._registries = registries
        self.sightings = Sightings()
        self._senders: dict[str, Senders] = {}
        self._said = NOTHING
        self._look: asyncio.Task[Said] | None = None
        self._complained: set[str] = set()  # registries that refuse to say

    async def begin(self, spec: UnitSpec, entry: Entry) -> Senders | None:
        """Look who sends to it, before anybody is told that it leaves; takes FIRST_SECONDS at most. None: not asked."""
        self.forget(spec.name)
        if spec.restart.gateway_seconds <= 0:
            return None
        senders = Senders(spec.name, entry.service, entry.instance, entry.generation)
        self._senders[spec.name] = senders
        said = await self._looked(monotonic(), FIRST_SECONDS)
        senders.complete = said is not None and not said.silent
        by_registry = said.of(senders.service) if said is not None else []
        seen = self.sightings.of(spec.name)
        for registry, word in by_registry:
            if word.sends_to(senders.instance, senders.generation):
                senders.known[word.gateway] = registry
        senders.known.update((item.gateway, None) for item in seen if item.sends)
        senders.asks_registry = bool(by_registry) or not senders.complete
        senders.expects = senders.asks_registry or bool(seen)
        return senders

    async def wait(
        self, senders: Senders, seconds: float, goes_on: Callable[[], bool], begins: Callable[[], None]
    ) -> None:
        """Until nobody is known to send to it, or it `goes_on` no more, or the time is over; see `senders` then.

        `begins` is called when there is somebody to wait for.
        """
        senders.since = monotonic()
        senders.deadline = senders.since + seconds
        not_before = senders.since
        while senders.expects and goes_on():
            said = self._said
            if senders.asks_registry:
                said = await self._looked(not_before, senders.deadline - monotonic()) or said
            waited = bool(senders.pending)
            self._consider(senders, said)
            if senders.pending and not waited:
                begins()
            left = senders.deadline - monotonic()
            if not senders.pending or left <= 0:
                break
            await asyncio.sleep(min(LOOK_SECONDS, left))
            not_before = monotonic() - LOOK_SECONDS

    def forget(self, unit: str) -> None:
        """Its withdrawal and its drain are over, or called off."""
        self._senders.pop(unit, None)
        if not self._senders:
            self._said = NOTHING

    def remove(self, unit: str) -> None:
        """It is no unit any more."""
        self.forget(unit)
        self.sightings.forget(unit)

    async def close(self) -> None:
        """Stop looking."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.gather(self._look, return_exceptions=True)

    def _consider(self, senders: Senders, said: Said) -> None:
        """What that look means for a unit."""
        heard, sending = set(), set()
        for _, word in said.of(senders.service) if senders.asks_registry else ():
            heard.add(word.gateway)
            if word.sends_to(senders.instance, senders.generation):
                sending.add(word.gateway)
        proofs = True
        for item in self.sightings.of(senders.unit):
            heard.add(item.gateway)
            proofs = proofs and item.proves
            if item.sends:
                sending.add(item.gateway)
        unheard = {name for name, registry in senders.known.items() if registry in said.silent and name not in heard}
        senders.pending = tuple(sorted(sending | unheard))
        known = senders.known.keys()
        senders.settled = senders.complete and proofs and bool(known) and known <= heard and not senders.pending

    # The reader.

    async def _looked(self, not_before: float, seconds: float) -> Said | None:
        """A look that was begun not before then; None: there was no answer within that time."""
        deadline = monotonic() + seconds
        while self._said.began < not_before:
            if self._look is None or self._look.done():
                self._look = asyncio.get_running_loop().create_task(self._read())
            left = deadline - monotonic()
            if left <= 0:
                return None
            await asyncio.wait([self._look], timeout=left)
        return self._said

    async def _read(self) -> Said:
        began = monotonic()
        found = await asyncio.gather(*(self._list(registry) for registry in self._registries.all))
        names = (registry.name for registry in self._registries.all)
        self._said = Said(began, dict(zip(names, found, strict=True)))
        return self._said

    async def _list(self, registry: Registry) -> list[Entry] | None:
        try:
            snapshot = await registry.backend.list(GATEWAY_SERVICE)
        except Exception as error:  # backends are plugins
            if registry.name not in self._complained:
                self._complained.add(registry.name)
                known = error if isinstance(error, RegistryError) else f"its backend failed: {error!r}"
                log.warning("registry %s: cannot ask whom gateways send to: %s", registry.name, known)
            return None
        self._complained.discard(registry.name)
        return list(snapshot.entries)

    # What is open at a unit.

    async def load(self, spec: UnitSpec) -> Load | None:
        """What gateways have open there, if it is to be asked of them and each of them tells."""
        senders = self._senders.get(spec.name)
        if (spec.drain or DrainSpec()).in_flight is not InFlight.GATEWAYS or senders is None or not senders.known:
            return None
        said = self._said
        if senders.asks_registry:
            found = await self._looked(monotonic() - LOOK_SECONDS, 1.0)
            if found is None:
                return None
            said = found
        counts = self._counts(senders, said)
        if not senders.known.keys() <= counts.keys():
            return None
        number = sum(counts.values())
        noun = "request" if number == 1 else "requests"
        who, verb = ("gateway", "counts") if len(counts) == 1 else ("gateways", "count")
        return Load(number, quiet=number == 0, detail=f"{number} {noun} in flight, {who} {named(counts)} {verb}")

    def _counts(self, senders: Senders, said: Said) -> dict[str, int]:
        """By gateway; in two registries it says the same, but by checks it counts for each of its pools."""
        counts = Counter[str]()
        for item in self.sightings.of(senders.unit):
            if item.in_flight is not None:
                counts[item.gateway] += item.in_flight
        for _, word in said.of(senders.service) if senders.asks_registry else ():
            number = word.in_flight(senders.instance, senders.generation)
            if number is not None:
                counts[word.gateway] = max(counts[word.gateway], number)
        return counts


def named(gateways: Iterable[str]) -> str:
    """Up to three of them by name."""
    names = sorted(gateways)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
