"""Time and chance for the shells. Waits use `monotonic`; `wall` is for people only."""

from __future__ import annotations

import os
import time
from time import monotonic
from time import time as wall

__all__ = ["chance", "iso", "monotonic", "wall"]


def chance() -> float:
    """A random number, 0 <= n < 1 (without the weight of the module `random`)."""
    return int.from_bytes(os.urandom(4), "little") / 2**32


def iso(at: float | None = None) -> str:
    """A unix time (default: now) as ISO 8601 in UTC with milliseconds: 2026-11-24T03:41:46.123Z."""
    at = wall() if at is None else at
    whole = int(at)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int((at - whole) * 1000):03d}Z"
