"""The control API: requests become orders, what is known becomes answers. The same on the unix socket and on TCP.

It decodes, asks and encodes; what an order means is `agents.orders`'s.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol
from urllib.parse import quote, unquote
from uuid import uuid4

from registry_client.server import RegistryApi

from .agents import explain
from .agents.history import History
from .agents.operations import Operations
from .agents.orders import Orders
from .agents.view import View
from .errors import ConfigError, UnknownUnit, WireError
from .host.access import Access
from .host.http import Request, Response
from .host.output import OutputPump
from .installation import version
from .wire import VERBS, Command, Operation, PlanItem, decode_command, encode, problem, to_json

MAX_WAIT_SECONDS = 60.0
MAX_LOG_LINES = 10_000
LOG_SECONDS = 3.0
PING_SECONDS = 15.0

Examine = Callable[[], Awaitable[tuple[list[Any], dict[str, object]]]]  # findings, and facts by name
Handler = Callable[["Control", Request, tuple[str, ...]], Awaitable[Response]]


class Daemon(Protocol):
    """What only the daemon as a whole can do."""

    def plan(self) -> list[PlanItem]:
        """Compare the files with what is. Raises ConfigError."""

    def apply(self, command: Command) -> tuple[list[PlanItem], list[Operation]]:
        """Make it so. Raises ConfigError; then nothing has changed."""

    def shut_down(self, reason: str) -> None:
        """Stop all units in order, then end."""

    @property
    def is_ready(self) -> bool:
        """It has started what it was to start, and is not shutting down."""


class Control:
    """Answers requests."""

    def __init__(
        self,
        daemon: Daemon,
        orders: Orders,
        operations: Operations,
        view: View,
        history: History,
        pump: OutputPump,
        access: Access,
        registry: RegistryApi | None,
        examine: Examine | None = None,
    ) -> None:
        """`registry` is the embedded one, if this daemon has it; `examine` the doctor's."""
        self.daemon, self.orders, self.operations, self.view = daemon, orders, operations, view
        self.history, self.pump, self.access, self.registry = history, pump, access, registry
        self._examine = examine

    async def handle(self, request: Request) -> Response:
        """The answer to any request; errors are problem+json that says what to do."""
        try:
            refused = self.access.refuses(request)
            if refused:
                return _problem(403, "Forbidden", refused)
            return await self._route(request)
        except UnknownUnit as error:
            return _problem(404, "Not Found", str(error), nearest=error.nearest)
        except WireError as error:
            return _problem(400, "Bad Request", str(error))
        except ConfigError as error:
            return _problem(422, "Unprocessable Content", str(error), errors=config_errors(error))

    async def _route(self, request: Request) -> Response:
        if request.path.startswith("/v1/registry/"):
            return await self._registry(request)
        allowed = []
        for method, pattern, handler in _ROUTES:
            match = pattern.fullmatch(request.path)
            if match is None:
                continue
            if request.method == method or (request.method == "HEAD" and method == "GET"):
                return await handler(self, request, tuple(unquote(part) for part in match.groups()))
            allowed.append(method)
        if allowed:
            detail = f"{request.path} answers to {', '.join(allowed)}"
            return _problem(405, "Method Not Allowed", detail, headers=(("Allow", ", ".join(allowed)),))
        return _problem(404, "Not Found", f"there is nothing at {request.path}")

    async def _registry(self, request: Request) -> Response:
        if self.registry is None:
            return _problem(
                404,
                "Not Found",
                "this daemon has no embedded registry; ask the one that it is configured for",
            )
        answer = await self.registry.handle(request.method, request.path, request.query, request.body)
        return Response(answer.status, answer.body, answer.content_type, answer.headers)

    # Units.

    async def units(self, request: Request, _: tuple[str, ...]) -> Response:
        """GET /v1/units[?names=a,b]"""
        names = request.query.get("names", "")
        chosen = self.orders.select(names.split(",")) if names else list(self.orders.specs)
        return _json(200, {"units": [to_json(status) for status in self.view.statuses(chosen)]})

    async def unit(self, request: Request, parts: tuple[str, ...]) -> Response:
        """GET /v1/units/{unit}"""
        return _json(200, to_json(self.view.status(self._one(parts[0]))))

    async def why(self, request: Request, parts: tuple[str, ...]) -> Response:
        """GET /v1/units/{unit}/why"""
        name = self._one(parts[0])
        status = self.view.status(name)
        details = explain.details(status, [item for item in self.operations.latest(200) if item.unit == name])
        drops = [(stream, drop) for (unit, stream), drop in self.pump.counters().items() if unit == name]
        details += [f"{stream}: {drop.lines} lines were dropped: {drop.reason}" for stream, drop in drops]
        spec = self.orders.specs[name]
        path = spec.logs.stdout if spec.logs.redirect_stderr else spec.logs.stderr
        if path is not None and not path.startswith("/dev/"):
            details += [f"stderr: {line}" for line in (await self._last(path, 5)).decode(errors="replace").splitlines()]
        return _json(200, {"unit": name, "why": status.why, "details": details})

    async def command(self, request: Request, parts: tuple[str, ...]) -> Response:
        """POST /v1/units/{pattern}/{start|stop|restart|signal|drain|undrain|warm|weight}"""
        pattern, verb = parts
        command = decode_command(request.body)
        asked = _words_of(verb, pattern, command)
        if command.command_id is not None:
            known = self.operations.known(command.command_id)
            if known is not None:
                if self.operations.request_of(command.command_id) == asked:
                    return _accepted(known)
                detail = f"the command {command.command_id} asked for something else before; use another id"
                return _problem(422, "Unprocessable Content", detail)
        names = self.orders.select(pattern.split(","))
        if command.command_id is None:  # one for all units that it touches, for whoever follows it; nobody repeats it
            command, asked = replace(command, command_id=uuid4().hex), ""
        return _accepted(self.orders.give(verb, names, command, asked))

    async def remember(self, request: Request, parts: tuple[str, ...]) -> Response:
        """POST /v1/units/{pattern}/{enable|disable}"""
        names = self.orders.select(parts[0].split(","))
        self.orders.remember(names, up=parts[1] == "enable")
        return _json(200, {"units": names})

    async def logs(self, request: Request, parts: tuple[str, ...]) -> Response:
        """GET /v1/units/{unit}/logs"""
        name = self._one(parts[0])
        stream = request.query.get("stream", "stdout")
        if stream not in ("stdout", "stderr"):
            raise WireError(f"cannot show {stream!r}: the streams are stdout and stderr")
        logs = self.orders.specs[name].logs
        path = logs.stdout if stream == "stdout" or logs.redirect_stderr else logs.stderr
        if path is None:
            return _problem(404, "Not Found", f"the {stream} of {name} is thrown away: its logs.{stream} is NONE")
        lines = _number(request.query.get("lines", "10"), "lines", MAX_LOG_LINES)
        if request.query.get("follow", "0") not in ("0", "false", ""):
            return Response(200, content_type="text/plain; charset=utf-8", stream=self._follow(path, int(lines)))
        return Response(200, await self._last(path, int(lines)), "text/plain; charset=utf-8")

    async def _last(self, path: str, lines: int) -> bytes:
        """The end of a log, or a sentence instead: a disk that hangs must not hold up more than who asks."""
        try:
            return await asyncio.wait_for(self.pump.last(path, lines), LOG_SECONDS)
        except TimeoutError:
            return f"unitd: cannot read {path}: its disk has not answered for {LOG_SECONDS:g} s\n".encode()

    async def _follow(self, path: str, lines: int) -> AsyncIterator[bytes]:
        async with self.pump.follow(path, lines) as follower:
            async for chunk in follower:
                yield chunk

    def _one(self, name: str) -> str:
        names = self.orders.select([name])
        if len(names) != 1:
            raise WireError(f"cannot choose: {name} means {len(names)} units; name one")
        return names[0]

    # Operations and events.

    async def all_operations(self, request: Request, _: tuple[str, ...]) -> Response:
        """GET /v1/operations[?command_id=X&wait=30]"""
        command_id = request.query.get("command_id")
        if command_id is None:
            return _json(200, {"operations": [to_json(item) for item in self.operations.latest(100)]})
        operations = self.operations.of_command(command_id)
        if not operations:
            return _problem(404, "Not Found", f"no command {command_id} is known; old ones are forgotten")
        await self._wait(request, operations)
        return _json(200, {"operations": [to_json(item) for item in self.operations.of_command(command_id)]})

    async def operation(self, request: Request, parts: tuple[str, ...]) -> Response:
        """GET /v1/operations/{id}[?wait=30]"""
        operation = self._operation(parts[0])
        await self._wait(request, [operation])
        return _json(200, to_json(self.operations.get(operation.id) or operation))

    async def abort(self, request: Request, parts: tuple[str, ...]) -> Response:
        """POST /v1/operations/{id}/abort"""
        operation = self._operation(parts[0])
        refused = self.orders.abort(operation)
        if refused:
            return _problem(409, "Conflict", f"cannot abort {operation.id}: {refused}")
        return _json(200, to_json(operation))

    def _operation(self, id_: str) -> Operation:
        operation = self.operations.get(id_)
        if operation is None:
            raise UnknownOperation(id_)
        return operation

    async def _wait(self, request: Request, operations: Sequence[Operation]) -> None:
        seconds = _number(request.query.get("wait", "0"), "wait", MAX_WAIT_SECONDS)
        if seconds > 0:
            await self.operations.wait(operations, seconds)

    async def events(self, request: Request, _: tuple[str, ...]) -> Response:
        """GET /v1/events: server-sent events; `Last-Event-ID` resumes, `?follow=0` ends after what is known."""
        last = request.headers.get("last-event-id") or request.query.get("since") or "0"
        seq = int(_number(last, "Last-Event-ID", 2**53))
        follow = request.query.get("follow", "1") not in ("0", "false")
        return Response(200, content_type="text/event-stream", stream=self._events(seq, follow))

    async def _events(self, seq: int, follow: bool) -> AsyncIterator[bytes]:
        yield b": events of this daemon\n\n"
        if not follow:
            for event in self.history.since(seq):
                yield b"id: %d\nevent: %s\ndata: %s\n" % (
                    event.seq,
                    event.type.encode(),
                    encode(to_json(event)),
                )
            return
        async for event in self.history.follow(seq):
            yield b"id: %d\nevent: %s\ndata: %s\n" % (event.seq, event.type.encode(), encode(to_json(event)))

    # The daemon.

    async def plan(self, request: Request, _: tuple[str, ...]) -> Response:
        """POST /v1/config/plan"""
        try:
            items = self.daemon.plan()
        except ConfigError as error:
            return _json(200, {"items": [], "errors": config_errors(error)})
        return _json(200, {"items": [to_json(item) for item in items], "errors": []})

    async def apply(self, request: Request, _: tuple[str, ...]) -> Response:
        """POST /v1/config/apply"""
        items, operations = self.daemon.apply(decode_command(request.body))
        body = {
            "items": [to_json(item) for item in items],
            "operations": [to_json(item) for item in operations],
        }
        return _json(202, body)

    async def shutdown(self, request: Request, _: tuple[str, ...]) -> Response:
        """POST /v1/shutdown"""
        command = decode_command(request.body)
        self.daemon.shut_down(command.reason or f"asked for by {command.issued_by or 'the control API'}")
        return _json(202, {"detail": "all units are being stopped; unitd ends after them"})

    async def doctor(self, request: Request, _: tuple[str, ...]) -> Response:
        """GET /v1/doctor"""
        if self._examine is None:
            return _problem(404, "Not Found", "this daemon has no doctor")
        findings, facts = await self._examine()
        may_not = self.access.refuses(replace(request, method="POST"))
        body = {"version": version(), "findings": [to_json(item) for item in findings], "may_not_command": may_not}
        return _json(200, {**body, **facts})

    async def healthz(self, request: Request, _: tuple[str, ...]) -> Response:
        """GET /healthz: the daemon's loop turns."""
        return Response(200, b"ok\n", "text/plain")

    async def readyz(self, request: Request, _: tuple[str, ...]) -> Response:
        """GET /readyz"""
        ready = self.daemon.is_ready
        return Response(200 if ready else 503, b"ready\n" if ready else b"not ready\n", "text/plain")


