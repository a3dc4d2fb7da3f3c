"""How an operation goes through a fleet: what goes together, what may go now, and when it is over. Pure.

A plan puts targets into batches. From then on `advance` looks at an operation, at the registry and at the clock, and
says what is next; nothing is remembered between two looks but what stands in the operation, so that any center can go
on. Whoever acts on a step first carries it into the operation with `record`, and writes that down.
"""

from .course import advance, limit_of
from .planning import baseline, batch_size, check_strategy, plan
from .proof import confirmed
from .steps import Finish, Mark, Start, Step, Wait, record

__all__ = [
    "Finish",
    "Mark",
    "Start",
    "Step",
    "Wait",
    "advance",
    "baseline",
    "batch_size",
    "check_strategy",
    "confirmed",
    "limit_of",
    "plan",
    "record",
]
