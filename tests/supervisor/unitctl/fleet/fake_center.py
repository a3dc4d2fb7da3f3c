"""A control center that answers as the real one does, and does what a test tells it."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote

DEADLINE_SECONDS = 15.0
AT = "2026-11-24T08:00:00.000Z"
Raw = dict[str, Any]
STRATEGY = {"batch": "25%", "canary": 1, "bake_seconds": 30.0, "floor_percent": 75.0, "max_failures": 0,
            "by_zone": True, "target_seconds": 900.0}  # fmt: skip


class Request:
    """What the center was asked."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        self.method = method
        self.path, _, query = target.partition("?")
        self.query = dict(parse_qsl(query, keep_blank_values=True))
        self.headers = headers
        self.json = json.loads(body) if body else None


Answer = tuple[int, Any]  # status; a JSON value, or an iterator of chunks


class FakeCenter:
    """Services, nodes and operations in memory. Operations end at once, or with `hold()` when a test ends them."""

    def __init__(self) -> None:
        self.tls: ssl.SSLContext | None = None
        self.token: str | None = None
        self.entries: dict[str, Raw] = {}
        self.nodes: dict[str, Raw] = {}
        self.gateways: list[Raw] = []
        self.frozen: dict[str, str] = {}
        self.operations: dict[str, Raw] = {}
        self.decisions: list[Raw] = []
        self.events: list[Raw] = []
        self.mode = "assist"
        self.requests: list[Request] = []
        self.routes: dict[tuple[str, str], Callable[[Request], Answer | None]] = {}
        self.held = False
        self.changed = threading.Condition()
        self.server: _Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.server = _Server(self)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,)).start()

    def stop(self) -> None:
        """End as a killed center does."""
        server, self.server = self.server, None
        if server is not None:
            with self.changed:
                self.changed.notify_all()
            server.shutdown()
            server.cut_all()
            server.server_close()

    # What a test sets.

    def add(self, instance: str, service: str = "cart", status: str = "up", weight: int = 100, **more: Any) -> Raw:
        node, _, unit = instance.partition("/")
        self.add_node(node)
        self.entries[instance] = {
            "schema": 1, "service": service, "instance": instance, "node": node, "unit": unit, "address": "10.0.0.7",
            "port": 9080, "generation": 7, "status": status, "weight": weight, "full_weight": 100, "started_at": AT,
            "warmup_seconds": 60.0, "version": "1.4.2", "zone": "a", "metadata": {}, "operation": None, "reports": 0, **more,
        }  # fmt: skip
        return self.entries[instance]

    def add_node(self, node: str, **more: Any) -> Raw:
        return self.nodes.setdefault(node, {
            "node": node, "address": "10.0.0.7", "port": 9301, "scheme": "http", "via": "push", "state": "up", "phi": 0.3,
            "seen_seconds_ago": 1.2, "interval_seconds": 5.0, "version": "0.1.0", "units": 2, "open_operations": 0,
            "life": 1, "services": ["cart"], "detail": "", **more,
        })  # fmt: skip

    def hold(self) -> None:
        self.held = True

    def change(self, id_: str, **what: Any) -> None:
        """Change an operation, or `targets={instance: {...}}` and `batches={number: {...}}` of it."""
        with self.changed:
            operation = self.operations[id_]
            for target in operation["targets"]:
                target.update(what.get("targets", {}).get(target["instance"], {}))
            for batch in operation["batches"]:
                batch.update(what.get("batches", {}).get(batch["number"], {}))
            operation.update({key: value for key, value in what.items() if key not in ("targets", "batches")})
            operation["version"] += 1
            operation["counts"] = _counts(operation["targets"])
            self.changed.notify_all()

    def finish(self, id_: str, state: str = "succeeded", **what: Any) -> None:
        names = [
            target["instance"]
            for target in self.operations[id_]["targets"]
            if target["state"] in ("pending", "running")
        ]
        ended = {"state": "succeeded" if state == "succeeded" else "skipped"}
        targets = {**dict.fromkeys(names, ended), **what.pop("targets", {})}
        self.change(id_, state=state, started=AT, finished="2026-11-24T08:04:12.000Z", targets=targets, **what)

    def happen(self, type_: str, **body: Any) -> None:
        with self.changed:
            self.events.append({"seq": len(self.events) + 1, "at": AT, "type": type_, "body": body})
            self.changed.notify_all()

    def problem(self, method: str, path: str, status: int, code: str, detail: str, **more: Any) -> None:
        problem = {"type": "about:blank", "title": "t", "status": status, "code": code, "detail": detail, **more}
        self.routes[method, path] = lambda _: (status, problem)

    # What a test waits for.

    def asked(self, method: str, path: str) -> list[Request]:
        return [item for item in self.requests if item.method == method and re.fullmatch(path, item.path)]

    def wait_for(self, method: str, path: str, count: int = 1) -> Request:
        """The `count`th request of that kind, once it has come."""
        with self.changed:
            found = self.changed.wait_for(lambda: len(self.asked(method, path)) >= count, DEADLINE_SECONDS)
            assert found, [(item.method, item.path) for item in self.requests]
            return self.asked(method, path)[count - 1]

    # Answers.

    def answer(self, request: Request) -> Answer | None:
        """None: hang up."""
        with self.changed:
            self.requests.append(request)
            self.changed.notify_all()
        if self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}":
            return 401, _problem(401, "unauthenticated", "who are you?")
        route = self.routes.get((request.method, request.path))
        if route is not None:
            return route(request)
        for method, pattern, handler in _ROUTES:
            match = re.fullmatch(pattern, request.path)
            if match and method == request.method:
                return handler(self, request, *map(unquote, match.groups()))
        return 404, _problem(404, "not_found", f"there is nothing at {request.path}")

    def center(self, request: Request) -> Answer:
        return 200, {
            "id": "c0ffee", "name": "center-1", "leader": True, "leader_name": "center-1", "epoch": 3, "mode": self.mode,
            "version": "0.1.0", "started_at": AT, "registry": {"backend": "embedded", "state": "ok", "seconds_ago": 0.1},
            "principal": {"name": "alice", "role": "admin", "services": ["*"]},
        }  # fmt: skip

    def set_mode(self, request: Request) -> Answer:
        self.mode = request.json["mode"]
        return self.center(request)

    def _service(self, name: str) -> Raw:
        entries = [entry for entry in self.entries.values() if entry["service"] == name]
        weight = sum(entry["weight"] for entry in entries if entry["status"] != "draining")
        full = sum(entry["full_weight"] for entry in entries)
        zones: dict[str, int] = {}
        for entry in entries:
            zones[entry["zone"] or ""] = zones.get(entry["zone"] or "", 0) + 1
        return {
            "service": name, "instances": len(entries), "weight": weight, "full_weight": full,
            **{state: sum(entry["status"] == state for entry in entries) for state in ("up", "warming", "draining")},
            "capacity_percent": 100 * weight / full, "zones": zones, "nodes": len({e["node"] for e in entries}),
            "operation": None, "frozen": self.frozen.get(name),
        }  # fmt: skip

    def _names(self) -> list[str]:
        return sorted({entry["service"] for entry in self.entries.values()})

    def all_services(self, request: Request) -> Answer:
        return 200, {"revision": 4, "services": [self._service(name) for name in self._names()]}

    def service(self, request: Request, name: str) -> Answer:
        if name not in self._names():
            return 404, _problem(404, "not_found", f"there is no service {name}")
        return 200, {**self._service(name), "entries": [e for e in self.entries.values() if e["service"] == name]}

    def all_nodes(self, request: Request) -> Answer:
        return 200, {"nodes": list(self.nodes.values())}

    def node(self, request: Request, name: str) -> Answer:
        return 200, {**self.nodes[name], "instances": [e for e in self.entries.values() if e["node"] == name]}

    def begin(self, request: Request) -> Answer:
        body = request.json
        for known in self.operations.values():
            if known["command_id"] == body["command_id"]:
                return 202, known
        operation = self._planned(body)
        if body.get("dry_run"):
            return 200, operation
        operation["id"] = f"fo-{len(self.operations) + 1}"
        self.operations[operation["id"]] = operation
        if not self.held:
            self.finish(operation["id"])
        return 202, operation

    def _planned(self, body: Raw) -> Raw:
        """All units, the first as canary, then two at a time; without a strategy all at once."""
        given = body.get("strategy", {} if body["verb"] == "restart" else None)
        strategy = None if given is None else {**STRATEGY, **given}
        targets = [
            {"node": e["node"], "unit": e["unit"], "instance": e["instance"], "service": e["service"], "zone": e["zone"],
             "generation": 7, "weight": 100, "batch": 0 if strategy is None else (number + 1) // 2, "state": "pending",
             "command_id": "", "seq": 0, "attempts": 0, "node_operations": [], "steps": "", "detail": "",
             "started": None, "finished": None}
            for number, e in enumerate(self.entries.values())
        ]  # fmt: skip
        numbers = sorted({target["batch"] for target in targets})
        names = (
            ["all at once"]
            if strategy is None
            else ["canary", *(f"zone a {n}/{len(numbers) - 1}" for n in numbers[1:])]
        )
        services = self._names()
        return {
            "id": "", "command_id": body["command_id"], "verb": body["verb"], "selection": body["selection"],
            "strategy": strategy, "parameters": body["parameters"], "reason": body["reason"],
            "issued_by": body["issued_by"], "created": AT, "deadline": body.get("deadline", "2026-11-24T09:00:00.000Z"),
            "state": "pending", "wish": "run", "cause": "person", "services": services,
            "baseline": {name: self._service(name)["full_weight"] for name in services}, "epoch": 3, "version": 1,
            "started": None, "finished": None, "waiting_for": "", "error": None,
            "batches": [{"number": n, "name": name, "state": "pending", "started": None, "finished": None}
                        for n, name in zip(numbers, names)],
            "targets": targets, "counts": _counts(targets),
        }  # fmt: skip

    def all_operations(self, request: Request) -> Answer:
        found = [{key: value for key, value in each.items() if key != "targets"} for each in self.operations.values()]
        if request.query.get("open"):
            found = [each for each in found if each["state"] in ("pending", "running", "paused")]
        return 200, {"operations": found[::-1][: int(request.query.get("limit", "50"))]}

    def operation(self, request: Request, id_: str) -> Answer:
        if id_ not in self.operations:
            return 404, _problem(404, "not_found", f"there is no operation {id_}")
        server, seen = self.server, int(request.query.get("version", "-1"))
        with self.changed:
            self.changed.wait_for(
                lambda: (
                    self.operations[id_]["version"] > seen
                    or self.operations[id_]["finished"]
                    or self.server is not server
                ),
                float(request.query.get("wait", "0")),
            )
            return 200, json.loads(json.dumps(self.operations[id_]))

    def wish(self, request: Request, id_: str, verb: str) -> Answer:
        if self.operations[id_]["finished"]:
            return 409, _problem(409, "done", f"{id_} has ended")
        if verb == "abort":
            self.finish(id_, "aborted", wish="abort", error="aborted")
        else:
            self.change(
                id_, state="paused" if verb == "pause" else "running", wish="pause" if verb == "pause" else "run"
            )
        return 200, self.operations[id_]

    def all_decisions(self, request: Request) -> Answer:
        return 200, {"decisions": self.decisions[: int(request.query.get("limit", "50"))]}

    def decision(self, request: Request, id_: str) -> Answer:
        return 200, next(each for each in self.decisions if str(each["id"]) == id_)

    def clear(self, request: Request, kind: str, name: str) -> Answer:
        return 200, {kind.removesuffix("s"): name, "cleared": True}

    def all_events(self, request: Request) -> Answer:
        since = int(request.headers.get("last-event-id", request.query.get("since", "0")))
        return 200, self._stream(since, follow=request.query.get("follow") != "0")

    def _stream(self, since: int, *, follow: bool) -> Iterator[bytes]:
        server = self.server
        yield b": events of this fleet\n\n"
        while True:
            with self.changed:
                until = time.monotonic() + DEADLINE_SECONDS
                while follow and len(self.events) <= since and self.server is server and time.monotonic() < until:
                    self.changed.wait(DEADLINE_SECONDS)
                fresh = self.events[since:]
            for event in fresh:
                yield f"id: {event['seq']}\nevent: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
            since = len(self.events)
            if not follow or self.server is not server:
                return

    def logs(self, request: Request, node: str, unit: str) -> Answer:
        if node not in self.nodes:
            return 502, _problem(502, "node_unreachable", f"cannot reach {node}: no entry")
        return 200, iter([b"listening on 9080\n", f"{unit} {request.query['stream']}\n".encode()])


