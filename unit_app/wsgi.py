"""`Drainable` for WSGI applications: gunicorn, uWSGI, waitress. Does not import asyncio."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from . import control
from .control import PHRASES, REFUSED, Answer, Control
from .flag import Flag, Running
from .warmup import LOOK_SECONDS, PATIENCE_SECONDS, WarmUp

StartResponse = Callable[..., Any]

_DISCARD_BYTES = 1024 * 1024  # of a refused request's body, so that the client comes to read the answer


class Drainable:
    """The application, with a shutdown flag, a count of its requests and the paths below `prefix` for both.

    `live` and `ready` are the application's checks, passed when they return something true; `warm_up` is its hook,
    called in a thread of its own. A request counts until the server has closed its answer. `token` (default:
    UNIT_APP_TOKEN) replaces the rule that orders are taken from this host only. Put it outermost.
    """

    def __init__(
        self,
        app: Callable[..., Iterable[bytes]],
        *,
        flag: Flag | None = None,
        prefix: str = "/-/",
        token: str | None = None,
        live: Callable[[], object] | None = None,
        ready: Callable[[], object] | None = None,
        warm_up: Callable[[], object] | None = None,
    ) -> None:
        self.flag = flag or Flag()
        self._app, self._live, self._ready = app, live, ready
        self._warm_up = WarmUp(self.flag, warm_up)
        self._control = Control(self.flag, self._warm_up, prefix, token)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """A WSGI application."""
        self._warm_up.serve()
        name = self._control.name_of(environ.get("PATH_INFO", ""))
        if name is not None:
            return _begin(self._answer(name, environ), environ, start_response)
        running = self.flag.enter()
        if running is None:
            return _refuse(environ, start_response)

        def start_closing(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            if self.flag.is_set:
                headers = _with_close(environ, start_response, headers)
            return start_response(status, headers, *more)

        try:
            return _Counted(self._app(environ, start_closing), running)
        except BaseException:
            running.end()
            raise

    def _answer(self, name: str, environ: dict[str, Any]) -> Answer:
        ours = self._control
        refusal = ours.refusal(name, environ["REQUEST_METHOD"], environ.get("REMOTE_ADDR", ""), _headers(environ))
        if refusal is not None:
            return refusal
        if name == "health/live":
            return ours.live(_passes(self._live))
        if name == "health/ready":
            return ours.not_ready() or ours.ready(_passes(self._ready))
        if name == "warm":
            return self._warm()
        return {"drain": ours.drain, "undrain": ours.undrain, "in-flight": ours.in_flight}[name]()

    def _warm(self) -> Answer:
        self._warm_up.ask(again=True)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (verdict := self._warm_up.verdict()) is None and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)  # the processes have nothing in common that could be waited for
        return self._control.warm(verdict)


class _Counted:
    """An answer's body; closing it, which servers always do, ends the request's count."""

    def __init__(self, body: Iterable[bytes], running: Running) -> None:
        self._body, self._running = body, running

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._running.end()

    def __del__(self) -> None:
        self._running.end()  # a server that broke off before it came to close it


def _passes(check: Callable[[], object] | None) -> bool:
    try:
        return check is None or bool(check())
    except Exception:
        control.logger.exception("a health check failed")
        return False


def _headers(environ: dict[str, Any]) -> Callable[[str], str | None]:
    def header(name: str) -> str | None:
        value = environ.get("HTTP_" + name.upper().replace("-", "_"))
        return None if value is None else str(value)

    return header


def _begin(answer: Answer, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    start_response(f"{answer.status} {PHRASES[answer.status]}", answer.headers)
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else answer.body]


def _refuse(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    _discard(environ)
    headers = _with_close(environ, start_response, REFUSED.headers)
    return _begin(REFUSED._replace(headers=headers), environ, start_response)


def _discard(environ: dict[str, Any]) -> None:
    # Closing a socket that holds unread data resets it, and the client may lose the answer.
    length = environ.get("CONTENT_LENGTH") or ("0" if "HTTP_TRANSFER_ENCODING" not in environ else "")
    if environ.get("wsgi.input_terminated"):
        environ["wsgi.input"].read(_DISCARD_BYTES)
    elif length.isdigit():
        environ["wsgi.input"].read(min(int(length), _DISCARD_BYTES))


def _with_close(
    environ: dict[str, Any], start_response: StartResponse, headers: list[tuple[str, str]]
) -> list[tuple[str, str]]:
    """PEP 3333 leaves the connection to the server, so each has its own way; where we know none it stays open."""
    if not environ.get("SERVER_PROTOCOL", "HTTP/1.1").startswith("HTTP/1"):
        return headers
    force_close = getattr(getattr(start_response, "__self__", None), "force_close", None)
    if callable(force_close):  # gunicorn: drops the header and writes its own
        force_close()
    elif "uwsgi.version" in environ:
        return [*(header for header in headers if header[0].lower() != "connection"), ("Connection", "close")]
    return headers
