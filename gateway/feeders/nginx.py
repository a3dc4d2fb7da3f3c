"""Keeps the upstreams of an nginx in step: renders them, has nginx test them, swaps the file and reloads.

What happens to a change, in one round for all that came together: the text is made and compared with the file; nginx
tests it; a mark says that nginx may not have read the file yet; the file is replaced; nginx reloads; the mark goes.
Whatever breaks between, the file is right, and who comes after finds the mark and reloads.

A server that drains is left out at once, so that its going later changes nothing and costs no second reload.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from time import monotonic

from ..errors import GatewayError, GatewayRefused, GatewayUnreachable
from ..model import Applied, Key, Look, Pool
from ..settings.nginx import NginxSpec
from . import nginx_processes as processes
from .nginx_evidence import Evidence
from .nginx_processes import Ages
from .nginx_rounds import Refusals, Rounds
from .nginx_text import Lines, lines_of, own_template, parse, render, unfit
from .nginx_trial import Trial

WAIT_SECONDS = 1.0  # for old workers, after a reload: no longer, for a newer pool may be waiting behind this one
_POLL_SECONDS = 0.05
_MOST_BYTES = 64 * 1024 * 1024  # of a file that we read: more is none of ours


def make(spec: NginxSpec) -> NginxFeeder:
    """The feeder of one nginx."""
    return NginxFeeder(spec)


class NginxFeeder:
    """See `Feeder`. An `apply` returns with servers that it has taken out still among `serving` when an old worker may
    send to them: call it again with the same pool a moment later, which costs no reload.
    """

    kind = "nginx"

    def __init__(self, spec: NginxSpec) -> None:
        self._spec = spec
        self._trial = Trial(spec)
        self._mark = os.path.join(os.path.dirname(self._trial.file), f".{os.path.basename(self._trial.file)}.pending")
        self._wanted: dict[str, Lines] = {}
        self._told: dict[str, Lines] = {}  # what the file says
        self._loaded: processes.Known = {}  # what the present workers know
        self._pending = False
        self._ages = Ages(spec.old_workers_seconds)
        self._evidence = Evidence(spec)
        self._rounds = Rounds(self._perform, spec.coalesce_seconds)

    @property
    def name(self) -> str:
        """The name in the configuration."""
        return self._spec.name

    @property
    def look_seconds(self) -> float:
        """How often the logs are read."""
        return self._spec.look_seconds

    def wants(self, service: str) -> bool:
        """Whether one of the patterns fits."""
        return any(fnmatchcase(service, pattern) for pattern in self._spec.services)

    async def start(self) -> None:
        """Take up what the file says. Of services that are named, an upstream is there then: nginx can start."""
        text = await asyncio.to_thread(_text_of, self._trial.file)
        self._told = {service: lines for service, lines in parse(text or "").items() if self.wants(service)}
        self._loaded = _keys(self._told)
        named = {service: () for service in self._spec.services if not set("*?[") & set(service)}
        self._wanted = {**named, **self._told}
        self._pending = await asyncio.to_thread(os.path.exists, self._mark)
        self._evidence.begin()
        self._evidence.know(self._told)
        with suppress(OSError, GatewayError):  # the first pool meets the same, and says so
            if text is None:
                await self._write(dict(self._wanted))
            elif self._told and not set(named) <= set(self._told):  # not one that somebody else has written
                await self._perform()

    async def apply(self, pool: Pool, *, full: bool = False) -> Applied:
        """Returns when nginx acts on it, or after a second more when old workers still do not."""
        lines = lines_of(pool, self._spec.weight_steps)
        if reason := unfit(pool.service, lines):
            raise GatewayRefused(f"cannot tell nginx of {pool.service}: {reason}")
        self._wanted[pool.service] = lines
        if full or self._pending or lines != self._told.get(pool.service):
            refused = (await self._rounds.join(urgent=self._is_urgent(pool.service, lines))).get(pool.service)
            if refused is not None:
                raise refused
            if self._told.get(pool.service) != lines:
                raise GatewayUnreachable(f"cannot tell nginx of {pool.service}: another pool has come meanwhile")
        else:
            self._master()
        return await self._applied(pool, {line.key for line in lines})

    async def look(self) -> Look:
        """What the logs have told since the last look."""
        await self._evidence.read()
        self._master()
        views = self._evidence.views()
        return Look(views, self._evidence.take())

    async def close(self) -> None:
        """nginx goes on with what the file says."""
        await self._rounds.close()
        self._evidence.close()

    def _is_urgent(self, service: str, lines: Lines) -> bool:
        """A server is to get no more requests, or the first one is there, or nginx is behind already."""
        before = {(line.key, line.place) for line in self._told.get(service, ())}
        return self._pending or not before or not before <= {(line.key, line.place) for line in lines}

    # A round.

    async def _perform(self) -> Refusals:
        wanted, refused = dict(self._wanted), dict[str, GatewayRefused]()
        try:
            current = await asyncio.to_thread(_text_of, self._trial.file)
            if await self._text(wanted) != current:
                wanted, refused = await self._tested(wanted)
                await self._write(wanted)
        except OSError as error:
            raise GatewayRefused(f"cannot write nginx's upstreams: {error}") from error
        if self._pending:
            await self._reload(wanted)
        return refused

    async def _tested(self, wanted: dict[str, Lines]) -> tuple[dict[str, Lines], dict[str, GatewayRefused]]:
        """What nginx takes of it; what it does not is refused, and no longer wanted."""
        refused: dict[str, GatewayRefused] = {}
        asked = wanted
        changed = [service for service, lines in wanted.items() if lines != self._told.get(service)]
        try:
            await self._test(wanted)
        except GatewayRefused:
            if not changed:
                raise
            good = {service: self._told.get(service, ()) for service in wanted}
            await self._test(good)  # raises for all when they are not what is wrong
            wanted, refused = await self._sifted(good, wanted, changed)
        for service in refused:
            self._forget(service, asked[service])
        return wanted, refused

    def _forget(self, service: str, lines: Lines) -> None:
        """This was refused; what has been wanted since is another matter."""
        if self._wanted.get(service) == lines:
            self._wanted[service] = self._told.get(service, ())

    async def _sifted(
        self, good: dict[str, Lines], wanted: Mapping[str, Lines], changed: list[str]
    ) -> tuple[dict[str, Lines], dict[str, GatewayRefused]]:
        """Halve what is refused until the services are found that are to blame."""
        together = {**good, **{service: wanted[service] for service in changed}}
        try:
            await self._test(together)
            return together, {}
        except GatewayRefused as error:
            if len(changed) == 1:
                return good, {changed[0]: error}
        half = len(changed) // 2
        good, first = await self._sifted(good, wanted, changed[:half])
        good, second = await self._sifted(good, wanted, changed[half:])
        return good, {**first, **second}

    async def _test(self, services: Mapping[str, Lines]) -> None:
        await self._trial.test(await self._text(services))

    async def _text(self, services: Mapping[str, Lines]) -> str:
        return await asyncio.to_thread(render, services, self._template(), self._spec.upstream)

    def _template(self) -> str:
        if self._spec.template is None:
            return own_template(self._spec)
        text = _text_of(self._spec.template)
        if text is None:
            raise GatewayRefused(f"cannot use the template: there is no {self._spec.template}")
        return text

    async def _write(self, services: dict[str, Lines]) -> None:
        text = await self._text(services)
        await self._evidence.read()  # what was written until now is about the servers until now
        await asyncio.to_thread(_touch, self._mark)
        self._pending = True
        await asyncio.to_thread(self._trial.swap, text)
        self._told = services
        self._evidence.know(services)

    async def _reload(self, services: dict[str, Lines]) -> None:
        master = self._master()
        replaced = frozenset(
            each for each in processes.all_workers(master, self._spec.pid_file) if not processes.ending(each)
        )
        self._ages.add(replaced, self._loaded)
        if not await processes.reload(master, self._spec.reload, self._spec.reload_seconds):
            await self._trial.test_live()  # somebody has changed another file meanwhile: nginx says what is wrong there
            raise GatewayUnreachable(
                f"cannot reload nginx: it has not in {self._spec.reload_seconds:g} s; see its error log"
            )
        self._loaded = _keys(services)
        self._pending = False
        await asyncio.to_thread(_remove, self._mark)

    def _master(self) -> processes.Process:
        found = processes.master(self._spec.pid_file)
        if found is None:
            raise GatewayUnreachable(
                f"cannot reach nginx: no master process by {self._spec.pid_file}; "
                f"{self._trial.file} is there for when it starts"
            )
        return found

    # Who may still send.

    async def _applied(self, pool: Pool, now: set[Key]) -> Applied:
        deadline = monotonic() + WAIT_SECONDS
        while True:
            before = set[Key]().union(*(known.get(pool.service, ()) for known in self._ages.known()))
            if before <= now or monotonic() > deadline:
                return Applied(pool.service, pool.revision, frozenset(now | before))
            await asyncio.sleep(_POLL_SECONDS)


def _keys(services: Mapping[str, Lines]) -> processes.Known:
    return {service: frozenset(line.key for line in lines) for service, lines in services.items()}


def _text_of(path: str) -> str | None:
    """None: there is no such file."""
    try:
        with open(path, errors="surrogateescape", newline="") as file:
            return file.read(_MOST_BYTES)
    except FileNotFoundError:
        return None


def _touch(path: str) -> None:
    with open(path, "w"):
        pass


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
