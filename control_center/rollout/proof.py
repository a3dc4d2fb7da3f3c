"""What the registry must show before a target counts as done, and what a canary must not show afterwards."""

from __future__ import annotations

from collections.abc import Set
from typing import Literal

from registry_client.model import Entry

from ..fleet import meant_weight
from ..model import Target

FOR_GOOD = frozenset(("stop", "drain"))  # take an instance out of traffic, and leave it there
RETURNING = frozenset(("restart", "start", "undrain"))  # end at full weight


def confirmed(target: Target, verb: str, entry: Entry | None) -> Literal[True] | str:
    """Whether the registry shows the end of a target that its node has done; else what is missing, one phrase.

    A weight that an operator has fixed counts as full: more will not come by itself. For what no registry knows of
    (units without a service, the weight of a ramp, signals, configuration) the node's word is all there is.
    """
    if target.service is None or verb not in FOR_GOOD | RETURNING:
        return True
    if verb in FOR_GOOD:
        return entry is None or entry.status == "draining" or "its entry is still in the registry"
    if entry is None:
        return "not in the registry yet"
    if verb == "restart" and target.generation is not None and entry.generation <= target.generation:
        return f"its entry is still the old one (generation {entry.generation})"
    return _below_full(entry) or True


def unwell(target: Target, verb: str, entry: Entry | None, doubts: Set[str]) -> str:
    """What speaks against a canary that was done; "" if nothing does. `doubts` are instances complained of."""
    if verb == "apply":
        accused = sorted(instance for instance in doubts if instance.startswith(f"{target.node}/"))
        return f"gateways complain of {accused[0]}" if accused else ""
    if target.instance in doubts:
        return f"gateways complain of {target.instance}"
    if target.service is None or verb in FOR_GOOD:
        return ""
    if entry is None:
        return f"{target.instance} has left the registry"
    if target.generation_after is not None and entry.generation != target.generation_after:
        return f"{target.instance} was started again (generation {entry.generation}, not {target.generation_after})"
    if verb in RETURNING and (less := _below_full(entry)):
        return f"{target.instance}: {less}"
    return f"{target.instance}: it is draining" if entry.status == "draining" else ""


def _below_full(entry: Entry) -> str:
    if entry.status == "draining":
        return "it is draining"
    if entry.status != "up" or entry.weight < meant_weight(entry):
        return f"weight {entry.weight} of {entry.full_weight}"
    return ""
