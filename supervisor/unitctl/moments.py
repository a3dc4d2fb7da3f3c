"""Moments as people write them on a command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .session import TextType

if TYPE_CHECKING:
    from datetime import datetime


class Moment(TextType):
    """`2026-11-24T18:00Z`, `2026-11-24T18:00` or `18:00` (this host's clock, the next time it shows that).

    Becomes ISO 8601 in UTC.
    """

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Any of them to text that the daemon understands."""
        from datetime import UTC

        try:
            moment = _read(str(value)).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a time such as 18:00 or 2026-11-24T18:00Z", param, ctx)
        return f"{moment.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def _read(text: str) -> datetime:
    """Without a time zone the host's is meant. Raises ValueError."""
    from datetime import datetime, time, timedelta

    if text[2:3] != ":":
        return datetime.fromisoformat(text)
    now = datetime.now()
    moment = datetime.combine(now.date(), time.fromisoformat(text))
    return moment if moment > now else moment + timedelta(days=1)
