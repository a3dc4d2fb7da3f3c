"""Reads what comes in strictly: which member is wrong, what is wrong with it, and the nearest name that is known.

Nothing passes that a store cannot keep: no NUL, no half of a surrogate pair, no number beyond what JSON's readers agree
on, no depth without a bottom.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, NoReturn

from ..moments import iso
from .problems import Refusal

MAX_TEXT = 4096
MAX_NAME = 255
MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 32
_SHOWN = 60


def bad(path: str, what: str, near: str | None = None) -> Refusal:
    """The refusal of a request for the sake of one member; `near` is what was perhaps meant."""
    more = {"nearest": near} if near else {}
    return Refusal(400, "bad_request", f"cannot use {path}: {what}" if path else what, more=more)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like it, if one is like it."""
    close = get_close_matches(name[:100], list(known), n=1)
    return close[0] if close else None


def unknown(path: str, name: str, known: Iterable[str], kind: str = "member") -> Refusal:
    """The refusal of a member or parameter that means nothing here."""
    known = list(known)
    near = nearest(name, known)
    hint = f"did you mean {near}?" if near else f"known: {', '.join(known) or 'none'}"
    return bad(_under(path, name[:_SHOWN]), f"unknown {kind}; {hint}", near)


def decode_object(body: bytes) -> Mapping[str, Any]:
    """The JSON object of a body; an empty body is an empty object. Raises Refusal."""
    if not body.strip():
        return {}
    try:
        value = json.loads(
            body.decode(), object_pairs_hook=_pairs, parse_constant=_no_number, parse_float=_finite, parse_int=_whole
        )
    except (ValueError, RecursionError) as error:
        raise bad("", f"cannot read the body: it is not JSON ({str(error)[:200]})") from error
    if not isinstance(value, dict):
        raise bad("", "cannot read the body: it must be a JSON object")
    _check_depth(value)
    if b"\\u" in body:  # no other way leads to what is no text
        _check_texts(value, "")
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a member comes twice in the same object")
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too great")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if abs(value) > MAX_INTEGER:
        raise ValueError(f"whole numbers go up to {MAX_INTEGER}")
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = [item.values() if isinstance(item, dict) else item for item in level]
        level = [item for items in inner for item in items if isinstance(item, dict | list)]
        if not level:
            return
    raise bad("", f"cannot read the body: it is nested more than {MAX_DEPTH} deep")


def _check_texts(value: Any, path: str) -> None:
    if isinstance(value, str):
        check_text(path, value)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_texts(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            check_text(_under(path, key[:_SHOWN]), key)
            _check_texts(item, _under(path, key[:_SHOWN]))


def check_text(path: str, text: str) -> str:
    """The text, if it can be written down. Raises Refusal."""
    if "\0" in text or (not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)):
        raise bad(path.encode(errors="replace").decode().replace("\0", "?"), "it holds what is no text")
    return text


class Members:
    """The members of one JSON object, each read once; `finish` refuses the rest. Null is the same as absent."""

    def __init__(self, value: object, path: str = "") -> None:
        if not isinstance(value, dict):
            raise bad(path, f"must be an object, not {shown(value)}")
        self.path = path
        self._value: dict[str, Any] = value
        self._known: list[str] = []

    def at(self, name: str) -> str:
        """The path of a member."""
        return _under(self.path, name)

    def has(self, name: str) -> bool:
        """It is there, and not null."""
        return self._value.get(name) is not None

    def raw(self, name: str) -> Any:
        """Whatever is there; None: nothing."""
        self._known.append(name)
        return self._value.get(name)

    def text(self, name: str, default: str | None = None, *, maximum: int = MAX_TEXT) -> str:
        """A string. Without a default it must be there, and not be empty."""
        value = self.raw(name)
        if value is None and default is not None:
            return default
        return text_of(self.at(name), self._needed(name, value), maximum, may_be_empty=default is not None)

    def maybe_text(self, name: str, *, maximum: int = MAX_NAME) -> str | None:
        """A string that is not empty, or nothing."""
        value = self.raw(name)
        return None if value is None else text_of(self.at(name), value, maximum)

    def word(self, name: str, words: Sequence[str], default: str | None = None) -> str:
        """One of some words."""
        value = self.raw(name)
        value = default if value is None else value
        self._needed(name, value)
        if not isinstance(value, str) or value not in words:
            near = nearest(value, words) if isinstance(value, str) else None
            hint = f"; did you mean {near}?" if near else ""
            raise bad(self.at(name), f"must be one of {', '.join(words)}, not {shown(value)}{hint}", near)
        return value

    def boolean(self, name: str, default: bool) -> bool:
        """true or false."""
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise bad(self.at(name), f"must be true or false, not {shown(value)}")
        return value

    def integer(self, name: str, default: int | None, low: int, high: int = MAX_INTEGER) -> int:
        """A whole number in a range; without a default it must be there."""
        value = self.raw(name)
        value = default if value is None else value
        self._needed(name, value)
        if type(value) is not int or not low <= value <= high:
            raise bad(self.at(name), f"must be a whole number from {low} to {high}, not {shown(value)}")
        return value

    def maybe_integer(self, name: str) -> int | None:
        """A whole number that is not negative, or nothing."""
        return self.integer(name, 0, 0) if self.has(name) else self.raw(name)

    def number(self, name: str, default: float | None, low: float, high: float) -> float:
        """A number in a range; without a default it must be there."""
        value: Any = self.raw(name)
        value = default if value is None else value
        self._needed(name, value)
        if type(value) not in (int, float) or not low <= value <= high:
            raise bad(self.at(name), f"must be a number from {low:g} to {high:g}, not {shown(value)}")
        return float(value)

    def texts(self, name: str, *, most: int, maximum: int = MAX_NAME) -> tuple[str, ...]:
        """A list of strings, none of them empty; absent is empty."""
        items = self.items(name, most=most)
        return tuple(text_of(f"{self.at(name)}[{index}]", item, maximum) for index, item in enumerate(items))

    def items(self, name: str, *, most: int, needed: bool = False) -> list[Any]:
        """A list of anything."""
        value = self.raw(name)
        if value is None and not needed:
            return []
        self._needed(name, value)
        if not isinstance(value, list):
            raise bad(self.at(name), f"must be a list, not {shown(value)}")
        if len(value) > most:
            raise bad(self.at(name), f"holds {len(value)} items; at most {most} at once")
        return value

    def pairs(self, name: str, *, most: int) -> dict[str, str]:
        """An object of strings."""
        value = self.raw(name)
        if value is None:
            return {}
        if not isinstance(value, dict) or len(value) > most:
            raise bad(self.at(name), f"must be an object of at most {most} strings, not {shown(value)}")
        for key, item in value.items():
            text_of(self.at(name), key, MAX_NAME)
            text_of(f"{self.at(name)}.{key}", item, MAX_TEXT, may_be_empty=True)
        return value

    def object(self, name: str) -> Members:
        """An object; absent is empty."""
        value = self.raw(name)
        return Members({} if value is None else value, self.at(name))

    def moment(self, name: str) -> str | None:
        """A point in time as ISO 8601 in UTC, or nothing."""
        value = self.maybe_text(name)
        return None if value is None else moment_of(self.at(name), value)

    def finish(self) -> None:
        """Nothing else may be there."""
        for name in self._value:
            if name not in self._known:
                raise unknown(self.path, name, self._known)

    def _needed(self, name: str, value: Any) -> Any:
        if value is None:
            raise bad(self.at(name), "is missing")
        return value


