"""A blocking client of the control center's HTTP API: plain or TLS, with a token or a certificate of ours.

It owns the connection and turns what can go wrong into the package's errors; it knows no command.
"""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from requests.exceptions import ConnectionError as NoConnection
from requests.exceptions import ConnectTimeout, ReadTimeout, RequestException, SSLError
from urllib3.exceptions import NewConnectionError, ReadTimeoutError

from .client import Refused
from .codes import FAILED, UNAVAILABLE, UNKNOWN, USAGE, ExitWith

ANSWER_SECONDS = 10.0
DEFAULT_PORT = 9300
_NOT_READY = 503
_EXIT_CODES = {  # what the problems mean that differ from others of their status
    "nothing_selected": UNKNOWN,
    "floor": FAILED,
    "registry_away": FAILED,
    "deadline_passed": FAILED,
}


class CenterUnreachable(ExitWith):
    """`cause` is refused, timeout, lost (hung up while we spoke), busy (503), tls, garbage or other."""

    def __init__(self, url: str, cause: str, reason: str) -> None:
        self.cause, self.reason = cause, reason
        super().__init__(UNAVAILABLE, f"cannot reach the control center at {url}: {reason}")

    @property
    def may_pass(self) -> bool:
        """It may answer again by itself."""
        return self.cause not in ("tls", "garbage")

    @property
    def may_have_counted(self) -> bool:
        """The request may have arrived."""
        return self.cause in ("timeout", "lost", "busy")


class CenterRefused(Refused):
    """The control center answered with an error; the message is its own."""

    @property
    def code(self) -> str:
        """The problem's code."""
        return str(self.problem.get("code") or "")

    @property
    def exit_code(self) -> int:
        """What it means for the exit code."""
        return _EXIT_CODES.get(self.code, super().exit_code)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are, and whom we trust. `ca` None: whoever the system trusts."""

    token: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    warnings: tuple[str, ...] = ()


def read_credentials(token_file: str | None, ca: str | None, cert: str | None, key: str | None) -> Credentials:
    """Read the token, and look whether the other files are of use. Raises ExitWith."""
    if key is not None and cert is None:
        raise ExitWith(USAGE, f"the key {key} is of no use without its certificate: give it with --cert")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is not None:
        _read(ca)
        _try(ca, lambda: context.load_verify_locations(ca))
    if cert is not None:
        for path in filter(None, (cert, key)):
            _read(path)
        _try(cert, lambda: context.load_cert_chain(cert, key, _no_password))
    if token_file is None:
        return Credentials(None, ca, cert, key)
    token, mode = _read(token_file)
    text = token.strip()
    if not text or not text.isascii() or not text.decode().isprintable() or b" " in text:
        raise ExitWith(USAGE, f"cannot use {token_file}: it must hold one token and nothing else")
    warnings = (f"{token_file} can be read by others: chmod 600 {token_file}",) if mode & 0o007 else ()
    return Credentials(text.decode(), ca, cert, key, warnings)


def _try(path: str, load: Callable[[], None]) -> None:
    """requests says of such a file no more than that something with TLS is wrong."""
    try:
        load()
    except (ssl.SSLError, ValueError) as error:
        words = str(getattr(error, "reason", None) or error).lower().replace("_", " ")
        raise ExitWith(USAGE, f"cannot use {path}: {words}") from error


def _no_password() -> str:
    raise ValueError("its key has a password, and nobody can be asked for it")


def _read(path: str) -> tuple[bytes, int]:
    """What a file holds, and its mode."""
    try:
        with open(path, "rb") as file:
            return file.read(), stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except OSError as error:
        raise ExitWith(USAGE, f"cannot read {path}: {error.strerror}") from error


class Center:
    """Answers come within `answer_seconds` (plus the time that was asked for), or CenterUnreachable is raised.

    Neither proxies nor a netrc file are heeded: the token goes to the control center and to nobody else.
    """

    def __init__(self, url: str, credentials: Credentials, answer_seconds: float = ANSWER_SECONDS) -> None:
        """Raises ValueError for an URL that names no control center."""
        self.url, is_encrypted, is_loopback = _parse(url)
        self._seconds = max(answer_seconds, 0.001)
        self._http = requests.Session()
        self._http.trust_env = False
        self._has_token = credentials.token is not None
        if credentials.token is not None:
            self._http.headers["Authorization"] = f"Bearer {credentials.token}"
        self._http.verify = credentials.ca or True
        if credentials.cert is not None:
            self._http.cert = (credentials.cert, credentials.key) if credentials.key else credentials.cert
        self.warnings = list(credentials.warnings)
        if credentials.token is not None and not (is_encrypted or is_loopback):
            self.warnings.append(f"the token goes to {self.url} unencrypted: use https")

    def close(self) -> None:
        """Close the connection, if there is one."""
        self._http.close()

    def get(self, path: str, query: Mapping[str, Any] | None = None, *, wait_seconds: float = 0.0) -> Any:
        """The JSON value at a path. Raises CenterUnreachable, CenterRefused."""
        if wait_seconds:
            query = {**(query or {}), "wait": f"{wait_seconds:.3f}"}
        return self._ask("GET", path, query, None, wait_seconds)

    def post(self, path: str, message: Any) -> Any:
        """Send a message, get the JSON value of the answer. Raises CenterUnreachable, CenterRefused."""
        return self._ask("POST", path, None, message, 0.0)

    def put(self, path: str, message: Any) -> Any:
        """As `post`."""
        return self._ask("PUT", path, None, message, 0.0)

    def stream(
        self,
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        silence_seconds: float | None = None,
    ) -> Iterator[bytes]:
        """What comes, as it comes, until the control center ends it.

        A pause longer than `silence_seconds` (None: no pause is too long) is an error.
        """
        answer = self._send("GET", path, query, None, silence_seconds, stream=True, headers=dict(headers or {}))
        try:
            if answer.status_code >= 300:
                raise self._refused(answer)
            yield from answer.iter_content(chunk_size=None)
        except RequestException as error:
            raise self._broken(error) from error
        finally:
            answer.close()

    # one exchange

    def _ask(self, method: str, path: str, query: Mapping[str, Any] | None, message: Any, wait_seconds: float) -> Any:
        answer = self._send(method, path, query, message, self._seconds + wait_seconds)
        if answer.status_code >= 300:
            raise self._refused(answer)
        try:
            return answer.json()
        except ValueError as error:
            raise self._garbage("its answer is no JSON") from error

    def _send(
        self, method: str, path: str, query: Mapping[str, Any] | None, message: Any, seconds: float | None, **more: Any
    ) -> requests.Response:
        try:
            return self._http.request(
                method,
                f"{self.url}{path}",
                params=dict(query or {}),
                json=message,
                timeout=(self._seconds, seconds),
                allow_redirects=False,
                **more,
            )
        except RequestException as error:
            raise self._broken(error) from error
        except OSError as error:  # a certificate or key that cannot be loaded
            raise ExitWith(USAGE, f"cannot use the certificate: {error}") from error

    # errors

    def _broken(self, error: RequestException) -> CenterUnreachable:
        cause, reason = _explain(error, self._seconds)
        return CenterUnreachable(self.url, cause, reason)

    def _garbage(self, reason: str) -> CenterUnreachable:
        return CenterUnreachable(self.url, "garbage", f"{reason}; is it unit-center?")

    def _refused(self, answer: requests.Response) -> Exception:
        try:
            problem = answer.json()
        except (ValueError, RequestException):
            problem = None
        if answer.status_code == _NOT_READY and _is_problem(problem) and problem.get("code") != "registry_away":
            return CenterUnreachable(self.url, "busy", str(problem.get("detail") or "it is not ready"))
        if not _is_problem(problem):
            if answer.status_code in (502, 503, 504):  # a proxy before it
                return CenterUnreachable(self.url, "busy", f"a proxy answers with HTTP status {answer.status_code}")
            return self._garbage(f"it answers with HTTP status {answer.status_code} without a reason")
        if answer.status_code == 401:
            return ExitWith(UNKNOWN, f"the control center does not know us: {self._who_we_are()}")
        return CenterRefused(answer.status_code, problem)

    def _who_we_are(self) -> str:
        if self._has_token:
            return "it does not accept our token"
        return "give a token with --token-file, or a certificate with --cert"


def _is_problem(value: Any) -> bool:
    return isinstance(value, dict) and ("detail" in value or "title" in value)


def _parse(url: str) -> tuple[str, bool, bool]:
    """`http[s]://HOST[:PORT]` in full; whether it is encrypted, whether it stays on this host. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError(f"{url!r} is not an URL such as https://center.example:{DEFAULT_PORT}")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"{parts.hostname}: a password has no place in the URL; give a token with --token-file")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    loopback = parts.hostname in ("localhost", "::1") or parts.hostname.startswith("127.")
    return f"{parts.scheme}://{host}:{parts.port or DEFAULT_PORT}", parts.scheme == "https", loopback


