"""A steady load on one fixed address, as the clients of a gateway are one.

A gateway may close an idle connection at any moment, nginx does so when it reloads. The request that crosses with that
has failed nobody: a client may send it again on a new connection if it was idempotent and not a byte of an answer had
come (RFC 9112, 9.3.1). Only these are tried again, once, and they are counted. Knows nothing of gateways.
"""

from __future__ import annotations

from bench.load import Broken, Connection, Load, Mix, Request, key_of, listed
from registry_client import Entry

MIX = Mix(slow=0.1, echo=0.1, kept=0.5, slow_seconds=1.0)


class GatewayLoad(Load):
    """Requests at a fixed rate to the gateway at an address. `retried`: those that were sent again."""

    def __init__(self, rate: float, mix: Mix, address: str, port: int, seed: int = 1) -> None:
        super().__init__(rate, mix, listed("gateway", address, [port]), seed)
        self.retried: list[Request] = []
        self.slow_seconds = mix.slow_seconds

    async def _exchange(self, request: Request) -> str:
        entry = request.chosen
        assert entry is not None
        connection = self._kept(entry) if request.kept else None
        if connection is None:
            return await self._ask(request, entry, None)
        try:
            return await self._ask(request, entry, connection)
        except Broken as error:
            if request.kind == "echo" or not error.silent:
                raise
        self.retried.append(request)
        return await self._ask(request, entry, None)

    def _kept(self, entry: Entry) -> Connection | None:
        """An idle connection; none that is known to be closed when it is looked at."""
        while (connection := self._pools.take(key_of(entry))) is not None:
            if not connection.is_stale:
                return connection
            connection.close()
        return None
