"""A target, and a daemon's tools as probes get them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from supervisor.host.traffic import Sockets
from supervisor.plugin_api import CommandResult, OptionError, Probe, ProbeKind, ProbeResult, Target
from tests.supervisor.running import run


class Tools:
    """The kernel's listening queues, and commands that end as the test says."""

    def __init__(self, result: CommandResult | OSError | None = None) -> None:
        self._result = result
        self.ran: list[tuple[str, tuple[str, ...], float]] = []

    async def run(self, target: Target, argv: Sequence[str], timeout_seconds: float) -> CommandResult:
        self.ran.append((target.unit, tuple(argv), timeout_seconds))
        assert self._result is not None
        if isinstance(self._result, OSError):
            raise self._result
        return self._result

    def listen_queue(self, port: int) -> int | None:
        sockets = Sockets()
        try:
            found = sockets.listeners().get(port)
        finally:
            sockets.close()
        return None if found is None else sum(listener.queue for listener in found)


def target(port: int | None = None, pid: int = 1, **more: Any) -> Target:
    return Target("shop:0", 1, pid, more.pop("address", "127.0.0.1"), port, **more)


def check(probe: Probe, asked: Target, seconds: float = 10.0) -> ProbeResult:
    return run(probe.check(asked, seconds))


def refusal(kind: ProbeKind, options: Any) -> tuple[str, str]:
    """Key and reason."""
    with pytest.raises(OptionError) as caught:
        kind(options)
    return caught.value.key, caught.value.reason
