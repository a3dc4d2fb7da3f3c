"""Tells the control center of dead and recovered servers, for as long as it takes. reports.py knows what to tell.

Several urls are of the same center: the one that answered last is tried first, then the others. What a center refuses
is tried again more slowly, since somebody has to change something first; it is logged once, with what to do.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import aiohttp

from registry_client.errors import BadOption
from registry_client.options import Secret, Tls
from supervisor.core.model import CenterSpec, TlsSpec

from .errors import GatewayError, GatewayRefused, GatewayUnreachable
from .model import Finding, Pool
from .reports import Report, Reports

log = logging.getLogger("unit-gateway.reporting")

MAX_REPORTS = 1000  # in one call
MAX_ANSWER_BYTES = 64 * 1024
TOGETHER_SECONDS = 0.1  # what is found within that goes out in one call
TICK_SECONDS = 0.5
_TRANSIENT = frozenset((408, 425, 429))  # said of the moment, not of the call


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportingPace:
    """How long a call may take, and how soon what failed is tried again."""

    call_seconds: float = 5.0
    retry_seconds: float = 0.2  # doubled each time
    max_retry_seconds: float = 5.0
    refused_seconds: float = 10.0


class Reporting:
    """`run` until it is cancelled. `delivered`, `failed`: calls; `error`: why the last one failed, "" if it did not."""

    def __init__(
        self,
        name: str,
        center: CenterSpec | None,
        reports: Reports,
        pools: Callable[[], Mapping[str, Pool]],
        pace: ReportingPace | None = None,
    ) -> None:
        """`name` is ours, as the center knows us. Without a center, cases are kept to be shown."""
        self._name, self._center, self._reports, self._pools = name, center, reports, pools
        self._pace = pace or ReportingPace()
        self._noted = asyncio.Event()
        self._first = 0  # which url is tried first
        self._session: aiohttp.ClientSession | None = None
        self._context: tuple[object, ssl.SSLContext] | None = None
        self.error, self.delivered, self.failed = "", 0, 0

    def note(self, finding: Finding, feeder: str = "") -> None:
        """A gateway has found something."""
        self._reports.note(finding, feeder, time.monotonic(), time.time())
        self._noted.set()

    def lose(self, feeder: str) -> None:
        """That gateway does not answer any more: what it has taken out is not known."""
        self._reports.lose(feeder)

    def current(self) -> list[Report]:
        """The servers that count as dead."""
        return self._reports.current(self._pools())

    async def run(self) -> None:
        """Send what is due, for ever. With nothing to send nothing is done."""
        failures = 0
        try:
            while True:
                if not failures:
                    await self._until_noted()
                due = self._reports.due(self._pools(), time.monotonic())
                if self._center is None or not due:
                    failures = 0
                elif refused := await self._deliver(self._center, due):
                    failures += 1
                    await asyncio.sleep(self._pause(refused, failures))
                else:
                    failures = 0
                await asyncio.sleep(TOGETHER_SECONDS)
        finally:
            await self.close()

    async def close(self) -> None:
        """Let go of the center. May be called twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _until_noted(self) -> None:
        """Until something is found, or time may have made something due."""
        with suppress(TimeoutError):
            async with asyncio.timeout(None if self._reports.is_idle else TICK_SECONDS):
                await self._noted.wait()
        self._noted.clear()

    def _pause(self, error: GatewayError, failures: int) -> float:
        pace = self._pace
        if isinstance(error, GatewayRefused):
            return pace.refused_seconds
        return min(pace.retry_seconds * 2.0 ** min(failures - 1, 20), pace.max_retry_seconds) * random.uniform(0.5, 1)

    async def _deliver(self, center: CenterSpec, due: Sequence[Report]) -> GatewayError | None:
        """What the first call that failed has failed with."""
        for start in range(0, len(due), MAX_REPORTS):
            reports = due[start : start + MAX_REPORTS]
            try:
                await self._tell(center, reports)
            except GatewayError as error:
                self.failed += 1
                self._complain(str(error))
                return error
            self.delivered += 1
            self._reports.confirm(reports, time.monotonic())
        if self.error:
            log.info("the control center takes reports again")
        self.error = ""
        return None

    def _complain(self, reason: str) -> None:
        if reason != self.error:
            log.warning("%s; trying on", reason)
        self.error = reason

    async def _tell(self, center: CenterSpec, reports: Sequence[Report]) -> None:
        """Raises what the last url fails with; but a refusal says more than that somebody is away."""
        failure: GatewayError | None = None
        for turn in range(len(center.urls)):
            number = (self._first + turn) % len(center.urls)
            try:
                await self._post(center, center.urls[number], reports)
            except GatewayError as error:
                if not isinstance(failure, GatewayRefused):
                    failure = error
                continue
            self._first = number
            return
        assert failure is not None
        raise failure

    async def _post(self, center: CenterSpec, url: str, reports: Sequence[Report]) -> None:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        tls = center.tls or TlsSpec()
        try:
            if center.token_file is not None:
                headers["Authorization"] = f"Bearer {Secret(path=center.token_file).read()}"
            is_secure = url.startswith("https:")
            async with (
                asyncio.timeout(self._pace.call_seconds),
                self._opened().post(
                    f"{url.rstrip('/')}/v1/reports",
                    data=json.dumps({"gateway": self._name, "reports": reports}, separators=(",", ":")).encode(),
                    headers=headers,
                    ssl=self._ssl(tls) if is_secure else True,
                    server_hostname=tls.server_name if is_secure else None,
                    allow_redirects=False,
                ) as response,
            ):
                answer = await response.content.read(MAX_ANSWER_BYTES)
        except TimeoutError as error:
            raise _away(url, f"no answer within {self._pace.call_seconds:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError, BadOption) as error:
            raise _away(url, _reason(error)) from error
        self._judge(url, response.status, answer)

    def _judge(self, url: str, status: int, answer: bytes) -> None:
        """Raises GatewayRefused, GatewayUnreachable unless the center has taken the reports."""
        if 200 <= status < 300:
            return
        if status < 400 or status >= 500 or status in _TRANSIENT:
            raise _away(url, f"it answered {status}")
        raise GatewayRefused(f"cannot report to the control center at {url}: {self._advice(status, _detail(answer))}")

    def _advice(self, status: int, detail: str) -> str:
        said = f"it answered {status}" + (f" ({detail})" if detail else "")
        if status == 401:
            return f"{said}; give [center] token_file the token that the center has for {self._name}"
        if status == 403:
            return f"{said}; the center must have a principal called {self._name} who may report"
        if status == 404:
            return f"{said}; look whether [center] url is that of a unit-center"
        return f"{said}; look at its log, and whether it is of the same version"

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True),  # calls are rare
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                headers={"User-Agent": "unit-gateway"},
            )
        return self._session

    def _ssl(self, spec: TlsSpec) -> ssl.SSLContext:
        """Made anew when a file has changed: certificates are renewed while we run."""
        stamps = tuple(_stamp(path) for path in (spec.ca, spec.cert, spec.key) if path)
        if self._context is None or self._context[0] != stamps:
            options = Tls(spec.verify, spec.ca, spec.cert, spec.key, spec.server_name)
            self._context = stamps, options.context("center")
        return self._context[1]


def _away(url: str, reason: str) -> GatewayUnreachable:
    return GatewayUnreachable(f"cannot report to the control center at {url}: {reason}")


def _detail(answer: bytes) -> str:
    try:
        problem = json.loads(answer)
    except (ValueError, RecursionError):
        return ""
    detail = problem.get("detail") if isinstance(problem, dict) else None
    return detail[:500] if isinstance(detail, str) else ""


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not accepted: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return (os.strerror(error.os_error.errno) if error.os_error.errno else str(error.os_error)).lower()
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection before it answered"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}" if error.filename else error.strerror.lower()
    return str(error) or type(error).__name__


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
