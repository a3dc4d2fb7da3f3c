"""One request on its way: who makes it, what it says, and what the audit log will say of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from supervisor.core.access import Principal, Right, refuses
from supervisor.wire import MAX_BODY_BYTES, encode

from .decoding import Query, bad, check_text, decode_object
from .parts import ApiParts, forbidden
from .problems import Refusal

BODY_SECONDS = 15.0
MAX_WAIT_SECONDS = 60.0
BROKEN_BODY = (web.RequestPayloadError, web.PayloadAccessError, ConnectionError)
_MAX_PART = 512


@dataclass(slots=True)
class Call:
    """What a handler is given."""

    request: web.Request
    parts: ApiParts
    principal: Principal
    max_body_bytes: int = MAX_BODY_BYTES
    notes: dict[str, Any] = field(default_factory=dict)  # for the audit log
    is_command: bool = True  # False: nothing was to happen, so there is nothing to write down

    def part(self, name: str) -> str:
        """A variable part of the path."""
        value = check_text(f"the {name} in the path", self.request.match_info[name])
        if len(value) > _MAX_PART:
            raise bad(f"the {name} in the path", f"is longer than {_MAX_PART} characters")
        return value

    def query(self) -> Query:
        """The parameters of the URL."""
        return Query(self.request.query.items())

    async def body(self) -> Mapping[str, Any]:
        """The JSON object that was sent."""
        return decode_object(await self.read())

    async def read(self) -> bytes:
        """The bytes that were sent. Raises Refusal: too many of them (413), too slowly (408)."""
        request, limit = self.request, self.max_body_bytes
        chunks: list[bytes] = []
        came, size = 0, request.content_length or 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while size <= limit and (chunk := await request.content.readany()):
                    chunks.append(chunk)
                    came += len(chunk)
                    size = max(size, came)
        except TimeoutError:
            raise Refusal(408, "bad_request", f"the body did not come within {BODY_SECONDS:g} s") from None
        except BROKEN_BODY as error:
            raise bad("the body", "it broke off, or is not encoded as its headers say") from error
        if size > limit:
            raise Refusal(413, "too_large", f"send at most {limit} bytes at once")
        return b"".join(chunks)

    def permit(self, services: Sequence[str | None]) -> None:
        """The caller may command units of these services (None: units without one). Raises BadRequest (403)."""
        if reason := refuses(self.principal, Right.OPERATE, services):
            raise forbidden(reason)


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Plain values as JSON."""
    return web.Response(status=status, body=encode(value), content_type="application/json", headers=headers)
