"""One table `[unit.NAME]` becomes the specs of its processes.

Knows one unit at a time; what units must not have in common is `across.py`'s business.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable
from dataclasses import dataclass, field
from sys import intern
from typing import Any

from ..core.model import DaemonSpec, Limits, LogSpec, RestartPolicy, ServiceSpec, UnitSpec
from ..errors import ConfigError
from . import values
from .document import Document, Keys
from .drain import read_drain, read_warmup
from .fill import Filler, Place, why_unreadable
from .probes import Kinds, read_probe
from .schema import NAME, PROBES, UNIT, UNIT_TABLES
from .table import Problems, read_table
from .text import parse_env_file
from .values import Invalid
from .words import UNIT_HINTS

Reader = Callable[[str], bytes]
Pairs = tuple[tuple[str, str], ...]

_FILLED = (*PROBES, "drain", "warmup")  # tables that may hold placeholders anywhere: read once for each process


@dataclass(slots=True)
class Surroundings:
    """What all units of one configuration have in common."""

    daemon: DaemonSpec
    default_address: str
    read: Reader
    problems: Problems
    env_files: dict[str, Pairs] = field(default_factory=dict)  # every one that was read, by absolute path
    kinds: Kinds = field(default_factory=Kinds)
    _shared: dict[Any, Any] = field(default_factory=dict)

    def share(self, value: Any) -> Any:
        """The value itself or an equal one from before, so that equal parts of specs are kept once."""
        return self._shared.setdefault(value, value)


@dataclass(frozen=True, slots=True)
class Group:
    """A unit's table as read: where it stands, and its processes (none when something in it is wrong)."""

    name: str
    document: Document
    depends_on: tuple[str, ...] = ()
    specs: tuple[UnitSpec, ...] = ()

    def error(self, key: str, reason: str) -> ConfigError:
        """An error at a key of it, such as `service.port`."""
        return self.document.error(("unit", self.name, *key.split(".")), reason)


def read_group(document: Document, name: str, around: Surroundings, room: int) -> Group:
    """The unit of that name in that document, with `room` processes at most. Errors go to `around.problems`."""
    keys = ("unit", name)
    before = len(around.problems.errors)
    if not isinstance(value := document.tables["unit"][name], dict):
        around.problems.add(document.error(keys, f"must be a table, not {values.describe(value)}"))
        return Group(name, document)
    try:
        NAME(name)
    except Invalid as error:
        around.problems.add(document.error(keys, f"a unit's name {error}"))
    if name == "all":
        around.problems.add(document.error(keys, "no unit can be called all: commands take it for all units"))
    table = read_table(document, keys, UNIT, around.problems, tables=UNIT_TABLES, hints=UNIT_HINTS)
    depends_on = table.pop("depends_on", ())
    builder = _Builder(document, name, around, table)
    builder.check(room)
    if len(around.problems.errors) > before:
        return Group(name, document, depends_on)
    return Group(name, document, depends_on, builder.build(depends_on))


def _own(document: Document, keys: Keys, problems: Problems) -> dict[str, Any]:
    """The keys of a part of a unit, such as `[unit.NAME.logs]`."""
    return read_table(document, keys, UNIT_TABLES[keys[-1]], problems)


