"""Which server stands in which slot of a backend, and the commands that make it right. Pure.

A slot is a server of HAProxy's whose name begins as the configuration says and ends with a number. Its address says
whose it is: nothing else has to be remembered, so that nothing moves when unit-gateway or HAProxy begins anew.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.errors import GatewayRefused
from gateway.model import Key, Server, Standing
from gateway.settings.haproxy import DrainBy

HIGHEST = 256  # weight (HAProxy's configuration manual, "weight")
_MAINT, _DRAIN = 0x01 | 0x02 | 0x20, 0x08 | 0x10  # of srv_admin_state (management guide, "show servers state")

Place = tuple[str, int]  # an IP address as HAProxy writes it, and a port


class State(StrEnum):
    """A slot's administrative state, in the words of `set server`."""

    READY = "ready"
    DRAIN = "drain"
    MAINT = "maint"


@dataclass(frozen=True, slots=True)
class Slot:
    """One server of HAProxy's. `running`: its checks do not say that it is down."""

    name: str
    place: Place
    state: State
    running: bool
    weight: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """What should be at a place. `fresh`: another process than the one that was there before."""

    keys: tuple[Key, ...]
    weight: int
    serving: bool
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Backend:
    """How a service is called in HAProxy."""

    name: str
    prefix: str
    drain_by: DrainBy = DrainBy.DRAIN
    options: str | None = None  # of servers that are added; None: none may be

    def owns(self, name: str) -> bool:
        """Whether a server of the backend is a slot of ours."""
        return bool(re.fullmatch(re.escape(self.prefix) + r"d?[0-9]+", name, re.ASCII))

    def added(self, name: str) -> bool:
        """Whether we have added it."""
        return bool(re.fullmatch(re.escape(self.prefix) + r"d[0-9]+", name, re.ASCII))


@dataclass(frozen=True, slots=True)
class Plan:
    """`commands` in order; `missing`: places for which there is no slot and nothing may be added."""

    commands: tuple[str, ...] = ()
    missing: tuple[Place, ...] = ()
    left: Mapping[str, Place] = field(default_factory=dict)  # slots that lose their server, until they are idle


def parse_state(text: str, backend: str) -> list[Slot]:
    """The servers in an answer to `show servers state BACKEND`. Raises GatewayRefused: there is no such backend."""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    try:
        if rows[1][0] != "#":
            raise ValueError
        found = (dict(zip(rows[1][1:], row, strict=False)) for row in rows[2:])
        return [_slot(row) for row in found if row["be_name"] == backend]
    except (LookupError, ValueError):
        said = text.strip()[:200]
        raise GatewayRefused(f"cannot read the servers of the backend {backend}: HAProxy says {said!r}") from None


def _slot(row: Mapping[str, str]) -> Slot:
    admin = int(row["srv_admin_state"])
    state = State.MAINT if admin & _MAINT else State.DRAIN if admin & _DRAIN else State.READY
    place = row["srv_addr"], int(row["srv_port"])
    return Slot(row["srv_name"], place, state, row["srv_op_state"] != "0", int(row["srv_uweight"]))


def wanted(servers: Iterable[tuple[Place, Server]], before: Mapping[Place, tuple[Key, ...]]) -> dict[Place, Wanted]:
    """What a pool wants at each place; `before`: who was there when that was last written."""
    at: dict[Place, list[Server]] = {}
    for place, server in servers:
        at.setdefault(place, []).append(server)
    weights = scaled([each for group in at.values() for each in group])
    return {place: _wanted(group, weights, before.get(place)) for place, group in at.items()}


def _wanted(group: Sequence[Server], weights: Mapping[Key, int], before: tuple[Key, ...] | None) -> Wanted:
    keys = tuple(sorted(server.key for server in group))
    weight = max(weights[key] for key in keys)
    serving = any(server.standing is Standing.SERVING for server in group)
    return Wanted(keys, weight, serving, fresh=before is not None and bool(set(keys).difference(before)))


def scaled(servers: Sequence[Server]) -> dict[Key, int]:
    """Weights from 1 to 256 in the proportions of the servers'; exact where the largest full weight is at most 256."""
    most = max((max(server.full_weight, server.weight) for server in servers), default=1)
    factor = HIGHEST // most if 0 < most <= HIGHEST else HIGHEST / max(most, 1)
    return {server.key: max(1, round(server.weight * factor)) for server in servers}


