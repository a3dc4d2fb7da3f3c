"""Frozen dataclasses as plain JSON values and back, for what a later daemon must know of this one's units. Pure.

What has its default is left out. A member that is not known, or a value of another type, is no value of this version:
StoredError, and whoever reads it does without.
"""

from __future__ import annotations

import types
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

_T = TypeVar("_T")


class StoredError(ValueError):
    """This is no value of the wanted type, in this version of unitd."""


def to_plain(value: Any) -> Any:
    """A value made of dataclasses, enums, tuples and plain values as JSON can hold it."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            each.name: to_plain(found)
            for each in fields(value)
            if (found := getattr(value, each.name)) != _default_of(each)
        }
    if isinstance(value, Enum):
        return value.value
    return [to_plain(item) for item in value] if isinstance(value, tuple) else value


def from_plain(cls: type[_T], plain: Any) -> _T:
    """The dataclass that `to_plain` was given. Raises StoredError."""
    if not isinstance(plain, dict):
        raise StoredError(f"cannot read a {cls.__name__}: it must be an object")
    hints: dict[str, Any] = _hints(cls)  # type: ignore[arg-type]
    if unknown := plain.keys() - hints.keys():
        raise StoredError(f"cannot read a {cls.__name__}: unknown {', '.join(sorted(map(str, unknown)))}")
    try:
        return cls(**{name: _read(hints[name], value) for name, value in plain.items()})
    except TypeError as error:
        raise StoredError(f"cannot read a {cls.__name__}: {error}") from error


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _default_of(each: Any) -> Any:
    return each.default if each.default_factory is MISSING else each.default_factory()


def _read(hint: Any, value: Any) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        choices = [choice for choice in get_args(hint) if choice is not type(None)]
        return None if value is None else _read(choices[0], value)
    if origin is tuple:
        return _read_tuple(get_args(hint), value)
    if is_dataclass(hint):
        return from_plain(hint, value)  # type: ignore[arg-type]
    if issubclass(hint, Enum):
        try:
            return hint(value)
        except ValueError as error:
            raise StoredError(str(error)) from error
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise StoredError(f"must be of the type {hint.__name__}, not {value!r:.40}")
    return value


def _read_tuple(items: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise StoredError(f"must be a list, not {value!r:.40}")
    if items[-1] is Ellipsis:
        return tuple(_read(items[0], item) for item in value)
    if len(value) != len(items):
        raise StoredError(f"must have {len(items)} items, not {len(value)}")
    return tuple(_read(hint, item) for hint, item in zip(items, value, strict=True))
