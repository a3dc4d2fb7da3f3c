"""What the contract suite needs to know of a registry."""

from __future__ import annotations

from registry_client.backend import Backend


class Site:
    """One running registry. Subclasses start it in `start` and end it in `stop`."""

    min_ttl_seconds = 0.5  # the shortest ttl that the registry grants
    restarts_empty = True  # it has no disk
    lateness_seconds = 0.5  # how long after its ttl an entry may be seen on a busy machine

    def __init__(self) -> None:
        self._opened: list[Backend] = []

    def open(self) -> Backend:
        """One more client; it is closed when the test ends."""
        self._opened.append(self.new_backend())
        return self._opened[-1]

    def new_backend(self) -> Backend:
        raise NotImplementedError

    async def start(self) -> None:
        """Start the registry."""

    async def stop(self) -> None:
        """End it."""

    async def restart_empty(self) -> None:
        """End it and start it again at the same address, with nothing in its memory."""
        raise NotImplementedError

    async def __aenter__(self) -> Site:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for backend in self._opened:
            await backend.close()
        await self.stop()
