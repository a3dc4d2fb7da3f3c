"""The weight that grows: how large a share of its full traffic a unit may get, by the time it has been in traffic.

    percent(t) = initial + step * floor(t / period), at most 100

where t counts only while nothing holds it: neither a failing probe (`held_since`) nor a person (`paused_since`). A
person may also fix the weight; the time of the ramp goes on below that. So the share never grows by itself while the
unit is held or paused.

Instants are arguments, in monotonic seconds. They are counted in whole microseconds: sums of those are exact, so that
neither holding nor saving, however often, moves a step, and `next_change_at` names an instant at which the step is due.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

FULL_PERCENT = 100
_MICROSECONDS = 1_000_000
_MAX_SECONDS = 1e9  # 31 years; a float holds their microseconds exactly


@dataclass(frozen=True, slots=True)
class Ramp:
    """`initial` percent at once (1 to 100), `step` percent more (1 to 100) after every `period` seconds (above 0)."""

    initial: int = 10
    step: int = 10
    period: float = 10.0

    @property
    def seconds(self) -> float:
        """How long the whole way to full weight takes."""
        return -((self.initial - FULL_PERCENT) // self.step) * self.period

    def percent_after(self, steps: int) -> int:
        """The share after so many periods."""
        return min(FULL_PERCENT, self.initial + self.step * steps)


NO_RAMP = Ramp(FULL_PERCENT)  # full weight at once


@dataclass(frozen=True, slots=True)
class Share:
    """What a unit's entry in the registry says of its traffic."""

    weight: int
    warming: bool = False  # a ramp holds it below its full weight
    warmup_seconds: float = 0.0  # the ramp's whole length; 0: without one


