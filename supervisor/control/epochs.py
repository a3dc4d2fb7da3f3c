"""Which lead of a control center counts: the highest epoch that was ever seen of it, kept over restarts."""

from __future__ import annotations

import json
from typing import Any

from ..errors import WireError
from ..host.journal import Journal
from ..wire import Command
from .answers import Refused

KIND = "center"
MAX_CENTERS = 32  # a store has one id for ever: whoever makes up more must not fill the journal
MAX_ID = 128


class Epochs:
    """Keeps one number for each center."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._highest: dict[str, int] = {}  # center -> epoch; who was heard of last is last
        rows = [
            (_number(text, "order"), center, _number(text, "epoch")) for center, text in journal.facts(KIND).items()
        ]
        for _, center, epoch in sorted(rows):
            self._highest[center] = epoch
        self._order = max((row[0] for row in rows), default=0)

    def check(self, command: Command) -> None:
        """Raises Refused for a command of a center that does not lead any more; keeps the epoch of any other."""
        if command.center is None or command.epoch is None:
            return
        if len(command.center) > MAX_ID:
            raise WireError(f"cannot read the command: 'center' is longer than {MAX_ID} characters")
        highest = self._highest.get(command.center, 0)
        if command.epoch < highest:
            detail = f"another control center leads since (epoch {highest}, yours is {command.epoch})"
            raise Refused("stale_epoch", detail, epoch=highest)
        self.note(command)

    def note(self, command: Command) -> None:
        """Keep its epoch if it is the highest."""
        if command.center is None or command.epoch is None or len(command.center) > MAX_ID:
            return
        if command.epoch <= self._highest.get(command.center, -1):
            return
        self._highest.pop(command.center, None)
        self._highest[command.center] = command.epoch
        self._order += 1
        value = json.dumps({"epoch": command.epoch, "order": self._order})
        self._journal.record_fact(KIND, command.center, value, durable=True)
        while len(self._highest) > MAX_CENTERS:
            oldest = next(iter(self._highest))
            del self._highest[oldest]
            self._journal.record_fact(KIND, oldest, None)


def _number(text: str, name: str) -> int:
    try:
        value: Any = json.loads(text)
        return int(value[name])
    except (ValueError, KeyError, TypeError):
        return 0