class _Builder(Place):
    """A unit's values on their way to specs: first checked as they are written, then expanded for each process."""

    def __init__(self, document: Document, name: str, around: Surroundings, table: dict[str, Any]) -> None:
        super().__init__(document, ("unit", name), around.problems)
        self.name, self.around, self.table = name, around, table
        self.count: int = table.pop("numprocs", 1)
        self.first: int = table.pop("numprocs_start", 0)
        self.parts = {
            part: _own(document, (*self.keys, part), self.problems)
            for part in UNIT_TABLES
            if part in self.raw and part not in _FILLED
        }

    # As written.

    def check(self, room: int) -> None:
        """What can be said before any placeholder is replaced."""
        if "command" not in self.raw:
            self.complain("command", "missing: every unit needs a command")
        if self.count > room:
            self.complain("numprocs", "too many processes: a configuration may have 10000 in all")
        self._check_umask()
        self._check_times()
        if "service" in self.raw:
            self._check_port()
        self._check_streams()
        self._filled(self._fill(self.first))  # as the first process reads it; others may still have other faults

    def _check_umask(self) -> None:
        """22 is read as decimal, and hardly ever meant so."""
        if not isinstance(self.raw.get("umask"), int) or not self.table.get("umask"):
            return  # a string, 0, or complained about
        line = self.document.line_text(self.document.line_of((*self.keys, "umask")))
        if "0o" not in line:
            self.complain("umask", 'must be octal: write a string such as "022", or 0o022')

    def _check_times(self) -> None:
        startsecs, timeout = self.table.get("startsecs", 1.0), self.table.get("start_timeout")
        if timeout is None:
            self.table["start_timeout"] = max(60.0, 2 * startsecs)
        elif timeout <= startsecs:
            self.complain("start_timeout", f"must be longer than startsecs, which is {startsecs:g} s")
        restart = self.parts.get("restart", {})
        initial, highest = restart.get("backoff_initial", 1.0), restart.get("backoff_max")
        if highest is None and initial > 60.0:
            restart["backoff_max"] = initial
        elif highest is not None and highest < initial:
            self.complain("restart.backoff_max", f"must not be below backoff_initial, which is {initial:g} s")

    def _check_port(self) -> None:
        service = self.raw["service"]
        if isinstance(service, dict) and "port" not in service:
            self.complain("service.port", "missing: a service needs the port that others connect to")
        last = self.parts["service"].get("port", 1) + self.first + self.count - 1
        if last > 65535:
            self.complain(
                "service.port",
                f"plus the process number is {last} for the last process; 65535 is the highest",
            )

    def _check_streams(self) -> None:
        logs = self.parts.get("logs", {})
        if not logs.get("redirect_stderr"):
            return
        if "stderr" in logs:
            self.complain("logs.stderr", "redirect_stderr joins it to stdout: give one of the two")

    # Expanded.

    def build(self, depends_on: tuple[str, ...]) -> tuple[UnitSpec, ...]:
        """The specs of all processes; none when a placeholder, a path or a file is wrong."""
        specs = []
        before = len(self.problems.errors)
        for number in range(self.first, self.first + self.count):
            specs.append(self._spec(number, depends_on))
            if len(self.problems.errors) > before:
                return ()  # the other processes would say the same
        return tuple(specs)

    def _spec(self, number: int, depends_on: tuple[str, ...]) -> UnitSpec:
        fill = self._fill(number)
        name, service = fill.known["unit"], self.parts.get("service")
        share = self.around.share
        table = dict(self.table)
        argv = tuple([intern(word) for word in fill.texts("command", table.pop("command"))])
        if "directory" in table:
            table["directory"] = share(fill.path("directory", table["directory"]))
        return UnitSpec(
            name=name,
            group=self.name,
            number=number,
            argv=share(argv),
            environment=share(self._environment(fill, table.pop("envfile", None), table.pop("environment", ()))),
            depends_on=share(depends_on),
            service=self._service(fill, service, number) if service is not None else None,
            restart=share(self._restart(table)),
            logs=share(self._logs(fill, name)),
            limits=share(self._limits()),
            user=share(table.pop("user", None)),
            os_group=share(table.pop("group", None)),
            **self._filled(fill),
            **table,
        )

    def _fill(self, number: int) -> Filler:
        """What the placeholders of one process stand for."""
        name = self.name if self.count == 1 else f"{self.name}:{number}"
        known = {"number": str(number), "unit": name, "group": self.name, "node": self.around.daemon.node}
        if (service := self.parts.get("service")) is not None:
            known["port"] = str(min(service.get("port", 1) + number, 65535))  # complained about if that is not so
        return Filler(self, known)

    def _filled(self, fill: Filler) -> dict[str, Any]:
        """Its probes, drain and warm-up, by field of UnitSpec; those that it has."""
        if self.raw.keys().isdisjoint(_FILLED):
            return {}
        specs: dict[str, Any] = {name: read_probe(fill, name, self.around.kinds) for name in PROBES}
        specs |= {"drain": read_drain(fill), "warmup": read_warmup(fill)}
        return {name: self.around.share(spec) for name, spec in specs.items()}

    def _environment(self, fill: Filler, envfile: str | None, environment: Pairs) -> Pairs:
        """Sorted by name: their order means nothing, and a change of it is none."""
        before = len(self.problems.errors)
        path = fill.path("envfile", envfile) if envfile is not None else None
        whole = len(self.problems.errors) == before  # a path with a wrong placeholder is not even looked for
        variables = dict(self._env_file(path)) if path is not None and whole else {}
        variables.update((name, fill.text(f"environment.{name}", value)) for name, value in environment)
        return tuple(sorted((intern(name), intern(value)) for name, value in variables.items()))

    def _env_file(self, path: str) -> Pairs:
        known = self.around.env_files
        if path not in known:
            known[path] = ()  # named and looked for, whatever comes of it
            try:
                known[path] = parse_env_file(path, self.around.read(path))
            except (OSError, UnicodeError) as error:
                self.complain("envfile", f"cannot read {path}: {why_unreadable(error)}")
            except ConfigError as error:
                self.problems.add(error)
        return known[path]

    def _service(self, fill: Filler, part: dict[str, Any], number: int) -> ServiceSpec:
        part = {"name": self.name, "address": self.around.default_address, **part}
        part.setdefault("ttl_seconds", self.around.daemon.registry_ttl_seconds)
        part["port"] += number
        if "version" in part:
            part["version"] = fill.checked(
                "service.version", values.label, fill.text("service.version", part["version"])
            )
        if "metadata" in part:
            pairs = tuple(sorted((key, fill.text(f"service.metadata.{key}", text)) for key, text in part["metadata"]))
            part["metadata"] = self.around.share(fill.checked("service.metadata", values.metadata, pairs))
        return ServiceSpec(**part)

    def _restart(self, table: dict[str, Any]) -> RestartPolicy:
        """Part of it is written in the unit's own table, with supervisord's names."""
        own = {key: table.pop(key) for key in ("autorestart", "exitcodes", "startretries") if key in table}
        return RestartPolicy(**own, **self.parts.get("restart", {}))

    def _logs(self, fill: Filler, name: str) -> LogSpec:
        part = dict(self.parts.get("logs", {}))
        stem = os.path.join(self.around.daemon.log_dir, name.replace(":", "-"))
        part["stdout"] = fill.log("stdout", part.get("stdout", "AUTO"), f"{stem}.out.log")
        stderr = "NONE" if part.get("redirect_stderr") else part.get("stderr", "AUTO")
        part["stderr"] = fill.log("stderr", stderr, f"{stem}.err.log")
        return LogSpec(**part)

    def _limits(self) -> Limits:
        part = self.parts.get("limits", {})
        own = {key: part[key] for key in ("memory_max", "pids_max", "nice", "oom_score_adj") if key in part}
        rlimits = sorted((key.upper(), *pair) for key, pair in part.items() if key not in own)
        return Limits(rlimits=tuple(rlimits), **own)
