"""One service at one HAProxy: writing its pool into slots, and reading out of the counters what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gateway.errors import GatewayRefused, GatewayUnreachable
from gateway.model import Applied, Finding, Key, Pool, Server, ServerView
from gateway.settings.haproxy import SERVICE, HaproxySpec

from .session import Session
from .slots import (
    Backend,
    Place,
    Slot,
    Wanted,
    parse_state,
    plan,
    put_away,
    ready_places,
    wanted,
)
from .statistics import Row, Sight, in_flight, judge

Rows = Mapping[tuple[str, str], Row]

_FINE = ("changed from", "no need to change", "New server registered", "Server deleted")
_NO_CHECKS = "Health check"  # "... are not configured on this server": then there is nothing to enable


@dataclass(frozen=True, slots=True)
class Left:
    """Who was in a slot that has lost its server and may still have requests of it."""

    keys: tuple[Key, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Written:
    """`dump`: the state of the backend, "" when nothing has changed. `exact`: no old process makes a difference.

    `homeless`: servers for which there was no slot.
    """

    applied: Applied
    dump: str
    exact: bool
    homeless: int


class FedService:
    """What is remembered of a service. All of it can be lost: HAProxy's own state is what counts."""

    __slots__ = (
        "_at",
        "_backend",
        "_left",
        "_past",
        "_seen_left",
        "_servers",
        "_service",
        "_sights",
        "lock",
        "pool",
        "serving",
    )

    def __init__(self, spec: HaproxySpec, service: str) -> None:
        options = spec.server_options if spec.add_servers else None
        name, slots = (text.replace(SERVICE, service) for text in (spec.backend, spec.slots))
        self._backend = Backend(name, slots, spec.drain_by, options)
        self._service = service
        self._at: dict[Place, tuple[Key, ...]] = {}
        self._past: dict[Place, tuple[Key, ...]] = {}  # whom old processes may know
        self._left: dict[str, Left] = {}
        self._seen_left: frozenset[str] = frozenset()
        self._servers: dict[str, tuple[Server, ...]] = {}  # by slot
        self._sights: dict[Key, Sight] = {}
        self.lock = asyncio.Lock()
        self.pool: Pool | None = None
        self.serving: frozenset[Key] = frozenset()

    @property
    def backend(self) -> str:
        """Its name in HAProxy."""
        return self._backend.name

    async def write(
        self, pool: Pool, placed: Sequence[tuple[Place, Server]], session: Session, senders: Sequence[Session]
    ) -> Written:
        """Make it so. `senders`: old processes that may still send requests."""
        places = wanted(placed, self._at)
        text = await self._state(session)
        slots = parse_state(text, self.backend)
        todo = plan(slots, places, self._backend, self._left.keys())
        self._leave(todo.left)
        await self._tell(session, todo.commands)
        if todo.commands:
            text = await self._state(session)
            slots = parse_state(text, self.backend)
        self._remember(slots, places, placed, forget=not senders)
        serving = self._who(ready_places(slots, self._backend), places)
        self.serving = serving | self._who(await self._known_to(senders), places)
        return Written(
            Applied(pool.service, pool.revision, self.serving),
            dump=text if todo.commands else "",
            exact=self.serving == serving,
            homeless=len(todo.missing),
        )

    def look(
        self, rows: Rows, old: Sequence[Rows], error_percent: float
    ) -> tuple[list[ServerView], list[Finding], list[str]]:
        """Views, findings, and the slots that have lost their server and are idle now."""
        views: list[ServerView] = []
        findings: list[Finding] = []
        sights: dict[Key, Sight] = {}
        for slot, servers in self._servers.items():
            row = rows.get((self.backend, slot))
            for server in servers if row is not None else ():
                assert row is not None
                views.append(self._view(server, slot, row, [rows, *old]))
                sights[server.key], found = judge(server, self._sights.get(server.key), row, error_percent)
                findings += found
        self._sights = sights
        # Who has left since the counters were read may have got a request since then, too: it takes two looks.
        before, self._seen_left = self._seen_left, frozenset(self._left)
        idle = [slot for slot in self._left if slot in before and not in_flight([rows, *old], self.backend, {slot})]
        views += [view for slot, left in self._left.items() for view in self._left_view(slot, left, [rows, *old])]
        return views, findings, idle

    async def put_away(self, session: Session, idle: Collection[str]) -> str:
        """Close what idle slots have; the dump of the backend after that, "" when there was nothing to do."""
        gone = [slot for slot in idle if slot in self._left]
        lines = [line for slot in gone for line in put_away(self._backend, slot)]
        if not lines:
            return ""
        await session.ask_all(lines)  # one that cannot be deleted yet is a free slot
        for slot in gone:
            del self._left[slot]
        return await self._state(session)

    def _view(self, server: Server, slot: str, row: Row, all_rows: list[Rows]) -> ServerView:
        return ServerView(
            self._service,
            *server.key,
            health=row.health,
            in_flight=in_flight(all_rows, self.backend, {slot}),
            weight=row.uweight or row.weight,
            total=row.stot,
            detail=f"{slot}: {row.status} {row.check_status.lstrip('* ')}".strip(),
        )

    def _left_view(self, slot: str, left: Left, all_rows: list[Rows]) -> list[ServerView]:
        open_ = in_flight(all_rows, self.backend, {slot})
        detail = f"{slot}: has left the pool"
        return [ServerView(self._service, *key, in_flight=open_, detail=detail) for key in left.keys]

    async def _state(self, session: Session) -> str:
        text = await session.ask(f"show servers state {self.backend}")
        if "Can't find backend" in text:
            template = f"server-template {self._backend.prefix} 1-16 127.0.0.1:1 check disabled"
            raise GatewayRefused(
                f"cannot feed {self._service}: HAProxy has no backend {self.backend}: "
                f"write `backend {self.backend}` with `{template}` into haproxy.cfg"
            )
        return self._allowed(text)

    def _allowed(self, answer: str) -> str:
        if "Permission denied" in answer:
            raise GatewayRefused(
                f"cannot feed {self._service}: the socket does not allow it: write `level admin` after `stats socket`"
            )
        return answer

    async def _tell(self, session: Session, commands: Sequence[str]) -> None:
        answers = await session.ask_all(commands)
        if any("Proxy is disabled" in answer for answer in answers) and (await session.process()).stopping:
            raise GatewayUnreachable(f"cannot feed {self._service}: HAProxy has just been reloaded")
        for command, answer in zip(commands, answers, strict=True):
            said = " ".join(self._allowed(answer).split())
            if said and not any(word in said for word in _FINE) and not _harmless(command, said):
                raise GatewayRefused(f"cannot feed {self._service}: HAProxy says {said[:200]!r} to {command!r}")

    async def _known_to(self, senders: Iterable[Session]) -> set[Place]:
        """Where old processes may still send to."""
        ready: set[Place] = set()
        for session in senders:
            try:
                ready |= ready_places(parse_state(await self._state(session), self.backend), self._backend)
            except GatewayRefused:  # it was started before there was such a backend
                continue
        return ready

    def _leave(self, left: Mapping[str, Place]) -> None:
        for slot, place in left.items():
            if slot not in self._left:
                self._left[slot] = Left(self._at.get(place, ()), place)

    def _remember(
        self,
        slots: Sequence[Slot],
        places: Mapping[Place, Wanted],
        placed: Iterable[tuple[Place, Server]],
        *,
        forget: bool,
    ) -> None:
        at: dict[Place, list[Server]] = {}
        for place, server in placed:
            at.setdefault(place, []).append(server)
        self._past = {} if forget else {**self._past, **self._at}
        self._at = {place: want.keys for place, want in places.items()}
        self._servers = {slot.name: tuple(at[slot.place]) for slot in self._own(slots) if slot.place in at}
        self._left = {
            slot.name: self._left.get(slot.name) or Left((), slot.place)
            for slot in self._own(slots)
            if slot.place not in at and (slot.name in self._left)
        }

    def _own(self, slots: Iterable[Slot]) -> Iterable[Slot]:
        return (slot for slot in slots if self._backend.owns(slot.name))

    def _who(self, ready: Collection[Place], places: Mapping[Place, Wanted]) -> frozenset[Key]:
        past = {**self._past, **{left.place: left.keys for left in self._left.values()}}
        return frozenset(
            key for place in ready for key in (places[place].keys if place in places else past.get(place, ()))
        )

    def no_room(self, count: int) -> GatewayRefused:
        """So many servers have found no slot."""
        return GatewayRefused(
            f"cannot feed {self._service}: {count} servers find no free slot in the backend {self.backend}: "
            f"make its server-template {self._backend.prefix} longer, or set add_servers"
        )


def _harmless(command: str, said: str) -> bool:
    return command.startswith("enable health ") and _NO_CHECKS in said
