"""One TOML file: its bytes become tables, and a key's line is found when an error has to name it.

Knows TOML, not what the keys mean. The parser gives no lines for keys, so a small scanner finds them; it runs only
after an error, over text that the parser has accepted (or, for the key beside a syntax error, up to that error).
"""

from __future__ import annotations

import re
from typing import Any

import tomli

from ..errors import ConfigError

MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_KEY_CHARS = 200  # of a key in an error

Keys = tuple[str, ...]


class Document:
    """A parsed file: `tables` is what it says, `path` where it is."""

    __slots__ = ("_lines", "_rows", "_text", "path", "tables")

    def __init__(self, path: str, data: bytes) -> None:
        """Raises ConfigError with the line where the bytes stop being UTF-8 or TOML."""
        self.path = path
        self._text = decode(path, data)
        self._lines: dict[Keys, int] | None = None
        self._rows: list[str] | None = None
        self.tables = _parse(path, self._text)

    def line_of(self, keys: Keys) -> int:
        """The line of the key, or else of the nearest table around it; 0 when there is none."""
        if self._lines is None:
            self._lines = key_lines(self._text)
        for length in range(len(keys), 0, -1):
            if line := self._lines.get(keys[:length]):
                return line
        return 0

    def line_text(self, line: int) -> str:
        """What stands on a line that `line_of` named."""
        if self._rows is None:
            self._rows = self._text.split("\n")
        return self._rows[line - 1] if line else ""

    def error(self, keys: Keys, reason: str) -> ConfigError:
        """An error at a key of this file."""
        return ConfigError(reason, path=self.path, line=self.line_of(keys), key=dotted(keys))


def decode(path: str, data: bytes) -> str:
    """The text of a file, without a byte order mark. Raises ConfigError: too long, not UTF-8, NUL inside."""
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"the file is longer than {MAX_FILE_BYTES // 1024 // 1024} MiB", path=path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The offset of the decoder does not count a byte order mark, so it is looked for again in what it was given.
        offset = error.start + len(data) - len(error.object)
        line = data.count(b"\n", 0, offset) + 1
        raise ConfigError(f"the file is not UTF-8: byte {offset} cannot be decoded", path=path, line=line) from None
    if (nul := text.find("\0")) >= 0:
        raise ConfigError("the file holds a NUL byte", path=path, line=text.count("\n", 0, nul) + 1)
    return text


_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def dotted(keys: Keys) -> str:
    """A key as people write it: `unit.addToCart.stopsignal`, parts that are not bare words quoted."""
    text = ".".join(part if _BARE_KEY.fullmatch(part) else repr(part) for part in keys)
    return text if len(text) <= MAX_KEY_CHARS else text[:MAX_KEY_CHARS] + "..."


def _parse(path: str, text: str) -> dict[str, Any]:
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise _syntax_error(path, text, error) from None
    except RecursionError:
        raise ConfigError("its tables, lists or keys are nested too deeply", path=path, line=_deepest(text)) from None
    except ValueError:  # of more digits than Python converts
        line = next((number for number, row in enumerate(text.split("\n"), 1) if _LONG_NUMBER.search(row)), 0)
        raise ConfigError("a number has thousands of digits", path=path, line=line) from None


_LONG_NUMBER = re.compile(r"[0-9_]{1000}")
_INI_SECTION = re.compile(r"\[(program|group|eventlistener|fcgi-program):", re.ASCII)


def _syntax_error(path: str, text: str, error: tomli.TOMLDecodeError) -> ConfigError:
    row = text.split("\n")[error.lineno - 1]
    reason = f"not valid TOML: {error.msg[:300]} (column {error.colno})"
    if _INI_SECTION.match(row.strip()):
        reason += "; this looks like a section of supervisord.conf: write [unit.NAME]"
    lines = key_lines(text[: error.pos])
    beside = [keys for keys, line in lines.items() if line == error.lineno]
    return ConfigError(reason, path=path, line=error.lineno, key=dotted(beside[-1]) if beside else "")


def _deepest(text: str) -> int:
    """The line with the most brackets and dots: what is nested too deeply is nearly always there."""
    rows = text.split("\n")
    return max(range(len(rows)), key=lambda index: sum(map(rows[index].count, "[{."))) + 1


# Finding lines.

_TOKEN = re.compile(
    r'''
    (?P<comment> \#[^\n]* )
    | (?P<text> """ (?: [^"\\]++ | \\. | "{1,2}(?!") )*+ "{3,5} | \'\'\' (?: [^']++ | '{1,2}(?!') )*+ '{3,5}
        | "(?: [^"\\\n]++ | \\. )*+" | '[^'\n]*+' )
    | (?P<word> [A-Za-z0-9_+:-]++ )
    | (?P<mark> [][{}=,.] )
    | (?P<newline> \n )
    | (?P<other> . )
    ''',
    re.VERBOSE | re.DOTALL | re.ASCII,
)


MAX_DEPTH = 8  # of keys that have a line of their own; no key that means something is deeper


def key_lines(text: str) -> dict[Keys, int]:
    """The line, counted from 1, of every table and key in valid TOML (elements of lists have none)."""
    scanner = _Scanner()
    line = 1
    for match in _TOKEN.finditer(text):
        token = match.group()
        scanner.take(match.lastgroup or "", token, line)
        line += token.count("\n")
    return scanner.lines


class _Scanner:
    """Where the scan stands."""

    __slots__ = ("_current", "_header", "_inside", "_parts", "_table", "_value", "lines")

    def __init__(self) -> None:
        self.lines: dict[Keys, int] = {}
        self._table: Keys = ()  # of the last header
        self._inside: list[tuple[str, Keys]] = []  # open brackets of values, each with the key that it is the value of
        self._parts: list[str] = []  # of the key that is being read
        self._current: Keys = ()  # the key whose value is being read
        self._header = False  # between the brackets of a header
        self._value = False  # right of an equals sign, or in a list

    def take(self, kind: str, token: str, line: int) -> None:
        """The next token, which begins on that line."""
        if kind == "newline" and not self._inside:
            self._parts, self._value, self._header = [], False, False
        elif kind == "mark":
            self._mark(token, line)
        elif kind in ("word", "text") and not self._value:
            self._parts.append(token if kind == "word" else _unquoted(token))

    def _mark(self, mark: str, line: int) -> None:
        if mark == "=":
            self._current = self._note(self._inside[-1][1] if self._inside else self._table, line)
            self._value = True
        elif mark == "[" and not self._value:
            self._header = True
        elif mark == "]" and self._header:
            self._table = self._note((), line)
            self._header = False
        elif mark in "[{":
            in_list = self._inside and self._inside[-1][0] == "["
            self._inside.append((mark, self._inside[-1][1] if in_list else self._current))
            self._value = mark == "["
        elif mark in "]}" and self._inside:
            self._inside.pop()
            self._value = True
        elif mark == "," and self._inside:
            self._value = self._inside[-1][0] == "["

    def _note(self, base: Keys, line: int) -> Keys:
        """The whole key that has just ended, its line noted, and that of the tables that it implies."""
        keys = base + tuple(self._parts)
        self._parts = []
        for length in range(len(base) + 1, min(len(keys), MAX_DEPTH) + 1):
            self.lines.setdefault(keys[:length], line)
        if len(keys) <= MAX_DEPTH:
            self.lines[keys] = line
        return keys[: MAX_DEPTH + 1]


def _unquoted(text: str) -> str:
    try:
        return str(tomli.loads(f"key = {text}")["key"])
    except tomli.TOMLDecodeError:  # beside a syntax error
        return text
