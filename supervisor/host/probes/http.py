"""`http = "/health"`: it answers a request as expected."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...config.values import Invalid, address, boolean, describe, matching, text, texts
from ...config.words import unknown
from ...plugin_api import OptionError, ProbeResult, Target
from ..http_client import HttpAnswer, HttpFailed, request
from ..tls import TlsOptions
from .options import NO_PORT, port, port_of, read_options

DEFAULT_STATUS = "200-399"
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_STATUS = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?", re.ASCII)
_FRAMING = ("connection", "content-length", "transfer-encoding", "upgrade")

Range = tuple[int, int]


def _path(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"/[!-~]*", value, re.ASCII) or "#" in value:
        raise Invalid(f'must be a path such as "/health", percent-encoded and without #, not {describe(value)}')
    return value


def _headers(value: Any) -> tuple[tuple[str, str], ...]:
    pairs: tuple[tuple[str, str], ...] = texts(_TOKEN, "a header's name is expected", '{ Accept = "text/plain" }')(
        value
    )
    for name, content in pairs:
        if name.lower() in _FRAMING:
            raise Invalid(f"{name} is sent by the probe itself")
        if not re.fullmatch(r"(?:[!-~](?:[ \t!-~]*[!-~])?)?", content, re.ASCII):
            raise Invalid(f"the value of {name[:60]} must be visible ASCII characters, not {describe(content)}")
    return pairs


def _status(value: Any) -> tuple[Range, ...]:
    if isinstance(value, list):
        if not value:
            raise Invalid("must name a status")
        return tuple(_range(item) for item in value)
    return (_range(value),)


def _range(value: Any) -> Range:
    given = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    match = _STATUS.fullmatch(given)
    if match is None:
        raise Invalid(
            f'must be a status such as 200, a range such as "200-299" or a list of those, not {describe(value)}'
        )
    low, high = int(match[1]), int(match[2] or match[1])
    if low > high:
        raise Invalid(f"the range {given} is empty: write {high}-{low}")
    return low, high


def _pattern(value: Any) -> re.Pattern[bytes]:
    try:
        return re.compile(text(value).encode())
    except (re.error, RecursionError, OverflowError) as error:
        raise Invalid(f"is no regular expression: {error}") from None


def _scheme(value: Any) -> str:
    if value not in ("http", "https"):
        raise Invalid(f'must be "http" or "https", not {describe(value)}')
    return str(value)


def _tls(value: Any) -> TlsOptions:
    if not isinstance(value, dict):
        raise Invalid(f"must be a table such as {{ verify = true }}, not {describe(value)}")
    read = {}
    for key, item in value.items():
        if key not in _TLS_OPTIONS:
            raise Invalid(unknown(key, _TLS_OPTIONS), key)
        try:
            read[key] = _TLS_OPTIONS[key](item)
        except Invalid as error:
            raise Invalid(str(error), key) from None
    options = TlsOptions(**read)
    if options.ca is not None and not options.verify:
        raise Invalid("means nothing without verify = true", "ca")
    if options.key is not None and options.cert is None:
        raise Invalid("means nothing without cert", "key")
    return options


_file = matching(r"/[^\0]*", "an absolute path")
_TLS_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "verify": boolean, "ca": _file, "cert": _file, "key": _file,
    "server_name": matching(r"[A-Za-z0-9_:-][A-Za-z0-9._:-]{0,252}", "a host name"),
}  # fmt: skip
_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "path": _path, "port": port, "scheme": _scheme, "method": matching(r"[A-Z]{1,20}", "a method such as GET"),
    "host": address, "headers": _headers, "status": _status, "body": text, "body_regex": _pattern, "tls": _tls,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Expected:
    status: tuple[Range, ...]
    body: str | None
    body_regex: re.Pattern[bytes] | None

    def fault(self, answer: HttpAnswer) -> str:
        """What is wrong with an answer; "" if nothing is."""
        if not any(low <= answer.status <= high for low, high in self.status):
            return f"answered {answer.status}, expected {_words(self.status)}"
        within = f"the first {len(answer.body)} bytes of its body" if answer.truncated else "its body"
        if self.body is not None and self.body.encode() not in answer.body:
            return f"answered {answer.status}, but {within} does not hold {describe(self.body)}"
        if self.body_regex is not None and self.body_regex.search(answer.body) is None:
            return f"answered {answer.status}, but {within} does not match {describe(self.body_regex.pattern.decode())}"
        return ""


def _words(status: tuple[Range, ...]) -> str:
    return " or ".join(str(low) if low == high else f"{low}-{high}" for low, high in status)


class HttpProbe:
    """One request on a new connection. Redirects are answers and are not followed; certificates need not be valid.

    At most 64 KiB of the body are read and searched.
    """

    __slots__ = ("_expected", "_given", "_path")

    def __init__(self, options: Any) -> None:
        """A path, or a table; see docs/reference for its keys. Raises OptionError."""
        if isinstance(options, str):
            options = {"path": options}
        self._given = read_options(options, _OPTIONS)
        self._path: str = self._given.get("path", "/")
        if "tls" in self._given and self._given.get("scheme") != "https":
            raise OptionError("tls", 'means nothing without scheme = "https"')
        if self._given.get("method") == "CONNECT":
            raise OptionError("method", "must not be CONNECT: that is for proxies")
        if self._given.get("method") == "HEAD" and ("body" in self._given or "body_regex" in self._given):
            raise OptionError("method", "must not be HEAD where a body is expected: its answers have none")
        status = self._given.get("status") or _status(DEFAULT_STATUS)
        self._expected = _Expected(status, self._given.get("body"), self._given.get("body_regex"))

    async def check(self, target: Target, timeout_seconds: float) -> ProbeResult:
        """Whether it answers as expected, and in time."""
        number = port_of(target, self._given.get("port"))
        if number is None:
            return ProbeResult(False, NO_PORT)
        tls = self._given.get("tls", TlsOptions()) if self._given.get("scheme") == "https" else None
        try:
            answer = await request(
                self._given.get("host") or target.address,
                number,
                self._given.get("method", "GET"),
                self._path,
                headers=self._given.get("headers", ()),
                tls=tls,
                timeout_seconds=timeout_seconds,
            )
        except HttpFailed as error:
            return ProbeResult(False, error.reason)
        fault = self._expected.fault(answer)
        return ProbeResult(not fault, fault or f"answered {answer.status}")
