"""What plugins import, and all that is public to them.

A probe kind is a class named by an entry point of the group `unitd.probes`; its name is the key under which people
write it: `redis = { port = "{port}" }` in `[unit.NAME.readiness]`. The kinds that come with unitd are found the same
way. Only kinds that a configuration names are ever imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

PROBES = "unitd.probes"  # the entry-point group


@dataclass(slots=True)
class NotifyState:
    """What a unit has said over its notify socket, see sd_notify(3)."""

    ready: bool = False  # READY=1, and neither STOPPING=1 nor RELOADING=1 since
    stopping: bool = False
    status: str = ""  # STATUS=, cut to 200 characters
    watchdog_at: float | None = None  # monotonic instant of the last WATCHDOG=1
    trigger: bool = False  # WATCHDOG=trigger: it wants to be restarted


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended. Both None: it was killed when its time was over."""

    code: int | None
    signal: int | None
    output: bytes  # the end of its stdout and stderr together, at most 4096 bytes

    @property
    def ok(self) -> bool:
        """It ended with code 0."""
        return self.code == 0


class Tools(Protocol):
    """What the daemon does for probes."""

    async def run(self, target: Target, argv: Sequence[str], timeout_seconds: float) -> CommandResult:
        """Run a command as the unit's user, in its directory and environment; killed with all it started when late.

        Raises OSError when it cannot be started.
        """

    def listen_queue(self, port: int) -> int | None:
        """How many connections to a listening port wait to be accepted; None: nothing listens there."""


@dataclass(frozen=True, slots=True)
class Target:
    """The attempt of a unit that is asked."""

    unit: str
    attempt: int
    pid: int  # of its leading process
    address: str  # of its service, else 127.0.0.1
    port: int | None  # of its service
    directory: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    group: str | None = None
    notify: NotifyState | None = None  # None: it was given no notify socket
    tools: Tools | None = None  # None: only where a probe is tried without a daemon


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One answer. `detail` is one short sentence for people: what was seen, and what was expected."""

    ok: bool
    detail: str = ""


class OptionError(ValueError):
    """An option of a probe kind cannot be used; `key` names it ("" for all of them)."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key, self.reason = key, reason


class Probe(Protocol):
    """One probe of one unit. Made anew for each attempt, so that it may remember what it saw."""

    async def check(self, target: Target, timeout_seconds: float) -> ProbeResult:
        """Ask once, within about `timeout_seconds`; whoever calls cuts it off soon after.

        An exception is a failure of the probe, and counts as an answer that is not ok.
        """


class ProbeKind(Protocol):
    """The class that an entry point names."""

    def __call__(self, options: Any) -> Probe:
        """A probe with these options: what stands after the kind's key, as plain JSON values. Raises OptionError.

        It is also called to check a configuration, in whatever process does that: it must not touch the unit.
        """
