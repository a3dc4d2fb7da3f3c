"""The servers of a service as the proxy has them: whose turn it is, idle connections, what is open, what went wrong.

A member is one server in one generation; a new generation is another member, with no connection of the old one. Who
drains or has left gets nothing new and keeps no idle connection, and is remembered until its last request has ended.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator
from typing import Protocol

from ..balancing import OutlierPolicy, Outliers, WeightedChoice
from ..model import Failure, Finding, Health, Key, Pool, Recovery, Server, ServerView, Standing, Symptom
from .answers import Refusal, no_server


class Idle(Protocol):
    """A kept-alive connection to a unit."""

    idle_since: float

    def is_usable(self) -> bool: ...
    def close(self) -> None: ...


class Waiting(Protocol):
    """A request that a member has been sent."""

    def member_is_dead(self, cut: bool) -> None: ...


class Member:
    """One server in one generation."""

    __slots__ = ("_idle", "idle_seconds", "in_flight", "is_open", "requests", "server", "total")

    def __init__(self, server: Server, idle_seconds: float) -> None:
        self.server, self.idle_seconds = server, idle_seconds
        self.is_open = True  # for new requests
        self.total = 0
        self.in_flight = 0
        self.requests: set[Waiting] = set()  # that have not been answered to their end
        self._idle: deque[Idle] = deque()  # the last used at the right

    def take_idle(self, now: float) -> Idle | None:
        """The connection that was used last, if one is still good."""
        while self._idle:
            connection = self._idle.pop()
            if now - connection.idle_since < self.idle_seconds and connection.is_usable():
                return connection
            connection.close()
        return None

    def give_back(self, connection: Idle, now: float) -> bool:
        """Keep it for the next request. False: it is not wanted."""
        if not self.is_open or self.idle_seconds <= 0:
            return False
        connection.idle_since = now
        self._idle.append(connection)
        return True

    def forget(self, connection: Idle) -> None:
        """It has been closed by the unit."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close_idle(self, before: float) -> None:
        """Close those that nobody has used since then."""
        while self._idle and self._idle[0].idle_since <= before:
            self._idle.popleft().close()

    def leave(self) -> None:
        """Nothing new from now on."""
        self.is_open = False
        self.close_idle(float("inf"))


