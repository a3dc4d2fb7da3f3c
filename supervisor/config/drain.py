"""The tables `drain` and `warmup` of one process: what they must say together, and the specs that they become."""

from __future__ import annotations

from typing import Any

from ..core.model import DrainSpec, HttpCall, InFlight, WarmupSpec
from .fill import Filler
from .schema import DRAIN, WARMUP
from .words import DRAIN_HINTS, WARMUP_HINTS

_NO_PORT = "needs a port: the unit has no service whose port could be meant; write {{ path = {path}, port = 8080 }}"


def read_drain(fill: Filler) -> DrainSpec | None:
    """How it is drained; None when its table does not say."""
    if "drain" not in fill.raw:
        return None
    part = fill.part("drain", DRAIN, hints=DRAIN_HINTS)
    if "in_flight" in part:
        part["in_flight"], part["in_flight_call"] = part["in_flight"]
    spec = DrainSpec(**part)
    if isinstance(written := fill.raw["drain"], dict):
        _check_drain(fill, written, spec)
    return spec


def _check_drain(fill: Filler, written: dict[str, Any], spec: DrainSpec) -> None:
    if "resume" in written and "notify" not in written:
        fill.complain("drain.resume", "needs notify: it takes back what that has told")
    if fill.has_port:
        return
    for key, hook in (("notify", spec.notify), ("resume", spec.resume)):
        if hook is not None and hook.http is not None:
            _check_port(fill, f"drain.{key}.http", hook.http)
    if spec.in_flight_call is not None:
        _check_port(fill, "drain.in_flight.http", spec.in_flight_call)
    if spec.in_flight is InFlight.GATEWAYS:
        fill.complain("drain.in_flight", "needs a service: nobody sends to a unit that has none")
    elif "notify" not in written and not isinstance(written.get("in_flight"), dict):
        fill.complain("drain", "needs notify, or a service: without both nothing could be drained")


def read_warmup(fill: Filler) -> WarmupSpec | None:
    """How its weight grows; None when it has no such table."""
    if "warmup" not in fill.raw:
        return None
    spec = WarmupSpec(**fill.part("warmup", WARMUP, hints=WARMUP_HINTS))
    if not fill.has_port:
        fill.complain("warmup", "needs a service: without one there is no share of traffic that could grow")
    return spec


def _check_port(fill: Filler, key: str, call: HttpCall) -> None:
    if call.port is None:
        fill.complain(key, _NO_PORT.format(path=f'"{call.path[:60]}"'))
