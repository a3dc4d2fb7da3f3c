"""Which units, and in which order: names and patterns, dependencies, waves of starting and stopping.

A *group* is one table of the configuration with all its processes; `depends_on` names groups. Everything here takes
specs by unit name, in the order of the configuration, and answers unit names. Nothing recurses: a chain of
dependencies may be as long as the configuration.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from ..errors import ConfigError, UnknownUnit
from .model import UnitSpec

Units = Mapping[str, UnitSpec]
Waves = tuple[tuple[str, ...], ...]

ALL = "all"
_WILDCARDS = frozenset("*?[")


def select(patterns: Iterable[str], units: Units) -> list[str]:
    """The units that the patterns name, each once, in the order of the configuration.

    A pattern is a unit, a group (all its processes; `group:*` is the same), `all`, or a glob with *, ? and [..] over
    units and groups. Raises UnknownUnit for a pattern that names nothing; `all` may name nothing.
    """
    chosen: set[str] = set()
    groups = groups_of(units)
    for pattern in patterns:
        chosen.update(_matches(pattern, units, groups))
    return [name for name in units if name in chosen]


def _matches(pattern: str, units: Units, groups: Mapping[str, Sequence[str]]) -> Iterable[str]:
    if pattern == ALL:
        return units
    if pattern in units:
        return (pattern,)
    group = pattern.removesuffix(":*")
    if group in groups:
        return groups[group]
    found = (
        [name for name, spec in units.items() if fnmatchcase(name, pattern) or fnmatchcase(spec.group, group)]
        if _WILDCARDS.intersection(pattern)
        else []
    )
    if not found:
        raise UnknownUnit(pattern, _nearest(pattern, {**units, **groups}))
    return found


def _nearest(name: str, known: Iterable[str]) -> str | None:
    from difflib import get_close_matches  # only after a mistake: it is not small

    close = get_close_matches(name[:100], list(known), n=1)
    return close[0] if close else None


def groups_of(units: Units) -> dict[str, tuple[str, ...]]:
    """The processes of every group."""
    groups: dict[str, list[str]] = {}
    for name, spec in units.items():
        groups.setdefault(spec.group, []).append(name)
    return {group: tuple(names) for group, names in groups.items()}


def find_cycle(depends_on: Mapping[str, Collection[str]]) -> tuple[str, ...] | None:
    """Groups that wait for each other, the first one again at the end; None when there are none.

    `depends_on` is each group's; names of groups that it does not hold are no business of this function.
    """
    tangled = _tangled(depends_on)
    if not tangled:
        return None
    # Each of these waits for at least one of the others, so a walk along them must come back to where it was.
    path: dict[str, None] = {}
    group = next(name for name in depends_on if name in tangled)
    while group not in path:
        path[group] = None
        group = next(name for name in depends_on[group] if name in tangled)
    walked = list(path)
    return (*walked[walked.index(group) :], group)


def _tangled(depends_on: Mapping[str, Collection[str]]) -> set[str]:
    """What is left when every group that waits for nothing that is left has been taken away."""
    return set(depends_on).difference(*_layers(depends_on))


def _layers(depends_on: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Groups by the length of the longest chain below them; those on or above a cycle are in none."""
    waits = {group: {name for name in names if name in depends_on} for group, names in depends_on.items()}
    above: dict[str, list[str]] = {group: [] for group in depends_on}
    for group, names in waits.items():
        for name in names:
            above[name].append(group)
    layers = []
    layer = [group for group, names in waits.items() if not names]
    while layer:
        layers.append(layer)
        following = []
        for done in layer:
            for group in above[done]:
                waits[group].discard(done)
                if not waits[group]:
                    following.append(group)
        layer = following
    return layers


def start_order(units: Units, names: Iterable[str] | None = None) -> Waves:
    """Waves of units (all of them, or only `names`): whoever is in one depends on nobody in it or in a later one.

    Within a wave lower priority comes first, then the order of the configuration. Dependencies through units that
    are not in `names` count. Raises ConfigError when dependencies form a cycle.
    """
    wanted = set(units if names is None else names)
    depends_on = _dependencies(units)
    if cycle := find_cycle(depends_on):
        raise ConfigError(f"cannot order units: their dependencies form a cycle: {' -> '.join(cycle)}")
    depth = {group: number for number, layer in enumerate(_layers(depends_on)) for group in layer}
    waves: dict[int, list[str]] = {}
    for name, spec in units.items():
        if name in wanted:
            waves.setdefault(depth[spec.group], []).append(name)
    return tuple(tuple(sorted(waves[number], key=lambda name: units[name].priority)) for number in sorted(waves))


def stop_order(units: Units, names: Iterable[str] | None = None) -> Waves:
    """The reverse of `start_order`, within waves too."""
    return tuple(wave[::-1] for wave in reversed(start_order(units, names)))


def _dependencies(units: Units) -> dict[str, tuple[str, ...]]:
    return {spec.group: spec.depends_on for spec in units.values()}


def waits_for(spec: UnitSpec, groups: Mapping[str, Sequence[str]], ready: Container[str]) -> str:
    """The first unit that it must wait for, "" when every process of what it depends on is ready.

    A group that does not exist is waited for by its own name.
    """
    for group in spec.depends_on:
        for name in groups.get(group, (group,)):
            if name not in ready:
                return name
    return ""


def startable(spec: UnitSpec, groups: Mapping[str, Sequence[str]], ready: Container[str]) -> bool:
    """It has nothing to wait for."""
    return not waits_for(spec, groups, ready)


def dependencies_of(names: Iterable[str], units: Units) -> list[str]:
    """What these units need to be up, near or far, without themselves; in the order of the configuration."""
    return _reachable(names, units, _dependencies(units))


def dependents_of(names: Iterable[str], units: Units) -> list[str]:
    """What needs these units, near or far, without themselves; in the order of the configuration."""
    needed_by: dict[str, list[str]] = {}
    for group, needs in _dependencies(units).items():
        for need in needs:
            needed_by.setdefault(need, []).append(group)
    return _reachable(names, units, needed_by)


def _reachable(names: Iterable[str], units: Units, edges: Mapping[str, Sequence[str]]) -> list[str]:
    """All units of the groups at the end of at least one edge from the groups of `names`, without `names`."""
    start = set(names)
    reached: set[str] = set()
    waiting = [group for name in start for group in edges.get(units[name].group, ())]
    while waiting:
        group = waiting.pop()
        if group not in reached:
            reached.add(group)
            waiting.extend(edges.get(group, ()))
    return [name for name, spec in units.items() if spec.group in reached and name not in start]