class UnknownOperation(UnknownUnit):
    """No operation has that id, or it was forgotten."""

    def __init__(self, id_: str) -> None:
        super().__init__(id_)
        self.args = (f"no operation {id_} is known; old ones are forgotten",)


_UNIT = r"/v1/units/([^/]+)"
_ROUTES: tuple[tuple[str, re.Pattern[str], Handler], ...] = (
    ("GET", re.compile(r"/v1/units"), Control.units),
    ("GET", re.compile(_UNIT), Control.unit),
    ("GET", re.compile(_UNIT + "/why"), Control.why),
    ("GET", re.compile(_UNIT + "/logs"), Control.logs),
    ("POST", re.compile(_UNIT + "/(" + "|".join(VERBS) + ")"), Control.command),
    ("POST", re.compile(_UNIT + "/(enable|disable)"), Control.remember),
    ("GET", re.compile(r"/v1/operations"), Control.all_operations),
    ("GET", re.compile(r"/v1/operations/([^/]+)"), Control.operation),
    ("POST", re.compile(r"/v1/operations/([^/]+)/abort"), Control.abort),
    ("GET", re.compile(r"/v1/events"), Control.events),
    ("POST", re.compile(r"/v1/config/plan"), Control.plan),
    ("POST", re.compile(r"/v1/config/apply"), Control.apply),
    ("GET", re.compile(r"/v1/doctor"), Control.doctor),
    ("POST", re.compile(r"/v1/shutdown"), Control.shutdown),
    ("GET", re.compile(r"/healthz"), Control.healthz),
    ("GET", re.compile(r"/readyz"), Control.readyz),
)


