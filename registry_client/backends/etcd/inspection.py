"""What etcd tells of itself, and what of it cannot work as configured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...backend import Inspection
from ...errors import RegistryRejected, RegistryUnavailable
from .gateway import Call, new_lease, read


async def inspect(call: Call, asked_ttl: int, known_members: int) -> Inspection:
    """Ask the member that answers. The lease that it is asked for is given back at once."""
    status, answer = await call.ask_with_head("/v3/maintenance/status", {})
    granted = asked_ttl
    warnings = list(_warnings_about(status))
    try:
        granted = await _granted(call, asked_ttl)
    except RegistryUnavailable as error:  # full: it says so in its status, too
        if not warnings:
            raise
        warnings.append(f"no lease can be had now: {error}")
    if granted > asked_ttl:
        warnings.append(
            f"a ttl of {asked_ttl} s becomes {granted} s, which is 1.5 times the election timeout of the servers;"
            f" ask for {granted} s"
        )
    members = await _members(call)
    if members > known_members:
        warnings.append(
            f"the cluster has {members} members and the url names {known_members}; name all, separated by commas,"
            " so that one of them may fail"
        )
    version = status.get("version")
    return Inspection(granted, version, answer.date, 1.0, tuple(warnings))


async def _granted(call: Call, asked_ttl: int) -> int:
    lease = {"ID": str(new_lease())}
    answer = await call.ask("/v3/lease/grant", {"TTL": str(asked_ttl), **lease})
    await call.ask("/v3/lease/revoke", lease)
    return read(call.verb, lambda: int(answer["TTL"]))


async def _members(call: Call) -> int:
    try:
        answer = await call.ask("/v3/cluster/member/list", {})
    except RegistryRejected:  # without the right to know, there is nothing to warn about
        return 0
    return len(read(call.verb, lambda: list(answer["members"])))


def _warnings_about(status: dict[str, Any]) -> Iterator[str]:
    for error in status.get("errors", ()):
        yield f"the server reports {error}; see to it with etcdctl alarm list"
    if not status.get("leader", "0").strip("0"):
        yield "the server has no leader; see whether most members of the cluster run and reach each other"
