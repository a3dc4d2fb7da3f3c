"""What is no part of the fleet's business: health, metrics, the description of this API, and the page."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from aiohttp import web

from .call import Call, answer
from .openapi import document
from .problems import RETRY_AFTER, Refusal, not_found

FOLDER = Path(__file__).parent.parent / "web"
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_TYPES = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon", ".json": "application/json",
    ".webmanifest": "application/manifest+json", ".txt": "text/plain; charset=utf-8", ".woff2": "font/woff2",
}  # fmt: skip


async def healthy(call: Call) -> web.Response:
    """GET /healthz"""
    return web.Response(text="ok\n")


async def ready(call: Call) -> web.Response:
    """GET /readyz"""
    if not call.parts.is_ready():
        raise Refusal(503, "shutting_down", "it is starting, or shutting down", RETRY_AFTER)
    return web.Response(text="ok\n")


async def metrics(call: Call) -> web.Response:
    """GET /metrics"""
    parts = call.parts
    opened = await parts.store.operations(open_only=True, limit=1000)
    leader = parts.leader()
    body = parts.metrics.render(
        is_leader=leader.is_us,
        epoch=leader.epoch,
        nodes=parts.heartbeats.statuses(),
        operations=[operation.state for operation in opened],
        registry_age=parts.registry().seconds_ago,
        budgets=parts.closed_loop.budgets(),
    )
    return web.Response(body=body, headers={"Content-Type": parts.metrics.content_type})


async def openapi(call: Call) -> web.Response:
    """GET /openapi.json"""
    return answer(document())


async def page(call: Call) -> web.StreamResponse:
    """GET /"""
    return _file(call, "index.html")


async def static(call: Call) -> web.StreamResponse:
    """GET /static/{file}"""
    return _file(call, call.part("file"))


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    etag: str


def _file(call: Call, name: str) -> web.Response:
    path = FOLDER / name
    kind = _TYPES.get(path.suffix)
    # Only what is listed can be named, so no name leads out of the folder.
    if kind is None or name not in _names():
        raise not_found(f"file {name}")
    stat = path.stat()
    found = _read(path, stat.st_mtime_ns, stat.st_size)
    headers = {"Content-Type": kind, "ETag": found.etag, "Cache-Control": "no-cache"}
    known = [item.strip().removeprefix("W/") for item in call.request.headers.get("If-None-Match", "").split(",")]
    if found.etag in known or "*" in known:
        return web.Response(status=304, headers={"ETag": found.etag, "Cache-Control": "no-cache"})
    return web.Response(body=found.body, headers=headers)


def _names() -> set[str]:
    return {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}


@lru_cache(maxsize=256)
def _read(path: Path, modified: int, size: int) -> _File:
    """Read once for each version of the file, of which `modified` and `size` tell."""
    body = path.read_bytes()
    return _File(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
