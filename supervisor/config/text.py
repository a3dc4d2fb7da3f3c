"""Texts inside of values: placeholders such as {port}, and the lines of environment files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from .document import decode
from .values import Invalid

PLACEHOLDERS = ("port", "number", "unit", "group", "node")

# "${" belongs to a shell or to the program and is skipped; "{{" stands for "{", and the "}}" after it for "}".
_BRACES = re.compile(r"\$\{|\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)
_SUPERVISORD = re.compile(r"%\((process_num|program_name|group_name|host_node_name|numprocs|here|ENV_\w+)\)", re.ASCII)


def expand(text: str, known: Mapping[str, str]) -> str:
    """The text with its placeholders replaced. Raises Invalid for a word in braces that is no placeholder.

    `known` need not hold `port`: a unit may have none. All braces that hold something else than one word stay as
    they are, and so does a "}}" that closes no "{{": JSON and awk programs need no doubling.
    """
    if "%(" in text and (match := _SUPERVISORD.search(text)):
        raise Invalid(
            f"{match[0]} means nothing here: placeholders are {_list()}; "
            "the daemon's environment is not read, the unit's program inherits it"
        )
    if "{" not in text:
        return text
    doubled = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal doubled
        braces, word = match[0], match[1]
        if word is not None:
            return _placeholder(word, known)
        if braces == "{{":
            doubled += 1
            return "{"
        if braces == "}}" and doubled:
            doubled -= 1
            return "}"
        return braces

    return _BRACES.sub(replace, text)


MAX_DEPTH = 8  # of tables and lists in one value


def expand_all(value: Any, known: Mapping[str, str], depth: int = 0) -> Any:
    """The value, the placeholders of all texts in it replaced (not those of keys). Raises Invalid."""
    if isinstance(value, str):
        return expand(value, known)
    if not isinstance(value, dict | list):
        return value
    if depth == MAX_DEPTH:
        raise Invalid(f"is nested more than {MAX_DEPTH} deep")
    if isinstance(value, list):
        return [expand_all(item, known, depth + 1) for item in value]
    filled = {}
    for key, item in value.items():
        try:
            filled[key] = expand_all(item, known, depth + 1)
        except Invalid as error:
            raise Invalid(str(error), key, *error.inside) from None
    return filled


def _list() -> str:
    return ", ".join(f"{{{word}}}" for word in PLACEHOLDERS)


def _placeholder(word: str, known: Mapping[str, str]) -> str:
    if word in known:
        return known[word]
    if word == "port":
        raise Invalid("{port} stands for nothing: the unit has no port; give it one in its service table")
    from difflib import get_close_matches

    near = get_close_matches(word.lower()[:100], PLACEHOLDERS, n=1, cutoff=0.5)
    meant = f"did you mean {{{near[0]}}}?" if near else f"placeholders are {_list()}."
    raise Invalid(
        f"unknown placeholder {{{word[:60]}}}; {meant} For a brace itself write it twice: {{{{{word[:60]}}}}}"
    )


_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)=(.*)", re.ASCII | re.DOTALL)
_QUOTED = re.compile(r"""(?:'([^']*)'|"((?:[^"\\]|\\.)*)")\s*(?:\#.*)?""", re.DOTALL)
_ESCAPED = re.compile(r"""\\(["\\$`])""")


def parse_env_file(path: str, data: bytes) -> tuple[tuple[str, str], ...]:
    """The variables of an environment file; of several lines for one, the last counts. Raises ConfigError.

    Lines are KEY=VALUE with an optional `export`; blank lines and those that begin with # are skipped. A value in
    single quotes is taken as it is, in double quotes a backslash takes away the meaning of a quote, a backslash, $
    and `. Nothing is replaced, and # begins a comment only at the start of a line or after a quoted value.
    """
    variables: dict[str, str] = {}
    for number, row in enumerate(decode(path, data).split("\n"), 1):
        line = row.strip()
        if not line or line.startswith("#"):
            continue
        match = _ASSIGNMENT.fullmatch(line)
        if match is None:
            raise ConfigError("a line must be KEY=VALUE, a comment or blank", path=path, line=number)
        variables[match[1]] = _value(path, number, match[2])
    return tuple(variables.items())


def _value(path: str, line: int, text: str) -> str:
    if not text.startswith(("'", '"')):
        return text
    match = _QUOTED.fullmatch(text)
    if match is None:
        raise ConfigError("the quote is not closed, or something follows it", path=path, line=line)
    return match[1] if match[1] is not None else _ESCAPED.sub(r"\1", match[2])
