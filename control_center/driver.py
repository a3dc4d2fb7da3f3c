"""Carries one operation to its end: asks the rollout what is next, writes it down, and only then lets it happen.

Everything that it knows stands in the store, so it may be stopped at any point and begun again, here or elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from .delivery import Delivery
from .errors import CenterError, Superseded
from .following import Following
from .model import Operation, Target, TargetState, Wish
from .moments import iso
from .rollout import Finish, Start, Wait, advance, record
from .store import Store

log = logging.getLogger("unit-center.operations")

GATHER_SECONDS = 0.05  # what happens within it is written at once
BIG = 200  # targets from which on more is gathered
RETRY_SECONDS = 1.0

Ended = Callable[[Operation], None]


class Driver:
    """One open operation of the leading center."""

    def __init__(
        self,
        operation: Operation,
        epoch: int,
        store: Store,
        following: Following,
        delivery: Delivery,
        doubts: Callable[[], frozenset[str]],
        on_end: Ended,
    ) -> None:
        self._operation, self._epoch, self._store = operation, epoch, store
        self._following, self._delivery, self._doubts, self._on_end = following, delivery, doubts, on_end
        self._wake = asyncio.Event()
        self._touched: dict[str, Target] = {}
        self._carried: dict[str, asyncio.Task[None]] = {}
        self.superseded: Superseded | None = None
        self._seen = ""  # of the header, as it was last written
        self.task = asyncio.get_running_loop().create_task(self._run())

    @property
    def ended(self) -> bool:
        """It needs no driver any more, or its driver has given up."""
        return self.task.done()

    def wake(self) -> None:
        """Something has changed that may matter."""
        self._wake.set()

    def wish(self, wish: Wish) -> None:
        """What people want of it."""
        if self._operation.wish is not wish:
            self._operation.wish = wish
            self._wake.set()

    def touch(self, target: Target) -> None:
        """A target has changed."""
        self._touched[target.command_id] = target
        self._wake.set()

    def cancel(self) -> None:
        """Stop; nothing more is written or sent."""
        self.task.cancel()
        for task in self._carried.values():
            task.cancel()

    async def _run(self) -> None:
        try:
            for target in self._operation.targets:
                if target.state.busy:
                    self._carry(target)
            while not self._operation.state.done:
                await self._turn()
            self._on_end(self._operation)
        except Superseded as error:
            self.superseded = error
        except CenterError as error:
            log.error("%s stops for now: %s", self._operation.id, error)
            await asyncio.sleep(RETRY_SECONDS)  # then a new driver goes on from what is written
        except Exception:
            log.exception("%s stops for now", self._operation.id)
            await asyncio.sleep(RETRY_SECONDS)
        finally:
            for task in self._carried.values():
                task.cancel()

    async def _turn(self) -> None:
        """One answer of the rollout, carried out."""
        self._wake.clear()
        if self.superseded is not None:
            raise self.superseded
        step = self._advance()
        if isinstance(step, Start):
            await self._start()
            return
        self._record(step)
        await self._save()
        if isinstance(step, Finish):
            self._say_how_it_ended()
            return
        try:
            async with asyncio.timeout(step.seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        await asyncio.sleep(GATHER_SECONDS * (1 + len(self._operation.targets) // BIG))

    def _advance(self) -> Start | Wait | Finish:
        return advance(self._operation, self._following.certain(), datetime.now(UTC), self._doubts())

    # Starting.

    async def _start(self) -> None:
        """Something may go, as far as a watch knows; what the registry says this very moment decides."""
        fleet = await self._following.refresh()
        if fleet is None and self._operation.strategy is not None:
            await asyncio.sleep(RETRY_SECONDS)
            return
        step = self._advance()
        if not isinstance(step, Start):
            return
        pending = [target for target in self._operation.targets if target.state is TargetState.PENDING]
        self._record(step)
        targets = [target for target in pending if target.state is TargetState.SENT]
        await self._save()  # which numbers them, too: in the order in which nodes that fetch commands see them
        for target in targets:
            self._carry(target)

    def _record(self, step: Start | Wait | Finish) -> None:
        for target in record(self._operation, step, datetime.now(UTC)):
            self._touched[target.command_id] = target
            if target.state.done and (task := self._carried.get(target.command_id)) is not None:
                task.cancel()

    def _carry(self, target: Target) -> None:
        task = asyncio.get_running_loop().create_task(self._carried_out(target))
        self._carried[target.command_id] = task
        task.add_done_callback(lambda _: self._carried.pop(target.command_id, None))

    async def _carried_out(self, target: Target) -> None:
        try:
            await self._delivery.carry(self._operation, target, self._epoch, self.touch)
        except Superseded as error:
            self.superseded = error
        except Exception:
            log.exception("cannot carry the %s of %s", self._operation.verb, target.instance)
            target.state, target.finished = TargetState.FAILED, iso(datetime.now(UTC))
            target.detail = "the control center failed; its log says more"
        self.touch(target)

    # Ending.

    def _say_how_it_ended(self) -> None:
        operation = self._operation
        log.info(
            "%s: %s %s (%s)%s",
            operation.id,
            operation.verb,
            operation.state.value,
            ", ".join(f"{count} {state}" for state, count in sorted(operation.counts().items())),
            f": {operation.error}" if operation.error else "",
        )

    # Writing.

    async def _save(self) -> None:
        """Write what has changed, and tell whoever follows."""
        touched, self._touched = list(self._touched.values()), {}
        seen = self._header()
        if not touched and seen == self._seen:
            return
        self._seen = seen
        self._operation.epoch = self._epoch
        await self._store.save(self._operation, touched, epoch=self._epoch)
        await self._store.add_event("operation", _news(self._operation, touched))

    def _header(self) -> str:
        operation = self._operation
        batches = [(batch.state, batch.started, batch.finished) for batch in operation.batches]
        return repr((operation.state, operation.waiting_for, operation.error, operation.started, batches))


def _news(operation: Operation, touched: Sequence[Target]) -> dict[str, object]:
    """What is told of a change; who wants all of it asks for the operation."""
    return {
        "id": operation.id,
        "verb": operation.verb,
        "state": operation.state.value,
        "services": list(operation.services),
        "version": operation.version,
        "waiting_for": operation.waiting_for,
        "error": operation.error,
        "counts": operation.counts(),
        "targets": [
            {"instance": target.instance, "state": target.state.value, "steps": target.steps, "detail": target.detail}
            for target in touched[:100]
        ],
    }