def _problem(status: int, code: str, detail: str) -> Raw:
    return {"type": "about:blank", "title": "t", "status": status, "code": code, "detail": detail}


def _counts(targets: list[Raw]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for target in targets:
        counts[target["state"]] = counts.get(target["state"], 0) + 1
    return counts


_ROUTES: tuple[tuple[str, str, Callable[..., Answer]], ...] = (
    ("GET", "/v1/center", FakeCenter.center),
    ("PUT", "/v1/center/mode", FakeCenter.set_mode),
    ("GET", "/v1/services", FakeCenter.all_services),
    ("GET", "/v1/services/([^/]+)", FakeCenter.service),
    ("GET", "/v1/nodes", FakeCenter.all_nodes),
    ("GET", "/v1/gateways", lambda center, request: (200, {"gateways": center.gateways})),
    ("GET", "/v1/nodes/([^/]+)", FakeCenter.node),
    ("GET", "/v1/nodes/([^/]+)/units/([^/]+)/logs", FakeCenter.logs),
    ("POST", "/v1/operations", FakeCenter.begin),
    ("GET", "/v1/operations", FakeCenter.all_operations),
    ("GET", "/v1/operations/([^/]+)", FakeCenter.operation),
    ("POST", "/v1/operations/([^/]+)/(pause|resume|abort)", FakeCenter.wish),
    ("GET", "/v1/decisions", FakeCenter.all_decisions),
    ("GET", "/v1/decisions/([^/]+)", FakeCenter.decision),
    ("POST", "/v1/(services)/([^/]+)/thaw", FakeCenter.clear),
    ("POST", "/v1/(instances)/([^/]+/[^/]+)/clear", FakeCenter.clear),
    ("GET", "/v1/events", FakeCenter.all_events),
)


class _Server(ThreadingHTTPServer):
    request_queue_size = 64

    def __init__(self, center: FakeCenter) -> None:
        self.fake = center
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", center.port), _Handler)
        if center.tls is not None:
            self.socket = center.tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def cut_all(self) -> None:
        for connection in list(self.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def handle(self) -> None:
        with suppress(OSError):
            super().handle()

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.fake.answer(Request(self.command, self.path, headers, body))
        if answer is None or self.server.fake.server is not self.server:  # killed while it was thinking
            self.close_connection = True
        elif isinstance(answer[1], Iterator):
            self._stream(answer[1])
        else:
            self._whole(*answer)

    do_POST = do_PUT = do_GET  # noqa: N815

    def _whole(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if status < 400 else "application/problem+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, chunks: Iterator[bytes]) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass
