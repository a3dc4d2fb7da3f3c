"""The file that Envoy reads a service's endpoints from: what stands in it, and how it gets into its place.

Envoy's words: a DiscoveryResponse with one ClusterLoadAssignment (envoy/config/endpoint/v3). It reacts to a file that
is *renamed* into place and to nothing else ("Dynamic from filesystem", xDS configuration).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import GatewayError, GatewayRefused, GatewayUnreachable

ASSIGNMENT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
METADATA = "unitd"  # under which the access log finds what instance a request went to
MODE = 0o644  # Envoy may run as another user; there is nothing secret in it
_OPERATOR = frozenset((errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR,
                       errno.ENAMETOOLONG, errno.ELOOP))  # fmt: skip

Place = tuple[str, int]  # IP address and port


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One line of the assignment. `draining`: no new requests; what is under way goes on."""

    address: str
    port: int
    weight: int
    draining: bool
    instance: str
    generation: int
    zone: str | None = None

    @property
    def place(self) -> Place:
        """What Envoy knows it by."""
        return self.address, self.port


@dataclass(frozen=True, slots=True)
class Written:
    """A file as we have written it, or found it."""

    version: str
    resources: list[dict[str, Any]]


def resources(cluster: str, endpoints: Iterable[Endpoint], *, zones: bool) -> list[dict[str, Any]]:
    """The assignment, as plain values; with `zones`, each zone is a locality with the weight of its servers."""
    by_zone: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        by_zone.setdefault((endpoint.zone or "") if zones else "", []).append(endpoint)
    localities = [_locality(zone, inside) for zone, inside in sorted(by_zone.items())]
    return [{"@type": ASSIGNMENT, "cluster_name": cluster, "endpoints": localities}]


def _locality(zone: str, endpoints: list[Endpoint]) -> dict[str, Any]:
    locality: dict[str, Any] = {"lb_endpoints": [_lb_endpoint(endpoint) for endpoint in endpoints]}
    if zone:
        serving = sum(endpoint.weight for endpoint in endpoints if not endpoint.draining)
        locality |= {"locality": {"zone": zone}, "load_balancing_weight": max(1, serving)}
    return locality


def _lb_endpoint(endpoint: Endpoint) -> dict[str, Any]:
    about = {"instance": endpoint.instance, "generation": str(endpoint.generation)}
    return {
        "endpoint": {"address": {"socket_address": {"address": endpoint.address, "port_value": endpoint.port}}},
        "health_status": "DRAINING" if endpoint.draining else "HEALTHY",
        "load_balancing_weight": max(1, endpoint.weight),  # 0 is no weight for Envoy, and it would refuse all of it
        "metadata": {"filter_metadata": {METADATA: about}},
    }


def read(path: str) -> Written | None:
    """What stands in the file; None: there is none, or nothing that we would write."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        return Written(str(found["version_info"]), list(found["resources"]))
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None


def write(path: str, written: Written) -> None:
    """Put it in place, whole or not at all. Raises GatewayRefused, GatewayUnreachable."""
    text = json.dumps({"version_info": written.version, "resources": written.resources}, indent=1) + "\n"
    candidate = f"{path}.{os.getpid()}.new"  # in the same folder: a rename across file systems is none
    try:
        try:
            _write_through(candidate, text)
            os.rename(candidate, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(candidate)
            raise
    except OSError as error:
        raise _failure(path, error) from error


def _write_through(path: str, text: str) -> None:
    """To the disk before it is renamed: after a power cut Envoy would not start with half a file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
    with open(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, MODE)
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def _failure(path: str, error: OSError) -> GatewayError:
    reason = error.strerror or str(error)
    if error.errno in _OPERATOR:
        return GatewayRefused(f"cannot write {path}: {reason}; unit-gateway must be able to write into its folder")
    return GatewayUnreachable(f"cannot write {path}: {reason}")
