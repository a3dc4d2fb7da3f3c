"""A unit, the registry outside of its daemon, and gateways that say in it what a test tells them to."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from registry_client.gateways import GATEWAY_SERVICE, Acknowledgement, to_metadata, token
from registry_client.model import Entry
from tests.end_to_end.host import SERVE, Host
from tests.end_to_end.machine import until
from tests.servers.asking import ask
from tests.servers.unitd import Unitd

SETTLE_SECONDS = 0.3
Json = Any


class Gateways:
    """Gateways in one registry."""

    def __init__(self, registry: Unitd) -> None:
        self.registry = registry

    def say(self, gateway: str, *serving: tuple[str, int]) -> None:
        """The gateway may send to these lives of instances, and to no others."""
        metadata = to_metadata(
            Acknowledgement(gateway, "shop", "haproxy", 1, frozenset(token(*key) for key in serving))
        )
        assert metadata is not None
        entry = Entry(
            service=GATEWAY_SERVICE, instance=f"{gateway}/shop", node=gateway, unit="edge", address="127.0.0.1", port=1,
            generation=1, status="up", weight=1, full_weight=1, started_at="2026-11-24T03:41:46.123Z", metadata=metadata,
        )  # fmt: skip
        answer = self._put("PUT", gateway, {"entry": entry.to_json(), "ttl_seconds": 60.0})
        assert answer[0] in (200, 201), answer

    def vanish(self, gateway: str) -> None:
        """The lease of its entry has ended."""
        answer = self._put("DELETE", gateway, None, "?generation=1")
        assert answer[0] in (200, 204), answer

    def _put(self, method: str, gateway: str, body: Json, query: str = "") -> tuple[int, Json]:
        path = f"/v1/registry/services/{GATEWAY_SERVICE}/{quote(f'{gateway}/shop', safe='')}{query}"
        return ask(self.registry.port, method, path, body)


class Scene:
    """One registered unit called shop, and its registries."""

    def __init__(self, host: Host, registries: Iterable[Unitd]) -> None:
        self.host = host
        self.main, *self.also = [Gateways(registry) for registry in registries]

    def run(self, restart: str = "", *, removal: str = "deregister", ttl: float = 1.0) -> None:
        """Start the daemon, and wait until the unit is registered."""
        port = self.host.port()
        also = "".join(
            f', also = {{ old = {{ backend = "http", url = "{each.registry.url}" }} }}' for each in self.also
        )
        units = f"""
        [unit.shop]
        command = "{SERVE} {port}"
        startsecs = 0.05
        service = {{ port = {port} }}
        [unit.shop.restart]
        removal = "{removal}"
        settle_seconds = {SETTLE_SECONDS}
        backoff_initial = 0.1
        {restart}
        """
        where = f'backend = "http", url = "{self.main.registry.url}", ttl_seconds = {ttl}{also}'
        self.host.configure(units, registry=where)
        self.host.run()
        self.host.until_state("shop", "RUNNING")
        for each in (self.main, *self.also):
            until("it is registered", lambda each=each: self.entry(each))

    def entry(self, gateways: Gateways) -> Json:
        """The unit's entry in a registry; None: there is none."""
        _, answer = ask(gateways.registry.port, "GET", "/v1/registry/services/shop")
        return next(iter(answer["entries"]), None)

    @property
    def life(self) -> tuple[str, int]:
        """Instance and generation, as they are in the registry now."""
        return "here/shop", self.host.unit("shop")["generation"]

    def waits_for(self, words: str) -> Json:
        """The unit's status, once it says that it waits for gateways so."""

        def look() -> Json:
            status = self.host.unit("shop")
            return status if status["why"].startswith(f"waiting for {words}:") else None

        return until(f"it waits for {words}", look)

    def steps(self, operation: Json) -> dict[str, Json]:
        """The steps of an operation by name."""
        answer = self.host.ask("GET", f"/v1/operations/{operation['id']}").json
        return {step["name"]: step for step in answer["steps"]}

    def stays(self, words: str, seconds: float) -> None:
        """For so long it goes on waiting for that."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.host.unit("shop")["why"].startswith(f"waiting for {words}:")
            time.sleep(0.02)
