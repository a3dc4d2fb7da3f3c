"""Targets into batches, and what can never be done without breaking a floor."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import floor, isfinite

from ..errors import BadRequest
from ..fleet import Fleet, meant_weight
from ..model import Batch, Strategy, Target
from .floor import FREE
from .proof import FOR_GOOD

_BATCH = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)( ?%)?")

_Groups = dict[str | None, list[Target]]  # service -> its targets, in the order in which they go
_Named = tuple[str, list[Target]]


def plan(
    verb: str, targets: Iterable[Target], strategy: Strategy | None, fleet: Fleet
) -> tuple[list[Batch], list[Target]]:
    """Who goes with whom: batches, and targets (copies) with their batch, in the order in which they go.

    Services go side by side, each in steps of its own size; a zone begins when all of them are through with the one
    before. The canaries of a service are from its first zone. Raises BadRequest (`floor`: it can never be kept).
    """
    targets = _once(targets)
    if strategy is None:
        return [Batch(0, "all at once")], [replace(target, batch=0) for target in targets]
    check_strategy(strategy)
    if strategy.floor_percent > 0 and verb not in FREE:
        _check_floor(verb, targets, strategy.floor_percent, fleet)
    named = _batches(targets, strategy)
    batches = [Batch(number, name) for number, (name, _) in enumerate(named)]
    placed = [replace(target, batch=number) for number, (_, found) in enumerate(named) for target in found]
    return batches, placed


def baseline(targets: Iterable[Target], fleet: Fleet) -> dict[str, int]:
    """Service -> the weight that its instances are meant to have together: what floors are shares of."""
    targets = list(targets)
    base: dict[str, int] = {}
    for service in sorted({target.service for target in targets if target.service is not None}):
        base[service] = sum(map(meant_weight, fleet.entries(service))) or sum(
            target.weight for target in targets if target.service == service
        )
    return base


def batch_size(text: str, count: int) -> int:
    """How many of `count` targets go at a time: "2", or "25%" (rounded down), at least one. Raises BadRequest."""
    found = _BATCH.fullmatch(text.strip())
    number = float(found[1]) if found else 0.0
    is_share = found is not None and found[2] is not None
    if found is None or number <= 0 or (is_share and number > 100) or (not is_share and "." in found[1]):
        raise BadRequest(f'cannot use the batch {text!r}: write a number above 0 ("2"), or a share up to 100 ("25%")')
    return max(1, floor(count * number / 100)) if is_share else int(number)


def check_strategy(strategy: Strategy) -> None:
    """Refuse what no operation can go by. Raises BadRequest that names the key."""
    batch_size(strategy.batch, 1)
    if not 0 <= strategy.floor_percent <= 100:
        raise BadRequest(f"cannot use floor_percent: it must be from 0 to 100, not {strategy.floor_percent}")
    for name in ("canary", "bake_seconds", "max_failures"):
        value = getattr(strategy, name)
        if not (isfinite(value) and value >= 0):
            raise BadRequest(f"cannot use {name}: it must be 0 or more, not {value}")
    if not (isfinite(strategy.target_seconds) and strategy.target_seconds > 0):
        raise BadRequest(f"cannot use target_seconds: it must be more than 0, not {strategy.target_seconds}")


def _once(targets: Iterable[Target]) -> list[Target]:
    """Each unit once, by service, zone, node and unit; what is known with its service is better known."""
    found: dict[tuple[str, str], Target] = {}
    for target in targets:
        key = target.node, target.unit
        if key not in found or found[key].service is None:
            found[key] = target
    return sorted(found.values(), key=lambda each: (each.service or "", each.zone or "", each.node, each.unit))


# Batches.


def _batches(targets: list[Target], strategy: Strategy) -> list[_Named]:
    groups: _Groups = {}
    for target in targets:
        groups.setdefault(target.service, []).append(target)
    sizes = {service: batch_size(strategy.batch, len(found)) for service, found in groups.items()}
    if not strategy.by_zone:
        groups = {service: sorted(found, key=lambda each: (each.node, each.unit)) for service, found in groups.items()}
    canaries, rest = _without_canaries(groups, strategy)
    named = [("canary", canaries)] if canaries else []
    if not strategy.by_zone or not any(target.zone for target in targets):
        return named + _side_by_side("", rest, sizes, "rest" if canaries else "all")
    for zone in sorted({target.zone or "" for target in targets}):
        words = f"zone {zone}" if zone else "no zone"
        there = {service: [each for each in found if (each.zone or "") == zone] for service, found in rest.items()}
        named += _side_by_side(f"{words} ", there, sizes, words)
    return named


def _without_canaries(groups: _Groups, strategy: Strategy) -> tuple[list[Target], _Groups]:
    canaries: list[Target] = []
    rest: _Groups = {}
    for service, found in groups.items():
        first = [target for target in found if not strategy.by_zone or target.zone == found[0].zone]
        taken = first[: strategy.canary]
        canaries += taken
        rest[service] = found[len(taken) :]
    return canaries, rest


def _side_by_side(prefix: str, groups: _Groups, sizes: Mapping[str | None, int], alone: str) -> list[_Named]:
    count = max((-(-len(found) // sizes[service]) for service, found in groups.items()), default=0)
    named: list[_Named] = []
    for number in range(count):
        together: list[Target] = []
        for service, found in groups.items():
            together += found[number * sizes[service] : (number + 1) * sizes[service]]
        named.append((f"{prefix}{number + 1}/{count}" if count > 1 else alone, together))
    return named


# Floors.


def _check_floor(verb: str, targets: Sequence[Target], percent: float, fleet: Fleet) -> None:
    for service, base in baseline(targets, fleet).items():
        found = [target for target in targets if target.service == service]
        weights = {target.instance: _weight(target, fleet) for target in found}
        heaviest = max(weights, key=lambda instance: weights[instance])
        away = sum(weights.values()) if verb in FOR_GOOD else weights[heaviest]
        if (base - away) * 100 >= percent * base:
            continue
        left = max(0, floor((base - away) * 100 / base))
        detail = _detail(verb, service, heaviest, len(found), left, fleet)
        other = "name fewer" if verb in FOR_GOOD and len(found) > 1 else "add an instance"
        raise BadRequest(
            f"cannot {verb} {service}: {detail}, and floor_percent is {percent:g}; "
            f"lower floor_percent to {left}, or {other}",
            code="floor", status=422, service=service, floor_percent=percent, possible_percent=left,
        )  # fmt: skip


def _detail(verb: str, service: str, heaviest: str, count: int, left: int, fleet: Fleet) -> str:
    if len(fleet.entries(service)) <= 1:
        return f"it has a single instance, {heaviest}"
    if verb in FOR_GOOD:
        return f"without {heaviest if count == 1 else f'these {count} instances'}, {left} % of its weight are left"
    return f"while {heaviest} is away, {left} % of its weight are left"


def _weight(target: Target, fleet: Fleet) -> int:
    entry = fleet.entry(target.instance, target.service)
    return target.weight if entry is None else meant_weight(entry)
