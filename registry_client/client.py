"""What most programs use: a registration that keeps itself alive, look-ups, and backends by name.

A `HeldLease` owns one task; it asks lease.py what to do and does it. What it must not do is give up because the
registry is away: only the caller (`close`) or a newer generation of the same instance ends it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from dataclasses import replace
from importlib import import_module
from inspect import Parameter, signature
from types import TracebackType
from typing import Any, TypeVar, cast

from . import lease as leases
from .backend import ENTRY_POINT_GROUP, Backend, Capability, Inspection
from .entry_points import entry_points
from .errors import BadOption, LeaseLost, RegistryError, RegistryRejected, RegistryUnavailable, Unsupported
from .lease import Lease, LeaseState
from .model import Entry, LeaseKey, Snapshot
from .selection import select

DEFAULT_TTL_SECONDS = 10.0

_BUILT_IN = {
    "embedded": ("registry_client.backends.embedded", "EmbeddedBackend"),
    "http": ("registry_client.backends.http", "HttpBackend"),
}
_FINAL_CODES = frozenset(("stale_generation", "bad_entry", "closed"))  # beating on cannot help

_T = TypeVar("_T")
_log = logging.getLogger("registry_client")


def open_backend(name: str, **options: Any) -> Backend:
    """The backend of that name, made with the options (`url`, `timeout_seconds`, ...) but those that are None.

    Names besides `embedded` and `http` come from the entry-point group `unitd.registry_backends`. Raises Unsupported,
    and for an option that the backend does not take, or not like this, BadOption.
    """
    given = {option: value for option, value in options.items() if value is not None}
    factory = check_options(name, given)
    return cast(Backend, factory(**given))


def check_options(name: str, options: Mapping[str, Any]) -> Callable[..., Any]:
    """What makes that backend, if it takes these options; nothing is made. Raises as `open_backend`.

    A backend may have a class method `check_options(options)` that raises BadOption for values that it cannot use.
    """
    factory = _factory(name)
    parameters = signature(factory).parameters.values()
    if not any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        for option in options:
            if option not in {parameter.name for parameter in parameters}:
                raise BadOption(name, option, "this backend has no such option")
        for parameter in parameters:
            if parameter.default is Parameter.empty and parameter.name not in options:
                raise BadOption(name, parameter.name, "missing: this backend needs it")
    if (check := getattr(factory, "check_options", None)) is not None:
        check(options)
    return factory


def _factory(name: str) -> Callable[..., Any]:
    if name in _BUILT_IN:  # these work without an installation, too
        module, attribute = _BUILT_IN[name]
        return cast(Callable[..., Any], getattr(import_module(module), attribute))
    found = {point.name: point for point in entry_points(ENTRY_POINT_GROUP)}
    if name not in found:
        known = ", ".join(sorted({*_BUILT_IN, *found}))
        raise Unsupported(f"cannot use the registry backend {name}: no such backend is installed; known: {known}")
    module, _, attributes = found[name].value.partition("[")[0].partition(":")
    try:
        factory: Any = import_module(module.strip())
        for attribute in attributes.strip().split("."):
            factory = getattr(factory, attribute)
    except Exception as error:  # somebody else's module
        raise Unsupported(f"cannot use the registry backend {name}: it cannot be loaded ({error})") from error
    return cast(Callable[..., Any], factory)


class HeldLease:
    """A registered entry whose lease is renewed until `close`. Made by `RegistryClient.register`.

    As an async context manager it is closed at the end. `error` is what the last beat failed with, or None.
    """

    def __init__(self, backend: Backend, entry: Entry, ttl_seconds: float) -> None:
        self._backend, self._entry, self._asked_ttl = backend, entry, ttl_seconds
        self._lease = Lease(ttl_seconds)
        self._one_at_a_time = asyncio.Lock()  # a late registration must not undo an update
        self._changed = False  # an update may not have arrived
        self._task: asyncio.Task[None] | None = None
        self.error: RegistryError | None = None

    @property
    def entry(self) -> Entry:
        """What is registered (or will be, as soon as the registry answers)."""
        return self._entry

    @property
    def state(self) -> LeaseState:
        """How sure it is that the entry is in the registry, at this moment."""
        return leases.state_at(self._lease, _now())

    @property
    def lease(self) -> Lease:
        """The facts behind `state`; instants are those of the loop's clock."""
        return self._lease

    @property
    def is_running(self) -> bool:
        """Whether it is still renewed: until `close`, or until a newer generation of the instance was registered."""
        return self._task is not None and not self._task.done()

    async def start(self) -> None:
        """Register, then keep renewing in the background. Raises what `Backend.register` raises."""
        await self._register()
        self._task = asyncio.create_task(self._keep(), name=f"lease of {self._entry.instance}")

    async def update(self, **changes: Any) -> None:
        """Change fields of the entry, such as `weight=50` or `status="draining"`, but not which entry it is.

        RegistryUnavailable: the next beat brings the change. RegistryRejected: it is dropped, and the entry stays as it
        was (`stale_generation`: the lease ends with the next beat). LeaseLost: the lease has ended.
        """
        entry = replace(self._entry, **changes)
        if entry.key != self._entry.key:
            raise ValueError("cannot update an entry's service, instance or generation: register another entry")
        async with self._one_at_a_time:
            self._refuse_withdrawn()
            before = self._entry, self._changed
            self._entry, self._changed = entry, True
            try:
                await self._update_or_register(entry)
            except RegistryRejected:  # beats with what is refused would end a good registration
                self._entry, self._changed = before
                raise

    async def _update_or_register(self, entry: Entry) -> None:
        try:
            await self._update(entry)
        except LeaseLost:
            self._refuse_withdrawn()  # closed while it was on its way: it must not come back
            await self._register()

    def _refuse_withdrawn(self) -> None:
        if self._lease.withdrawn:
            raise LeaseLost(f"cannot update {self._entry.instance} of {self._entry.service}: its lease has ended")

    async def _update(self, entry: Entry) -> None:
        if Capability.UPDATE_WITHOUT_RENEWAL in self._backend.capabilities:
            await self._backend.update(entry)
        else:
            sent_at = _now()
            await self._call(self._backend.update(entry), sent_at, None)
            self._confirm(sent_at, self._lease.ttl_seconds)
        self._changed = False

    async def close(self) -> bool:
        """Stop renewing, then delete the entry. True: the registry says that it is gone.

        False: it will expire; the registry is away, cannot delete, or holds a newer generation. May be called twice.
        """
        self._lease = leases.withdrawn(self._lease)
        await self._stop()
        if Capability.DEREGISTER not in self._backend.capabilities:
            return False
        try:
            async with self._one_at_a_time:  # an update under way ends before, so that nothing follows the deletion
                await self._backend.deregister(self._entry.key)
        except RegistryError as error:
            self.error = error
            return False
        self._lease = leases.removed(self._lease)
        return True

    async def __aenter__(self) -> HeldLease:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _stop(self) -> None:
        """End the task, and with it the call in flight: after this, nothing prolongs the entry."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _keep(self) -> None:
        while not self._lease.withdrawn:
            due_at = leases.next_beat_at(self._lease, random.uniform(-1, 1))
            await asyncio.sleep(max(0.0, due_at - _now()))
            try:
                async with self._one_at_a_time:
                    await self._beat()
            except RegistryError as error:
                self._note(error)

    async def _beat(self) -> None:
        """Renew; or register, when the entry was lost or an update of it got no answer."""
        if not self._changed and leases.state_at(self._lease, _now()) is not LeaseState.LOST:
            sent_at, limit = _now(), leases.rpc_timeout(self._lease.ttl_seconds)
            lost = await self._call(self._backend.renew([self._entry.key]), sent_at, limit)
            if not lost:
                self._confirm(sent_at, self._lease.ttl_seconds)
                return
            self._lease = leases.refused(self._lease, sent_at)
        await self._register()

    async def _register(self) -> None:
        sent_at = _now()
        grant = await self._call(self._backend.register(self._entry, self._asked_ttl), sent_at, None)
        self._changed = False
        self._confirm(sent_at, grant.ttl_seconds)

    async def _call(self, call: Coroutine[Any, Any, _T], sent_at: float, limit: float | None) -> _T:
        """The answer to one beat. Any failure counts as "no answer", for the beat may have counted all the same."""
        try:
            async with asyncio.timeout(limit):
                return await call
        except BaseException as error:
            may_have_counted = getattr(error, "may_have_counted", True)
            self._lease = leases.unanswered(self._lease, sent_at, _now(), may_have_counted=may_have_counted)
            if isinstance(error, RegistryError) or not isinstance(error, Exception):
                raise
            reason = f"no answer within {limit:.3g} s" if isinstance(error, TimeoutError) and limit else repr(error)
            raise RegistryUnavailable(f"cannot keep {self._entry.instance} registered: {reason}") from error

    def _confirm(self, sent_at: float, ttl_seconds: float) -> None:
        self._lease = leases.confirmed(self._lease, sent_at, _now(), ttl_seconds)
        if self.error is not None:
            _log.info("the lease of %s of %s is held again", self._entry.instance, self._entry.service)
            self.error = None

    def _note(self, error: RegistryError) -> None:
        code = error.code if isinstance(error, RegistryRejected) else ""
        if self.error is None or code in _FINAL_CODES:
            _log.warning("%s; %s", error, "giving up" if code in _FINAL_CODES else "trying again")
        self.error = error
        if code in _FINAL_CODES:
            self._lease = leases.withdrawn(self._lease)


class RegistryClient:
    """Registrations and look-ups over one backend. As an async context manager it closes itself and its leases."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._leases: set[HeldLease] = set()

    async def register(self, entry: Entry, ttl_seconds: float = DEFAULT_TTL_SECONDS) -> HeldLease:
        """Register the entry and keep it registered. Raises RegistryUnavailable and RegistryRejected.

        After an error nothing is renewed; should the call have counted all the same, the entry expires.
        """
        lease = HeldLease(self.backend, entry, ttl_seconds)
        await lease.start()
        self._leases = {held for held in self._leases if held.is_running} | {lease}
        return lease

    async def deregister(self, key: LeaseKey) -> bool:
        """Delete somebody's entry; see `Backend.deregister`. Its holder, if any, will register it again."""
        return await self.backend.deregister(key)

    async def get(self, service: str, instance: str) -> Entry | None:
        """The entry as it is now; None: it is not there."""
        return await self.backend.get(service, instance)

    async def list(self, service: str | None = None) -> Snapshot:
        """All entries of a service, or of all."""
        return await self.backend.list(service)

    def watch(
        self, service: str | None = None, since: int = 0, epoch: str | None = None
    ) -> AsyncGenerator[Snapshot, None]:
        """Complete snapshots, one after each change; see `Backend.watch`."""
        return self.backend.watch(service, since, epoch)

    async def inspect(self, ttl_seconds: float = DEFAULT_TTL_SECONDS) -> Inspection:
        """What the registry says about itself, and what an entry of that ttl would really get."""
        return await self.backend.inspect(ttl_seconds)

    async def select(self, service: str) -> Entry | None:
        """One entry of the service by weight, from a fresh list; None: nobody takes traffic.

        Who selects often watches the service and calls `selection.select` on the last snapshot.
        """
        return select((await self.backend.list(service)).entries, random.random())

    async def close(self) -> None:
        """Close the leases that are still held, then the backend."""
        await asyncio.gather(*(lease.close() for lease in self._leases))
        self._leases.clear()
        await self.backend.close()

    async def __aenter__(self) -> RegistryClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _now() -> float:
    return asyncio.get_running_loop().time()
