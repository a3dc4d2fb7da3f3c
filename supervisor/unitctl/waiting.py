"""Waiting for operations, and what is said when the waiting ends before they do."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from ..errors import WireError
from ..wire import Operation
from . import decode
from .client import Client, Refused, Unreachable
from .codes import FAILED, INTERRUPTED, STILL_GOING, UNAVAILABLE, ExitWith
from .progress import Progress
from .session import Session
from .words import counted

REFRESH_SECONDS = 0.5  # of the progress
PATIENCE_SECONDS = 10.0  # for a daemon that is being restarted; it carries on with its operations
_QUIET_SECONDS = 25.0
_PER_OPERATION_SECONDS = 0.002  # added to the refresh: a thousand operations are a large answer
_RETRY_SECONDS = 0.25
_NAMED = 3  # so many operations are named in hints; of more, the command that made them

Raw = dict[str, Any]


class Patience:
    """Bears with a daemon that has gone away for a moment."""

    def __init__(self) -> None:
        self._since: float | None = None

    def reset(self) -> None:
        """It answers again."""
        self._since = None

    def bear(self, error: Unreachable) -> None:
        """Sleep a little, or raise the error: it is not one that passes, or it lasts too long."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if not error.has_ended or now - self._since > PATIENCE_SECONDS:
            raise error
        time.sleep(_RETRY_SECONDS)


class Waiting:
    """Waits until operations are done."""

    def __init__(self, session: Session, client: Client, operations: Sequence[Raw]) -> None:
        self._session, self._client = session, client
        self._raw = {str(item.get("id")): item for item in operations}
        self._known = {item.id: item for item in decode.operations(list(self._raw.values()))}
        self._progress = Progress(session.terminal, quiet=session.quiet)
        self._patience = Patience()
        self._deadline = math.inf if session.timeout is None else time.monotonic() + session.timeout

    def run(self) -> list[Raw]:
        """The operations as they ended, in their order.

        Raises ExitWith when `--timeout` is over, on Ctrl-C, and when the daemon stays away.
        """
        try:
            while self._open():
                self._progress.show(list(self._known.values()))
                self._poll(self._left())
        except KeyboardInterrupt:
            self._end(INTERRUPTED, "no longer waiting")
        except Unreachable as error:
            self._end(UNAVAILABLE, str(error))
        finally:
            self._progress.clear()
        return list(self._raw.values())

    def _open(self) -> list[Operation]:
        return [item for item in self._known.values() if not item.done]

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            self._end(STILL_GOING, f"not done within {self._session.timeout:g} s")
        refresh = REFRESH_SECONDS + _PER_OPERATION_SECONDS * len(self._known)
        return min(left, _QUIET_SECONDS if self._session.quiet else refresh)

    def _poll(self, seconds: float) -> None:
        """Ask for what is open; only the first question waits."""
        asked = list(dict.fromkeys(item.command_id for item in self._open()))
        try:
            for command_id, wait in zip(asked, [seconds, *[0.0] * len(asked)], strict=False):
                self._take(command_id, self._ask(command_id, wait))
            self._patience.reset()
        except Unreachable as error:
            self._progress.say(f"unitd does not answer ({error.cause}): trying again")
            self._patience.bear(error)

    def _ask(self, command_id: str, wait_seconds: float) -> list[Raw]:
        try:
            answer = self._client.get("/v1/operations", {"command_id": command_id}, wait_seconds=wait_seconds)
        except Refused as refusal:
            if refusal.status == 404:  # forgotten
                return []
            raise
        return decode.raw_list(answer, "operations")

    def _take(self, command_id: str, items: list[Raw]) -> None:
        fresh = {item.id: item for item in decode.operations(items)}
        missing = [item for item in self._open() if item.command_id == command_id and item.id not in fresh]
        if missing:
            raise ExitWith(
                FAILED,
                f"{missing[0].unit}: unitd no longer knows operation {missing[0].id} (was it restarted?): "
                f"see {self._session.line(f'status {missing[0].unit}')}",
            )
        for item in items:
            if item["id"] in self._known:
                self._raw[item["id"]], self._known[item["id"]] = item, fresh[item["id"]]

    def _end(self, code: int, words: str) -> None:
        self._progress.clear()
        raise ExitWith(code, f"{words}: {going_on(self._session, self._open())}")


def going_on(session: Session, operations: Sequence[Operation]) -> str:
    """How to follow or abort what goes on."""
    ids = [operation.id for operation in operations]
    if len(ids) > _NAMED:
        from shlex import quote

        ids = [
            f"--command-id {quote(item)}" for item in dict.fromkeys(operation.command_id for operation in operations)
        ]
    named = " ".join(ids[:_NAMED])
    verb = "goes" if len(operations) == 1 else "go"
    return (
        f"{counted(len(operations), 'operation')} {verb} on\n"
        f"    follow: {session.line(f'ops -f {named}')}\n"
        f"    abort:  {session.line(f'abort {named}')}"
    )


def get_operation(client: Client, id_: str) -> Raw:
    """One operation by its id. Raises Unreachable, Refused, WireError."""
    from urllib.parse import quote

    answer = client.get(f"/v1/operations/{quote(id_, safe='')}")
    if not isinstance(answer, dict):
        raise WireError("cannot read the answer of unitd: an operation must be a JSON object")
    return answer