@dataclass(frozen=True, slots=True)
class Warmup:
    """One unit on its ramp. Made by `begin` or `from_json`; every change is a new value."""

    ramp: Ramp
    begun_at: float  # from when on time counts that is not in `counted` yet
    counted: float = 0.0  # seconds on the ramp before that
    held_since: float | None = None  # a probe fails
    paused_since: float | None = None  # a person wants it to stay where it is
    fixed: float | None = None  # percent that a person has set, whatever the ramp says

    @classmethod
    def begin(cls, ramp: Ramp, now: float, *, fixed: float | None = None) -> Warmup:
        """At the ramp's start."""
        return cls(ramp, now, fixed=fixed)

    # Answers.

    def percent(self, now: float) -> float:
        """The share of the full weight, above 0 and at most 100."""
        return self.ramp_percent(now) if self.fixed is None else self.fixed

    def ramp_percent(self, now: float) -> int:
        """The share that the ramp alone would give."""
        return self.ramp.percent_after(self._steps(now))

    def weight(self, full: int, now: float) -> int:
        """The share of `full`, rounded; at least 1, for registries and gateways take 0 for "send nothing"."""
        return min(full, max(1, math.floor(full * self.percent(now) / FULL_PERCENT + 0.5)))

    def is_full(self, now: float) -> bool:
        """No ramp holds it back any more: it has 100 percent, or what a person has given it."""
        return self.fixed is not None or self.ramp_percent(now) >= FULL_PERCENT

    def share(self, full: int, now: float) -> Share:
        """What its entry is to say. A fixed weight is nothing that readers could compute from a ramp."""
        length = self.ramp.seconds if self.fixed is None else 0.0
        return Share(self.weight(full, now), not self.is_full(now), length)

    def next_change_at(self, now: float) -> float | None:
        """When its share grows next; None: not by itself."""
        if self.is_full(now) or self.held_since is not None or self.paused_since is not None:
            return None
        due = (self._steps(now) + 1) * self._period
        return (_us(self.begun_at) + due - _us(self.counted)) / _MICROSECONDS

    # Changes.

    def hold(self, now: float) -> Warmup:
        """A probe fails: from now on time does not count."""
        return self if self.held_since is not None else replace(self, held_since=now)

    def release(self, now: float) -> Warmup:
        """The probe answers again: time goes on, unless a person has paused it."""
        return self if self.held_since is None else replace(self._counted(now), held_since=None)

    def pause(self, now: float) -> Warmup:
        """A person wants it to stay where it is."""
        return self if self.paused_since is not None else replace(self, paused_since=now)

    def resume(self, now: float) -> Warmup:
        """A person lets it go on, which it does unless a probe fails."""
        return self if self.paused_since is None else replace(self._counted(now), paused_since=None)

    def restart(self, ramp: Ramp, now: float) -> Warmup:
        """Another ramp, from its start; a failing probe holds that one too, a pause is over."""
        return replace(self, ramp=ramp, begun_at=now, counted=0.0, paused_since=None)

    def jump(self, percent: int, now: float) -> Warmup:
        """Go on from `percent`, with the next step a whole period later."""
        return replace(self, ramp=replace(self.ramp, initial=percent), begun_at=now, counted=0.0)

    def fix(self, percent: float) -> Warmup:
        """A person sets the share (above 0, at most 100)."""
        return replace(self, fixed=percent)

    def unfix(self) -> Warmup:
        """Back to where the ramp has come meanwhile."""
        return replace(self, fixed=None)

    # What survives the daemon.

    def to_json(self, now: float) -> dict[str, object]:
        """It as plain values that mean the same on another clock."""
        return {
            "initial": self.ramp.initial, "step": self.ramp.step, "period": self.ramp.period,
            "counted": self._counted_us(now) / _MICROSECONDS, "held": self.held_since is not None,
            "paused": self.paused_since is not None, "fixed": self.fixed,
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: object, now: float, elapsed: float) -> Warmup:
        """What `to_json` gave `elapsed` seconds ago; other members are ignored. Raises ValueError.

        The unit went on meanwhile, so that time counts unless it was paused or held. It is not held any more: whether
        its probes fail is for them to say anew.
        """
        if not isinstance(value, Mapping):
            raise ValueError("it is no JSON object")
        ramp = Ramp(
            _whole(value, "initial", 1, FULL_PERCENT),
            _whole(value, "step", 1, FULL_PERCENT),
            _number(value, "period"),
        )
        counted, paused = _number(value, "counted", zero=True), _flag(value, "paused")
        fixed = None if value.get("fixed") is None else _number(value, "fixed", FULL_PERCENT)
        if not paused and not _flag(value, "held"):
            counted += max(0.0, elapsed)
        return cls(ramp, now, counted, paused_since=now if paused else None, fixed=fixed)

    # Time.

    @property
    def _period(self) -> int:
        return max(1, _us(self.ramp.period))

    def _steps(self, now: float) -> int:
        return self._counted_us(now) // self._period

    def _counted_us(self, now: float) -> int:
        """Microseconds on the ramp. What began before `begun_at` and still holds it lets nothing count."""
        until = min(at for at in (now, self.held_since, self.paused_since) if at is not None)
        return _us(self.counted) + max(0, _us(until) - _us(self.begun_at))

    def _counted(self, now: float) -> Warmup:
        """The same, with all time until now in `counted`."""
        return replace(self, begun_at=now, counted=self._counted_us(now) / _MICROSECONDS)


def _us(seconds: float) -> int:
    return round(seconds * _MICROSECONDS)


def _whole(value: Mapping[str, object], key: str, least: int, most: int) -> int:
    number = value.get(key)
    if type(number) is not int or not least <= number <= most:
        raise ValueError(f"{key!r} is no integer from {least} to {most}")
    return number


def _number(value: Mapping[str, object], key: str, most: float = _MAX_SECONDS, *, zero: bool = False) -> float:
    number = value.get(key)
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= most:
        raise ValueError(f"{key!r} is no number from 0 to {most:g}")
    if number == 0 and not zero:
        raise ValueError(f"{key!r} is 0")
    return float(number)


def _flag(value: Mapping[str, object], key: str) -> bool:
    flag = value.get(key)
    if type(flag) is not bool:
        raise ValueError(f"{key!r} is neither true nor false")
    return flag