def assign(
    slots: Iterable[Slot], places: Mapping[Place, Wanted], busy: Collection[str]
) -> tuple[dict[Place, Slot], list[Slot]]:
    """Who has a slot already, and those slots that may be given away, best first."""
    taken: dict[Place, Slot] = {}
    rest: list[Slot] = []
    for slot in sorted(slots, key=_by_use):
        if slot.place in places and slot.place not in taken:
            taken[slot.place] = slot
        else:
            rest.append(slot)
    return taken, [slot for slot in rest if slot.state is State.MAINT and slot.name not in busy]


def _by_use(slot: Slot) -> tuple[int, int, str]:
    """Those that are sent to first, then in the order of their numbers."""
    number = re.search(r"[0-9]+\Z", slot.name)
    return list(State).index(slot.state), int(number[0]) if number else 0, slot.name


def plan(slots: Sequence[Slot], places: Mapping[Place, Wanted], backend: Backend, busy: Collection[str] = ()) -> Plan:
    """What to tell HAProxy. `busy`: slots that have lost their server, and still have requests of it.

    Who comes is told before who goes, so that a backend is at no moment without a server that it will have.
    """
    own = [slot for slot in slots if backend.owns(slot.name)]
    taken, free = assign(own, places, busy)
    come: list[str] = []
    missing: list[Place] = []
    names = {slot.name for slot in slots}
    for place, want in places.items():
        if place in taken:
            continue
        if want.serving and free:
            come += _fill(free.pop(0), place, want, backend)
        elif want.serving and backend.options is not None:
            come += _add(_unused(names, backend), place, want, backend)
        elif want.serving:
            missing.append(place)
    kept = {slot.name for slot in taken.values()}
    going = [slot for slot in own if slot.state is not State.MAINT and slot.name not in kept]
    stay = [line for place, slot in taken.items() for line in _change(slot, places[place], backend)]
    leave = [_state(backend, slot, _away(backend)) for slot in going if slot.state is State.READY]
    return Plan((*come, *stay, *leave), tuple(missing), {slot.name: slot.place for slot in going})


def put_away(backend: Backend, name: str) -> list[str]:
    """An idle slot that nobody has: out of everything; its idle connections are closed. Added ones go altogether."""
    lines = [f"set server {backend.name}/{name} state maint"]
    return [*lines, f"del server {backend.name}/{name}"] if backend.added(name) else lines


def _fill(slot: Slot, place: Place, want: Wanted, backend: Backend) -> list[str]:
    server = f"{backend.name}/{slot.name}"
    address = [f"set server {server} addr {place[0]} port {place[1]}"] if slot.place != place else []
    weight = [f"set server {server} weight {want.weight}"] if slot.weight != want.weight else []
    return [*address, *weight, f"enable health {server}", f"set server {server} state ready"]


def _add(name: str, place: Place, want: Wanted, backend: Backend) -> list[str]:
    server = f"{backend.name}/{name}"
    host = f"[{place[0]}]" if ":" in place[0] else place[0]
    add = f"add server {server} {host}:{place[1]} {backend.options}".rstrip()
    return [f"{add} weight {want.weight}", f"enable health {server}", f"set server {server} state ready"]


def _unused(names: set[str], backend: Backend) -> str:
    number = next(number for number in range(1, len(names) + 2) if f"{backend.prefix}d{number}" not in names)
    names.add(f"{backend.prefix}d{number}")
    return f"{backend.prefix}d{number}"


def _change(slot: Slot, want: Wanted, backend: Backend) -> list[str]:
    lines: list[str] = []
    if want.serving and slot.weight != want.weight:
        lines.append(f"set server {backend.name}/{slot.name} weight {want.weight}")
    if want.serving and want.fresh and not slot.running and slot.state is not State.MAINT:
        # What the checks saw was the process before; the registry says that the new one is ready.
        lines.append(f"set server {backend.name}/{slot.name} health up")
    state = State.READY if want.serving else _away(backend)
    if slot.state is not state and (want.serving or slot.state is State.READY):
        lines.append(_state(backend, slot, state))
    return lines


def _away(backend: Backend) -> State:
    return State(backend.drain_by.value)


def _state(backend: Backend, slot: Slot, state: State) -> str:
    return f"set server {backend.name}/{slot.name} state {state}"


def ready_places(slots: Iterable[Slot], backend: Backend) -> set[Place]:
    """Where new requests may be sent to by a process with these slots."""
    return {slot.place for slot in slots if backend.owns(slot.name) and slot.state is State.READY}
