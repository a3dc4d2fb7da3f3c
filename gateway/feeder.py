"""The one interface of everything that unit-gateway keeps in step: HAProxy, nginx, Envoy, and its own proxy."""

from __future__ import annotations

from typing import Protocol

from .model import Applied, Look, Pool


class Feeder(Protocol):
    """One gateway. Who calls it: the agent, from one event loop.

    `apply` may be called for several services at a time, but for one service only after the call before has ended;
    what fails is tried again by the agent with the newest pool. All raise GatewayUnreachable and GatewayRefused.
    """

    @property
    def name(self) -> str:
        """The name in the configuration."""

    @property
    def kind(self) -> str:
        """`haproxy`, `nginx`, `envoy` or `embedded`."""

    @property
    def look_seconds(self) -> float:
        """How often it wants to be looked at."""

    def wants(self, service: str) -> bool:
        """Whether this gateway has to do with the service."""

    async def start(self) -> None:
        """Begin; called once, before anything else. A gateway that is not there (yet) is no error here."""

    async def apply(self, pool: Pool, *, full: bool = False) -> Applied:
        """Make the gateway know just this of the service; returns when it acts on it, in all of its processes.

        Idempotent. `full`: believe nothing of what was told before, but compare with what the gateway really has.
        """

    async def look(self) -> Look:
        """What the gateway sees. Findings are those since the last look that did not raise."""

    async def close(self) -> None:
        """Let go of the gateway; it goes on with what it was told last. May be called twice."""
