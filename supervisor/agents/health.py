"""The health agents: each watches one attempt of one unit and says when it is ready, when it cannot serve, when it
does not deserve to live.

A unit becomes ready when its startup probe has succeeded and then its readiness probe, or where it has neither of
them, when it has been alive for `startsecs`; a registered one besides when its port accepts connections and is its
own. From then on a registered unit without a readiness or liveness probe has the implicit ones of `core/health.py`:
nobody should find a frozen process in the registry because nobody wrote a probe.

Lost readiness comes from a probe, or from a fact: the unit said STOPPING=1, or cannot be vouched for (`doubt`). Facts
count at once. Probes may take only a share of the host's registered units out (`core/mass_failure.py`); more are held:
they stay as they are until their probe succeeds, or fails once more when others have come back. Only a failure that has
just been seen is acted on: when an outage ends, one unit's recovery must not take out another by its old answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from ..core.events import LivenessLost, ReadinessLost, ReadinessRegained, Ready
from ..core.health import HealthStatus, Hysteresis, ProbeStatus, liveness_of, readiness_of
from ..core.mass_failure import held_reason, may_lose_one_more
from ..core.model import ProbeSpec, UnitSpec
from ..host.prober import Prober
from ..host.process import Post
from ..host.readiness import Door, Vouch
from ..plugin_api import ProbeResult, Target
from .watched import Asked, Watched

log = logging.getLogger("unitd.health")

VOUCH_SECONDS = 1.0  # between looks at a unit that could not be vouched for
DOOR = ProbeSpec("tcp", period=1.0, timeout=1.0)  # how a starting unit's port is tried


class Health:
    """All health agents of the host."""

    def __init__(
        self,
        post: Post,
        prober: Prober,
        vouch: Vouch,
        *,
        mass_failure_percent: float = 50,
        on_wavering: Callable[[str, bool], None] = lambda unit, wavers: None,
    ) -> None:
        """`vouch` tells why a unit's process or port is not what it should be ("": it is); it must not block.

        `on_wavering` is told when the readiness probe of a unit that serves has failed, though not yet for good, and
        when it has answered well again.
        """
        self._on_wavering = on_wavering
        self._post, self._prober, self._vouch, self._percent = post, prober, vouch, mass_failure_percent
        self._door = Door(vouch)
        self._loop = asyncio.get_running_loop()
        self._watched: dict[str, Watched] = {}
        self._registered: set[str] = set()  # units with a service that serve, or would but for a probe
        self._out: dict[str, str] = {}  # those among them that a probe has taken out, and its role

    def watch(self, spec: UnitSpec, target: Target) -> None:
        """The attempt of the unit has been spawned -> Ready, and all that may follow."""
        self.forget(spec.name)
        watched = self._watched[spec.name] = Watched(spec, target, self._loop.time())
        self._match(watched)
        if not watched.alive:
            watched.timer = self._loop.call_later(spec.startsecs, self._has_lived, watched)
        self._look(watched)

    def resume(self, spec: UnitSpec, target: Target, age_seconds: float, ready_at: float | None, serving: bool) -> None:
        """Watch an attempt that an earlier daemon has watched; `ready_at`: since when it is ready, None: it is not yet.

        `serving`: its readiness holds, as far as is known. Its probes say more when they have been asked.
        """
        self.forget(spec.name)
        watched = self._watched[spec.name] = Watched(spec, target, self._loop.time() - age_seconds)
        watched.alive = watched.alive or age_seconds >= spec.startsecs
        if ready_at is not None:
            watched.started = watched.alive = True
            watched.ready_at, watched.serving = ready_at, serving
            if spec.service is not None:
                self._registered.add(spec.name)
        self._match(watched)
        if not watched.alive:
            watched.timer = self._loop.call_later(spec.startsecs - age_seconds, self._has_lived, watched)
        self._look(watched)

    def forget(self, unit: str, *, wanted: bool = True) -> None:
        """Its attempt has ended, or is on its way out for good.

        A unit that a probe has taken out counts as such until that probe holds again, for its restart does not show
        that the probe was right; or until it is not `wanted` any more, which may also be said later.
        """
        watched = self._watched.pop(unit, None)
        if watched is not None:
            watched.close()
        if not wanted:
            self._out.pop(unit, None)
        if unit not in self._out:
            self._registered.discard(unit)

    def changed(self, spec: UnitSpec) -> None:
        """A live change of its configuration. A probe that has changed is asked anew, and holds if the unit serves."""
        watched = self._watched.get(spec.name)
        if watched is None or not watched.live:
            return
        watched.spec = spec
        if spec.startup is None:
            self._set(watched, "startup", None)
            watched.started = True
        self._match(watched)
        self._look(watched)

    def poke(self, unit: str) -> None:
        """It has said something over its notify socket."""
        watched = self._watched.get(unit)
        if watched is None or not watched.live:
            return
        for asked in list(watched.probes.values()):
            if asked.hears and asked.asking is not None:
                asked.asking.poke()
        self._look(watched)

    def told_to_refuse(self, unit: str) -> None:
        """From now on it takes no new work, as it was told to: that it is not ready says nothing of others."""
        watched = self._watched.get(unit)
        if watched is not None:
            watched.told = True

    def told_to_serve(self, unit: str) -> None:
        """It takes new work again: its readiness probe is asked at once if it has failed meanwhile."""
        watched = self._watched.get(unit)
        if watched is None or not watched.live:
            return
        watched.told = False
        asked = watched.probes.get("readiness")
        if asked is not None and asked.asking is not None and asked.state.failures:
            asked.asking.poke()

    def doubt(self, unit: str, reason: str) -> None:
        """Its process or its port could not be vouched for: it cannot serve until they can."""
        watched = self._watched.get(unit)
        if watched is None or not watched.live or watched.ready_at is None:
            return
        if not watched.doubted:
            watched.timer = self._loop.call_later(VOUCH_SECONDS, self._vouch_again, watched)
        watched.doubted = reason
        self._look(watched)

    def status(self, unit: str) -> HealthStatus | None:
        """What is known of it; None: it has no attempt that is watched."""
        watched = self._watched.get(unit)
        if watched is None:
            return None
        return HealthStatus(
            watched.target.attempt,
            watched.started,
            watched.serving,
            watched.live,
            watched.since,
            self._why(watched),
            bool(watched.held),
            tuple(_status(asked, watched.spec) for asked in watched.probes.values()),
        )

    async def close(self) -> None:
        """Stop watching all units."""
        for watched in self._watched.values():
            watched.close()
        self._watched.clear()
        await self._prober.close()

    # Asking.

    def _match(self, watched: Watched) -> None:
        """Ask exactly the probes that are to be asked now."""
        spec = watched.spec
        if not watched.started:
            self._set(watched, "startup", spec.startup)
            return
        was_ready = watched.ready_at is not None
        self._set(watched, "readiness", readiness_of(spec) if was_ready else spec.readiness)
        self._set(watched, "liveness", liveness_of(spec) if was_ready else spec.liveness)

    def _set(self, watched: Watched, role: str, spec: ProbeSpec | None) -> None:
        before = watched.probes.get(role)
        if before is not None and before.spec == spec:
            return
        if before is not None:
            before.close()
            del watched.probes[role]
        if spec is None:
            return
        known = Hysteresis(True if watched.serving else None)
        asked = watched.probes[role] = Asked(role, spec, known, partial(self._look, watched))
        eager = role != "liveness" and not watched.serving
        asked.asking = self._prober.ask(spec, watched.target, asked.told, eager=eager)

    def _has_lived(self, watched: Watched) -> None:
        watched.timer, watched.alive = None, True
        self._look(watched)

    def _try_door(self, watched: Watched) -> None:
        def report(result: ProbeResult, due: bool) -> None:
            watched.door_detail = result.detail
            if result.ok:
                self._become_ready(watched)

        watched.door = self._prober.ask(DOOR, watched.target, report, eager=True, probe=self._door)

    def _leave_door(self, watched: Watched) -> None:
        if watched.door is not None:
            watched.door.close()
            watched.door = None

    def _vouch_again(self, watched: Watched) -> None:
        watched.timer = self._loop.call_later(VOUCH_SECONDS, self._vouch_again, watched)
        watched.doubted = self._vouch(watched.name)
        if not watched.doubted:
            watched.timer.cancel()
            watched.timer = None
        self._look(watched)

    # Judging.

    def _look(self, watched: Watched, failed: str = "") -> None:
        """Draw the consequences of what is known. `failed`: the role of the probe that has just failed, if one has."""
        if not watched.live:
            return
        if watched.wants_to_end():
            self._end(watched, "it said WATCHDOG=trigger")
        elif not watched.started:
            self._look_at_start(watched)
        elif failed == "liveness" and watched.fell("liveness") and self._may_lose(watched):
            self._count_out(watched, "liveness")
            self._end(watched, watched.probes["liveness"].reason)
        elif watched.ready_at is None:
            self._look_at_entry(watched)
        else:
            self._look_at_service(watched, failed)

    def _look_at_start(self, watched: Watched) -> None:
        if watched.fell("startup"):
            self._end(watched, watched.probes["startup"].reason)
        elif watched.holds("startup"):
            watched.probes["startup"].close()
            watched.started = True
            self._match(watched)
            self._look(watched)

    def _look_at_entry(self, watched: Watched) -> None:
        if not (watched.alive and watched.holds("readiness") and not watched.fact()):
            self._leave_door(watched)
        elif watched.spec.service is None:
            self._become_ready(watched)
        elif watched.door is None:
            self._try_door(watched)

    def _become_ready(self, watched: Watched) -> None:
        self._leave_door(watched)
        watched.ready_at = self._loop.time()
        self._serve(watched, Ready(watched.target.attempt, watched.ready_at))

    def _look_at_service(self, watched: Watched, failed: str) -> None:
        fact = watched.fact()
        cannot = watched.serving and not fact and not watched.holds("readiness")
        self._note_wavering(watched)
        self._count_in(watched)
        goes = cannot and failed == "readiness" and self._may_lose(watched)
        held = "liveness" if watched.fell("liveness") else "readiness" if cannot and not goes else ""
        self._hold(watched, held)
        if not watched.serving:
            self._look_at_return(watched, fact)
        elif fact:
            self._withdraw(watched, fact)
        elif goes:
            self._count_out(watched, "readiness")
            self._withdraw(watched, watched.probes["readiness"].reason)

    def _note_wavering(self, watched: Watched) -> None:
        asked = watched.probes.get("readiness")
        wavers = asked is not None and asked.state.failures > 0
        if watched.serving and wavers != watched.wavers:
            watched.wavers = wavers
            self._on_wavering(watched.name, wavers)

    def _look_at_return(self, watched: Watched, fact: str) -> None:
        if fact:
            return
        if watched.holds("readiness"):
            self._serve(watched, ReadinessRegained(watched.target.attempt, self._loop.time()))
        else:
            self._count_out(watched, "readiness")  # a fact may have taken it out; now a probe keeps it out

    # Doing. What is posted may come back at once, so it is posted last.

    def _serve(self, watched: Watched, event: Ready | ReadinessRegained) -> None:
        watched.serving, watched.wavers, watched.since = True, False, self._loop.time()
        self._match(watched)
        if watched.spec.service is not None:
            self._registered.add(watched.name)
        self._count_in(watched)
        self._post(watched.name, event)

    def _withdraw(self, watched: Watched, reason: str) -> None:
        watched.serving, watched.since = False, self._loop.time()
        self._post(watched.name, ReadinessLost(watched.target.attempt, reason))

    def _end(self, watched: Watched, reason: str) -> None:
        if watched.serving:
            watched.serving, watched.since = False, self._loop.time()
        watched.live, watched.ended = False, reason
        watched.close()
        self._hold(watched, "")
        self._post(watched.name, LivenessLost(watched.target.attempt, reason))

    # The guard against mass failures.

    def _may_lose(self, watched: Watched) -> bool:
        if watched.told or not watched.serving or watched.spec.service is None:
            return True
        others = len(self._out) - (watched.name in self._out)
        return may_lose_one_more(others, len(self._registered), self._percent)

    def _count_out(self, watched: Watched, role: str) -> None:
        if watched.name in self._registered and not watched.told:
            self._out[watched.name] = "liveness" if role == "liveness" else self._out.get(watched.name, role)

    def _count_in(self, watched: Watched) -> None:
        """It serves. Of a new process the liveness probe has to say so too, or all would be restarted in turn."""
        liveness = watched.probes.get("liveness")
        suspected = self._out.get(watched.name) == "liveness" and liveness is not None and liveness.state.streak <= 0
        if watched.serving and not suspected:
            self._out.pop(watched.name, None)

    def _hold(self, watched: Watched, role: str) -> None:
        """The probe of that role is not acted on ("": there is none such)."""
        if role and role != watched.held:
            log.warning("%s: %s (%s)", watched.name, held_reason(role, self._percent), watched.probes[role].reason)
        watched.held = role

    # Telling.

    def _why(self, watched: Watched) -> str:
        if not watched.live:
            return watched.ended
        if watched.held:
            return f"{held_reason(watched.held, self._percent)} ({watched.probes[watched.held].reason})"
        if watched.serving:
            return ""
        return watched.fact() or self._waits_for(watched)

    def _waits_for(self, watched: Watched) -> str:
        for role in ("readiness",) if watched.started else ("startup",):
            if not watched.holds(role):
                return watched.probes[role].reason
        if not watched.alive:
            return f"it must be alive for {watched.spec.startsecs:g} s"
        return watched.door_detail


def _status(asked: Asked, spec: UnitSpec) -> ProbeStatus:
    implicit = getattr(spec, asked.role) is None
    state = asked.state
    return ProbeStatus(asked.role, asked.spec.kind, implicit, state.holds, state.streak, asked.detail, asked.at)
