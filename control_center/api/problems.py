"""What a client is told when it does not get what it asked for: RFC 9457 problems with a `code` for programs."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

from supervisor.wire import encode

from ..errors import (
    BadRequest,
    CenterError,
    CommandDiffers,
    NodeRefused,
    NodeUnreachable,
    ServiceBusy,
    StoreError,
    Superseded,
)

RETRY_AFTER = {"Retry-After": "1"}
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


class Refusal(Exception):
    """An answer that is a problem, thrown from wherever it is found."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, object] | None = None,
    ) -> None:
        """`more` are members of the problem besides those that each has."""
        super().__init__(detail)
        self.status, self.code, self.headers, self.more = status, code, dict(headers or {}), dict(more or {})


def respond(refusal: Refusal) -> web.Response:
    """The answer to a request that is refused or has failed; `detail` says what to do."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(refusal.status).phrase,
        "status": refusal.status,
        "detail": str(refusal),
        "code": refusal.code,
        **refusal.more,
    }
    return web.Response(
        status=refusal.status, body=encode(body), content_type="application/problem+json", headers=refusal.headers
    )


def not_found(what: str, nearest: str | None = None) -> Refusal:
    """There is none of that name; `nearest` is the one that was perhaps meant."""
    hint = f"; did you mean {nearest}?" if nearest else ""
    return Refusal(404, "not_found", f"there is no {what[:300]}{hint}", more={"nearest": nearest})


def refusal_of(error: Exception) -> Refusal | None:
    """The refusal that an error on purpose is; None: it is not one of those."""
    match error:
        case Refusal():
            return error
        case BadRequest():
            return Refusal(error.status, error.code, str(error), more=error.more)
        case ServiceBusy():
            return Refusal(409, "busy", str(error), more={"operation": error.operation, "service": error.service})
        case CommandDiffers():
            return Refusal(422, "replayed", str(error), more={"command_id": error.command_id})
        case NodeUnreachable():
            return Refusal(502, "node_unreachable", str(error), more={"node": error.node})
        case NodeRefused():
            return _of_node(error)
        case Superseded():
            return Refusal(503, "superseded", f"{error}; ask again", RETRY_AFTER)
        case StoreError():
            return Refusal(503, "store_away", f"{error}; ask again", RETRY_AFTER)
        case CenterError():
            return Refusal(400, "bad_request", str(error))
        case web.HTTPException():
            return _of_http(error)
    return None


def _of_node(error: NodeRefused) -> Refusal:
    """What the caller can mend is the caller's; what only the center's operator can (credentials) is not."""
    if error.status in (400, 404, 409):
        return Refusal(error.status, error.code, str(error), more={"node": error.node})
    return Refusal(502, "node_refused", str(error), more={"node": error.node})


def _of_http(error: web.HTTPException) -> Refusal:
    """What aiohttp itself refuses: paths, methods, sizes."""
    headers: dict[str, str] = {}
    detail = error.reason
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        headers, detail = {"Allow": allowed}, f"this path answers to {allowed}"
    elif error.status == 404:
        detail = "there is nothing at this path; /openapi.json lists what there is"
    return Refusal(error.status, _CODES.get(error.status, "bad_request"), detail, headers)