class Query:
    """The parameters of a URL, each read once; `finish` refuses the rest."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._value: dict[str, str] = {}
        self._known: list[str] = []
        for name, text in pairs:
            if name in self._value:
                raise bad(f"?{name[:_SHOWN]}", "it is given twice")
            self._value[check_text("the query", name)] = check_text(f"?{name[:_SHOWN]}", text)

    def text(self, name: str, words: Sequence[str] = ()) -> str | None:
        """A text, or nothing; of some `words`, if there are any."""
        self._known.append(name)
        value = self._value.get(name)
        if value == "":
            raise bad(f"?{name}", "it is empty; leave it out")
        if value is not None and words and value not in words:
            raise bad(f"?{name}", f"must be one of {', '.join(words)}, not {shown(value)}")
        return value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number in a range."""
        value = self.text(name)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit() and len(value) <= 16 and low <= int(value) <= high):
            raise bad(f"?{name}", f"must be a whole number from {low} to {high}, not {shown(value)}")
        return int(value)

    def maybe_integer(self, name: str) -> int | None:
        """A whole number, or nothing."""
        return None if self.text(name) is None else self.integer(name, 0, 0, MAX_INTEGER)

    def seconds(self, name: str, maximum: float) -> float:
        """A number of seconds, 0 if it is not there; longer waits are cut to `maximum`."""
        value = self.text(name)
        if value is None:
            return 0.0
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < math.inf:
            raise bad(f"?{name}", f"must be a number of seconds, not {shown(value)}")
        return min(seconds, maximum)

    def flag(self, name: str, default: bool) -> bool:
        """1 or 0, true or false."""
        value = self.text(name, ("0", "1", "false", "true"))
        return default if value is None else value in ("1", "true")

    def finish(self) -> None:
        """Nothing else may be there."""
        for name in self._value:
            if name not in self._known:
                raise unknown("", f"?{name}", [f"?{each}" for each in self._known], "parameter")


def text_of(path: str, value: object, maximum: int, *, may_be_empty: bool = False) -> str:
    """A string of a length that is kept. Raises Refusal."""
    if not isinstance(value, str):
        raise bad(path, f"must be a string, not {shown(value)}")
    if not value and not may_be_empty:
        raise bad(path, "must not be empty")
    if len(value) > maximum:
        raise bad(path, f"is longer than {maximum} characters")
    return value


def moment_of(path: str, text: str) -> str:
    """A point in time with a time zone, as UTC. Raises Refusal."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise bad(path, f"{shown(text)} names no time zone; end it with Z")
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise bad(path, f"must be ISO 8601 such as 2026-11-24T08:33:02Z, not {shown(text)}") from None
    return iso(moment)


def now_iso() -> str:
    """The time of day."""
    return iso(datetime.now(UTC))


def shown(value: object, limit: int = _SHOWN) -> str:
    """A value in a message."""
    text = json.dumps(value, ensure_ascii=True) if not isinstance(value, dict | list) else type(value).__name__
    return text if len(text) <= limit else text[:limit] + "..."


def read_each(items: Sequence[Any], path: str, read: Callable[[Members], Any]) -> list[Any]:
    """Every object of a list, read to its end."""
    values = []
    for index, item in enumerate(items):
        members = Members(item, f"{path}[{index}]")
        values.append(read(members))
        members.finish()
    return values


def _under(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