class Service:
    """All members of one service."""

    __slots__ = (
        "_choice", "_findings", "_idle_seconds", "_leaving", "_members", "answered", "ejections", "name", "outliers",
        "retries",
    )  # fmt: skip

    def __init__(self, name: str, policy: OutlierPolicy, idle_seconds: float) -> None:
        self.name = name
        self.outliers = Outliers(policy)
        self.answered: Counter[int] = Counter()  # status -> answers
        self.retries = self.ejections = 0
        self._idle_seconds = idle_seconds
        self._members: dict[Key, Member] = {}
        self._leaving: dict[Key, Member] = {}  # not in the pool any more, and still with requests
        self._choice = WeightedChoice()
        self._findings: dict[tuple[Key, Symptom | None], Finding] = {}  # None: it is well

    def apply(self, pool: Pool, now: float) -> list[Member]:
        """Take over a pool. Answers those that are gone without having drained: perhaps they are dead."""
        before, self._members = self._members, {}
        for server in pool.servers:
            known = before.get(server.key) or self._leaving.get(server.key)
            if known is not None and known.server.place == server.place:
                before.pop(server.key, None)
                self._leaving.pop(server.key, None)
                self._members[server.key] = _updated(known, server)
            else:
                self._members[server.key] = _updated(Member(server, self._idle_seconds), server)
        lost = [member for member in before.values() if member.server.standing is Standing.SERVING]
        for key, member in before.items():
            member.leave()
            if member.in_flight:
                self._leaving[key] = member
        self.outliers.keep((server.key for server in pool.serving), now)
        self.choose_anew()
        return lost

    def choose_anew(self) -> None:
        """Who may be chosen has changed."""
        ejected = self.outliers.ejected
        members = self._members.items()
        self._choice.set({key: each.server.weight for key, each in members if each.is_open and key not in ejected})

    def choose(self, without: Collection[Key]) -> Member | None:
        """Whose turn it is; None: there is nobody (else)."""
        key = self._choice.choose(without)
        return None if key is None else self._members[key]

    def has_another(self, than: Collection[Key]) -> bool:
        """Whether somebody else could be chosen."""
        ejected = self.outliers.ejected
        return any(each.is_open and key not in than and key not in ejected for key, each in self._members.items())

    def ended(self, member: Member) -> None:
        """One of its requests has ended."""
        if not member.in_flight and self._leaving.get(member.server.key) is member:
            del self._leaving[member.server.key]

    def refusal(self) -> Refusal:
        """The answer when there is nobody."""
        draining = sum(not member.is_open for member in self._members.values())
        return no_server(self.name, draining, len(self.outliers.ejected))

    # what goes wrong

    def failed(self, member: Member, symptom: Symptom, detail: str, now: float) -> bool:
        """A request to it has failed. True: it has been ejected."""
        key = member.server.key
        if self._members.get(key) is not member or not member.is_open:
            return False
        ejected = self.outliers.failed(key, symptom, now)
        if symptom is not Symptom.ERROR_ANSWERS or ejected or self.outliers.is_failing(key, symptom):
            self._note(key, symptom, ejected, detail)
        if ejected:
            self.ejections += 1
            self.choose_anew()
            member.close_idle(float("inf"))
        return ejected

    def succeeded(self, member: Member, now: float) -> None:
        """It has answered a request."""
        key = member.server.key
        if self._members.get(key) is member and self.outliers.succeeded(key, now):
            self._note_recovery(key)

    def probed(self, key: Key, well: bool, detail: str, now: float) -> bool:
        """An ejected one has been asked. True: it is back."""
        symptom = self.outliers.symptom(key)
        if symptom is None:
            return False
        if not self.outliers.probed(key, well, now):
            self._note(key, symptom, True, detail)
            return False
        self._note_recovery(key)
        self.choose_anew()
        return True

    def _note(self, key: Key, symptom: Symptom, down: bool, detail: str) -> None:
        before = self._findings.get((key, symptom))
        count = 1
        if isinstance(before, Failure):
            count, down = before.count + 1, down or before.down
        self._findings[key, symptom] = Failure(self.name, *key, symptom, count, down, detail)

    def _note_recovery(self, key: Key) -> None:
        for symptom in Symptom:
            self._findings.pop((key, symptom), None)
        self._findings[key, None] = Recovery(self.name, *key)

    def findings(self) -> tuple[Finding, ...]:
        """What has happened since this was asked last."""
        found, self._findings = self._findings, {}
        return tuple(found.values())

    # how things are

    @property
    def members(self) -> Collection[Member]:
        """Those of the pool."""
        return self._members.values()

    def member(self, key: Key) -> Member | None:
        """The one with that key in the pool."""
        return self._members.get(key)

    @property
    def in_flight(self) -> int:
        """Requests that are open, with whomever."""
        return sum(member.in_flight for member in (*self._members.values(), *self._leaving.values()))

    def views(self, now: float) -> Iterator[ServerView]:
        """All members, also those who have left and still have requests."""
        for member in self._members.values():
            yield self._view(member, now)
        for member in self._leaving.values():
            yield _view(member, Health.UNKNOWN, "gone from the pool, with requests still open")

    def _view(self, member: Member, now: float) -> ServerView:
        symptom = self.outliers.symptom(member.server.key)
        if symptom is None:
            return _view(member, Health.UP, "")
        left = self.outliers.seconds_left(member.server.key, now)
        return _view(member, Health.DOWN, f"ejected for {symptom}" + (f", asked in {left:.1f} s" if left else ""))


def _updated(member: Member, server: Server) -> Member:
    member.server = server
    if server.standing is Standing.SERVING:
        member.is_open = True
    elif member.is_open:
        member.leave()
    return member


def _view(member: Member, health: Health, detail: str) -> ServerView:
    server = member.server
    return ServerView(
        server.service, server.instance, server.generation, health, member.in_flight, server.weight, member.total,
        detail,
    )  # fmt: skip
