"""One published unit that is taken out, and gateways that say in its registries what a test tells them to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace

from registry_client.gateways import GATEWAY_SERVICE, Acknowledgement, to_metadata, token
from registry_client.model import Entry, LeaseKey
from registry_client.testing import FakeBackend
from supervisor.agents.acknowledgements import Acknowledgements
from supervisor.agents.entry import unit_entry
from supervisor.agents.restart import RestartAgents
from supervisor.core.checking import View
from supervisor.core.events import Event
from supervisor.core.measures import Measures
from supervisor.core.model import DrainSpec, InFlight, Removal, RestartPolicy, ServiceSpec, UnitSpec
from tests.supervisor.agents.registries import some_registries
from tests.supervisor.running import until

LONG = 60.0  # a time that no test waits for
SPEC = UnitSpec(
    "cart", "cart", 0, ("cart",),
    service=ServiceSpec("shop", "127.0.0.1", 9080, ttl_seconds=5.0),
    restart=RestartPolicy(removal=Removal.DEREGISTER, gateway_seconds=LONG),
    drain=DrainSpec(in_flight=InFlight.GATEWAYS),
)  # fmt: skip
EXPIRING = replace(SPEC, restart=replace(SPEC.restart, removal=Removal.EXPIRE))
KEY = ("n/cart", 1)
STATE = View("haproxy-1", "shop/cart", "127.0.0.1", 9080, True, 2)


def patient(seconds: float) -> UnitSpec:
    return replace(SPEC, restart=replace(SPEC.restart, gateway_seconds=seconds))


class Host:
    """One published unit, its registries, and gateways that say in them what a test tells them to."""

    def __init__(self, backends: dict[str, FakeBackend]) -> None:
        self.backends = backends
        self.posted = list[tuple[str, Event]]()
        self.steps, self.details = list[tuple[str, str]](), list[str]()
        self.confirmed = list[str]()
        self.serves = True
        self.measures = Measures()
        self.beats = some_registries(dict(backends), self.confirmed.append)
        self.gateways = Acknowledgements(self.beats)
        self.agents = RestartAgents(
            self.beats,
            lambda unit, event: self.posted.append((unit, event)),
            lambda unit, step: self.steps.append((unit, step)),
            self.measures,
            gateways=self.gateways,
            serves=lambda unit: self.serves,
            on_detail=lambda unit, step, detail: self.details.append(f"{unit} {step}: {detail}"),
        )

    async def publish(self, *names: str, ttl: float = 5.0) -> None:
        for name in names or ("cart",):
            spec = replace(SPEC, name=name)
            assert spec.service is not None
            self.beats.publish(name, unit_entry("n", spec, spec.service, 1, "2026-11-24T03:41:46.123Z"), ttl)
        await until(lambda: len(self.confirmed) == len(names or ("cart",)), "registered")
        for backend in self.backends.values():
            backend.calls.clear()

    async def gateway(
        self,
        name: str,
        serving: Iterable[tuple[str, int]] = (),
        busy: dict[tuple[str, int], int] | None = None,
        *,
        service: str = "shop",
        registry: str = "main",
        counts: bool = True,
    ) -> None:
        """Write a gateway's entry."""
        tokens = frozenset(token(*key) for key in serving)
        counted = {token(*key): number for key, number in (busy or {}).items()}
        metadata = to_metadata(Acknowledgement(name, service, "haproxy", 7, tokens, counted, counts))
        assert metadata is not None
        entry = Entry(
            service=GATEWAY_SERVICE, instance=f"{name}/{service}", node=name, unit="edge", address="127.0.0.1", port=1,
            generation=5, status="up", weight=1, full_weight=1, started_at="2026-11-24T03:41:46.123Z", metadata=metadata,
        )  # fmt: skip
        await super(FakeBackend, self.backends[registry]).register(entry, 30.0)

    async def vanish(self, name: str, registry: str = "main") -> None:
        key = LeaseKey(GATEWAY_SERVICE, f"{name}/shop", 5)
        await super(FakeBackend, self.backends[registry]).deregister(key)

    def held(self, registry: str = "main") -> Entry | None:
        """The unit's own entry."""
        return self.backends[registry]._store.get("shop", "n/cart")

    def lists(self, registry: str = "main") -> int:
        return sum(method == "list" for method, _ in self.backends[registry].calls)

    async def answer(self) -> Event:
        await until(lambda: self.posted, "an answer")
        assert len(self.posted) == 1
        return self.posted[0][1]

    async def waits_for(self, *names: str) -> None:
        """The withdrawal waits for just these gateways."""
        wanted = f"{'gateway' if len(names) == 1 else 'gateways'} {', '.join(names)}:"
        await until(lambda: self.agents.describe("cart").startswith(f"waiting for {wanted}"), wanted)
        assert self.posted == []


@asynccontextmanager
async def host(*registries: str) -> AsyncIterator[Host]:
    made = Host({name: FakeBackend(timeout_seconds=0.3) for name in registries or ("main",)})
    try:
        yield made
    finally:
        await made.agents.close()
        await made.gateways.close()
        await made.beats.close()
