"""The feeder: one HAProxy, all services that it has to do with, told anew whenever it has begun anew."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from fnmatch import fnmatchcase

from gateway.errors import GatewayError, GatewayUnreachable
from gateway.model import Applied, Finding, Look, Pool, ServerView
from gateway.settings.haproxy import DrainBy, HaproxySpec

from .link import Link
from .places import Places
from .service import FedService, Rows
from .session import Session
from .state_file import StateFile
from .statistics import parse_stat

WATCH_SECONDS = 0.2  # how soon a reload is noticed
_STATISTICS = "show stat -1 4 -1"  # of all backends, the servers
_log = logging.getLogger(__name__)


class HaproxyFeeder:
    """See `gateway.feeder.Feeder`."""

    kind = "haproxy"

    def __init__(self, spec: HaproxySpec) -> None:
        self._spec = spec
        self._link = Link(spec)
        self._places = Places()
        self._state_file = StateFile(spec.state_file)
        self._services: dict[str, FedService] = {}
        self._written = 0  # what `changes` of the link was when all was written
        self._blurred = False  # old processes made an answer of `apply` larger than it needs to be
        self._begun_anew = False
        self._watcher: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The name in the configuration."""
        return self._spec.name

    @property
    def look_seconds(self) -> float:
        """How often it wants to be looked at."""
        return self._spec.look_seconds

    def wants(self, service: str) -> bool:
        """Whether the configuration names the service."""
        return any(fnmatchcase(service, pattern) for pattern in self._spec.services)

    async def start(self) -> None:
        """Begin to watch for reloads."""
        self._watcher = asyncio.create_task(self._watch(), name=f"haproxy {self.name}")

    async def apply(self, pool: Pool, *, full: bool = False) -> Applied:
        """Make HAProxy know just this; it is always compared with what it really has, for that takes a millisecond."""
        fed = self._services.get(pool.service)
        if fed is None:
            fed = self._services[pool.service] = FedService(self._spec, pool.service)
        async with fed.lock:
            fed.pool = pool
            return await self._write(fed, pool)

    async def look(self) -> Look:
        """What its counters say. Raises GatewayUnreachable once when HAProxy was found to have begun anew."""
        session = await self._link.current()
        await self._say_begun_anew()
        rows = await self._statistics(session)
        old = await self._old_statistics()
        views: list[ServerView] = []
        findings: list[Finding] = []
        for service, fed in list(self._services.items()):
            seen, found, idle = fed.look(rows, old, self._spec.error_percent)
            views += seen
            findings += found
            if idle and not fed.lock.locked():
                async with fed.lock:
                    await self._put_away(fed, service, session, idle)
        return Look(tuple(views), tuple(findings))

    async def close(self) -> None:
        """Hang up. HAProxy goes on with what it has."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
            self._watcher = None
        self._link.close()

    async def _write(self, fed: FedService, pool: Pool) -> Applied:
        session = await self._link.current()
        placed = await self._places.of(pool.servers)
        before = fed.serving
        written = await fed.write(pool, placed, session, await self._link.senders())
        applied = written.applied
        if written.dump:
            await self._state_file.save(session, pool.service, written.dump)
        await self._link.confirm(session)  # a reload that began before has read the state file of before
        if written.homeless:
            raise fed.no_room(written.homeless)
        self._blurred = self._blurred or not written.exact
        if self._link.strangers():  # they may know whom we have just taken out
            self._blurred = True
            everybody = before | {server.key for server in pool.servers}
            return Applied(applied.service, applied.revision, applied.serving | everybody)
        return applied

    async def _statistics(self, session: Session) -> Rows:
        # Slots in maintenance are most of them, and of no interest unless servers that leave are there, too.
        everything = self._spec.drain_by is DrainBy.MAINT
        return parse_stat(await session.ask(_STATISTICS if everything else f"{_STATISTICS} no-maint"))

    async def _old_statistics(self) -> list[Rows]:
        old: list[Rows] = []
        for session in await self._link.old():
            with contextlib.suppress(GatewayError):  # it has just ended
                old.append(await self._statistics(session))
        return old

    async def _put_away(self, fed: FedService, service: str, session: Session, idle: list[str]) -> None:
        if dump := await fed.put_away(session, idle):
            await self._state_file.save(session, service, dump)

    async def _say_begun_anew(self) -> None:
        """Have the agent apply everything again when what it was answered holds no longer."""
        if self._begun_anew:
            self._begun_anew = False
            raise GatewayUnreachable(f"HAProxy {self.name} has begun anew, by a reload or a restart")
        if self._blurred and not self._link.strangers() and not await self._link.senders():
            self._blurred = False
            raise GatewayUnreachable(
                f"HAProxy {self.name} has no process left that sends to servers of before its reload"
            )

    async def _watch(self) -> None:
        while True:
            try:
                await self._link.current()
                if self._link.changes != self._written:
                    await self._write_all(self._link.changes)
            except GatewayError:
                pass  # whoever wants something of it now is told so
            except Exception:
                _log.exception("the watch for reloads of HAProxy %s goes on after", self.name)
            await asyncio.sleep(WATCH_SECONDS)

    async def _write_all(self, changes: int) -> None:
        """Tell a process all that the one before it was told."""
        self._begun_anew = self._begun_anew or self._written > 0
        self._written = changes
        for service, fed in list(self._services.items()):
            async with fed.lock:
                if fed.pool is None:
                    continue
                try:
                    await self._write(fed, fed.pool)
                except GatewayError as error:
                    _log.warning("%s: %s", service, error)
