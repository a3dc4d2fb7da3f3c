"""Operations from asking to their end: any center plans and stores them, the leading one carries them out.

A plan is made from the registry alone and written down whole; who leads later goes on from what is written. One
`Driver` carries one operation (driver.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from registry_client.model import Entry

from .asking import NewOperation
from .delivery import Delivery
from .driver import Driver, Ended
from .errors import BadRequest, CenterError, Superseded
from .following import Following
from .guard import Word
from .model import Batch, Decision, Operation, Selection, Strategy, Target, Wish
from .moments import iso
from .rollout import baseline, plan
from .selecting import select, target_of
from .store import OPERATIONS, Store
from .survey import Asked, with_unseen

log = logging.getLogger("unit-center.operations")

LOOK_SECONDS = 2.0  # at the latest, another center's wishes and new operations are seen
GATHER_SECONDS = 0.05
RETRY_SECONDS = 1.0
_RETURNING = ("start", "undrain")  # mostly for units that no registry has
GUARD_SECONDS = 60.0  # within which a node must begin what the guard orders


class Executor:
    """The book of operations, and their drivers while this center leads."""

    def __init__(
        self,
        store: Store,
        following: Following,
        channels: Asked,
        delivery: Delivery,
        defaults: Strategy,
        *,
        name: str,
        doubts: Callable[[], frozenset[str]],
        on_end: Ended = lambda operation: None,
        on_superseded: Callable[[], None] = lambda: None,
    ) -> None:
        """`name` is this center's; `doubts` are instances that gateways complain of now.

        `on_superseded` is called when the store or a node knows a center that leads after this one.
        """
        self._on_superseded = on_superseded
        self._store, self._following, self._channels, self._delivery = store, following, channels, delivery
        self._defaults, self._name, self._doubts, self._on_end = defaults, name, doubts, on_end
        self._drivers: dict[str, Driver] = {}
        self._running: asyncio.Task[None] | None = None

    # What any center does.

    async def begin(self, request: NewOperation) -> Operation:
        """Plan and store it; the stored one where the command is known."""
        asked = request.fingerprint()
        if request.command_id is not None:
            known = await self._store.operation_of_command(request.command_id)
            if known is not None:
                request.permit([target.service for target in known.targets])
                return await self._store.add_operation(known, asked)
        operation = await self._plan(request)
        operation.id = f"fo-{uuid4().hex[:12]}"
        return await self._add(operation, asked)

    async def preview(self, request: NewOperation) -> Operation:
        """What `begin` would do now, with the id ""."""
        return await self._plan(request)

    async def wish(self, id_: str, wish: Wish, who: str, reason: str) -> Operation | None:
        """Pause, resume or abort; None: it is unknown."""
        before = await self._store.operation(id_, targets=False)
        if before is None:
            return None
        if before.state.done:
            raise BadRequest(f"{id_} has ended: it {before.state}", code="done", status=409)
        if before.wish is Wish.ABORT and wish is not Wish.ABORT:
            raise BadRequest(f"{id_} is being aborted; begin another operation", code="done", status=409)
        after = await self._store.wish(id_, wish, who, reason)
        if driver := self._drivers.get(id_):
            driver.wish(wish)
        return after

    async def order(self, entry: Entry, decision: Decision) -> str:
        """Restart one instance because the guard says so; the operation's id. Raises CenterError.

        Where its own node finds that it does not serve, what it was asked will not be answered either.
        """
        says = decision.evidence.get("node", {}).get("word")
        operation = Operation(
            id=f"fo-{uuid4().hex[:12]}",
            command_id=f"guard-{decision.id}",
            verb="restart",
            selection=Selection(services=(entry.service,), instances=(entry.instance,)),
            strategy=None,
            parameters={"force": True, "no_drain": says == Word.UNHEALTHY},
            reason=decision.reason,
            issued_by=f"guard ({self._name})",
            created=_moment(0),
            deadline=_moment(GUARD_SECONDS),
            cause="guard",
            checks_generation=True,
            batches=[Batch(0, "all at once")],
            targets=[target_of(entry)],
        )
        return (await self._add(operation, f"guard {decision.id}")).id

    async def _add(self, operation: Operation, asked: str) -> Operation:
        for number, target in enumerate(operation.targets):
            target.command_id = f"{operation.id}.{number}"
        added = await self._store.add_operation(operation, asked)
        await self._store.add_event("operation", {"id": added.id, "state": added.state.value, "verb": added.verb})
        return added

    async def _plan(self, request: NewOperation) -> Operation:
        fleet = self._following.fleet
        if fleet is None:
            detail = f"cannot plan: {self._following.doubt()}; try again soon"
            raise BadRequest(detail, code="registry_away", status=503)
        if request.verb in _RETURNING:
            fleet = await with_unseen(fleet, self._channels)
        targets = select(request.verb, request.selection, fleet)
        request.permit(sorted({target.service for target in targets}, key=str))
        strategy = self._strategy(request, targets)
        batches, targets = plan(request.verb, targets, strategy, fleet)
        if request.expected_generation is not None:
            if len(targets) != 1:
                detail = f"expected_generation fits one unit only; this selects {len(targets)}"
                raise BadRequest(detail, code="bad_request", status=400)
            targets[0].generation = request.expected_generation
        services = tuple(sorted({target.service for target in targets if target.service is not None}))
        return Operation(
            id="",
            command_id=request.command_id or uuid4().hex,
            verb=request.verb,
            selection=request.selection,
            strategy=strategy,
            parameters=dict(request.parameters),
            reason=request.reason,
            issued_by=request.issued_by,
            created=_moment(0),
            deadline=request.deadline,
            checks_generation=request.expected_generation is not None,
            services=services,
            baseline=baseline(targets, fleet),
            batches=batches,
            targets=targets,
        )

    def _strategy(self, request: NewOperation, targets: Iterable[Target]) -> Strategy | None:
        if not request.use_defaults:
            return request.strategy
        rolls = request.verb in ("restart", "apply") and any(target.service for target in targets)
        return self._defaults if rolls else None

    # What the leading one does.

    def lead(self, epoch: int) -> None:
        """Carry out what is open, and what comes."""
        self.give_way()
        self._running = asyncio.get_running_loop().create_task(self._run(epoch))

    def give_way(self) -> None:
        """Another leads, or nobody; operations stay as they are written."""
        if self._running is not None:
            self._running.cancel()
            self._running = None
        drivers, self._drivers = self._drivers, {}
        for driver in drivers.values():
            driver.cancel()

    async def close(self) -> None:
        """Stop, and wait until nothing more is written."""
        running, drivers = self._running, list(self._drivers.values())
        self.give_way()
        tasks = [task for task in (running, *(driver.task for driver in drivers)) if task is not None]
        if tasks:
            await asyncio.wait(tasks)

    def fleet_changed(self) -> None:
        """The registry shows something new."""
        for driver in self._drivers.values():
            driver.wake()

    async def _run(self, epoch: int) -> None:
        while True:
            try:
                seen = self._store.seen(OPERATIONS)
                await self._take_up(epoch)
                await self._store.wait_changed(seen, LOOK_SECONDS, OPERATIONS)
                await asyncio.sleep(GATHER_SECONDS)
            except Superseded as error:
                log.warning("%s; operations are left alone", error)
                self._on_superseded()
                return
            except CenterError as error:
                log.error("cannot look for operations: %s", error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _take_up(self, epoch: int) -> None:
        """Start a driver for each open operation that has none, and tell the others what people want."""
        for id_, driver in list(self._drivers.items()):
            if driver.superseded is not None:
                raise driver.superseded
            if driver.ended:
                del self._drivers[id_]
        headers = await self._store.operations(open_only=True, limit=10_000)
        for header in headers:
            if (running := self._drivers.get(header.id)) is not None:
                running.wish(header.wish)
                continue
            operation = await self._store.operation(header.id)
            if operation is not None and not operation.state.done:
                self._drivers[operation.id] = Driver(
                    operation, epoch, self._store, self._following, self._delivery, self._doubts, self._on_end
                )


def _moment(seconds: float) -> str:
    """So many seconds from now, ISO 8601 in UTC."""
    return iso(datetime.now(UTC) + timedelta(seconds=seconds))
