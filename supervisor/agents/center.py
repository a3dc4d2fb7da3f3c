"""Fetches commands from the control center, for a host that it cannot connect to, and tells it how the host is.

Each command goes the way that it would have gone if it had been pushed: a known id is answered as at first, so that
fetching the same one twice does no harm. Nothing is remembered here. After a restart, of this daemon or of the center,
all commands that are still open are fetched again; the operations that they made are followed, and what became of them
is told, until the center says that it is no concern of it any more.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from ..core.model import CenterSpec
from ..host.center_client import CenterAway, CenterClient
from ..host.clock import chance, monotonic
from ..wire import FINISHED

log = logging.getLogger("unitd.center")

HEARTBEAT_SECONDS = 5.0  # until the center has said how often
HEARTBEAT_BOUNDS = (0.2, 300.0)
CALL_SECONDS = 10.0
WAIT_SECONDS = 55.0  # below a minute, which many things on the way take for the longest silence
PROGRESS_SECONDS = 2.0  # how often it is told how far an operation is
MAX_RESULTS = 100  # in one call
BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.5, 30.0
LAST_WORD_SECONDS = 1.0  # when the daemon ends
_REFUSED = (400, 413, 422)  # what was said is at fault: saying it again does not help
_FETCHED = ("/v1/units/", "/v1/operations/", "/v1/config/apply")

Ask = Callable[[str, str, dict[str, str], bytes], Awaitable[tuple[int, bytes]]]
"""Method, path, query and body for this daemon's own API; its status and body."""
Result = tuple[int, dict[str, Any]]


class CenterAgent:
    """Works from `start` to `close`: one task that tells, one that fetches, and one for each open command."""

    def __init__(self, node: str, spec: CenterSpec, ask: Ask, client: CenterClient | None = None) -> None:
        self._ask = ask
        self._path = f"/v1/nodes/{quote(node, safe='')}"
        self._client = client or CenterClient(spec)
        self._tasks: list[asyncio.Task[None]] = []
        self._following: dict[str, asyncio.Task[None]] = {}  # by command id
        self._outbox: dict[str, Result] = {}  # newest results, which the center does not have yet
        self._telling: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin. Needs a running loop."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(_for_ever(self._beat), name="heartbeat for the control center"),
            loop.create_task(_for_ever(self._fetch), name="commands of the control center"),
        ]

    async def close(self) -> None:
        """Tell what is left to tell, if that is quickly done, and end."""
        running = [*self._tasks, *self._following.values()]
        if self._telling is not None:
            running.append(self._telling)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        try:
            while self._outbox:
                await self._tell_some(MAX_RESULTS, LAST_WORD_SECONDS)
        except CenterAway as error:
            log.info("not told: %s", error.reason)  # the next daemon will

    # How the host is.

    async def _beat(self) -> None:
        seconds, backoff = HEARTBEAT_SECONDS, _Backoff(self._client)
        while True:
            began = monotonic()
            try:
                answer = await self._client.call(
                    "POST", f"{self._path}/heartbeat", await self._own_word(), seconds=CALL_SECONDS
                )
            except CenterAway:
                await backoff.wait()
                continue
            backoff.reset()
            seconds = _bounded(answer.get("heartbeat_seconds"), seconds)
            await asyncio.sleep(max(0.0, began + seconds - monotonic()))

    async def _own_word(self) -> dict[str, Any]:
        node, units = await self._read("/v1/node"), await self._read("/v1/units")
        return {**node, "statuses": units["units"]}

    async def _read(self, path: str) -> dict[str, Any]:
        _, body = await self._ask("GET", path, {}, b"")
        value: dict[str, Any] = json.loads(body)
        return value

    # What is to be done.

    async def _fetch(self) -> None:
        after, backoff = 0, _Backoff(self._client)
        while True:
            began = monotonic()
            path = f"{self._path}/commands?after={after}&wait={WAIT_SECONDS:g}"
            try:
                answer = await self._client.call("GET", path, seconds=WAIT_SECONDS + CALL_SECONDS)
            except CenterAway:
                # Another center, or the same one without its memory, may count anew.
                after = 0
                await backoff.wait()
                continue
            before, after = after, await self._take_all(answer.get("commands"), after)
            backoff.reset()
            if after == before and monotonic() - began < BACKOFF_SECONDS:
                await _pause(BACKOFF_SECONDS)  # it answered at once, and there was nothing that could be taken

    async def _take_all(self, commands: object, after: int) -> int:
        """The highest seq up to which everything is taken."""
        for command in commands if isinstance(commands, list) else ():
            seq = command.get("seq") if isinstance(command, dict) else None
            if not isinstance(seq, int) or not await self._take(command):
                break
            after = max(after, seq)
        return after

    async def _take(self, command: dict[str, Any]) -> bool:
        """Give it to this daemon; False: it cannot take it now."""
        body = command.get("body")
        command_id = body.get("command_id") if isinstance(body, dict) else None
        if not isinstance(command_id, str) or not command_id:
            log.error("the control center sent a command without an id: it is left out")
            return True
        path = str(command.get("path"))
        if command.get("method") != "POST" or not path.startswith(_FETCHED):
            self._tell(command_id, (404, _no_command(path)))
            return True
        status, answered = await self._ask("POST", path, {}, json.dumps(body).encode())
        if status >= 500:
            return False
        value = json.loads(answered)
        self._tell(command_id, (status, value))
        if status == 202 and not _have_ended(value) and command_id not in self._following:
            task = asyncio.get_running_loop().create_task(self._follow(command_id), name=f"follow {command_id}")
            self._following[command_id] = task
            task.add_done_callback(lambda _: self._following.pop(command_id, None))
        return True

    # What became of it.

    async def _follow(self, command_id: str) -> None:
        told = None
        while True:
            query = {"command_id": command_id, "wait": f"{PROGRESS_SECONDS:g}"}
            status, answered = await self._ask("GET", "/v1/operations", query, b"")
            if status != 200:
                return  # forgotten, long after its end
            value = {"operations": json.loads(answered)["operations"]}
            if value != told:
                told = value
                self._tell(command_id, (202, value))
            if _have_ended(value):
                return

    def _tell(self, command_id: str, result: Result) -> None:
        """Have the center told of it, soon."""
        self._outbox[command_id] = result
        if self._telling is None or self._telling.done():
            self._telling = asyncio.get_running_loop().create_task(self._tell_all(), name="results for the center")

    async def _tell_all(self) -> None:
        backoff, most = _Backoff(self._client), MAX_RESULTS
        while self._outbox:
            try:
                await self._tell_some(most, CALL_SECONDS)
            except CenterAway as error:
                if error.status in _REFUSED and most == 1:
                    command_id = next(iter(self._outbox))
                    log.error("the center does not take what became of the command %s: %s", command_id, error.reason)
                    del self._outbox[command_id]
                most = 1 if error.status in _REFUSED else MAX_RESULTS  # one of them is at fault: find out which
                await (_pause(BACKOFF_SECONDS) if error.status in _REFUSED else backoff.wait())
                continue
            backoff.reset()

    async def _tell_some(self, most: int, seconds: float) -> None:
        batch = dict(list(self._outbox.items())[:most])
        results = [{"command_id": id_, "status": status, "body": body} for id_, (status, body) in batch.items()]
        answer = await self._client.call("POST", f"{self._path}/results", {"results": results}, seconds=seconds)
        for command_id, result in batch.items():
            if self._outbox.get(command_id) is result:  # else there is something newer by now
                del self._outbox[command_id]
        known = answer.get("known")
        if isinstance(known, list):
            self._leave([command_id for command_id in batch if command_id not in known])

    def _leave(self, command_ids: list[str]) -> None:
        """The center has done with these."""
        for command_id in command_ids:
            self._outbox.pop(command_id, None)
            if (task := self._following.get(command_id)) is not None:
                task.cancel()


