"""Why a server did not answer: what the client is told, and what is held against the server. Pure."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from ..model import Server, Symptom
from .answers import EXHAUSTED, Refusal

_OWN_LIMITS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))
_NO_WAY = frozenset((errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT))


@dataclass(frozen=True, slots=True)
class Trouble:
    """One attempt that came to nothing. `symptom`: None says that it is not the server's fault."""

    status: int
    code: str
    detail: str
    symptom: Symptom | None = None
    stale: bool = False  # a kept-alive connection that was closed before any answer

    def refusal(self) -> Refusal:
        """What the client is told when nothing else can be tried."""
        return Refusal(self.status, self.code, self.detail, retry=True)


def name_of(server: Server) -> str:
    """The server as people look for it."""
    return f"{server.instance} ({server.address}:{server.port})"


def no_connection(server: Server, error: OSError | UnicodeError, seconds: float) -> Trouble:
    """A connection could not be made within that time."""
    where = name_of(server)
    number = error.errno if isinstance(error, OSError) else None
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if number in _OWN_LIMITS:
        return Trouble(503, EXHAUSTED, f"cannot connect to {where}: {reason}")
    if number in _NO_WAY:
        return Trouble(504, "connect_timeout", f"no way to {where}: {reason}", Symptom.CONNECT_TIMEOUT)
    if isinstance(error, TimeoutError):
        return Trouble(
            504, "connect_timeout", f"no connection to {where} within {seconds:g} s", Symptom.CONNECT_TIMEOUT
        )
    return Trouble(502, "connect_refused", f"{where} takes no connection: {reason}", Symptom.CONNECT_REFUSED)


def no_answer(server: Server, seconds: float) -> Trouble:
    """Nothing came in that time."""
    detail = f"{name_of(server)} did not answer within {seconds:g} s"
    return Trouble(504, "response_timeout", detail, Symptom.RESPONSE_TIMEOUT)


def broken_answer(server: Server, reason: str, stale: bool) -> Trouble:
    """The connection ended, or something came that is no answer."""
    symptom = None if stale else Symptom.ERROR_ANSWERS
    return Trouble(502, "broken_answer", f"{name_of(server)}: {reason}", symptom, stale)
