"""Findings as people read them: one line each, and below it what to do. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.doctor import Finding
from .words import clean

_COLOURS = {"ok": "32", "warning": "33", "problem": "31", "unknown": "35"}
_OUTCOME_WIDTH = 9  # of the longest and two spaces
_SUBJECT_WIDTH = 24  # longer ones push their message aside, not everybody's


def doctor_text(findings: Sequence[Finding], *, color: bool = False) -> str:
    """All findings, in their order."""
    width = max((len(item.subject) for item in findings if len(item.subject) <= _SUBJECT_WIDTH), default=0)
    return "".join(_lines(item, width, color) for item in findings)


def _lines(item: Finding, width: int, color: bool) -> str:
    outcome = clean(item.outcome).ljust(_OUTCOME_WIDTH)
    code = _COLOURS.get(item.outcome) if color else None
    shown = f"\x1b[{code}m{outcome}\x1b[0m" if code else outcome
    line = f"{shown}{clean(item.subject):{width}}  {clean(item.message)}\n"
    return f"{line}{' ' * _OUTCOME_WIDTH}-> {clean(item.action)}\n" if item.action else line
