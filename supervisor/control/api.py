"""The routes, and those handlers that only look; `commands` has those that change something."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote

from registry_client.server import RegistryApi

from ..agents import explain
from ..agents.history import History
from ..agents.operations import Operations
from ..agents.orders import Orders
from ..agents.view import View
from ..core.access import Principal, Right, Role, refuses
from ..core.measures import Measures
from ..errors import ConfigError, WireError
from ..host.access import Access, Denied
from ..host.http import Request, Response
from ..host.journal import Journal
from ..host.output import OutputPump
from ..installation import version
from ..routes import METHODS, OTHER, name_of
from ..wire import VERBS, Command, NodeInfo, Operation, PlanItem, encode, to_json
from .answers import Refused, UnknownOperation, config_errors, flag, json_answer, number, problem_answer, refused_by
from .audit import REPEATED, Auditor
from .commands import Commands
from .registry import answer_registry

MAX_WAIT_SECONDS = 60.0
MAX_LOG_LINES = 10_000
LOG_SECONDS = 3.0

Examine = Callable[[], Awaitable[tuple[list[Any], dict[str, object]]]]  # findings, and facts by name
Handler = Callable[["Control", Request, tuple[str, ...]], Awaitable[Response]]
REGISTRY = "/v1/registry/"


class Route(NamedTuple):
    """What a request of that method and path gets, and the right that it takes (None: nobody needs one)."""

    method: str
    pattern: re.Pattern[str]
    handler: Handler
    right: Right | None


class Daemon(Protocol):
    """What only the daemon as a whole can do."""

    def plan(self) -> list[PlanItem]:
        """Compare the files with what is. Raises ConfigError."""

    def apply(self, command: Command) -> tuple[list[PlanItem], list[Operation]]:
        """Make it so. Raises ConfigError; then nothing has changed."""

    def shut_down(self, reason: str) -> None:
        """Stop all units in order, then end."""

    def node(self) -> NodeInfo:
        """Who and how it is."""

    async def metrics(self) -> tuple[str, bytes]:
        """The media type of what is measured, and all of that."""

    @property
    def is_ready(self) -> bool:
        """It has started what it was to start, and is not shutting down."""

    @property
    def is_stopping(self) -> bool:
        """It is shutting down."""


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
        *,
        journal: Journal,
        auditor: Auditor | None = None,
        measures: Measures | None = None,
    ) -> None:
        """`registry` is the embedded one, if this daemon has it; `examine` the doctor's."""
        self.daemon, self.orders, self.operations, self.view = daemon, orders, operations, view
        self.history, self.pump, self.access, self.registry = history, pump, access, registry
        self._examine, self._auditor = examine, auditor or Auditor(None)
        self._measures = measures or Measures()
        self._commands = Commands(daemon, orders, operations, view, journal)

    async def handle(self, request: Request) -> Response:
        """The answer to any request; errors are problem+json that says what to do."""
        refused = None if request.caller is not None else self.admit(request)
        if refused is not None:
            return refused
        assert request.caller is not None
        return await self.handle_as(request, request.caller)

    def admit(self, request: Request) -> Response | None:
        """Find out who sent it: then it has a caller. Else the refusal; the request's body need not be there yet."""
        found = self.access.caller(request)
        if isinstance(found, Principal):
            request.caller = found
            return None
        route, parts, _ = _find(request)
        if found.code == "unauthenticated" and route is not None and route.right is None:
            request.caller = _NOBODY
            return None
        if found.first and is_command(route):
            self._auditor.refused(request, found.who, parts, found.code, found.detail)
        return self._counted(request, route, problem_answer(Refused(found.code, found.detail, _challenge(found))))

    def _counted(self, request: Request, route: Route | None, response: Response) -> Response:
        method = request.method if request.method in METHODS else OTHER
        name = name_of(request.path, route.pattern.pattern if route is not None else "")
        self._measures.requests.add(method, name, str(response.status))
        return response

    async def handle_as(self, request: Request, caller: Principal) -> Response:
        """The answer to a request of somebody who was recognised: their rights and the audit log as over TCP."""
        request.caller = caller
        route, parts, allowed = _find(request)
        try:
            response = await self._answer(request, caller, route, parts, allowed)
        except Exception as error:
            refused = refused_by(error)
            if is_command(route):
                self._auditor.refused(request, caller.name, parts, refused.code, refused.detail)
            answer = self._counted(request, route, problem_answer(refused))
            if answer.status >= 500 and refused is not error:
                raise  # an error of ours: the server answers, and the log says where it was
            return answer
        if is_command(route):
            self._auditor.accepted(request, caller.name, parts, repeated=REPEATED in response.headers)
        return self._counted(request, route, response)

    async def _answer(
        self, request: Request, caller: Principal, route: Route | None, parts: tuple[str, ...], allowed: list[str]
    ) -> Response:
        if request.path.startswith(REGISTRY):
            return await answer_registry(self.registry, request, caller)
        if route is None and allowed:
            detail = f"{request.path} answers to {', '.join(allowed)}"
            raise Refused("method_not_allowed", detail, (("Allow", ", ".join(allowed)),))
        if route is None:
            raise Refused("not_found", f"there is nothing at {request.path}")
        if route.right is not None and (refused := refuses(caller, route.right)):
            raise Refused("forbidden", refused)
        return await route.handler(self, request, parts)

    # Units.

    async def units(self, request: Request, _: tuple[str, ...]) -> Response:
        """GET /v1/units[?names=a,b]"""
        names = request.query.get("names", "")
        chosen = self.orders.select(names.split(",")) if names else list(self.orders.specs)
        return json_answer(200, {"units": [to_json(status) for status in self.view.statuses(chosen)]})

    async def unit(self, request: Request, parts: tuple[str, ...]) -> Response:
        """GET /v1/units/{unit}"""
        return json_answer(200, to_json(self.view.status(self._one(parts[0]))))

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
        return json_answer(200, {"unit": name, "why": status.why, "details": details})

    async def logs(self, request: Request, parts: tuple[str, ...]) -> Response:
        """GET /v1/units/{unit}/logs"""
        name = self._one(parts[0])
        stream = request.query.get("stream", "stdout")
        if stream not in ("stdout", "stderr"):
            raise WireError(f"cannot show {stream!r}: the streams are stdout and stderr")
        logs = self.orders.specs[name].logs
        path = logs.stdout if stream == "stdout" or logs.redirect_stderr else logs.stderr
        if path is None:
            raise Refused("not_found", f"the {stream} of {name} is thrown away: its logs.{stream} is NONE")
        lines = number(request.query.get("lines", "10"), "lines", MAX_LOG_LINES)
        if flag(request.query.get("follow", "0"), "follow"):
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
            return json_answer(200, {"operations": [to_json(item) for item in self.operations.latest(100)]})
        operations = self.operations.of_command(command_id)
        if not operations:
            raise Refused("not_found", f"no command {command_id} is known; old ones are forgotten")
        await self._wait(request, operations)
        return json_answer(200, {"operations": [to_json(item) for item in self.operations.of_command(command_id)]})

    async def operation(self, request: Request, parts: tuple[str, ...]) -> Response:
        """GET /v1/operations/{id}[?wait=30]"""
        operation = self._operation(parts[0])
        await self._wait(request, [operation])
        return json_answer(200, to_json(self.operations.get(operation.id) or operation))

    def _operation(self, id_: str) -> Operation:
        operation = self.operations.get(id_)
        if operation is None:
            raise UnknownOperation(id_)
        return operation

    async def _wait(self, request: Request, operations: Sequence[Operation]) -> None:
        seconds = number(request.query.get("wait", "0"), "wait", MAX_WAIT_SECONDS)
        if seconds > 0:
            await self.operations.wait(operations, seconds)

    async def events(self, request: Request, _: tuple[str, ...]) -> Response:
        """GET /v1/events: server-sent events; `Last-Event-ID` resumes, `?follow=0` ends after what is known."""
        last = request.headers.get("last-event-id") or request.query.get("since") or "0"
        seq = int(number(last, "Last-Event-ID", 2**53))
        follow = flag(request.query.get("follow", "1"), "follow")
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
            return json_answer(200, {"items": [], "errors": config_errors(error)})
        return json_answer(200, {"items": [to_json(item) for item in items], "errors": []})

    async def doctor(self, request: Request, _: tuple[str, ...]) -> Response:
        """GET /v1/doctor"""
        if self._examine is None:
            raise Refused("not_found", "this daemon has no doctor")
        findings, facts = await self._examine()
        findings += self._auditor.findings()
        may_not = self.access.may_not_command(request)
        body = {
            "version": version(),
            "findings": [to_json(item) for item in findings],
            "may_not_command": may_not,
        }
        return json_answer(200, {**body, **facts})

    async def node(self, request: Request, _: tuple[str, ...]) -> Response:
        """GET /v1/node"""
        return json_answer(200, to_json(self.daemon.node()))

    async def metrics(self, request: Request, _: tuple[str, ...]) -> Response:
        """GET /metrics"""
        kind, text = await self.daemon.metrics()
        return Response(200, text, kind)

    async def openapi(self, request: Request, _: tuple[str, ...]) -> Response:
        """GET /openapi.json"""
        return json_answer(200, import_module("..openapi", __package__).document(version()))  # loaded for who asks

    async def healthz(self, request: Request, _: tuple[str, ...]) -> Response:
        """GET /healthz: the daemon's loop turns."""
        return Response(200, b"ok\n", "text/plain")

    async def readyz(self, request: Request, _: tuple[str, ...]) -> Response:
        """GET /readyz"""
        ready = self.daemon.is_ready
        return Response(200 if ready else 503, b"ready\n" if ready else b"not ready\n", "text/plain")

    # What changes something.

    async def command(self, request: Request, parts: tuple[str, ...]) -> Response:
        """POST /v1/units/{pattern}/{start|stop|restart|signal|drain|undrain|warm|weight}"""
        return self._commands.give(request, *parts)

    async def remember(self, request: Request, parts: tuple[str, ...]) -> Response:
        """POST /v1/units/{pattern}/{enable|disable}"""
        return self._commands.remember(request, *parts)

    async def abort(self, request: Request, parts: tuple[str, ...]) -> Response:
        """POST /v1/operations/{id}/abort"""
        return self._commands.abort(request, self._operation(parts[0]))

    async def apply(self, request: Request, _: tuple[str, ...]) -> Response:
        """POST /v1/config/apply"""
        return self._commands.apply(request)

    async def shutdown(self, request: Request, _: tuple[str, ...]) -> Response:
        """POST /v1/shutdown"""
        return self._commands.shutdown(request)


