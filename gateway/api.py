"""unit-gateway's own HTTP API: what the gateways were told, and what they see. Reading only, for this host alone."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

from aiohttp import web

from supervisor.wire import coded, encode

from .model import Key, Pool, Server, ServerView

log = logging.getLogger("unit-gateway.api")

LAST_SECONDS = 1.0  # answers that are being given at the end get so long
_HEADERS = {"Server": "unit-gateway", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiParts:
    """Where the answers come from. `registry` and `feeders` give dataclasses, which are shown as they are.

    `unsaid` and `unreported`: why what should be in the registry, and at the center, is not; "": it is.
    """

    name: str
    pools: Callable[[], Mapping[str, Pool]]
    views: Callable[[str], Mapping[str, Mapping[Key, ServerView]]]  # of a service: gateway -> what it sees
    registry: Callable[[], Any]
    feeders: Callable[[], Iterable[Any]]
    unsaid: Callable[[], str]
    reports: Callable[[], list[dict[str, Any]]]
    unreported: Callable[[], str]
    metrics: Callable[[], bytes]
    content_type: str  # of metrics
    unready: Callable[[], str]  # why it is not ready; "": it is


class Serving:
    """A listening API. Made by `serve`."""

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner

    async def close(self) -> None:
        """Take no more requests, and let answers be finished."""
        await self._runner.cleanup()


async def serve(parts: ApiParts, listen: tuple[str, int]) -> Serving:
    """Serve the API. Raises OSError."""
    runner = web.AppRunner(
        make_app(parts), handle_signals=False, access_log=None, shutdown_timeout=LAST_SECONDS, logger=log
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, *listen).start()
    except BaseException:
        await runner.cleanup()
        raise
    return Serving(runner)


def make_app(parts: ApiParts) -> web.Application:
    """The application: GET and HEAD only."""
    app = web.Application(middlewares=[_explain], client_max_size=0)
    answers = _Answers(parts)
    for path, handler in (
        ("/healthz", answers.healthz),
        ("/readyz", answers.readyz),
        ("/v1/pools", answers.pools),
        ("/v1/pools/{service}", answers.pool),
        ("/v1/reports", answers.reports),
        ("/metrics", answers.metrics),
    ):
        app.router.add_get(path, handler)
    app.on_response_prepare.append(_add_headers)
    return app


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


@web.middleware
async def _explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure becomes a problem; what nobody expected is for the log."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        details = {404: "there is nothing at this path", 405: "this API is read with GET and HEAD"}
        detail = details.get(error.status, error.reason)
        return _problem(_CODES.get(error.status, "bad_request"), detail)
    except Exception:
        log.exception("cannot answer %s %s", request.method, request.path)
        return _problem("internal_error", "unit-gateway has failed; its log says why")


def _problem(code: str, detail: str) -> web.Response:
    body = coded(code, detail)
    headers = {"Allow": "GET, HEAD"} if body["status"] == 405 else {}
    return web.Response(
        status=body["status"], body=encode(body), content_type="application/problem+json", headers=headers
    )


def _json(value: Any) -> web.Response:
    return web.Response(body=encode(value), content_type="application/json")


class _Answers:
    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts

    async def healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(self, request: web.Request) -> web.Response:
        why = self._parts.unready()
        return web.Response(status=503 if why else 200, text=f"{why or 'ok'}\n")

    async def pools(self, request: web.Request) -> web.Response:
        pools = self._parts.pools()
        return _json(
            {
                "gateway": self._parts.name,
                "registry": asdict(self._parts.registry()),
                "unsaid": self._parts.unsaid(),
                "feeders": [asdict(feeder) for feeder in self._parts.feeders()],
                "pools": [self._shown(pools[service]) for service in sorted(pools)],
            }
        )

    async def pool(self, request: web.Request) -> web.Response:
        pools, service = self._parts.pools(), request.match_info["service"]
        if service in pools:
            return _json(self._shown(pools[service]))
        near = get_close_matches(service[:100], pools, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return _problem("not_found", f"there is no service {service[:300]}{hint}")

    async def reports(self, request: web.Request) -> web.Response:
        return _json({"reports": self._parts.reports(), "unreported": self._parts.unreported()})

    async def metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._parts.metrics(), headers={"Content-Type": self._parts.content_type})

    def _shown(self, pool: Pool) -> dict[str, Any]:
        views = self._parts.views(pool.service)
        there = {server.key for server in pool.servers}
        return {
            "service": pool.service,
            "revision": pool.revision,
            "epoch": pool.epoch,
            "servers": [_server(server, views) for server in pool.servers],
            "left": [
                {"gateway": name, "instance": key[0], "generation": key[1], **_view(view)}
                for name, seen in views.items()
                for key, view in seen.items()
                if key not in there
            ],
        }


def _server(server: Server, views: Mapping[str, Mapping[Key, ServerView]]) -> dict[str, Any]:
    seen = {name: _view(view[server.key]) for name, view in views.items() if server.key in view}
    plain = asdict(server)
    del plain["service"]
    return {**plain, "gateways": seen}


def _view(view: ServerView) -> dict[str, Any]:
    return {
        "health": view.health,
        "in_flight": view.in_flight,
        "weight": view.weight,
        "total": view.total,
        "detail": view.detail,
    }