def _explain(error: RequestException, seconds: float) -> tuple[str, str]:
    """The cause, and the reason in words."""
    inner = _innermost(error)
    if isinstance(error, SSLError):
        return "tls", f"{_tls_words(inner)}; name who certifies it with --ca"
    if isinstance(error, ConnectTimeout | ReadTimeout) or _within(error, ReadTimeoutError):
        return "timeout", f"no answer within {seconds:g} s: it is overloaded, stuck or cut off"
    if isinstance(error, NoConnection) and _within(error, NewConnectionError):
        number = inner.errno if isinstance(inner, OSError) else None
        words = os.strerror(number) if number is not None and number > 0 else str(inner)
        return "refused", f"{words}: does it run there? See --center"
    if isinstance(error, NoConnection) or "IncompleteRead" in str(error):
        return "lost", "it hung up before its answer was complete"
    return "other", str(inner)


def _tls_words(error: BaseException) -> str:
    reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
    return f"its certificate is not accepted ({reason})" if "ertificate" in str(error) else f"TLS failed ({reason})"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was made from, outermost first: by `raise from`, or wrapped as an argument."""
    seen: list[BaseException] = []
    queue: list[BaseException] = [error]
    while queue:
        each = queue.pop(0)
        if any(each is other for other in seen):
            continue
        seen.append(each)
        yield each
        inner = [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]
        queue += [item for item in inner if isinstance(item, BaseException)]


def _within(error: BaseException, kind: type[BaseException]) -> bool:
    return any(isinstance(each, kind) for each in _chain(error))


def _innermost(error: BaseException) -> BaseException:
    """The operating system's own word, or else the last that there is."""
    chain = list(_chain(error))
    return next(
        (each for each in chain if isinstance(each, OSError) and not isinstance(each, RequestException)), chain[-1]
    )


def path_of(*parts: str) -> str:
    """`/v1/...` of parts that may hold anything."""
    return "/v1/" + "/".join(quote(part, safe=":") for part in parts)
