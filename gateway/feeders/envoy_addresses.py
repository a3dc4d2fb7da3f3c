"""Host names of servers -> IP addresses: Envoy takes nothing else from a file, and refuses all of it for one name."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Iterable
from ipaddress import ip_address

from ..model import Key, Server
from .envoy_file import Place

log = logging.getLogger("unit-gateway.envoy")

FRESH_SECONDS = 30.0  # as long as a name is not asked for again
RESOLVE_SECONDS = 3.0


class Addresses:
    """Remembers what names meant: one that cannot be resolved any more keeps its last address."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, float]] = {}
        self._unknown: set[str] = set()

    async def of(self, servers: Iterable[Server]) -> dict[Key, Place]:
        """Where they are; a server whose name means nothing is left out, and the log says so once."""
        wanted = list(servers)
        found = {server.address: _literal(server.address) for server in wanted}
        names = [address for address, literal in found.items() if literal is None]
        found.update(zip(names, await asyncio.gather(*map(self._resolved, names)), strict=True))
        return {
            server.key: (address, server.port) for server in wanted if (address := found[server.address]) is not None
        }

    async def _resolved(self, name: str) -> str | None:
        known = self._known.get(name)
        if known is not None and time.monotonic() - known[1] < FRESH_SECONDS:
            return known[0]
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            if known is None and name not in self._unknown:
                log.warning("cannot tell Envoy of %s: its name cannot be resolved: %s", name, str(error) or "no answer")
            self._unknown.add(name)
            return known[0] if known is not None else None
        address = str(ip_address(str(found[0][4][0]).partition("%")[0]))
        self._known[name] = address, time.monotonic()
        self._unknown.discard(name)
        return address


def _literal(address: str) -> str | None:
    """As Envoy spells it; None: it is a name."""
    try:
        return str(ip_address(address))
    except ValueError:
        return None
