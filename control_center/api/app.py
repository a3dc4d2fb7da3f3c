"""The application: routes behind the gate, errors as problems, commands into the audit log."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from aiohttp import web

from supervisor.core.access import GRANTS, Principal, Right, Role, refuses

from .access import Failures, Gate
from .call import Call
from .events import FOLLOWERS
from .open_routes import CONTENT_SECURITY_POLICY
from .parts import ApiParts
from .problems import RETRY_AFTER, Refusal, refusal_of, respond
from .routes import ANSWER_SECONDS, ROUTES, Route

log = logging.getLogger("unit-center.api")

PARTS: web.AppKey[ApiParts] = web.AppKey("parts", ApiParts)
COMMANDS: web.AppKey[set[asyncio.Task[Any]]] = web.AppKey("commands")
WAITING: web.AppKey[set[asyncio.Task[Any]]] = web.AppKey("waiting")
LAST_SECONDS = 5.0  # commands that are being written down when the center ends get so long
NOBODY = Principal("nobody", Role.READ)
_ID: web.RequestKey[str] = web.RequestKey("id", str)
_ROUTE: web.RequestKey[Route] = web.RequestKey("route", Route)
_HEADERS = {
    "Server": "unit-center",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

Next = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(parts: ApiParts) -> web.Application:
    """The control center's HTTP API."""
    app = web.Application(middlewares=[_answer], client_max_size=0)  # bodies are read, and bounded, by Call
    app[PARTS], app[COMMANDS], app[FOLLOWERS], app[WAITING] = parts, set(), set(), set()
    desk = _Desk(parts, app[COMMANDS], app[WAITING])
    for route in ROUTES:
        app.router.add_route(route.method, route.path, partial(desk.handle, route))
        if route.method == "GET":
            app.router.add_route("HEAD", route.path, partial(desk.handle, route))
    app.on_response_prepare.append(_add_headers)
    app.on_shutdown.append(_end_followers)
    app.on_cleanup.append(_finish_commands)
    return app


@web.middleware
async def _answer(request: web.Request, handler: Next) -> web.StreamResponse:
    """Every request gets an id, every failure a problem, and what nobody expected is logged."""
    request[_ID] = secrets.token_hex(6)
    try:
        response = await handler(request)
    except Exception as error:
        response = respond(_explained(request, error))
    route = request.get(_ROUTE)
    request.app[PARTS].metrics.request(route.path if route is not None else "unknown", response.status)
    return response


def _explained(request: web.Request, error: Exception) -> Refusal:
    """What a client is told of an error; what nobody expected is for the log only."""
    found = refusal_of(error)
    if found is None:
        log.error("request %s failed: %s %s", request[_ID], request.method, request.path, exc_info=error)
        detail = f"the center has failed; its log tells of {request[_ID]}"
        found = Refusal(500, "internal_error", detail, more={"request_id": request[_ID]})
    return found


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Request-Id"] = request.get(_ID, "-")


class _Desk:
    """Takes requests from the door to their handler."""

    def __init__(self, parts: ApiParts, commands: set[asyncio.Task[Any]], waiting: set[asyncio.Task[Any]]) -> None:
        self._parts, self._commands, self._waiting = parts, commands, waiting
        self._gate, self._failures = Gate(parts.principals), Failures()

    async def handle(self, route: Route, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        request[_ROUTE] = route
        if route.method == "GET":
            return await self._read(route, request)
        # A command goes on when who gave it hangs up: half of one is what nobody wants.
        task = asyncio.ensure_future(self._serve(route, request))
        self._commands.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._commands.discard(task)
        if not task.cancelled():
            task.exception()  # told to the client, or logged: nobody else need ask

    async def _read(self, route: Route, request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        if route.seconds == ANSWER_SECONDS or task is None:
            return await self._serve(route, request)
        self._waiting.add(task)
        try:
            return await self._serve(route, request)
        finally:
            self._waiting.discard(task)

    async def _serve(self, route: Route, request: web.Request) -> web.StreamResponse:
        call = Call(request, self._parts, NOBODY, route.max_body_bytes)
        verdict = "cancelled"
        try:
            await self._admit(route, call)
            response = await _within(route.seconds, route.handler(call))
            verdict = "accepted"
            return response
        except Exception as error:
            refusal = _explained(request, error)
            verdict = refusal.code
            raise refusal from error
        finally:
            if route.action and call.is_command and call.principal is not NOBODY:
                await self._record(call.principal.name, route.action, call, verdict)

    async def _admit(self, route: Route, call: Call) -> None:
        if route.right is None:
            return
        try:
            call.principal = self._gate.admit(call.request)
        except Refusal as refusal:
            if refusal.status in (401, 403):
                await self._failed(call, refusal)
            raise
        node = call.part("node") if route.right is Right.NODE and "node" in call.request.match_info else None
        reason = refuses(call.principal, route.right, node=node)
        if reason and not GRANTS[call.principal.role] & route.also:
            raise Refusal(403, "forbidden", reason)

    async def _failed(self, call: Call, refusal: Refusal) -> None:
        """Whoever guesses fills neither the log nor the disk."""
        peer = peer_of(call.request)
        times = self._failures.count(peer)
        if times:
            log.warning("%s was refused %d time(s), last at %s: %s", peer, times, call.request.path, refusal)
            call.notes["times"] = times
            await self._record("nobody", "authentication", call, refusal.code)

    async def _record(self, who: str, action: str, call: Call, verdict: str) -> None:
        request = call.request
        body = {**call.notes, "verdict": verdict, "peer": peer_of(request), "request_id": request[_ID]}
        try:
            await self._parts.store.audit(who, action, body)
        except Exception:
            log.exception("cannot write the audit log: %s by %s: %s", action, who, body)


def peer_of(request: web.Request) -> str:
    """The address that a request comes from."""
    return request.remote or "-"


async def _within(seconds: float | None, answering: Awaitable[web.StreamResponse]) -> web.StreamResponse:
    try:
        async with asyncio.timeout(seconds):
            return await answering
    except TimeoutError as error:
        detail = f"no answer within {seconds:g} s; a command may have been written down: give it again with its id"
        raise Refusal(503, "timeout", detail, RETRY_AFTER) from error


async def _end_followers(app: web.Application) -> None:
    """Streams and long polls would hold up the end for as long as they last."""
    followers = app[FOLLOWERS]
    for task in [*followers, *app[WAITING]]:
        task.cancel()


async def _finish_commands(app: web.Application) -> None:
    commands = app[COMMANDS]
    if commands:
        await asyncio.wait(list(commands), timeout=LAST_SECONDS)
