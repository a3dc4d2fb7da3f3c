"""`Drainable` for ASGI applications: uvicorn, hypercorn, daphne."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from . import control
from .control import REFUSED, Answer, Control
from .flag import Flag
from .warmup import LOOK_SECONDS, PATIENCE_SECONDS, WarmUp
from .websocket import Closer

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

_CLOSE = (b"connection", b"close")
_DISCARD_BYTES = 1024 * 1024  # of a refused request's body, so that the client comes to read the answer
_DISCARD_SECONDS = 2.0


class Drainable:
    """The application, with a shutdown flag, a count of its requests and the paths below `prefix` for both.

    `live` and `ready` are the application's checks, `warm_up` its hook: functions (called in a thread) or coroutine
    functions. A check is passed when it returns something true. A request counts until the application returns, with
    its background work; a WebSocket as long as it is open. `close_websockets`: once the flag is set, each open one is
    closed with 1012 as soon as the application waits for its next message. `token` (default: UNIT_APP_TOKEN) replaces
    the rule that orders are taken from this host only. Put it outermost.
    """

    def __init__(
        self,
        app: Application,
        *,
        flag: Flag | None = None,
        prefix: str = "/-/",
        token: str | None = None,
        live: Callable[[], object] | None = None,
        ready: Callable[[], object] | None = None,
        warm_up: Callable[[], object] | None = None,
        close_websockets: bool = False,
    ) -> None:
        self.flag = flag or Flag()
        self._app, self._live, self._ready, self._hook = app, live, ready, warm_up
        self._warm_up = WarmUp(self.flag, self._run_hook if warm_up else None)
        self._control = Control(self.flag, self._warm_up, prefix, token)
        self._closer = Closer(self.flag) if close_websockets else None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        self._loop = asyncio.get_running_loop()
        self._warm_up.serve()
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Message, receive: Receive, send: Send) -> None:
        name = self._control.name_of(_path(scope))
        if name is not None:
            await _send_answer(await self._answer(name, scope), scope, send)
            return
        running = self.flag.enter()
        if running is None:
            await _refuse(scope, receive, send)
            return

        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start" and self.flag.is_set:
                message = {**message, "headers": _with_close(scope, message.get("headers", ()))}
            await send(message)

        try:
            await self._app(scope, receive, send_closing)
        finally:
            running.end()

    async def _websocket(self, scope: Message, receive: Receive, send: Send) -> None:
        running = self.flag.enter()
        if running is None:
            await _refuse_websocket(scope, receive, send)
            return
        try:
            if self._closer is None:
                await self._app(scope, receive, send)
            else:
                await self._closer.run(self._app, scope, receive, send)
        finally:
            running.end()

    async def _answer(self, name: str, scope: Message) -> Answer:
        ours = self._control
        peer = (scope.get("client") or ("",))[0] or ""
        refusal = ours.refusal(name, scope["method"], peer, _headers(scope))
        if refusal is not None:
            return refusal
        if name == "health/live":
            return ours.live(await self._passes(self._live))
        if name == "health/ready":
            return ours.not_ready() or ours.ready(await self._passes(self._ready))
        if name == "warm":
            return await self._warm()
        return {"drain": ours.drain, "undrain": ours.undrain, "in-flight": ours.in_flight}[name]()

    async def _passes(self, check: Callable[[], object] | None) -> bool:
        if check is None:
            return True
        try:
            found = await asyncio.to_thread(check)  # calling a coroutine function only makes its coroutine
            return bool(await found if inspect.isawaitable(found) else found)
        except Exception:
            control.logger.exception("a health check failed")
            return False

    async def _warm(self) -> Answer:
        self._warm_up.ask(again=True)
        deadline = time.monotonic() + PATIENCE_SECONDS
        verdict = self._warm_up.verdict()
        while verdict is None and time.monotonic() < deadline:  # other processes set no event of ours
            await asyncio.sleep(LOOK_SECONDS)
            verdict = self._warm_up.verdict()
        return self._control.warm(verdict)

    def _run_hook(self) -> None:
        """Runs in the warm-up's thread; a coroutine's place is the loop."""
        assert self._hook is not None
        outcome = self._hook()
        if inspect.isawaitable(outcome):
            while self._loop is None:  # until the lifespan or a first request has come
                time.sleep(0.05)
            asyncio.run_coroutine_threadsafe(_finish(outcome), self._loop).result()


async def _finish(outcome: Awaitable[object]) -> None:
    await outcome


def _path(scope: Message) -> str:
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(root) else path


def _headers(scope: Message) -> Callable[[str], str | None]:
    found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    return found.get


def _with_close(scope: Message, headers: Iterable[Iterable[bytes]]) -> list[tuple[bytes, bytes]]:
    kept = [(name, value) for name, value in headers]
    if not str(scope.get("http_version", "1.1")).startswith("1"):  # forbidden in HTTP/2 and later
        return kept
    return [*(header for header in kept if header[0].lower() != b"connection"), _CLOSE]


def _encoded(answer: Answer) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]


async def _send_answer(answer: Answer, scope: Message, send: Send) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": _encoded(answer)})
    body = b"" if scope["method"] == "HEAD" else answer.body
    await send({"type": "http.response.body", "body": body})


async def _refuse(scope: Message, receive: Receive, send: Send) -> None:
    headers = _with_close(scope, _encoded(REFUSED))
    await send({"type": "http.response.start", "status": REFUSED.status, "headers": headers})
    body = b"" if scope["method"] == "HEAD" else REFUSED.body
    await send({"type": "http.response.body", "body": body, "more_body": True})
    # Closing a socket that holds unread data resets it, and the client may lose the answer.
    discarding = asyncio.ensure_future(_discard(receive))
    try:
        await asyncio.wait({discarding}, timeout=_DISCARD_SECONDS)
    finally:
        discarding.cancel()
    with contextlib.suppress(Exception, asyncio.CancelledError):  # a client that has gone
        await discarding
    await send({"type": "http.response.body", "body": b""})


async def _discard(receive: Receive) -> None:
    got = 0
    while got < _DISCARD_BYTES:
        message = await receive()
        got += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body", False):
            return


async def _refuse_websocket(scope: Message, receive: Receive, send: Send) -> None:
    await receive()  # websocket.connect
    if "websocket.http.response" in (scope.get("extensions") or {}):
        headers = _with_close(scope, _encoded(REFUSED))
        await send({"type": "websocket.http.response.start", "status": REFUSED.status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": REFUSED.body})
    else:
        with contextlib.suppress(OSError):
            await send({"type": "websocket.close", "code": 1012, "reason": "draining"})
