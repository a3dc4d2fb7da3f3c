"""Requests and answers as values, and how they come out of h11's events; no connection, no I/O."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import parse_qsl

import h11

from ..core.access import Principal
from ..wire import PROBLEMS, coded, encode
from .listener import Peer

_CODES = {
    400: "bad_request",
    403: "forbidden",
    408: "request_timeout",
    413: "too_large",
    431: "headers_too_large",
    500: "internal_error",
    501: "not_implemented",
    503: "overloaded",
}


@dataclass(slots=True)
class Request:
    """One whole request."""

    method: str
    path: str  # as sent, still percent-encoded, without the query
    query: dict[str, str]  # decoded; the last of equal names wins
    headers: dict[str, str]  # names in lower case, equal ones joined by ", "
    body: bytes
    peer: Peer
    caller: Principal | None = None  # who sent it, once that is known


@dataclass(slots=True)
class Response:
    """An answer: `body`, or `stream`, whose chunks are sent as they come and which is closed in any case."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    stream: AsyncIterator[bytes] | None = None

    @property
    def has_body(self) -> bool:
        """Whether HTTP lets an answer with this status have a body, and its headers speak of one."""
        return self.status not in (204, 304)


def refusal(status: int, detail: str) -> Response:
    """An error as RFC 9457 wants it."""
    return coded_refusal(_CODES[status], detail)


def coded_refusal(code: str, detail: str, headers: tuple[tuple[str, str], ...] = (), **more: object) -> Response:
    """The problem of that code, with more members where there is more to say."""
    return Response(PROBLEMS[code][0], encode(coded(code, detail, **more)), "application/problem+json", headers)


def internal_error() -> Response:
    """What a client learns of an error of ours."""
    return refusal(500, "the request failed: the daemon's log says why")


def fault(error: h11.RemoteProtocolError) -> Response:
    """What a client learns of its error in speaking HTTP."""
    status = error.error_status_hint if error.error_status_hint in _CODES else 400
    return refusal(status, f"cannot read the request: {error}")


def read_request(event: h11.Request, peer: Peer) -> Request:
    """A request without its body."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in event.headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    target = event.target.decode("latin-1")
    if target.startswith(("http://", "https://")):  # absolute form, which servers must take (RFC 9112, 3.2.2)
        target = "/" + target.partition("://")[2].partition("/")[2]
    path, _, query = target.partition("?")
    pairs = dict(parse_qsl(query, keep_blank_values=True))
    return Request(event.method.decode("latin-1"), path, pairs, headers, b"", peer)


def head_refusal(event: h11.Request, *, max_head_bytes: int, max_body_bytes: int) -> Response | None:
    """Why a request is refused before its body is read, or None."""
    headers = dict(event.headers)
    if sum(len(name) + len(value) for name, value in event.headers) + len(event.target) > max_head_bytes:
        return refusal(431, f"send at most {max_head_bytes} bytes of headers")
    if b"content-length" in headers and b"transfer-encoding" in headers:
        # two readers could disagree where this request ends (RFC 9112, 6.1)
        return refusal(400, "send Content-Length or Transfer-Encoding, not both")
    if int(headers.get(b"content-length", 0)) > max_body_bytes:
        return body_refusal(max_body_bytes)
    return None


def body_refusal(max_body_bytes: int) -> Response:
    """The body is larger than this."""
    return refusal(413, f"send at most {max_body_bytes} bytes of body")
