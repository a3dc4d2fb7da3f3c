"""Configuration files become a `Config`, or errors that name file, line and key.

Reading goes on after an error wherever it can, so that one look shows all there is to mend. Files are read through a
function that the caller may give, so nothing here needs a real one. The modules beside this one are
its parts: TOML and lines, values, the schema, texts, one unit, and what units must not have in common.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace

from ..core.model import Config, DaemonSpec
from ..errors import ConfigError
from .access import read_http
from .across import check_across
from .center import read_center
from .checks import read_checks
from .document import MAX_FILE_BYTES, Document
from .fill import absolute, why_unreadable
from .registries import read_registries
from .schema import MAIN, MAIN_TABLES, NODE_HTTP
from .table import Problems, TooManyErrors, read_table, table_at
from .units import Group, Reader, Surroundings, read_group
from .values import Invalid, socket_path
from .words import MAIN_HINTS, unknown

MAX_UNITS = 10_000
AUDIT_FILE = "audit.jsonl"  # in state_dir, unless said otherwise
Finder = Callable[[str, str], list[str]]


class ConfigErrors(ConfigError):
    """A configuration that is wrong: it reads like the first error; `errors` are all that were found."""

    def __init__(self, errors: tuple[ConfigError, ...]) -> None:
        first = errors[0]
        super().__init__(first.reason, path=first.path, line=first.line, key=first.key)
        self.errors = errors


def read_file(path: str) -> bytes:
    """The bytes of a regular file, of a long one only so many that it shows. Raises OSError."""
    # Without O_NONBLOCK a FIFO would stop us here for ever.
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY), "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISREG(mode):
            return file.read(MAX_FILE_BYTES + 1)
        raise OSError("it is a directory" if stat.S_ISDIR(mode) else "it is not a regular file")


def find_files(folder: str, pattern: str) -> list[str]:
    """The absolute paths that a pattern matches, sorted; a relative one starts at the folder."""
    from glob import glob

    return sorted(os.path.join(folder, path) for path in glob(pattern, root_dir=folder))


def load(
    path: str,
    *,
    read: Reader = read_file,
    find: Finder = find_files,
    node: str | None = None,
    default_address: str = "127.0.0.1",
) -> Config:
    """The configuration of the main file at `path` and of what it includes. Raises ConfigErrors.

    `node` is used when the file names none (None: the host's name), `default_address` for services without one.
    """
    loader = _Loader(read, find, node, default_address)
    config = loader.load(os.path.abspath(path))
    if config is None or loader.problems.errors:
        raise ConfigErrors(tuple(loader.errors()))
    return config


def check(
    path: str,
    *,
    read: Reader = read_file,
    find: Finder = find_files,
    node: str | None = None,
    default_address: str = "127.0.0.1",
) -> list[ConfigError]:
    """The errors of a configuration, file by file, line by line; at most 100. Empty: `load` accepts it."""
    try:
        load(path, read=read, find=find, node=node, default_address=default_address)
    except ConfigErrors as error:
        return list(error.errors)
    return []


class _Loader:
    """One configuration while it is being read."""

    def __init__(self, read: Reader, find: Finder, node: str | None, default_address: str) -> None:
        self.read, self.find, self.default_address = read, find, default_address
        self.node = node if node is not None else os.uname().nodename
        self.problems = Problems()
        self.paths: list[str] = []  # of the files that were read or could not be, the main one first
        self.unread = 0  # files that could not be
        self.groups: dict[str, Group] = {}
        self.room = MAX_UNITS

    def errors(self) -> list[ConfigError]:
        """By file, then by line."""
        order = {path: position for position, path in enumerate(self.paths)}
        return sorted(self.problems.errors, key=lambda error: (order.get(error.path or "", len(order)), error.line))

    def load(self, path: str) -> Config | None:
        """The configuration, as far as it could be read; it counts only when there are no problems."""
        try:
            main = self._open(path)
            return self._read(main) if main is not None else None
        except TooManyErrors:
            return None  # they are enough to mend for now

    def _read(self, main: Document) -> Config:
        daemon, patterns = self._main(main)
        around = Surroundings(daemon, self.default_address, self.read, self.problems)
        for document in (main, *self._included(main, patterns)):
            self._units(document, around)
        check_across(self.groups, daemon, self.problems, complete=not self.unread)
        units = {spec.name: spec for group in self.groups.values() for spec in group.specs}
        files = (*self.paths, *around.env_files)
        return Config(daemon, units, files, tuple(absolute(main, pattern) for pattern in patterns))

    def _open(self, path: str, included_by: Document | None = None) -> Document | None:
        self.paths.append(path)
        try:
            return Document(path, self.read(path))
        except (OSError, UnicodeError) as error:
            why = why_unreadable(error)
            if included_by is None:
                self.problems.add(ConfigError(f"cannot read it: {why}", path=path))
            else:
                self.problems.add(included_by.error(("include", "files"), f"cannot read {path}: {why}"))
        except ConfigError as error:
            self.problems.add(error)
        self.unread += 1
        return None

    # The main file.

    def _main(self, main: Document) -> tuple[DaemonSpec, tuple[str, ...]]:
        tables = (*MAIN_TABLES, "unit")
        top = read_table(main, (), MAIN, self.problems, tables=tables, hints=MAIN_HINTS)
        for name in ("daemon", "include"):
            table = read_table(main, (name,), MAIN_TABLES[name], self.problems)
            top.update((MAIN_TABLES[name][key].field, value) for key, value in table.items())
        top["http"] = read_http(main, self.problems, schema=NODE_HTTP)
        top["checks"] = read_checks(main, top["http"], self.problems)
        top["center"] = read_center(main, self.problems)
        top["registries"] = read_registries(main, self.problems)
        patterns = top.pop("files", ())
        if "node" not in main.tables:
            self._check_host_name(main)
        for name in ("socket", "state_dir", "log_dir"):
            if name in top:
                top[name] = absolute(main, top[name])
        try:
            socket_path(top.get("socket", ""))
        except Invalid as error:
            self.problems.add(main.error(("daemon", "socket"), str(error)))
        top["socket_group"] = top.get("socket_group", "unitd") or None
        written = top.pop("audit_log", None)
        spec = DaemonSpec(**{"node": self.node, **top})
        beside = os.path.join(spec.state_dir, AUDIT_FILE)
        audit_log = beside if written is None else absolute(main, written) if written else None
        return replace(spec, audit_log=audit_log), patterns

    def _check_host_name(self, main: Document) -> None:
        try:
            MAIN["node"].convert(self.node)
        except Invalid as error:
            self.problems.add(main.error(("node",), f"missing, and the host's name cannot stand for it: it {error}"))

    # The files that it includes.

    def _included(self, main: Document, patterns: tuple[str, ...]) -> list[Document]:
        seen = {os.path.realpath(main.path): "this is the main file"}
        documents = []
        for pattern in patterns:
            for path in self._matches(main, pattern):
                real = os.path.realpath(path)
                if real in seen:
                    reason = f"{path} cannot be included by {pattern!r}: {seen[real]}"
                    self.problems.add(main.error(("include", "files"), reason))
                    continue
                seen[real] = f"{pattern!r} includes it already"
                document = self._open(path, included_by=main)
                if document is not None:
                    self._check_included(document)
                    documents.append(document)
        return documents

    def _matches(self, main: Document, pattern: str) -> list[str]:
        folder = os.path.dirname(main.path)
        if set("*?[").isdisjoint(pattern):
            return [absolute(main, pattern)]  # a file that is named must be there
        return [os.path.normpath(path) for path in self.find(folder, pattern)]

    def _check_included(self, document: Document) -> None:
        for name in document.tables:
            if name == "unit":
                continue
            reason = unknown(name, ["unit"], MAIN_HINTS)
            if name == "include":
                reason = "an included file cannot include others"
            elif name in MAIN or name in MAIN_TABLES:
                reason = "belongs into the main file; included ones hold only units"
            self.problems.add(document.error((name,), reason))

    # Units.

    def _units(self, document: Document, around: Surroundings) -> None:
        for name in table_at(document, ("unit",), self.problems):
            if (other := self.groups.get(name)) is not None:
                place = f"{other.document.path}:{other.document.line_of(('unit', name))}"
                self.problems.add(document.error(("unit", name), f"there is a unit of that name already, at {place}"))
                continue
            group = self.groups[name] = read_group(document, name, around, self.room)
            self.room -= len(group.specs)