def config_errors(error: ConfigError) -> list[dict[str, object]]:
    """Every mistake in the configuration as plain values."""
    return [
        {"path": item.path, "line": item.line, "key": item.key, "reason": item.reason}
        for item in getattr(error, "errors", (error,))
    ]


def _words_of(verb: str, pattern: str, command: Command) -> str:
    """All that a command says, for comparison with itself when it comes again."""
    parts = [verb, pattern, command.parameters, command.deadline, command.reason, command.issued_by]
    return json.dumps(parts, sort_keys=True, separators=(",", ":"))


def _number(text: str, name: str, maximum: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= maximum:
        raise WireError(f"cannot use {name}={text!r}: it must be a number from 0 to {maximum:g}")
    return value


def _json(status: int, value: object, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    return Response(status, encode(value), headers=headers)


def _accepted(operations: Sequence[Operation]) -> Response:
    """All operations of a command; where it is a single one, its own fields are at the top as well."""
    plain = [to_json(operation) for operation in operations]
    body = {**(plain[0] if len(plain) == 1 else {}), "operations": plain}
    location = "/v1/operations"
    if operations:
        location += f"?command_id={quote(operations[0].command_id, safe='', errors='replace')}"
    if len(operations) == 1:
        location = f"/v1/operations/{operations[0].id}"
    return _json(202, body, headers=(("Location", location),))


def _problem(
    status: int, title: str, detail: str, headers: tuple[tuple[str, str], ...] = (), **more: object
) -> Response:
    return Response(status, encode(problem(status, title, detail, **more)), "application/problem+json", headers)
