"""Answers of the control API as JSON, and its refusals; what handlers have in common."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from ..errors import ConfigError, UnknownUnit, WireError
from ..host.http_message import Response, coded_refusal
from ..wire import Operation, encode, to_json

_FLAGS = {"0": False, "false": False, "": False, "1": True, "true": True}


class Refused(Exception):
    """The answer is a problem of this code; `more` are further members."""

    def __init__(self, code: str, detail: str, headers: tuple[tuple[str, str], ...] = (), **more: object) -> None:
        super().__init__(detail)
        self.code, self.detail, self.headers, self.more = code, detail, headers, more


class UnknownOperation(UnknownUnit):
    """No operation has that id, or it was forgotten."""

    def __init__(self, id_: str) -> None:
        super().__init__(id_)
        self.args = (f"no operation {id_} is known; old ones are forgotten",)


def refused_by(error: Exception) -> Refused:
    """What an error means for whoever sent the request; one that was none of theirs is `internal_error`."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, UnknownUnit):
        code = "not_found" if isinstance(error, UnknownOperation) else "unknown_unit"
        return Refused(code, str(error), nearest=error.nearest)
    if isinstance(error, WireError):
        return Refused("bad_request", str(error))
    if isinstance(error, ConfigError):
        return Refused("bad_config", str(error), errors=config_errors(error))
    return Refused("internal_error", "the request failed: the daemon's log says why")


def problem_answer(refused: Refused) -> Response:
    """The answer."""
    return coded_refusal(refused.code, refused.detail, refused.headers, **refused.more)


def json_answer(status: int, value: object, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """A JSON body."""
    return Response(status, encode(value), headers=headers)


def accepted(operations: Sequence[Operation]) -> Response:
    """All operations of a command; where it is a single one, its own fields are at the top as well."""
    plain = [to_json(operation) for operation in operations]
    body = {**(plain[0] if len(plain) == 1 else {}), "operations": plain}
    location = "/v1/operations"
    if operations:
        location += f"?command_id={quote(operations[0].command_id, safe='', errors='replace')}"
    if len(operations) == 1:
        location = f"/v1/operations/{operations[0].id}"
    return json_answer(202, body, headers=(("Location", location),))


def config_errors(error: ConfigError) -> list[dict[str, object]]:
    """Every mistake in the configuration as plain values."""
    return [
        {"path": item.path, "line": item.line, "key": item.key, "reason": item.reason}
        for item in getattr(error, "errors", (error,))
    ]


def flag(text: str, name: str) -> bool:
    """A yes or no of a query. Raises WireError."""
    if text not in _FLAGS:
        raise WireError(f"cannot use {name}={text!r}: it must be 0 or 1")
    return _FLAGS[text]


def number(text: str, name: str, maximum: float) -> float:
    """A number of a query. Raises WireError."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= maximum:
        raise WireError(f"cannot use {name}={text!r}: it must be a number from 0 to {maximum:g}")
    return value
