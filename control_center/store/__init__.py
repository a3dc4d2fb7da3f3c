"""What the control center keeps, in SQLite (one center) or PostgreSQL (several)."""

from .evidence import DECISIONS, REPORTS
from .lock import LeaderLock
from .nodes import RESULTS, result_topic
from .operations import OPERATIONS, commands_topic
from .records import EVENTS
from .store import LEADER, MODE, Store

__all__ = [
    "DECISIONS",
    "EVENTS",
    "LEADER",
    "MODE",
    "OPERATIONS",
    "REPORTS",
    "RESULTS",
    "LeaderLock",
    "Store",
    "commands_topic",
    "result_topic",
]
