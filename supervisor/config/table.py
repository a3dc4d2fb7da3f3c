"""Reading a table by its schema: every key is converted or complained about, and reading goes on after an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import ConfigError
from .document import Document, Keys
from .schema import Key
from .values import Invalid, describe
from .words import unknown

MAX_ERRORS = 100  # nobody reads more at once, and finding near names for more takes long


class TooManyErrors(Exception):
    """MAX_ERRORS were found: it is time to stop looking."""


class Problems:
    """The errors found so far."""

    __slots__ = ("errors",)

    def __init__(self) -> None:
        self.errors: list[ConfigError] = []

    def add(self, error: ConfigError) -> None:
        """Keep one more. Raises TooManyErrors when it is the last one that fits."""
        self.errors.append(error)
        if len(self.errors) >= MAX_ERRORS:
            raise TooManyErrors


def read_table(
    document: Document,
    keys: Keys,
    schema: Mapping[str, Key],
    problems: Problems,
    *,
    tables: Iterable[str] = (),
    hints: Mapping[str, str] | None = None,
    fill: Callable[[Any], Any] = lambda value: value,
) -> dict[str, Any]:
    """The converted values that the table at `keys` holds, by name; those of `tables` are left to others.

    A value that cannot be used is left out, as if it had not been given. `fill` is done to each before it is
    converted, and may raise Invalid too.
    """
    read: dict[str, Any] = {}
    for name, value in table_at(document, keys, problems).items():
        key = schema.get(name)
        if key is None:
            if name not in tables:
                problems.add(document.error((*keys, name), unknown(name, [*schema, *tables], hints)))
            continue
        try:
            read[name] = key.convert(fill(value))
        except Invalid as error:
            problems.add(document.error((*keys, name, *error.inside), str(error)))
    return read


def table_at(document: Document, keys: Keys, problems: Problems) -> dict[str, Any]:
    """The table at `keys`, empty where there is none or (an error) something else."""
    table: Any = document.tables
    for key in keys:
        table = table.get(key, {})
        if not isinstance(table, dict):
            problems.add(document.error(keys, f"must be a table, not {describe(table)}"))
            return {}
    return table  # type: ignore[no-any-return]
