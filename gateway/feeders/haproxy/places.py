"""Where servers are: addresses as HAProxy writes them, and names looked up, for it takes no names at its socket."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Iterable

from gateway.model import Server

from .slots import Place

FRESH_SECONDS = 30.0
_log = logging.getLogger(__name__)


class Places:
    """Looks names up, and keeps the last good answer."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, float]] = {}

    async def of(self, servers: Iterable[Server]) -> list[tuple[Place, Server]]:
        """Servers with their places. One whose name cannot be looked up is left out, and told in the log."""
        placed = []
        for server in servers:
            address = numeric(server.address) or await self._look_up(server.address)
            if address:
                placed.append(((address, server.port), server))
        return placed

    async def _look_up(self, name: str) -> str:
        address, since = self._found.get(name, ("", -FRESH_SECONDS))
        if time.monotonic() - since < FRESH_SECONDS:
            return address
        loop = asyncio.get_running_loop()
        try:
            address = str((await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM))[0][4][0])
        except OSError as error:
            _log.warning("cannot look up %s: %s%s", name, error, "; the last answer holds" if address else "")
        self._found[name] = address, time.monotonic()
        return address


def numeric(address: str) -> str:
    """An IP address in its one short form; "": it is none."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, address))
    except OSError:
        return ""
