"""How a watch goes on after a failure, and what it has to tell: the same for every backend."""

from __future__ import annotations

import asyncio
import logging
import random

from ..errors import RegistryError, RegistryRejected
from ..model import Snapshot

BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.1, 5.0

_log = logging.getLogger("registry_client")


async def after_failure(error: RegistryError, closed: asyncio.Event, *, answered: bool, failures: int) -> int:
    """Wait before the next attempt, longer each time, or until `closed`; answers the failures in a row.

    Raises what a retry cannot heal, unless there was an answer before: then it is rather somebody's in between.
    """
    if isinstance(error, RegistryRejected) and not answered and not closed.is_set():
        raise error
    if not failures and not closed.is_set():
        _log.warning("%s; the last known entries stay, trying again", error)
    delay = min(BACKOFF_SECONDS * 2 ** min(failures, 10), MAX_BACKOFF_SECONDS)
    await pause(delay * random.uniform(0.5, 1), closed)
    return failures + 1


async def pause(seconds: float, closed: asyncio.Event) -> None:
    """Wait so long, or until `closed`."""
    if seconds > 0 and not closed.is_set():
        try:
            async with asyncio.timeout(seconds):
                await closed.wait()
        except TimeoutError:
            pass


def is_newer(snapshot: Snapshot, since: int, epoch: str | None) -> bool:
    """Whether somebody who saw `since` of `epoch` has something to learn."""
    if epoch is None:  # of an unknown life: a smaller revision is another life's
        return snapshot.revision != since
    return snapshot.epoch != epoch or snapshot.revision > since
