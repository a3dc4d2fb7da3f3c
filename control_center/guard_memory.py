"""What the guard must not forget when its center ends: kept as facts in the store, read by whoever leads next."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from registry_client.model import Entry

from .fleet import Fleet
from .guard_limits import Budgets, History, Limit
from .store import Store

BUDGET, HISTORY, FROZEN, THAWED, CLEAR = (
    "guard/budget/", "guard/history/", "guard/frozen/", "guard/thawed/", "guard/clear/",
)  # fmt: skip
GONE_SECONDS = 600.0  # an instance that left the registry is missed for so long; then it was meant to leave
GATEWAY_SECONDS = 3600.0  # a gateway is known for so long after its last report


class GuardMemory:
    """Budgets, histories and freezes, as the leading center `epoch` knows them."""

    def __init__(self, store: Store, epoch: int) -> None:
        self._store, self._epoch = store, epoch
        self.budgets = Budgets()
        self.frozen: dict[str, dict[str, Any]] = {}  # service -> {"reason", "since"}
        self.thawed: set[str] = set()  # services that a person wants restarted though they look dead
        self._histories: dict[str, History] = {}
        self._gateways: dict[str, dict[str, float]] = {}  # service -> gateway -> when it reported last
        self._present: dict[str, dict[str, tuple[float, Entry]]] = {}  # service -> instance -> last seen, and as what

    @classmethod
    async def load(cls, store: Store, epoch: int, now: float) -> GuardMemory:
        """What the last leading center has left; what no longer says anything goes."""
        memory = cls(store, epoch)
        for name, value in (await store.facts("guard/")).items():
            if name.startswith(BUDGET):
                memory.budgets.load(name.removeprefix(BUDGET), value)
            elif name.startswith(HISTORY):
                history = History.from_json(value).at(now)
                memory._histories[name.removeprefix(HISTORY)] = history
                if history == History():
                    await memory.forget_instance(name.removeprefix(HISTORY))
            elif name.startswith(FROZEN):
                memory.frozen[name.removeprefix(FROZEN)] = value
            elif name.startswith(THAWED):
                memory.thawed.add(name.removeprefix(THAWED))
        return memory

    # Instances.

    def history(self, instance: str, now: float) -> History:
        """What was done to an instance, as it counts now."""
        return self._histories.get(instance, History()).at(now)

    def blame(self, instance: str, now: float) -> None:
        """It is reported: it is not healthy. That is not worth a write; the restarts are."""
        history = self._histories.get(instance)
        if history is not None:
            self._histories[instance] = history.at(now).blamed_at(now)

    async def put_history(self, instance: str, history: History) -> None:
        """Remember it."""
        self._histories[instance] = history
        await self._store.put_fact(HISTORY + instance, history.to_json(), epoch=self._epoch)

    async def forget_instance(self, instance: str) -> None:
        """Its restarts, and that it is fatal."""
        self._histories.pop(instance, None)
        await self._store.put_fact(HISTORY + instance, None, epoch=self._epoch)

    async def forget_clear(self, name: str) -> None:
        """A person's wish is done."""
        await self._store.put_fact(name, None, epoch=self._epoch)

    # Budgets.

    async def take(self, limits: Iterable[Limit], now: float) -> None:
        """One restart from each; written down before it happens, so that a center that dies has rather spent it."""
        for limit in limits:
            self.budgets.take(limit, now)
            await self._put_budget(limit)

    async def give_back(self, limits: Iterable[Limit], now: float) -> None:
        """The restart did not happen."""
        for limit in limits:
            self.budgets.give_back(limit, now)
            await self._put_budget(limit)

    async def _put_budget(self, limit: Limit) -> None:
        await self._store.put_fact(BUDGET + limit.scope, self.budgets.to_json(limit.scope), epoch=self._epoch)

    # Services.

    async def freeze(self, service: str, reason: str, since: str) -> None:
        """Nothing of it is restarted automatically."""
        self.frozen[service] = {"reason": reason, "since": since}
        await self._store.put_fact(FROZEN + service, self.frozen[service], epoch=self._epoch)

    async def unfreeze(self, service: str) -> None:
        """It may be restarted again."""
        del self.frozen[service]
        await self._store.put_fact(FROZEN + service, None, epoch=self._epoch)

    async def thaw(self, service: str, who: str) -> None:
        """A person says so; holds until the service looks well again."""
        self.thawed.add(service)
        await self._store.put_fact(THAWED + service, {"by": who}, epoch=self._epoch)

    async def forget_thaw(self, service: str) -> None:
        """It looks well."""
        self.thawed.discard(service)
        await self._store.put_fact(THAWED + service, None, epoch=self._epoch)

    # What was seen; known again soon after a take-over.

    def hear(self, service: str, gateway: str, at: float) -> None:
        """A gateway sends to a service."""
        known = self._gateways.setdefault(service, {})
        known[gateway] = max(at, known.get(gateway, 0.0))

    def gateways(self, now: float) -> dict[str, int]:
        """Service -> how many gateways are known to send to it."""
        counts = {}
        for service, known in self._gateways.items():
            for gateway in [name for name, at in known.items() if now - at > GATEWAY_SECONDS]:
                del known[gateway]
            counts[service] = len(known)
        return counts

    def see(self, fleet: Fleet, now: float) -> None:
        """Which instances there are."""
        for entry in fleet.all_entries():
            self._present.setdefault(entry.service, {})[entry.instance] = now, entry
        for service, instances in list(self._present.items()):
            for instance in [name for name, (at, _) in instances.items() if now - at > GONE_SECONDS]:
                del instances[instance]
            if not instances:
                del self._present[service]

    def gone(self, service: str, now: float) -> set[str]:
        """Instances that have left the registry not long ago."""
        return {instance for instance, (at, _) in self._present.get(service, {}).items() if at < now}

    def left(self, service: str, instance: str) -> Entry | None:
        """What the registry had of an instance, now or not long ago."""
        found = self._present.get(service, {}).get(instance)
        return found[1] if found is not None else None
