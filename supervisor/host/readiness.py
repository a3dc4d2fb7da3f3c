"""What every registered unit must show before it is ready: its port accepts connections, and is its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..plugin_api import ProbeResult, Target
from .connect import connect, reason_of

Vouch = Callable[[str], str]  # unit -> "", or why its process or its port cannot be vouched for


class Door:
    """The probe of a registered unit that has met all other conditions."""

    def __init__(self, vouch: Vouch) -> None:
        self._vouch = vouch

    async def check(self, target: Target, timeout_seconds: float) -> ProbeResult:
        """Connect to the port of its service. Whose port it is, is asked after it was seen to accept."""
        if target.port is None:
            return ProbeResult(False, "it has no port")
        try:
            async with asyncio.timeout(timeout_seconds):
                (await connect(target.address, target.port)).close()
        except OSError as error:  # TimeoutError among them
            reason = reason_of(error) if error.errno else f"no answer within {timeout_seconds:g} s"
            return ProbeResult(False, f"port {target.port} does not accept connections: {reason}")
        reason = self._vouch(target.unit)
        return ProbeResult(not reason, reason or f"port {target.port} accepts connections")