class _Backoff:
    """Longer and longer pauses, of which chance takes a part: many hosts shall not come back at the same moment."""

    __slots__ = ("_client", "_failures")

    def __init__(self, client: CenterClient) -> None:
        self._client, self._failures = client, 0

    def reset(self) -> None:
        """It worked."""
        self._failures = 0

    async def wait(self) -> None:
        """It failed: other addresses are tried at once, the first one again after a pause."""
        self._failures += 1
        rounds, others = divmod(self._failures, self._client.addresses)
        if others == 0:
            most = min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2.0 ** min(rounds - 1, 16))
            await _pause(most / 2)


async def _pause(seconds: float) -> None:
    """So long at least, and up to twice that."""
    await asyncio.sleep(seconds * (1 + chance()))


async def _for_ever(work: Callable[[], Awaitable[None]]) -> None:
    """An error of ours must not cut this host off until somebody restarts the daemon."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("the control center is not served as it should be; trying again")
        await _pause(MAX_BACKOFF_SECONDS / 2)


def _have_ended(value: dict[str, Any]) -> bool:
    return all(item.get("state") in FINISHED for item in value.get("operations") or ())


def _no_command(path: str) -> dict[str, Any]:
    detail = f"{path} is nothing that a control center has fetched"
    return {"type": "about:blank", "title": "Not Found", "status": 404, "code": "not_found", "detail": detail}


def _bounded(value: object, otherwise: float) -> float:
    low, high = HEARTBEAT_BOUNDS
    if not isinstance(value, int | float) or isinstance(value, bool) or value != value:
        return otherwise
    return min(max(float(value), low), high)
