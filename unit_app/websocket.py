"""Open WebSockets are told that the service restarts: closed with 1012 where the application waits for a message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .flag import Flag

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_LOOK_SECONDS = 0.25
_CODE, _REASON = 1012, "service restart"  # of IANA's WebSocket close codes


class Closer:
    """All open WebSockets of this process. One task looks at the flag while there are any."""

    def __init__(self, flag: Flag) -> None:
        self._flag = flag
        self._waiting: set[asyncio.Future[None]] = set()
        self._looking: asyncio.Task[None] | None = None

    async def run(self, app: Callable[..., Awaitable[None]], scope: Message, receive: Receive, send: Send) -> None:
        """The application for one WebSocket, which it sees disconnected (1012) once the flag is set."""
        told = asyncio.get_running_loop().create_future()
        socket = _Socket(told, receive, send)
        self._waiting.add(told)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look())
        try:
            await app(scope, socket.receive, socket.send)
        finally:
            self._waiting.discard(told)
            told.cancel()

    async def _look(self) -> None:
        while self._waiting:
            await asyncio.sleep(_LOOK_SECONDS)  # another process may set the flag: nothing wakes this one
            if self._flag.is_set:
                for told in self._waiting:
                    if not told.done():
                        told.set_result(None)
                self._waiting.clear()


class _Socket:
    def __init__(self, told: asyncio.Future[None], receive: Receive, send: Send) -> None:
        self._told, self._receive, self._send = told, receive, send
        self._accepted = self._closed = False

    async def receive(self) -> Message:
        if self._closed:
            return {"type": "websocket.disconnect", "code": _CODE, "reason": _REASON}
        if not self._accepted:  # the first message is the connect itself
            return await self._receive()
        next_message = asyncio.ensure_future(self._receive())
        try:
            await asyncio.wait((next_message, self._told), return_when=asyncio.FIRST_COMPLETED)
            if next_message.done():  # what has come is worked on first
                return next_message.result()
        finally:
            next_message.cancel()
        await self._send({"type": "websocket.close", "code": _CODE, "reason": _REASON})
        self._closed = True
        return await self.receive()

    async def send(self, message: Message) -> None:
        if self._closed:
            return  # as with a client that has gone
        if message["type"] == "websocket.accept":
            self._accepted = True
        await self._send(message)
        if message["type"] == "websocket.close":
            self._accepted = False  # nothing is left to be closed: the disconnect comes by itself
