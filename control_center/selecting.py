"""Which units a selection means, among those that the registry has. Pure.

Whatever is named must exist: a name or a pattern that nothing bears is refused with the nearest name, never left out.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Protocol

from registry_client.model import Entry

from .errors import BadRequest
from .model import NODE_SERVICE, Selection, Target

_WILDCARDS = frozenset("*?[")
_MOST_NAMES = 2000  # that are compared for the nearest one
_UNSEEN = "what is stopped or drained is in no registry: name it by its node and its unit"


class Registered(Protocol):
    """What is asked of a fleet."""

    @property
    def nodes(self) -> Mapping[str, Entry]:
        """Node -> the entry of its daemon."""

    def all_entries(self) -> tuple[Entry, ...]:
        """Those of all units."""


def select(verb: str, selection: Selection, fleet: Registered) -> list[Target]:
    """What a command is for: units, or for `apply` nodes. Raises BadRequest (`nothing_selected` and others)."""
    if verb == "apply":
        return nodes_for_apply(selection, fleet)
    if selection.nodes and selection.units:
        return targets_on_nodes(selection, fleet)
    return choose(selection, (*fleet.nodes.values(), *fleet.all_entries()))


def choose(selection: Selection, entries: Iterable[Entry]) -> list[Target]:
    """The registered units of a selection, by service and instance. Raises BadRequest."""
    _must_say_something(selection)
    entries = tuple(entries)
    nodes = {entry.node for entry in entries}
    units = [entry for entry in entries if entry.service != NODE_SERVICE]
    chosen = units
    for kind, patterns, name_of in _kinds(selection):
        known = nodes if kind == "node" else {name_of(entry) for entry in units}
        meant = _meant(kind, patterns, known)
        chosen = [entry for entry in chosen if name_of(entry) in meant]
    chosen = _labelled(selection.labels, chosen, units, "unit")
    if not chosen:
        raise _nothing(f"no registered unit is all of that: {_words(selection)}; {_UNSEEN}")
    return sorted(map(target_of, chosen), key=lambda target: (target.service or "", target.instance))


def targets_on_nodes(selection: Selection, fleet: Registered) -> list[Target]:
    """Units that are named with their nodes: the registered ones, and those that no registry has.

    Only plain names can mean what no registry has; a pattern means what is there. Raises BadRequest.
    """
    if selection.services or selection.instances or selection.labels:
        return choose(selection, (*fleet.nodes.values(), *fleet.all_entries()))
    entries = fleet.all_entries()
    nodes = _meant("node", selection.nodes, {*fleet.nodes, *(entry.node for entry in entries)})
    there = [entry for entry in entries if entry.node in nodes]
    found = {(entry.node, entry.unit): target_of(entry) for entry in _with_units(there, selection.units)}
    for node in _plain(selection.nodes):
        for unit in _plain(selection.units):
            found.setdefault((node, unit), Target(node=node, unit=unit, instance=f"{node}/{unit}"))
    if not found:
        raise _nothing(f"no registered unit is all of that: {_words(selection)}; {_UNSEEN}")
    return [found[key] for key in sorted(found)]


def nodes_for_apply(selection: Selection, fleet: Registered) -> list[Target]:
    """One target for each node: of those that are named or labelled so, or that have such units. Raises BadRequest."""
    _must_say_something(selection)
    if selection.services or selection.units or selection.instances:
        named = {target.node for target in choose(selection, (*fleet.nodes.values(), *fleet.all_entries()))}
        chosen = [fleet.nodes[name] for name in named if name in fleet.nodes]
    else:
        meant = _meant("node", selection.nodes, fleet.nodes) if selection.nodes else fleet.nodes
        nodes = list(fleet.nodes.values())
        chosen = _labelled(selection.labels, [entry for entry in nodes if entry.node in meant], nodes, "node")
    if not chosen:
        raise _nothing(f"no registered node is all of that: {_words(selection)}")
    nodes = sorted(chosen, key=lambda entry: entry.node)
    return [Target(node=entry.node, unit="", instance=entry.node, zone=entry.zone) for entry in nodes]


# Names.

_Kind = tuple[str, tuple[str, ...], Callable[[Entry], str]]


def _kinds(selection: Selection) -> list[_Kind]:
    kinds: list[_Kind] = [
        ("service", selection.services, lambda entry: entry.service),
        ("node", selection.nodes, lambda entry: entry.node),
        ("unit", selection.units, lambda entry: entry.unit),
        ("instance", selection.instances, lambda entry: entry.instance),
    ]
    return [kind for kind in kinds if kind[1]]


def _meant(kind: str, patterns: Iterable[str], known: Collection[str]) -> set[str]:
    """The known names that patterns mean; each must mean one."""
    meant: set[str] = set()
    for pattern in patterns:
        found = _matching(pattern, known)
        if not found:
            raise _nothing(_unknown(kind, pattern, known))
        meant.update(found)
    return meant


def _matching(pattern: str, known: Collection[str]) -> list[str]:
    if pattern in known:  # also a name with a bracket in it
        return [pattern]
    if _WILDCARDS.isdisjoint(pattern):
        return []
    return [name for name in known if fnmatchcase(name, pattern)]


def _with_units(entries: Iterable[Entry], patterns: tuple[str, ...]) -> list[Entry]:
    plain, globs = set(patterns), [pattern for pattern in patterns if not _WILDCARDS.isdisjoint(pattern)]
    return [entry for entry in entries if entry.unit in plain or any(fnmatchcase(entry.unit, each) for each in globs)]


def _plain(names: Iterable[str]) -> list[str]:
    return [name for name in names if _WILDCARDS.isdisjoint(name)]


def _unknown(kind: str, pattern: str, known: Iterable[str]) -> str:
    verb = "is called" if _WILDCARDS.isdisjoint(pattern) else "matches"
    near = _nearest(pattern, known)
    hint = f" (did you mean {near}?)" if near else ""
    unseen = f"; {_UNSEEN}" if kind in ("unit", "instance") and not near else ""
    return f"no {kind} in the registry {verb} {pattern}{hint}{unseen}"


def _nearest(name: str, known: Iterable[str]) -> str | None:
    names = sorted(known)
    first = max(0, bisect(names, name) - _MOST_NAMES // 2)  # of very many, those that begin alike
    close = get_close_matches(name[:100], names[first : first + _MOST_NAMES], n=1)
    return close[0] if close else None


# Labels.


def _labelled(labels: Mapping[str, str], chosen: list[Entry], all_of_them: list[Entry], what: str) -> list[Entry]:
    for key, value in labels.items():
        values = {found for entry in all_of_them if (found := _label(entry, key)) is not None}
        if not values:
            keys = {name for entry in all_of_them for name in entry.metadata} | {"zone", "version"}
            near = _nearest(key, keys - {key})
            raise _nothing(f"no {what} has the label {key}" + (f" (did you mean {near}?)" if near else ""))
        if value not in values:
            near = _nearest(value, values)
            raise _nothing(f"no {what} has the label {key}={value}" + (f" (did you mean {near}?)" if near else ""))
        chosen = [entry for entry in chosen if _label(entry, key) == value]
    return chosen


def _label(entry: Entry, key: str) -> str | None:
    if key == "zone":
        return entry.zone
    return entry.version if key == "version" else entry.metadata.get(key)


# Words and values.


def target_of(entry: Entry) -> Target:
    """The target that an entry stands for, as it is now."""
    return Target(
        node=entry.node,
        unit=entry.unit,
        instance=entry.instance,
        service=entry.service,
        zone=entry.zone,
        generation=entry.generation,
        weight=entry.full_weight,
    )


def _must_say_something(selection: Selection) -> None:
    if selection.is_empty:
        detail = "the selection says nothing, and would mean everything"
        hint = 'name services, nodes, units, instances or labels ("*" is all)'
        raise BadRequest(f"cannot select: {detail}; {hint}")


def _words(selection: Selection) -> str:
    parts = [f"{kind} {' or '.join(patterns[:5])}" for kind, patterns, _ in _kinds(selection)]
    return ", ".join(parts + [f"label {key}={value}" for key, value in selection.labels.items()])


def _nothing(message: str) -> BadRequest:
    return BadRequest(message, code="nothing_selected", status=422)
