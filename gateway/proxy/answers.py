"""What the gateway answers itself: problem details, RFC 9457. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus

RETRY_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer of the gateway's own. `retry`: it may be different in a moment."""

    status: int
    code: str
    detail: str
    retry: bool = False

    @property
    def reason(self) -> bytes:
        """The phrase beside the status."""
        return HTTPStatus(self.status).phrase.encode()

    def body(self) -> bytes:
        """The problem as JSON."""
        problem = {"title": HTTPStatus(self.status).phrase, "status": self.status}
        return json.dumps({**problem, "code": self.code, "detail": self.detail}).encode() + b"\n"

    def headers(self, body: bytes) -> list[tuple[bytes, bytes]]:
        """Its header fields."""
        fields = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
        return [*fields, (b"retry-after", b"%d" % RETRY_SECONDS)] if self.retry else fields


class Refused(Exception):
    """The request cannot be passed on: its sender must change it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


def bad_request(detail: str) -> Refusal:
    """The request is none, or one that others might understand in another way."""
    return Refusal(HTTPStatus.BAD_REQUEST, "bad_request", detail)


def too_large(detail: str) -> Refusal:
    """The head is larger than allowed."""
    return Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", detail)


def no_route(host: bytes) -> Refusal:
    """Nobody is configured for it."""
    return Refusal(HTTPStatus.NOT_FOUND, "no_route", f"no route for this path of host {host.decode('latin-1')!r}")


def no_server(service: str, draining: int, ejected: int) -> Refusal:
    """Nobody is left."""
    detail = f"no server of {service} can take requests; {draining} drain, {ejected} ejected"
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "no_server", detail, retry=True)


def too_slow(seconds: float) -> Refusal:
    """The client lets us wait."""
    return Refusal(HTTPStatus.REQUEST_TIMEOUT, "request_timeout", f"no more of the request came for {seconds:g} s")


FULL = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too_many_connections", "the gateway has as many connections as it may",
               retry=True)  # fmt: skip
EXHAUSTED = "gateway_exhausted"
