"""What units must not have in common, and what they may say of each other: ports, log files, dependencies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..core.model import DaemonSpec
from ..core.order import find_cycle
from .table import Problems
from .units import Group
from .words import nearest

_EVERYWHERE = ("0.0.0.0", "::")


def check_across(groups: Mapping[str, Group], daemon: DaemonSpec, problems: Problems, *, complete: bool) -> None:
    """Complain about ports and log files that two processes claim, and about dependencies that cannot be.

    Unless `complete`, units may be missing: nothing is said of dependencies then.
    """
    _check_ports(groups.values(), daemon, problems)
    _check_logs(groups.values(), problems)
    if complete:
        _check_dependencies(groups, problems)


def _check_ports(groups: Iterable[Group], daemon: DaemonSpec, problems: Problems) -> None:
    claims: dict[tuple[str, int], tuple[str, Group | None]] = {}
    if daemon.http is not None:
        claims[daemon.http.listen] = "[http] listen", None
    if daemon.checks is not None:
        claims.setdefault(daemon.checks, ("[checks] listen", None))
    everywhere = {port: (address, port) for address, port in claims if address in _EVERYWHERE}
    for group in groups:
        told: set[str] = set()  # one error for each other claimant is enough, however many ports they share
        for spec in group.specs:
            if (service := spec.service) is None:
                continue
            place = everywhere.get(service.port, (service.address, service.port))
            owner, other = claims.setdefault(place, (f"unit {spec.name}", group))
            by = other.name if other else owner
            if other is not group and by not in told:
                told.add(by)
                where = f" ({_place(other, 'service.port')})" if other else ""
                reason = f"{spec.name} would have {service.address}:{service.port}, which {owner} has{where}"
                problems.add(group.error("service.port", reason))


def _check_logs(groups: Iterable[Group], problems: Problems) -> None:
    claims: dict[str, tuple[str, str, Group]] = {}
    for group in groups:
        told: set[str] = set()
        for spec in group.specs:
            for stream, path in (("stdout", spec.logs.stdout), ("stderr", spec.logs.stderr)):
                if path is None or path.startswith("/dev/"):
                    continue
                name, other_stream, other = claims.setdefault(path, (spec.name, stream, group))
                if (name, other_stream) == (spec.name, stream) or other.name in told:
                    continue
                told.add(other.name)
                problems.add(group.error(f"logs.{stream}", _shared_log(spec.name, path, name, other_stream, other)))


def _shared_log(unit: str, path: str, owner: str, stream: str, other: Group) -> str:
    if owner == unit:
        return f"stdout and stderr cannot both be written to {path}: use redirect_stderr = true"
    if owner.partition(":")[0] == unit.partition(":")[0]:
        return f"{unit} and {owner} cannot both write {path}: put {{number}} into it"
    return f"{path} is written by {owner} already, as its {stream} ({_place(other, f'logs.{stream}')})"


def _place(group: Group, key: str) -> str:
    error = group.error(key, "")
    return f"{error.path}:{error.line}"


def _check_dependencies(groups: Mapping[str, Group], problems: Problems) -> None:
    for group in groups.values():
        for name in group.depends_on:
            if name not in groups:
                near = nearest(name, groups)
                hint = f"; did you mean {near}?" if near else "; it takes names of [unit.NAME] tables"
                problems.add(group.error("depends_on", f"no unit is called {name[:100]}{hint}"))
    cycle = find_cycle({name: group.depends_on for name, group in groups.items()})
    if cycle is not None:
        problems.add(groups[cycle[0]].error("depends_on", f"units wait for each other: {' -> '.join(cycle)}"))
