"""Drains that last: who keeps a unit out of traffic, why, and until when. Kept over restarts of daemon and host."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from ..errors import WireError
from ..host.clock import iso, wall
from ..host.journal import Journal
from ..wire import MaintenanceStatus

log = logging.getLogger("unitd.maintenance")

KIND = "maintenance"  # of the journal's facts
LONGEST_SLEEP = 3600.0  # the wall clock may be set meanwhile


@dataclass(frozen=True, slots=True)
class Maintenance:
    """One unit's. Times are unix times, for they must mean the same after a reboot."""

    owner: str
    reason: str
    since: float
    until: float | None = None

    def status(self) -> MaintenanceStatus:
        """For people and programs."""
        return MaintenanceStatus(
            self.owner, self.reason, iso(self.since), None if self.until is None else iso(self.until)
        )


class Maintenances:
    """All of the host's, by unit."""

    def __init__(self, journal: Journal, expired: Callable[[str], None]) -> None:
        """`expired` is told of a unit whose time is over; that one is in traffic again when somebody says so."""
        self._journal, self._expired = journal, expired
        self._all: dict[str, Maintenance] = {}
        self._timer: asyncio.TimerHandle | None = None
        for unit, text in journal.facts(KIND).items():
            try:
                self._all[unit] = _read(text)
            except (ValueError, KeyError, TypeError):
                log.error("cannot read why %s is kept out of traffic; it stays out until somebody takes it back", unit)
                self._all[unit] = Maintenance("", "", wall())

    def begin(self, unit: str, maintenance: Maintenance) -> None:
        """Keep it out from now on; not even a power cut forgets that."""
        self._all[unit] = maintenance
        value = {
            "owner": maintenance.owner, "reason": maintenance.reason, "since": maintenance.since,
            "until": maintenance.until,
        }  # fmt: skip
        self._journal.record_fact(KIND, unit, json.dumps(value), durable=True)
        self.watch()

    def end(self, unit: str) -> None:
        """It may be in traffic again."""
        if self._all.pop(unit, None) is not None:
            self._journal.record_fact(KIND, unit, None, durable=True)

    def of(self, unit: str) -> Maintenance | None:
        """The unit's, if it is kept out."""
        return self._all.get(unit)

    def watch(self) -> None:
        """Tell of those whose time is over, now and as it comes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for unit in [unit for unit, item in self._all.items() if item.until is not None and item.until <= wall()]:
            log.info("%s: the time that it was to be kept out of traffic is over", unit)
            self._expired(unit)
        times = [item.until for item in self._all.values() if item.until is not None and item.until > wall()]
        if times:
            seconds = min(max(0.0, min(times) - wall()), LONGEST_SLEEP)
            self._timer = asyncio.get_running_loop().call_later(seconds + 0.001, self.watch)

    def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()


def _read(text: str) -> Maintenance:
    """What `begin` has written. Raises ValueError, KeyError or TypeError for anything else."""
    value = json.loads(text)
    until = value["until"]
    return Maintenance(
        str(value["owner"]), str(value["reason"]), float(value["since"]), None if until is None else float(until)
    )


def until_of(parameters: dict[str, object]) -> float | None:
    """When a drain ends by itself: `for_seconds` or `until` of a command. Raises WireError."""
    seconds, until = parameters.get("for_seconds"), parameters.get("until")
    if seconds is None and until is None:
        return None
    if seconds is not None and until is not None:
        raise WireError("cannot drain: give for_seconds or until, not both")
    if seconds is not None:
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 366 * 86400:
            raise WireError(f"cannot drain for {seconds!r}: for_seconds must be a number from 0 to a year")
        return wall() + seconds
    moment = moment_of(parameters)
    if moment is not None and moment <= wall():
        raise WireError(f"cannot drain until {until!r}: that is past")
    return moment


def moment_of(parameters: Mapping[str, object]) -> float | None:
    """The moment that `until` of a command names, be it past; None: it names none. Raises WireError."""
    until = parameters.get("until")
    if until is None:
        return None
    try:
        moment = datetime.fromisoformat(str(until))
    except ValueError:
        raise WireError(f"cannot drain until {until!r}: it must be ISO 8601 in UTC") from None
    if moment.tzinfo is None:
        raise WireError(f"cannot drain until {until!r}: it names no time zone; end it with Z")
    return moment.timestamp()
