"""Feeds all gateways of one unit-gateway: one that is away, refuses, hangs or has a mistake holds up no other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from .fed import Acknowledging, Fed, FeederState, Hearers, Timing
from .feeder import Feeder
from .model import Key, Pool, ServerView


class Feeding:
    """All gateways of one unit-gateway."""

    def __init__(
        self,
        feeders: Sequence[Feeder],
        acknowledgements: Acknowledging,
        hearers: Hearers | None = None,
        timing: Timing | None = None,
    ) -> None:
        told, paced = hearers or Hearers(), timing or Timing()
        self._fed = {feeder.name: Fed(feeder, acknowledgements, told, paced) for feeder in feeders}
        self._offered = asyncio.Event()

    def offer(self, pools: Mapping[str, Pool]) -> None:
        """These are the pools from now on; each gateway gets those that it wants and has not got."""
        for fed in self._fed.values():
            fed.offer(pools)
        self._offered.set()

    async def start(self) -> None:
        """Begin with every gateway. Raises GatewayRefused: one of them cannot even begin, such as on a taken port."""
        await asyncio.gather(*(fed.start() for fed in self._fed.values()))

    async def run(self) -> None:
        """For ever, after `start`: feed the gateways, look at them."""
        async with asyncio.TaskGroup() as group:
            for fed in self._fed.values():
                group.create_task(fed.run())

    async def attempted(self) -> None:
        """Until pools were offered and every gateway has been tried with each of them once, however that ended."""
        await self._offered.wait()
        for fed in self._fed.values():
            await fed.attempted()

    async def close(self) -> None:
        """Let what is being applied end, and let go of the gateways. May be called twice."""
        await asyncio.gather(*(fed.close() for fed in self._fed.values()))

    @property
    def is_ready(self) -> bool:
        """Pools were offered, and every gateway has taken over every service that it wants at least once."""
        return self._offered.is_set() and all(fed.is_ready for fed in self._fed.values())

    def states(self) -> list[FeederState]:
        """Each gateway, in the order of the configuration."""
        return [fed.state for fed in self._fed.values()]

    def views(self, service: str) -> dict[str, Mapping[Key, ServerView]]:
        """What each gateway that has to do with the service saw there last."""
        return {name: fed.sight.of(service) for name, fed in self._fed.items() if fed.feeder.wants(service)}
