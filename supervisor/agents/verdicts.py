"""What a unit's state means for what was asked of it: has it come true, or become impossible? Pure.

Each verdict sees the unit now and before the last event (None: nothing has happened since it was asked), the attempt
that it had when the operation began, and whether the registry has yet to confirm its entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..core.model import Phase, Unit

Verdict = tuple[str, str | None] | None  # (state, error) of the operation that has ended; None: it goes on
Judge = Callable[[Unit, Unit | None, int, bool], Verdict]

_OUT = (Phase.EXPIRING, Phase.SETTLING, Phase.DRAINING)


def _start(unit: Unit, before: Unit | None, attempt: int, registers: bool) -> Verdict:
    if unit.phase is Phase.RUNNING:
        waits = registers and unit.healthy and not unit.drained
        return None if waits else ("succeeded", None)
    if unit.phase is Phase.FATAL:
        return "failed", f"cannot start: {unit.reason}"
    if unit.phase is Phase.STOPPED and before is not None:
        if unit.crashed:
            return "failed", f"it did not stay up: {unit.reason}"
        return "aborted", "it was stopped again"
    return None


def _stop(unit: Unit, before: Unit | None, attempt: int, registers: bool) -> Verdict:
    if unit.phase is Phase.RUNNING and before is not None and before.phase in _OUT and unit.attempt == attempt:
        if before.leaving and not unit.leaving:
            return "failed", unit.reason or "it was wanted again before it was stopped"
        return None
    ended = unit.phase is Phase.STOPPED or unit.attempt != attempt
    return ("succeeded", None) if ended else None


def _restart(unit: Unit, before: Unit | None, attempt: int, registers: bool) -> Verdict:
    if unit.attempt != attempt:
        return _start(unit, before, attempt, registers)
    if before is not None and unit.phase is Phase.RUNNING and before.leaving and not unit.leaving:
        return "failed", unit.reason or "it was called off"
    return _start(unit, before, attempt, registers) if unit.phase in (Phase.FATAL, Phase.STOPPED) else None


def _drain(unit: Unit, before: Unit | None, attempt: int, registers: bool) -> Verdict:
    if not unit.drained:
        return ("failed", unit.reason or "it was taken back") if before is not None and before.drained else None
    return None if unit.phase in _OUT or unit.published else ("succeeded", None)


def _undrain(unit: Unit, before: Unit | None, attempt: int, registers: bool) -> Verdict:
    if unit.drained:  # something else may happen to it before it hears of the order
        return ("aborted", "it was drained again") if before is not None and not before.drained else None
    # One that is not ready is waited for, too: while it was drained it was told to say so.
    waits = registers and unit.wanted and unit.phase not in (Phase.STOPPED, Phase.FATAL)
    return None if waits else ("succeeded", None)


def _at_once(unit: Unit, before: Unit | None, attempt: int, registers: bool) -> Verdict:
    return "succeeded", None


VERDICTS: Mapping[str, Judge] = {
    "start": _start, "stop": _stop, "restart": _restart, "drain": _drain, "undrain": _undrain, "signal": _at_once,
    "warm": _at_once, "weight": _at_once,
}  # fmt: skip

# Of these, a later one takes the place of an earlier one: they cannot both come true.
_RIVALS = (frozenset(("start", "stop", "restart")), frozenset(("drain", "undrain")))


def contradict(verb: str, other: str) -> bool:
    """Two verbs want different things of the same unit."""
    return verb != other and any({verb, other} <= rivals for rivals in _RIVALS)
