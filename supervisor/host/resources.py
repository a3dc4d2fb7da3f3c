"""What this process itself uses, from /proc (proc(5)) and getrusage(2)."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OwnUse:
    """At one moment."""

    cpu_seconds: float
    resident_bytes: int
    virtual_bytes: int
    open_fds: int
    max_fds: int


def own_use() -> OwnUse:
    """Of the process that calls it. Raises OSError where there is no /proc."""
    with open("/proc/self/statm") as file:
        virtual, resident = (int(field) * resource.getpagesize() for field in file.read().split()[:2])
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return OwnUse(
        cpu_seconds=spent.ru_utime + spent.ru_stime,
        resident_bytes=resident,
        virtual_bytes=virtual,
        open_fds=len(os.listdir("/proc/self/fd")),
        max_fds=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )
