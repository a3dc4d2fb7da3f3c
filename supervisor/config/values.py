"""From a TOML value to one of ours: each function here answers the converted value or raises Invalid with the reason.

Knows types, ranges and spellings, not which key it converts for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from ..plugin_registry import registry_backends

Converter = Callable[[Any], Any]

MAX_SECONDS = 365 * 86400.0
MAX_SIZE = 2**62
UNLIMITED = -1


class Invalid(Exception):
    """The value cannot be used; the message is the reason, `inside` the keys within it that lead to the fault."""

    def __init__(self, reason: str, *inside: str) -> None:
        super().__init__(reason)
        self.inside = inside


def describe(value: object) -> str:
    """A value as an error shows it: short, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:60] + "...")
    if isinstance(value, int | float):
        return str(value) if abs(value) < 10**18 or value != value else "so large a number"
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    return "a date or time"


def boolean(value: Any) -> bool:
    """`true` or `false`, nothing else."""
    if not isinstance(value, bool):
        raise Invalid(f"must be true or false, not {describe(value)}")
    return value


def integer(low: int, high: int) -> Converter:
    """A whole number from `low` to `high`."""

    def convert(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise Invalid(f"must be a whole number from {low} to {high}, not {describe(value)}")
        return value

    return convert


def only_one(value: Any) -> int:
    """1: of a startup or liveness probe one success is enough."""
    if value != 1 or not isinstance(value, int) or isinstance(value, bool):
        raise Invalid(f"must be 1, as always for startup and liveness, not {describe(value)}")
    return value


def number(low: float, high: float) -> Converter:
    """A number from `low` to `high`."""

    def convert(value: Any) -> float:
        if not _is_number(value) or not low <= value <= high:
            raise Invalid(f"must be a number from {low:g} to {high:g}, not {describe(value)}")
        return float(value)

    return convert


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?) ?(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration(low: float = 0.0, high: float = MAX_SECONDS) -> Converter:
    """Seconds: a bare number, or text such as "500ms", "10s", "5m", "1h"."""

    def convert(value: Any) -> float:
        seconds = _seconds(value)
        if not low <= seconds <= high:
            raise Invalid(f"must be from {low:.10g} to {high:.10g} seconds, not {describe(value)}")
        return float(seconds)

    return convert


def _seconds(value: Any) -> float:
    if _is_number(value):
        return value  # type: ignore[no-any-return]
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise Invalid(
            f'must be seconds such as 10, or text such as "500ms", "10s", "5m" or "1h", not {describe(value)}'
        )
    return float(match[1]) * _SECONDS[match[2]]


_SIZE = re.compile(r"([0-9]{1,12}) ?(KB|MB|GB|TB)", re.IGNORECASE)
_BYTES = {"KB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}


def size(low: int = 0, high: int = MAX_SIZE) -> Converter:
    """Bytes: a whole number, or text such as "64KB", "50MB", "1GB" (1 KB is 1024 bytes)."""

    def convert(value: Any) -> int:
        count = value
        if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
            count = int(match[1]) * _BYTES[match[2].upper()]
        if isinstance(count, bool) or not isinstance(count, int):
            raise Invalid(
                f'must be bytes such as 65536, or text such as "64KB", "50MB" or "1GB", not {describe(value)}'
            )
        if not low <= count <= high:
            raise Invalid(f"must be from {low} to {high} bytes, not {describe(value)}")
        return count

    return convert


def text(value: Any) -> str:
    """A string that holds something and no NUL."""
    if not isinstance(value, str):
        raise Invalid(f"must be a string, not {describe(value)}")
    if not value:
        raise Invalid("must not be empty")
    return _without_nul(value)


def any_text(value: Any) -> str:
    """A string, perhaps empty, without NUL."""
    if not isinstance(value, str):
        raise Invalid(f"must be a string in quotes, not {describe(value)}")
    return _without_nul(value)


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise Invalid("must not hold a NUL character")
    return value


def matching(pattern: str, what: str) -> Converter:
    """A string that the whole pattern matches; `what` says in words which ones do."""
    compiled = re.compile(pattern, re.ASCII)

    def convert(value: Any) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise Invalid(f"must be {what}, not {describe(value)}")
        return value

    return convert


def choice(words: Mapping[object, object]) -> Converter:
    """One of a few words (or booleans), each with the value that it stands for."""
    listed = ", ".join(describe(word) if isinstance(word, bool) else f'"{word}"' for word in words)

    def convert(value: Any) -> object:
        if isinstance(value, bool | str) and value in words:
            return words[value]
        raise Invalid(f"must be one of {listed}, not {describe(value)}")

    return convert


def list_of(item: Converter, example: str) -> Converter:
    """A list whose items `item` converts, as a tuple without repetitions."""

    def convert(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise Invalid(f"must be a list such as {example}, not {describe(value)}")
        return tuple(dict.fromkeys(each(item, value)))

    return convert


def each(item: Converter, values: list[Any]) -> list[Any]:
    """All items of a list, converted. Raises Invalid with the position of the first that cannot be."""
    converted = []
    for position, value in enumerate(values, 1):
        try:
            converted.append(item(value))
        except Invalid as error:
            raise Invalid(f"item {position} {error}") from None
    return converted


def texts(key_pattern: str, key_words: str, example: str) -> Converter:
    """A table of strings, as a tuple of pairs in their order; every key matches the pattern."""
    compiled = re.compile(key_pattern, re.ASCII)

    def convert(value: Any) -> tuple[tuple[str, str], ...]:
        if not isinstance(value, dict):
            raise Invalid(f"must be a table such as {example}, not {describe(value)}")
        for name, item in value.items():
            if not compiled.fullmatch(name):
                raise Invalid(f"{describe(name)} is no name here: {key_words}")
            if not isinstance(item, str) or "\0" in item:
                raise Invalid(f"the value of {name[:60]} must be a string in quotes, not {describe(item)}")
        return tuple(value.items())

    return convert


def command(value: Any) -> tuple[str, ...]:
    """A command's words: a list of strings as it is, or one string split as a shell would split it."""
    if isinstance(value, str):
        from shlex import split

        try:
            words = split(_without_nul(value))
        except ValueError as error:
            raise Invalid(f"cannot be split into words: {str(error).lower()}") from None
    elif isinstance(value, list):
        words = each(any_text, value)
    else:
        raise Invalid(f"must be a string or a list of strings, not {describe(value)}")
    if not words or not words[0]:
        raise Invalid("must not be empty")
    return tuple(words)


def exit_codes(value: Any) -> tuple[int, ...]:
    """One exit code, or a list of them."""
    codes = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(each(integer(0, 255), codes)))


def umask(value: Any) -> int:
    """An octal string such as "022", or an integer."""
    if isinstance(value, str) and re.fullmatch("[0-7]{1,4}", value):
        value = int(value, 8)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 0o777:
        raise Invalid(f'must be octal, such as "022" or 0o022, not {describe(value)}')
    return value


def signal_number(value: Any) -> int:
    """A signal's number or its name, with or without SIG."""
    from signal import Signals

    if isinstance(value, str):
        name = value.upper().removeprefix("SIG")
        names = {each.name.removeprefix("SIG"): each.value for each in Signals}
        if name in names:
            return names[name]
        raise Invalid(f'must be a signal such as "TERM", "INT" or "QUIT", not {describe(value)}')
    return int(integer(1, 64)(value))


def rlimit(value: Any) -> tuple[int, int]:
    """(soft, hard) of a resource limit: one value for both, or a list of two; "infinity" is unlimited."""
    if not isinstance(value, list):
        return _limit(value), _limit(value)
    if len(value) != 2:
        raise Invalid("must be one value, or a list of two: [soft, hard]")
    soft, hard = each(_limit, value)
    if hard != UNLIMITED and (soft == UNLIMITED or soft > hard):
        raise Invalid("the soft limit, which comes first, must not be higher than the hard one")
    return soft, hard


def _limit(value: Any) -> int:
    if value == "infinity":
        return UNLIMITED
    try:
        return int(size()(value))
    except Invalid:
        wanted = 'must be a whole number, a size such as "64KB", or "infinity"'
        raise Invalid(f"{wanted}, not {describe(value)}") from None


def user(value: Any) -> str:
    """A user's or group's name, or its number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(integer(0, 2**32 - 2)(value))
    return text(value)


def address(value: Any) -> str:
    """A host name or IP address that others can connect to."""
    name = matching(r"[A-Za-z0-9._:%-]{1,253}", "a host name or an IP address")(value)
    if name in ("0.0.0.0", "::"):
        raise Invalid(f"nobody can connect to {name}: give the address of this host that others use")
    return str(name)


def one_or_more(item: Converter) -> Converter:
    """One value, or a list of at least one, as a tuple without repetitions."""

    def convert(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            return (item(value),)
        if not value:
            raise Invalid("must not be empty")
        return tuple(dict.fromkeys(each(item, value)))

    return convert


def backend(value: Any) -> str:
    """The name of a registry backend that is installed."""
    if value == "center":
        raise Invalid("this version has no control center; use http for the registry of another unitd")
    return str(choice({name: name for name in registry_backends()})(value))


def socket_path(value: Any) -> str:
    """A path that the kernel takes for a unix socket."""
    if len(value.encode()) > 107:
        raise Invalid("must be at most 107 bytes long as an absolute path: unix sockets allow no more")
    return str(value)


_URL = re.compile(r"[a-z][a-z0-9+.-]*://[!-~]+")


def url(value: Any) -> str:
    """Where a registry listens; whether its backend can use it is for that to say."""
    if not isinstance(value, str) or not _URL.fullmatch(value):
        raise Invalid(f'must be a URL such as "http://10.0.0.5:8500", not {describe(value)}')
    if "@" in value:
        raise Invalid("must hold no user and password: write them as user and password_file")
    return value


def label(value: Any) -> str:
    """A string that every registry can hold."""
    if len(text(value).encode()) > 255 or not value.isprintable():
        raise Invalid("must be at most 255 bytes of printable characters")
    return str(value)


def metadata(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Pairs that every registry can hold: so few and so short as the narrowest one asks."""
    if len(pairs) > 64:
        raise Invalid(f"has {len(pairs)} pairs; registries hold 64")
    for name, value in pairs:
        if len(value) > 512:
            raise Invalid(f"the value of {name} is longer than 512 characters")
    return pairs


def cgroup(value: Any) -> str:
    """ "auto", "off", or the absolute path of a folder."""
    path = text(value)
    if path not in ("auto", "off") and not path.startswith("/"):
        raise Invalid(f'must be "auto", "off" or an absolute path, not {describe(value)}')
    return path
