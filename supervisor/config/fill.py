"""The values of one process: placeholders are replaced, and complaints find their key.

Knows where a unit's table stands, not what its keys mean.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping
from typing import Any

from . import values
from .document import Document, Keys
from .schema import Key
from .table import Problems, read_table
from .text import expand, expand_all
from .values import Invalid


class Place:
    """A unit's table, and where its errors go."""

    __slots__ = ("document", "keys", "problems", "raw")

    def __init__(self, document: Document, keys: Keys, problems: Problems) -> None:
        self.document, self.keys, self.problems = document, keys, problems
        self.raw: dict[str, Any] = document.tables
        for key in keys:
            self.raw = self.raw[key]

    def complain(self, key: str | Keys, reason: str) -> None:
        """An error at a key below this unit's table, dotted or in parts."""
        parts = tuple(key.split(".")) if isinstance(key, str) else key
        self.problems.add(self.document.error((*self.keys, *parts), reason))


class Filler(Place):
    """Replaces the placeholders of one process; complains at the key where one is wrong and goes on."""

    __slots__ = ("known",)

    def __init__(self, place: Place, known: dict[str, str]) -> None:
        super().__init__(place.document, place.keys, place.problems)
        self.known = known

    @property
    def has_port(self) -> bool:
        """The unit has a service, whose port is meant where none is given."""
        return "port" in self.known

    def text(self, key: str, text: str) -> str:
        """A value with its placeholders replaced."""
        try:
            return expand(text, self.known)
        except Invalid as error:
            self.complain(key, str(error))
            return text

    def texts(self, key: str, texts: tuple[str, ...]) -> Iterator[str]:
        """Each of them."""
        return (self.text(key, text) for text in texts)

    def path(self, key: str, text: str) -> str:
        """An absolute path; a relative one starts at the folder of the file that names it."""
        return absolute(self.document, self.text(key, text))

    def log(self, stream: str, text: str, automatic: str) -> str | None:
        """Where a stream goes."""
        if text in ("AUTO", "NONE"):
            return automatic if text == "AUTO" else None
        if text.endswith("/"):
            self.complain(f"logs.{stream}", "must be a file, not a folder")
        return self.path(f"logs.{stream}", text)

    def checked(self, key: str, convert: values.Converter, value: Any) -> Any:
        """A check that counts only after placeholders were replaced."""
        try:
            return convert(value)
        except Invalid as error:
            self.complain(key, str(error))
            return value

    def part(
        self,
        name: str,
        schema: Mapping[str, Key],
        *,
        tables: tuple[str, ...] = (),
        hints: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The converted values of a part such as `drain`, placeholders replaced in all texts before."""
        keys = (*self.keys, name)
        return read_table(self.document, keys, schema, self.problems, tables=tables, hints=hints, fill=self.everywhere)

    def everywhere(self, value: Any) -> Any:
        """The value with the placeholders of all texts in it replaced. Raises Invalid."""
        return expand_all(value, self.known)


def absolute(document: Document, path: str) -> str:
    """The path as seen from the folder of the file that holds it."""
    return os.path.normpath(os.path.join(os.path.dirname(document.path), path))


def why_unreadable(error: OSError | UnicodeError) -> str:
    """The reason that a file could not be read, without its path."""
    return getattr(error, "strerror", None) or str(error)
