"""All ramps of the host: whose weight grows when, and what people order about it.

Weights are computed when somebody asks; what is kept is where each unit stands on its ramp. One timer serves all units.
Publishing is for whoever is told of a change, keeping the records for whoever is told to save them.

An operator's fixed weight belongs to the unit and survives its attempts; everything else belongs to one attempt.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping

from ..core.model import UnitSpec, WarmupSpec
from ..core.warmup import NO_RAMP, Ramp, Share, Warmup
from ..errors import WireError
from ..host.clock import monotonic
from .entry import MAX_WARMUP_SECONDS

log = logging.getLogger("unitd.warmup")

TOGETHER = 0.1  # seconds: steps that are due within the same tenth are told in one turn, at most that late

_RAMP_KEYS = ("initial", "step", "period")
_WARM_KEYS = (*_RAMP_KEYS, "pause", "resume", "jump")


class _State:
    """One unit, from its first publication or order until it is forgotten."""

    __slots__ = ("active", "attempt", "away_since", "due_at", "full", "saved", "told", "value")

    def __init__(self, value: Warmup, attempt: int | None, full: int) -> None:
        self.value = value
        self.attempt = attempt  # whose ramp it is; None: nobody's yet
        self.full = full  # its full weight
        self.active = False  # it is in traffic
        self.away_since: float | None = None  # it was, and left
        self.told = Share(full)  # what was published last
        self.due_at = math.inf  # when it grows next
        self.saved = False


class Warmups:
    """The weights of all registered units, by unit name."""

    def __init__(
        self,
        change: Callable[[str], None],
        save: Callable[[str, dict[str, object] | None], None],
        on_full: Callable[[str], None] = lambda unit: None,
    ) -> None:
        """`change` is told when a unit's entry must be published anew, `save` what to keep of it (None: nothing).

        `on_full` is told when a unit that was warming has reached its full weight, or an order has ended its ramp. A
        unit that has it from the start is never told of: ask `is_full` once it is published.
        """
        self._change, self._save_record, self._on_full = change, save, on_full
        self._loop = asyncio.get_running_loop()
        self._states: dict[str, _State] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    # What happens to units.

    def begin(self, spec: UnitSpec, attempt: int, *, ramp: Ramp | None = None) -> None:
        """The unit is about to be published: call it before each publication, then publish `share`.

        A new attempt starts at the beginning of `ramp` (None: its spec's). So does one that was away for a period or
        longer; within less it goes on where it was. An attempt that is published already stays where it is.
        """
        if spec.service is None:
            return
        now, old = monotonic(), self._states.get(spec.name)
        if old is not None and ramp is None and _goes_on(old, attempt, now):
            state, back = old, not old.active
            state.value = state.value.release(now) if back else state.value
        else:
            fixed = None if old is None else old.value.fixed
            value = Warmup.begin(ramp or _configured(spec), now, fixed=fixed)
            state, back = _State(value, attempt, spec.service.weight), True
            state.saved = old is not None and old.saved
            self._states[spec.name] = state
        state.active, state.away_since, state.full = True, None, spec.service.weight
        if back:  # else the timer tells what has changed, and that the end is reached
            state.told = state.value.share(state.full, now)
        self._settle(spec.name, state, now)

    def lost(self, unit: str) -> None:
        """It is out of traffic: its readiness was lost, or it was withdrawn for whatever reason."""
        state = self._states.get(unit)
        if state is not None and state.active:
            now = monotonic()
            state.active, state.away_since, state.value = False, now, state.value.hold(now)
            self._settle(unit, state, now)

    def hold(self, unit: str) -> None:
        """Its readiness probe fails, though not yet for good: its weight stays."""
        state, now = self._states.get(unit), monotonic()
        if state is not None and state.active and state.value.ramp_percent(now) < 100:
            self._put(unit, state, state.value.hold(now), now)

    def release(self, unit: str) -> None:
        """Its readiness probe answers again."""
        state, now = self._states.get(unit), monotonic()
        if state is not None and state.active:
            self._put(unit, state, state.value.release(now), now)

    def restore(self, unit: str, value: object, elapsed: float) -> None:
        """What was saved of it `elapsed` seconds ago, before this daemon's life; `begin` goes on with it.

        A record that cannot be read is dropped with a warning: the unit then warms up from the start.
        """
        now = monotonic()
        try:
            state = _read(value, now, elapsed)
        except ValueError as error:
            log.warning("%s: cannot go on with its warm-up, which starts again: %s", unit, error)
            return
        self._states[unit] = state

    def forget(self, unit: str) -> None:
        """It is no unit any more."""
        state = self._states.pop(unit, None)
        if state is not None and state.saved:
            self._contain(unit, self._save_record, unit, None)

    def close(self) -> None:
        """Tell nobody anything any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._states.clear()

    # Answers.

    def percent(self, unit: str) -> float:
        """Its share of its full weight now."""
        state = self._states.get(unit)
        return 100 if state is None else state.value.percent(monotonic())

    def weight(self, unit: str, full: int) -> int:
        """Its weight now."""
        return self.share(unit, full).weight

    def share(self, unit: str, full: int) -> Share:
        """What its entry is to say now."""
        state = self._states.get(unit)
        return Share(full) if state is None else state.value.share(full, monotonic())

    def is_full(self, unit: str) -> bool:
        """It has all the traffic that it is meant to get: full weight, or what an operator has fixed."""
        state = self._states.get(unit)
        return state is None or state.value.is_full(monotonic())

    def describe(self, unit: str) -> str:
        """Why it has less than its full weight, and until when; "" if it has it, or is out of traffic."""
        state, now = self._states.get(unit), monotonic()
        if state is None or not state.active or (state.value.fixed is None and state.value.is_full(now)):
            return ""
        return _words(state, now)

    # Orders.

    def command(self, spec: UnitSpec, verb: str, parameters: Mapping[str, object]) -> str:
        """Carry out `warm` or `weight`, and say how the unit stands then. Raises WireError; then nothing has changed.

        - warm: `{}` its configured ramp again, `{"initial", "step", "period"}` (each may be left out) another one;
          `{"pause": true}`, `{"resume": true}`, `{"jump": percent}`.
        - weight: `{"weight": n}` in units of its full weight, kept until `{"weight": "auto"}`; also for a unit that
          is down.
        """
        what = f"cannot {_VERBS[verb]} {spec.name}"
        if spec.service is None:
            raise WireError(f"{what}: it has no service, so nobody sends to it by weight")
        now, state = monotonic(), self._states.get(spec.name)
        if state is None:
            state = _State(Warmup.begin(NO_RAMP, now), None, spec.service.weight)
        state.full = spec.service.weight
        try:
            value = _ORDERS[verb](spec, state, parameters, now)
            if state.active and state.value.held_since is not None and value.percent(now) > state.value.percent(now):
                raise _Refused("its readiness probe fails, and its weight must not grow before that answers again")
        except _Refused as refused:
            raise WireError(f"{what}: {refused}") from None
        self._states[spec.name] = state
        self._put(spec.name, state, value, now)
        return _words(state, now)

    # Parts of them.

    def _put(self, unit: str, state: _State, value: Warmup, now: float) -> None:
        if value is not state.value:
            state.value = value
            self._settle(unit, state, now)
            self._tell(unit, state, now)

    def _settle(self, unit: str, state: _State, now: float) -> None:
        """Keep what does not follow from the time, and be awake when it grows next."""
        self._save(unit, state, now)
        self._plan(state, now)
        self._arm(state.due_at)

    def _save(self, unit: str, state: _State, now: float) -> None:
        """Units without a ramp or an order leave no record."""
        if state.value.ramp == NO_RAMP and state.value.fixed is None:
            if state.saved:
                state.saved = False
                self._contain(unit, self._save_record, unit, None)
            return
        state.saved = True
        away = None if state.away_since is None else now - state.away_since
        record = {"attempt": state.attempt, "away": away, **state.value.to_json(now)}
        self._contain(unit, self._save_record, unit, record)

    def _tell(self, unit: str, state: _State, now: float) -> None:
        """Say what is to be published, if that has changed."""
        share, told = state.value.share(state.full, now), state.told
        if state.active and share != told:
            state.told = share
            self._contain(unit, self._change, unit)
            if told.warming and not share.warming:
                self._contain(unit, self._on_full, unit)

    def _contain(self, unit: str, call: Callable[..., None], *arguments: object) -> None:
        """A mistake that concerns one unit must not stop the ramps of the others."""
        try:
            call(*arguments)
        except Exception:
            log.exception("%s: cannot carry out a change of its weight", unit)

    def _plan(self, state: _State, now: float) -> None:
        due_at = state.value.next_change_at(now) if state.active else None
        state.due_at = math.inf if due_at is None else due_at

    def _arm(self, due_at: float) -> None:
        """Wake up at the end of that instant's tenth, if not before; waking for nothing does no harm."""
        at = due_at if due_at == math.inf else math.ceil(due_at / TOGETHER) * TOGETHER
        if at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._timer_at = self._loop.call_at(at, self._tick), at

    def _tick(self) -> None:
        now = max(monotonic(), self._timer_at)  # the loop may be early by as much as its clock resolves
        self._timer, self._timer_at = None, math.inf
        for unit, state in list(self._states.items()):
            if state.due_at <= now and self._states.get(unit) is state:  # whoever is told may forget others
                self._plan(state, now)
                self._tell(unit, state, now)
        self._arm(min((state.due_at for state in self._states.values()), default=math.inf))


def _goes_on(state: _State, attempt: int, now: float) -> bool:
    away = 0.0 if state.away_since is None else now - state.away_since
    return state.attempt == attempt and away < state.value.ramp.period


def _configured(spec: UnitSpec) -> Ramp:
    warmup = spec.warmup
    return NO_RAMP if warmup is None else Ramp(warmup.initial, warmup.step, warmup.period)


def _read(record: object, now: float, elapsed: float) -> _State:
    """A saved record. Raises ValueError."""
    value = Warmup.from_json(record, now, elapsed).hold(now)  # until `begin`
    assert isinstance(record, Mapping)
    attempt, away = record.get("attempt"), record.get("away")
    if attempt is not None and type(attempt) is not int:
        raise ValueError("'attempt' is no integer")
    if isinstance(away, bool) or not isinstance(away, int | float | None):
        raise ValueError("'away' is no number")
    state = _State(value, attempt, 0)
    state.saved = True
    state.away_since = None if away is None else now - away - max(0.0, elapsed)
    return state


def _words(state: _State, now: float) -> str:
    value = state.value
    place = f"{value.weight(state.full, now)} of {state.full}"
    if value.fixed is not None:
        return f"fixed at {place}"
    if value.is_full(now):
        return f"at its full weight of {state.full}"
    if value.held_since is not None:
        return f"held at {place}: its readiness probe fails"
    if value.paused_since is not None:
        return f"paused at {place}"
    next_at = value.next_change_at(now)
    assert next_at is not None
    return f"warming: {place}, next step in {max(0.0, next_at - now):.1f} s"


# Orders as people send them.


class _Refused(Exception):
    """An order cannot be carried out; the message is the reason."""


def _warmed(spec: UnitSpec, state: _State, parameters: Mapping[str, object], now: float) -> Warmup:
    given = _given(parameters, _WARM_KEYS)
    wishes = [key for key in ("pause", "resume", "jump") if key in given]
    if len(wishes) + any(key in given for key in _RAMP_KEYS) > 1:
        raise _Refused(
            "pause, resume, jump and a new ramp (initial, step, period) exclude each other; give one of them"
        )
    change = _wish(wishes[0], given[wishes[0]]) if wishes else None
    ramp = _ramp(spec, given)
    value = state.value
    if not state.active:
        raise _Refused("it is not in traffic; it warms up when it gets there")
    if value.fixed is not None:
        raise _Refused('its weight was fixed by an operator; first give it back with weight "auto"')
    return value.restart(ramp, now) if change is None else change(value, now)


def _wish(key: str, argument: object) -> Callable[[Warmup, float], Warmup]:
    if key == "jump":
        percent = _whole(argument, "jump")
        return lambda value, now: value.jump(percent, now)
    if argument is not True:
        raise _Refused(f"{key} must be true")
    if key == "resume":
        return Warmup.resume
    return lambda value, now: value if value.is_full(now) else value.pause(now)


def _ramp(spec: UnitSpec, given: Mapping[str, object]) -> Ramp:
    known = spec.warmup or WarmupSpec()
    period = given.get("period", known.period)
    if isinstance(period, bool) or not isinstance(period, int | float) or not 0 < period <= MAX_WARMUP_SECONDS:
        raise _Refused(f"period must be a number of seconds above 0, not {period!r}")
    ramp = Ramp(
        _whole(given.get("initial", known.initial), "initial"), _whole(given.get("step", known.step), "step"), period
    )
    if given and ramp.seconds > MAX_WARMUP_SECONDS:
        raise _Refused(f"the ramp would take {ramp.seconds:.0f} s, and may take {MAX_WARMUP_SECONDS:.0f} s at most")
    return ramp


def _weighed(spec: UnitSpec, state: _State, parameters: Mapping[str, object], now: float) -> Warmup:
    weight, full = _given(parameters, ("weight",)).get("weight"), state.full
    if weight == "auto":
        return state.value.unfix()
    if type(weight) is not int or not 0 <= weight <= full:
        raise _Refused(f'weight must be an integer from 1 to its full weight of {full}, or "auto", not {weight!r}')
    if weight == 0:
        raise _Refused("weight must be at least 1; to send it nothing, use drain")
    return state.value.fix(weight / full * 100)


_ORDERS: dict[str, Callable[[UnitSpec, _State, Mapping[str, object], float], Warmup]] = {
    "warm": _warmed, "weight": _weighed,
}  # fmt: skip
_VERBS = {"warm": "warm up", "weight": "set the weight of"}


def _given(parameters: Mapping[str, object], known: tuple[str, ...]) -> dict[str, object]:
    """The parameters that are there; null is absent."""
    for key in parameters:
        if key not in known:
            raise _Refused(f"unknown parameter {key!r}; known: {', '.join(known)}")
    return {key: value for key, value in parameters.items() if value is not None}


def _whole(percent: object, key: str) -> int:
    if type(percent) is not int or not 1 <= percent <= 100:
        raise _Refused(f"{key} must be a whole percentage from 1 to 100, not {percent!r}")
    return percent
