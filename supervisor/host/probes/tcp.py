"""`tcp = true`: its port accepts connections."""

from __future__ import annotations

import asyncio
from typing import Any

from ...config.values import address
from ...plugin_api import ProbeResult, Target
from ..connect import connect, reason_of
from .options import NO_PORT, port, port_of, read_options

_OPTIONS = {"port": port, "host": address}


class TcpProbe:
    """Connects and hangs up.

    The kernel accepts in a process's name until the process's backlog is full: of a server that hangs, this probe says
    for long that it is well. It is for startup, and where nothing better can be asked.
    """

    __slots__ = ("_host", "_port")

    def __init__(self, options: Any) -> None:
        """`port` and `host`, both the service's own where they are missing. Raises OptionError."""
        read = read_options(options, _OPTIONS)
        self._port: int | None = read.get("port")
        self._host: str | None = read.get("host")

    async def check(self, target: Target, timeout_seconds: float) -> ProbeResult:
        """Whether a connection comes about in time."""
        number = port_of(target, self._port)
        if number is None:
            return ProbeResult(False, NO_PORT)
        try:
            async with asyncio.timeout(timeout_seconds) as deadline:
                (await connect(self._host or target.address, number)).close()
        except OSError as error:
            late = isinstance(error, TimeoutError) and deadline.expired()
            reason = f"no connection within {timeout_seconds:g} s" if late else reason_of(error)
            return ProbeResult(False, f"port {number}: {reason}")
        return ProbeResult(True, f"port {number} accepts connections")
