"""What units' weights were, in the journal: an earlier daemon's ramps go on where time has brought them since."""

from __future__ import annotations

import json
import logging
from collections.abc import Container

from ..host.clock import wall
from ..host.journal import Journal
from .warmup import Warmups

log = logging.getLogger("unitd")

KIND = "weight"  # of the journal's facts


def restore_weights(journal: Journal, warmups: Warmups, units: Container[str]) -> None:
    """Those of the units that there still are."""
    for name, text in journal.facts(KIND).items():
        if name not in units:
            continue
        try:
            record = json.loads(text)
            warmups.restore(name, record["value"], max(0.0, wall() - record["at"]))
        except (ValueError, KeyError, TypeError):
            log.error("cannot read what the weight of %s was: it begins anew", name)


def save_weight(journal: Journal, name: str, value: dict[str, object] | None) -> None:
    """Write one down; None: it is to be forgotten."""
    record = None if value is None else json.dumps({"value": value, "at": wall()}, separators=(",", ":"))
    journal.record_fact(KIND, name, record)
