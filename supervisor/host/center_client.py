"""Asks the control center: one of several addresses at a time, the next one when that does not answer.

It says once that nobody answers, and once that somebody does again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from registry_client.options import Secret

from ..core.model import CenterSpec, TlsSpec
from ..errors import SupervisorError
from . import http_client
from .http_client import HttpAnswer, HttpFailed
from .tls import TlsOptions

log = logging.getLogger("unitd.center")

DEFAULT_PORT = 9300
MAX_ANSWER_BYTES = 8 * 1024 * 1024

Send = Callable[..., Awaitable[HttpAnswer]]


class CenterAway(SupervisorError):
    """No answer that counts; worth another try. `status` is HTTP's where there was one."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(f"cannot ask the control center: {reason}")
        self.reason, self.status = reason, status


class CenterClient:
    """Calls of one daemon to its control center."""

    __slots__ = ("_at", "_bases", "_complained", "_send", "_tls", "_token")

    def __init__(self, spec: CenterSpec, send: Send = http_client.request) -> None:
        self._bases = [_Base(url) for url in spec.urls]
        self._tls = _options(spec.tls or TlsSpec())
        self._token = Secret(path=spec.token_file) if spec.token_file is not None else None
        self._send = send
        self._at = 0
        self._complained = False

    @property
    def addresses(self) -> int:
        """How many there are to try."""
        return len(self._bases)

    async def call(self, method: str, path: str, value: Any = None, *, seconds: float) -> dict[str, Any]:
        """The JSON object that the center answers. Raises CenterAway; then the next call goes to the next address."""
        at = self._at
        try:
            found = await self._call(self._bases[at], method, path, value, seconds)
        except CenterAway as error:
            if self._at == at:  # else another call has found out already
                self._at = (at + 1) % len(self._bases)
            if not self._complained:
                self._complained = True
                log.warning("%s does not answer as it should: %s; trying again", self._bases[at].url, error.reason)
            raise
        if self._complained:
            self._complained = False
            log.info("%s answers", self._bases[at].url)
        return found

    async def _call(self, base: _Base, method: str, path: str, value: Any, seconds: float) -> dict[str, Any]:
        body = b"" if value is None else json.dumps(value, separators=(",", ":")).encode(errors="backslashreplace")
        try:
            answer = await self._send(
                base.host,
                base.port,
                method,
                base.path + path,
                host=base.name,
                headers=self._headers(),
                body=body,
                tls=self._tls if base.secure else None,
                timeout_seconds=seconds,
                max_body_bytes=MAX_ANSWER_BYTES,
            )
        except HttpFailed as error:
            raise CenterAway(error.reason) from error
        return _read(answer)

    def _headers(self) -> list[tuple[str, str]]:
        headers = [("Accept", "application/json"), ("Content-Type", "application/json")]
        if self._token is not None:
            try:
                headers.append(("Authorization", f"Bearer {self._token.read()}"))
            except (OSError, ValueError) as error:
                raise CenterAway(f"cannot read its token: {error}") from error
        return headers


class _Base:
    """Where a url leads."""

    __slots__ = ("host", "name", "path", "port", "secure", "url")

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.url, self.secure, self.name, self.path = url, parts.scheme == "https", parts.netloc, parts.path
        self.host = parts.hostname or ""
        self.port = parts.port or DEFAULT_PORT


def _options(spec: TlsSpec) -> TlsOptions:
    return TlsOptions(spec.verify, spec.ca, spec.cert, spec.key, spec.server_name)


def _read(answer: HttpAnswer) -> dict[str, Any]:
    if answer.truncated:
        raise CenterAway(f"its answer is longer than {MAX_ANSWER_BYTES} bytes", answer.status)
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError):
        value = None
    if answer.status != 200:
        detail = value.get("detail") if isinstance(value, dict) else None
        raise CenterAway(f"it answered {answer.status}: {detail or 'without saying why'}", answer.status)
    if not isinstance(value, dict):
        raise CenterAway("it answered with something that is no JSON object")
    return value
