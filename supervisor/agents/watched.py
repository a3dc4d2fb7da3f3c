"""What is known of one attempt of one unit while it is watched: probes, their answers, facts. `Health` judges it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from ..core.health import Hysteresis, observe
from ..core.model import ProbeSpec, UnitSpec
from ..host.prober import Asking
from ..plugin_api import ProbeResult, Target


class Asked:
    """One probe and what came of it."""

    __slots__ = ("_look", "asking", "at", "detail", "hears", "role", "spec", "state")

    def __init__(self, role: str, spec: ProbeSpec, state: Hysteresis, look: Callable[[str], None]) -> None:
        self.role, self.spec, self.state, self._look = role, spec, state, look
        self.detail = ""
        self.at: float | None = None
        self.asking: Asking | None = None
        self.hears = _hears(spec)  # a datagram of the unit may change its answer

    def told(self, result: ProbeResult, due: bool) -> None:
        """It has answered; `look` gets its role if that was a failure."""
        self.state = observe(self.state, result.ok, self.spec, due=due)
        self.detail, self.at = result.detail, asyncio.get_running_loop().time()
        self._look("" if result.ok else self.role)

    @property
    def reason(self) -> str:
        """Why it does not hold."""
        state, its = self.state, f"its {self.role} probe"
        if state.streak > 0:
            return f"{its} has not yet succeeded {self.spec.success_threshold} times in a row"
        if state.holds is None:
            return f"{its} has not succeeded yet" + (f": {self.detail}" if self.detail else "")
        times = f"{state.failures} times" if state.failures > 1 else "once"
        return f"{its} has failed {times}: {self.detail}"

    def close(self) -> None:
        if self.asking is not None:
            self.asking.close()


class Watched:
    """One attempt of one unit. Only `Health` writes here."""

    __slots__ = (
        "alive", "door", "door_detail", "doubted", "ended", "held", "live", "probes", "ready_at", "serving", "since",
        "spec", "started", "target", "timer", "told", "wavers",
    )  # fmt: skip

    def __init__(self, spec: UnitSpec, target: Target, now: float) -> None:
        self.spec, self.target, self.since = spec, target, now
        self.probes: dict[str, Asked] = {}  # by role
        self.started = spec.startup is None
        self.alive = spec.startup is not None or spec.readiness is not None or spec.startsecs <= 0
        self.door: Asking | None = None
        self.door_detail = ""
        self.ready_at: float | None = None
        self.serving = False  # what was last posted: ready, and not lost since
        self.told = False  # to refuse new work
        self.wavers = False  # it serves, and its readiness probe has failed the last time
        self.live = True
        self.ended = ""  # why it does not deserve to live
        self.doubted = ""  # why it could not be vouched for
        self.held = ""  # the role of the probe that would take it out
        self.timer: asyncio.TimerHandle | None = None  # until it has been alive for long enough, or is looked at again

    @property
    def name(self) -> str:
        return self.spec.name

    def holds(self, role: str) -> bool:
        """The probe holds, or there is none."""
        asked = self.probes.get(role)
        return asked is None or asked.state.holds is True

    def fell(self, role: str) -> bool:
        asked = self.probes.get(role)
        return asked is not None and asked.state.holds is False

    def fact(self) -> str:
        """What no probe is needed for to know that it cannot serve."""
        if self.target.notify is not None and self.target.notify.stopping:
            return "it said STOPPING=1"
        return self.doubted

    def wants_to_end(self) -> bool:
        """It said so itself."""
        return self.target.notify is not None and self.target.notify.trigger

    def close(self) -> None:
        for asked in self.probes.values():
            asked.close()
        if self.door is not None:
            self.door.close()
        if self.timer is not None:
            self.timer.cancel()


def _hears(spec: ProbeSpec) -> bool:
    """What the unit says may change its answer. Not where WATCHDOG=1 is awaited: that counts from check to check."""
    if spec.kind != "notify":
        return False
    options = json.loads(spec.options)
    return not (isinstance(options, dict) and options.get("watchdog"))
