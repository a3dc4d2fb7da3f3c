"""How results can look on the standard output that there is."""

from __future__ import annotations

from shutil import get_terminal_size

from .fleet_session import Fleet
from .fleet_table import Look


def look_of(fleet: Fleet) -> Look:
    """A terminal's width, and whether colours and any character are possible."""
    terminal = fleet.session.terminal
    columns = get_terminal_size().columns if terminal.is_interactive else 0
    return Look(columns, fleet.session.color, terminal.takes_unicode)
