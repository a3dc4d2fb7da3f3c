"""Moments as the API, the store and the nodes spell them: ISO 8601 in UTC, to the millisecond. Pure."""

from __future__ import annotations

from datetime import UTC, datetime


def iso(moment: datetime) -> str:
    """A moment that is aware of its zone, such as `2026-11-23T06:29:10.123Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def iso_of(wall: float) -> str:
    """The same of a unix time."""
    return iso(datetime.fromtimestamp(wall, UTC))


def wall_of(text: str) -> float:
    """The unix time of a moment that is spelled so."""
    return datetime.fromisoformat(text).timestamp()