def _challenge(denied: Denied) -> tuple[tuple[str, str], ...]:
    return (("WWW-Authenticate", "Bearer"),) if denied.code == "unauthenticated" else ()


def is_command(route: Route | None) -> bool:
    """Its requests change something, and are written down in the audit log."""
    return route is not None and route.right in (Right.OPERATE, Right.ADMIN)


def _find(request: Request) -> tuple[Route | None, tuple[str, ...], list[str]]:
    """The route, the parts of the path that it names, and where there is none, the methods that there are."""
    allowed = []
    for route in ROUTES:
        match = route.pattern.fullmatch(request.path)
        if match is None:
            continue
        if request.method == route.method or (request.method == "HEAD" and route.method == "GET"):
            return route, tuple(unquote(part) for part in match.groups()), []
        allowed.append(route.method)
    return None, (), allowed


_NOBODY = Principal("nobody", Role.READ, services=(), nodes=())
_UNIT = r"/v1/units/(?P<unit>[^/]+)"
ROUTES: tuple[Route, ...] = (
    Route("GET", re.compile(r"/v1/units"), Control.units, Right.READ),
    Route("GET", re.compile(_UNIT), Control.unit, Right.READ),
    Route("GET", re.compile(_UNIT + "/why"), Control.why, Right.READ),
    Route("GET", re.compile(_UNIT + "/logs"), Control.logs, Right.READ),
    Route("POST", re.compile(_UNIT + "/(" + "|".join(VERBS) + ")"), Control.command, Right.OPERATE),
    Route("POST", re.compile(_UNIT + "/(enable|disable)"), Control.remember, Right.OPERATE),
    Route("GET", re.compile(r"/v1/operations"), Control.all_operations, Right.READ),
    Route("GET", re.compile(r"/v1/operations/(?P<id>[^/]+)"), Control.operation, Right.READ),
    Route("POST", re.compile(r"/v1/operations/(?P<id>[^/]+)/abort"), Control.abort, Right.OPERATE),
    Route("GET", re.compile(r"/v1/events"), Control.events, Right.READ),
    Route("POST", re.compile(r"/v1/config/plan"), Control.plan, Right.READ),
    Route("POST", re.compile(r"/v1/config/apply"), Control.apply, Right.ADMIN),
    Route("GET", re.compile(r"/v1/doctor"), Control.doctor, Right.READ),
    Route("POST", re.compile(r"/v1/shutdown"), Control.shutdown, Right.ADMIN),
    Route("GET", re.compile(r"/v1/node"), Control.node, Right.READ),
    Route("GET", re.compile(r"/metrics"), Control.metrics, Right.READ),
    Route("GET", re.compile(r"/openapi\.json"), Control.openapi, None),
    Route("GET", re.compile(r"/healthz"), Control.healthz, None),
    Route("GET", re.compile(r"/readyz"), Control.readyz, None),
)
