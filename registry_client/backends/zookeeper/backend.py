"""The backend for ZooKeeper (3.5 or newer), with the library kazoo (`pip install unitd[zookeeper]`).

One session for all entries of this backend: it covers the death of the process. The ttl of each entry is kept here
(leases.py), because ZooKeeper has none. An entry is an ephemeral node (nodes.py); one that belongs
to another session, say of this host's last daemon, is taken over as a whole when it is registered or renewed here.

Closing leaves the entries to the end of the session, as the death of the process does; without entries the session
ends at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any

from ...backend import Capability, Inspection, check_ttl
from ...errors import BadOption, RegistryError, RegistryRejected, Unsupported
from ...model import Entry, Grant, LeaseKey, Snapshot
from ...options import Secret, Tls
from ..retry import after_failure, pause

try:
    from kazoo.protocol.serialization import Exists, Sync  # type: ignore[import-untyped]
except ImportError as error:
    raise Unsupported("cannot use the registry backend zookeeper: install unitd[zookeeper]") from error

from .entries import MIN_TTL_SECONDS, Entries
from .leases import Leases
from .nodes import Layout
from .options import check, parse
from .session import Call, Session
from .view import NO_EPOCH, View

MIN_SESSION_SECONDS = 2.0  # kazoo is up to 0.4 s late with what keeps the session alive
LATENESS_SECONDS = 0.5

_COALESCE_SECONDS = 0.02  # between an event and reading: changes in between come as one
_log = logging.getLogger("registry_client")


class ZooKeeperBackend:
    """The Backend over `zookeeper://host[:port][,host[:port]...]`, or `zookeeper+tls://...` with TLS.

    With `user` and `password` (ZooKeeper's digest), only this user can change what was registered by it, and everybody
    can read it; without, everybody can do all. `prefix` is the path of the root node. `session_seconds` is how long
    entries outlive their process; by default the longest ttl that was asked for, and at least 2 s. ZooKeeper keeps it
    between 2 and 20 of its ticks, and no ttl that is granted is longer than that.
    """

    name = "zookeeper"
    capabilities = frozenset(Capability)

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = 2.0,
        user: str | None = None,
        password: str | Secret | None = None,
        tls: Tls | None = None,
        prefix: str = "unitd",
        session_seconds: float | None = None,
    ) -> None:
        options = {"url": url, "timeout_seconds": timeout_seconds, "user": user, "password": password, "tls": tls}
        options |= {"prefix": prefix, "session_seconds": session_seconds}
        self.check_options({name: option for name, option in options.items() if option is not None})
        hosts, encrypted = parse(url)
        self.timeout_seconds, self._hosts, self._tls = timeout_seconds, hosts, (tls or Tls()) if encrypted else None
        self._layout = Layout(prefix, owned=user is not None)
        self._session = Session(
            hosts,
            timeout_seconds=timeout_seconds,
            user=user,
            password=Secret.of(password),
            tls=self._tls,
            session_seconds=session_seconds,
        )
        self._leases = Leases(self._session.submit)
        self._session.on_lost = self._leases.session_lost
        self._entries = Entries(self._session, self._layout, self._leases)
        self._closing = asyncio.Event()

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """Raise BadOption for values that cannot be used."""
        check(options)

    # -- the lease -----------------------------------------------------------------------------------------------

    async def register(self, entry: Entry, ttl_seconds: float) -> Grant:
        """See `Backend.register`."""
        path, ttl_seconds = self._layout.entry(entry.service, entry.instance), check_ttl(ttl_seconds)
        async with self._call(f"register {entry.key}") as call:
            self._session.want(max(ttl_seconds, MIN_SESSION_SECONDS))
            return await self._entries.put(call, entry, path, ttl_seconds)

    async def renew(self, keys: Sequence[LeaseKey]) -> frozenset[LeaseKey]:
        """See `Backend.renew`."""
        paths = {key: path for key in keys if (path := self._path(key.service, key.instance)) is not None}
        async with self._call(f"renew {len(keys)} lease" + "s" * (len(keys) != 1)) as call:
            lost = await self._entries.renew(call, paths)
        return frozenset(lost.union(key for key in keys if key not in paths))

    async def update(self, entry: Entry) -> None:
        """See `Backend.update`."""
        async with self._call(f"update {entry.key}") as call:
            await self._entries.update(call, entry, self._layout.entry(entry.service, entry.instance))

    async def deregister(self, key: LeaseKey) -> bool:
        """See `Backend.deregister`. False also when the answer to a first attempt was lost with its connection."""
        path = self._path(key.service, key.instance)
        async with self._call(f"deregister {key}") as call:
            return path is not None and await self._entries.delete(call, key, path)

    # -- reading -------------------------------------------------------------------------------------------------

    async def get(self, service: str, instance: str) -> Entry | None:
        """See `Backend.get`."""
        path = self._path(service, instance)
        async with self._call(f"read {instance!r} of {service!r}") as call:
            held = None if path is None else (await self._entries.read(call, path))[1]
        return None if held is None else held.entry

    async def list(self, service: str | None = None) -> Snapshot:
        """See `Backend.list`."""
        possible = service is None or self._path(service, "-") is not None
        async with self._call("list all services" if service is None else f"list {service!r}") as call:
            view = View(self._layout, service if possible else "-")
            return replace(await view.refresh(lambda: nullcontext(call)), service=service)

    async def watch(
        self, service: str | None = None, since: int = 0, epoch: str | None = None
    ) -> AsyncGenerator[Snapshot, None]:
        """See `Backend.watch`."""
        self._session.check_open("watch the registry")
        if service is not None and self._path(service, "-") is None:
            raise RegistryRejected(f"cannot watch {service!r}: no service can be called that", code="bad_request")
        loop, woken = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(woken.set)

        view, failures, last = View(self._layout, service, wake), 0, None
        while not self._session.closed:
            woken.clear()
            try:
                snapshot = await self._look(view, service)
            except RegistryError as error:
                answered = last is not None
                failures = await after_failure(error, self._closing, answered=answered, failures=failures)
                continue
            if failures:
                _log.info("the watch of ZooKeeper at %s goes on", self._hosts)
            failures = 0
            if last is None:
                news = _is_newer(snapshot, since, epoch)
            else:
                news = (snapshot.epoch, snapshot.entries) != (last.epoch, last.entries)
            last = snapshot
            if news:
                yield snapshot
            await self._woken(woken)

    async def _woken(self, woken: asyncio.Event) -> None:
        """Return when there is something to read, or when this is closed."""
        tasks = [asyncio.ensure_future(event.wait()) for event in (woken, self._closing)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        await pause(_COALESCE_SECONDS, self._closing)

    async def _look(self, view: View, service: str | None) -> Snapshot:
        """What a watch sees; it makes the root node, so that the registry has an epoch."""
        verb = "watch all services" if service is None else f"watch {service}"
        snapshot = await view.refresh(lambda: self._call(verb))
        if snapshot.epoch == NO_EPOCH:
            try:
                async with self._call(verb) as call:
                    await self._entries.make(call, self._layout.root_nodes())
            except RegistryRejected:
                return snapshot  # who may only read goes on without
            view.mark(self._layout.root)
            snapshot = await view.refresh(lambda: self._call(verb))
        return snapshot

    async def inspect(self, ttl_seconds: float) -> Inspection:
        """See `Backend.inspect`. ZooKeeper tells no clock."""
        ttl_seconds = check_ttl(ttl_seconds)
        async with self._call("inspect the registry") as call:
            self._session.want(max(ttl_seconds, MIN_SESSION_SECONDS))
            await call.ask(Sync(self._layout.root), Exists(self._layout.root, None))
        granted, kept, warnings = self._entries.granted(ttl_seconds), self._session.negotiated_seconds, []
        if granted < ttl_seconds:
            warnings.append(
                f"ZooKeeper keeps a session for {kept:g} s, so entries get a ttl of {granted:g} s instead of "
                f"{ttl_seconds:g} s: raise its maxSessionTimeout (or session_seconds), or ask for a shorter ttl"
            )
        if kept > ttl_seconds:
            warnings.append(
                f"entries of a host that dies stay for its session of {kept:g} s, longer than their ttl of "
                f"{ttl_seconds:g} s: lower session_seconds or ZooKeeper's minSessionTimeout, or ask for a longer ttl"
            )
        return Inspection(granted, version=await self._version(), warnings=tuple(warnings))

    async def _version(self) -> str | None:
        """What the command `srvr` says, which a server may not allow."""
        peer, text = self._session.peer, b""
        if peer is None:
            return None
        name = None if self._tls is None else self._tls.server_name or peer[0]
        with suppress(OSError, EOFError, BadOption, asyncio.LimitOverrunError):
            context = None if self._tls is None else self._tls.context(self.name)
            async with asyncio.timeout(self.timeout_seconds):
                reader, writer = await asyncio.open_connection(*peer, ssl=context, server_hostname=name)
                try:
                    writer.write(b"srvr")
                    text = await reader.readuntil(b"\n")
                finally:
                    writer.transport.abort()
        found = text.decode(errors="replace").partition("version: ")[2]
        return found.partition("-")[0].partition(",")[0].strip() or None

    def removal_bound(self, ttl_seconds: float) -> float:
        """See `Backend.removal_bound`.

        The ttl, when we delete the entry ourselves. When our process or its connection dies right before, ZooKeeper
        keeps the entry for a whole session more and rounds its end up to a tick of its clock. A client cannot ask for
        the tick; no session is shorter than two of them, unless the server's minSessionTimeout was lowered.
        """
        session = self._session.negotiated_seconds or max(ttl_seconds, MIN_SESSION_SECONDS)
        return max(ttl_seconds, MIN_TTL_SECONDS) + 1.5 * session + LATENESS_SECONDS

    async def close(self) -> None:
        """See `Backend.close`."""
        gracefully = not len(self._leases)
        self._session.closed = True
        self._leases.close()
        self._closing.set()
        await self._session.close(gracefully=gracefully)

    # -- calls ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _call(self, verb: str) -> AsyncIterator[Call]:
        self._session.check_open(verb)
        call = Call(self._session, verb)
        try:
            async with asyncio.timeout(self.timeout_seconds):
                yield call
        except TimeoutError as error:
            if self._session.is_connected():
                self._session.drop()  # another server may answer
            raise call.unavailable(f"no answer within {self.timeout_seconds:g} s") from error

    def _path(self, service: str, instance: str) -> str | None:
        """None: no entry can be called that."""
        if service in ("", ".", "..") or instance == "":
            return None
        try:
            return self._layout.entry(service, instance)
        except UnicodeEncodeError:
            return None


def _is_newer(snapshot: Snapshot, since: int, epoch: str | None) -> bool:
    if epoch is None:  # of an unknown life: a smaller revision is another life's
        return snapshot.revision != since or not since
    return snapshot.epoch != epoch or snapshot.revision > since
