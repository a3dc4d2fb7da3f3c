"""The control center's configuration: one TOML file becomes a `CenterConfig`, or errors with file, line and key.

Strict like the daemon's, and with the same machinery: the tables below are data, which the reference page is compared
with, and the defaults that count are those of the dataclasses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from supervisor.config import network, schema, values
from supervisor.config.access import read_http
from supervisor.config.document import Document
from supervisor.config.fill import absolute, why_unreadable
from supervisor.config.loader import ConfigErrors, read_file
from supervisor.config.registries import read_registries
from supervisor.config.schema import Key
from supervisor.config.table import Problems, TooManyErrors, read_table, table_at
from supervisor.config.values import Converter, Invalid, describe
from supervisor.core.model import HttpSpec, RegistrySpec, TlsSpec
from supervisor.errors import ConfigError

from .detector import DetectorPolicy
from .guard import GuardPolicy
from .model import Mode, Strategy

DEFAULT_LISTEN = ("127.0.0.1", 9300)
STATE_DIR = "/var/lib/unit-center"
SQLITE = "sqlite"
SQLITE_FILE = "center.sqlite"  # in state_dir


@dataclass(frozen=True, slots=True)
class NodesSpec:
    """How the center speaks with nodes."""

    token_file: str | None = None  # read again when it has changed
    heartbeat_seconds: float = 5.0
    timeout_seconds: float = 5.0
    parallel: int = 64  # calls at a time
    tls: TlsSpec | None = None


@dataclass(frozen=True, slots=True)
class CenterConfig:
    """A whole valid configuration. Paths are absolute."""

    name: str
    state_dir: str = STATE_DIR
    store_url: str = f"sqlite:///{STATE_DIR}/{SQLITE_FILE}"
    password_file: str | None = None  # of the store
    mode: Mode = Mode.ASSIST  # at the first start of a store
    log_level: str = "info"
    http: HttpSpec = field(default_factory=lambda: HttpSpec(DEFAULT_LISTEN))
    registry: RegistrySpec = field(default_factory=RegistrySpec)  # embedded: hosted here
    nodes: NodesSpec = field(default_factory=NodesSpec)
    guard: GuardPolicy = field(default_factory=GuardPolicy)
    detector: DetectorPolicy = field(default_factory=DetectorPolicy)
    rollout: Strategy = field(default_factory=Strategy)

    def store_password(self) -> str | None:
        """What stands in `password_file`, without the line's end; None: there is none. Raises ConfigError."""
        if self.password_file is None:
            return None
        try:
            text = read_file(self.password_file).decode()
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"cannot read it: {why_unreadable(error)}", path=self.password_file) from error
        return text.rstrip("\r\n")


# Converters.


def _store(value: Any) -> str:
    """ "sqlite", or where PostgreSQL is."""
    wanted = 'must be "sqlite", or a URL such as "postgresql://user@host:5432/database"'
    if not isinstance(value, str):
        raise Invalid(f"{wanted}, not {describe(value)}")
    if value == SQLITE:
        return value
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        raise Invalid(f"{wanted}, not {describe(value)}") from None
    if url.password is not None:
        raise Invalid("must hold no password: write it into a file, and its path as password_file")
    if url.drivername not in ("postgresql", "postgres"):
        raise Invalid(f"{wanted}, not {describe(value)}")
    if not url.database or url.query:
        raise Invalid("must end with the name of the database, and nothing after it")
    return value


def batch(value: Any) -> str:
    """A number of targets, or a share of them such as "25%"."""
    wanted = 'must be a number of units such as 2, or a share such as "25%"'
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not text.removesuffix("%").isascii() or not text.removesuffix("%").isdigit():
        raise Invalid(f"{wanted}, not {describe(value)}")
    number = int(text.removesuffix("%")[:9])
    if number < 1 or (text.endswith("%") and number > 100):
        raise Invalid(f"{wanted}, from 1 to 100 %, not {describe(value)}")
    return text


# Tables.

_PERCENT = values.number(0, 100)
_COUNT, _SOME = values.integer(0, 1_000_000), values.integer(1, 1_000_000)
_RATE = values.number(0, 1_000_000)
_DURATION, _SOME_TIME = values.duration(), values.duration(low=0.001)


def _keys(of: type, **converters: tuple[str, Converter]) -> dict[str, Key]:
    """Keys for the fields of a dataclass; types and defaults are told from its own."""
    defaults = {each.name: each.default for each in fields(of)}
    return {key: Key(kind, _shown(defaults[key]), convert, key) for key, (kind, convert) in converters.items()}


def _shown(default: Any) -> str:
    """A default as it would stand in a file."""
    if isinstance(default, bool):
        return str(default).lower()
    return f'"{default}"' if isinstance(default, str) else f"{default:g}"


def _whole(convert: Converter) -> tuple[str, Converter]:
    return "integer", convert


def _number(convert: Converter) -> tuple[str, Converter]:
    return "number", convert


def _time(convert: Converter) -> tuple[str, Converter]:
    return "duration", convert


MAIN = {"name": Key("name", "(host name)", schema.MAIN["node"].convert, "name")}
CENTER = {
    "state_dir": Key("path", f'"{STATE_DIR}"', values.text, "state_dir"),
    "store": Key('"sqlite" or URL', '"sqlite"', _store, "store_url"),
    "password_file": Key("path", "(none)", values.text, "password_file"),
    "mode": Key(
        " or ".join(f'"{mode}"' for mode in Mode),
        '"assist"',
        values.choice({mode.value: mode for mode in Mode}),
        "mode",
    ),
    "log_level": schema.DAEMON["log_level"],
}
HTTP = {"listen": Key("address:port", '"127.0.0.1:9300"', network.listen, "listen")}
NODES = {
    "token_file": Key("path", "(none)", values.text, "token_file"),
    **_keys(
        NodesSpec,
        heartbeat_seconds=_time(values.duration(0.05, 3600.0)),
        timeout_seconds=_time(values.duration(0.05, 600.0)),
        parallel=_whole(values.integer(1, 10_000)),
    ),
}
GUARD = _keys(
    GuardPolicy,
    quorum=_whole(_SOME),
    window_seconds=_time(_SOME_TIME),
    service_per_minute=_number(_RATE),
    service_burst=_whole(_COUNT),
    node_per_minute=_number(_RATE),
    node_burst=_whole(_COUNT),
    fleet_per_minute=_number(_RATE),
    fleet_burst=_whole(_COUNT),
    max_unavailable_percent=_number(_PERCENT),
    self_preservation_percent=_number(_PERCENT),
    reporter_percent=_number(_PERCENT),
    min_interval_seconds=_time(_DURATION),
    backoff_initial=_time(_DURATION),
    backoff_max=_time(_DURATION),
    fatal_restarts=_whole(_SOME),
    fatal_window_seconds=_time(_SOME_TIME),
)
DETECTOR = _keys(
    DetectorPolicy,
    suspect=_number(values.number(0.1, 300)),
    dead=_number(values.number(0.1, 300)),
    pause_seconds=_time(_DURATION),
    min_std_seconds=_time(_SOME_TIME),
    samples=_whole(values.integer(2, 100_000)),
)
ROLLOUT = _keys(
    Strategy,
    batch=("integer or percentage", batch),
    canary=_whole(_COUNT),
    bake_seconds=_time(_DURATION),
    floor_percent=_number(_PERCENT),
    max_failures=_whole(_COUNT),
    by_zone=("boolean", values.boolean),
    target_seconds=_time(_SOME_TIME),
)
TABLES: Mapping[str, Mapping[str, Key]] = {
    "center": CENTER, "http": HTTP, "http.tls": schema.HTTP_TLS, "http.access.NAME": schema.HTTP_ACCESS,
    "registry": schema.REGISTRY, "registry.tls": schema.REGISTRY_TLS,
    "nodes": NODES, "nodes.tls": schema.REGISTRY_TLS, "guard": GUARD, "detector": DETECTOR, "rollout": ROLLOUT,
}  # fmt: skip
_HINTS = {
    "node": "it is called name",
    "daemon": "write [center]",
    "unit": "units stand in the daemon's configuration on each host",
    "store": "write it into [center]",
    "mode": "write it into [center]",
    "listen": "write it into [http]",
    "strategy": "write [rollout]",
}
_NODES_HINTS = {
    "token": "tokens do not stand in this file: write token_file",
    "password": "nodes are told a token: write token_file",
    "timeout": "it is called timeout_seconds",
}


# Reading.


def load(path: str, *, read: Callable[[str], bytes] = read_file, host: str | None = None) -> CenterConfig:
    """The configuration of a file. Raises ConfigErrors, with all that is wrong.

    `host` is the name when the file gives none (None: the host's).
    """
    path, problems = os.path.abspath(path), Problems()
    config = None
    try:
        document = Document(path, read(path))
        config = _read(document, problems, os.uname().nodename if host is None else host)
    except (OSError, UnicodeError) as error:
        problems.errors.append(ConfigError(f"cannot read it: {why_unreadable(error)}", path=path))
    except ConfigError as error:
        problems.errors.append(error)
    except TooManyErrors:
        pass  # they are enough to mend for now
    if config is None or problems.errors:
        raise ConfigErrors(tuple(sorted(problems.errors, key=lambda error: error.line)))
    return config


def check(path: str, *, read: Callable[[str], bytes] = read_file, host: str | None = None) -> list[ConfigError]:
    """The errors of a configuration, line by line; at most 100. Empty: `load` accepts it."""
    try:
        load(path, read=read, host=host)
    except ConfigErrors as error:
        return list(error.errors)
    return []


def _read(document: Document, problems: Problems, host: str) -> CenterConfig:
    tables = {name.partition(".")[0] for name in TABLES}
    name = read_table(document, (), MAIN, problems, tables=sorted(tables), hints=_HINTS).get("name")
    if "name" not in document.tables:
        name = _host_name(document, host, problems)
    return CenterConfig(
        name=name or "",
        **_center(document, problems),
        http=read_http(document, problems, default_listen=DEFAULT_LISTEN, schema=HTTP) or HttpSpec(DEFAULT_LISTEN),
        registry=_registry(document, problems),
        nodes=_nodes(document, problems),
        guard=_guard(document, problems),
        detector=_detector(document, problems),
        rollout=Strategy(**read_table(document, ("rollout",), ROLLOUT, problems)),
    )


def _host_name(document: Document, host: str, problems: Problems) -> str:
    try:
        MAIN["name"].convert(host)
    except Invalid as error:
        problems.add(document.error(("name",), f"missing, and the host's name cannot stand for it: it {error}"))
    return host


def _center(document: Document, problems: Problems) -> dict[str, Any]:
    read = read_table(document, ("center",), CENTER, problems)
    read = {CENTER[key].field: value for key, value in read.items()}
    for key in ("state_dir", "password_file"):
        if key in read:
            read[key] = absolute(document, read[key])
    if read.get("store_url", SQLITE) == SQLITE:
        if "password_file" in read and "store" not in _broken(document, problems):
            problems.add(document.error(("center", "password_file"), "means nothing for sqlite: it has no password"))
        folder = read.get("state_dir", STATE_DIR)
        read["store_url"] = sqlite_url(os.path.join(folder, SQLITE_FILE))
    return read


def _broken(document: Document, problems: Problems) -> set[str]:
    """The keys of [center] that have been complained about: what follows from them is not to be told, too."""
    return {error.key.removeprefix("center.") for error in problems.errors if error.path == document.path}


def sqlite_url(path: str) -> str:
    """The store's url of a file."""
    from sqlalchemy import URL

    return URL.create("sqlite", database=path).render_as_string()


def _registry(document: Document, problems: Problems) -> RegistrySpec:
    if "also" in table_at(document, ("registry",), Problems()):
        reason = "the control center follows one registry: only nodes may register in more"
        problems.add(document.error(("registry", "also"), reason))
        del document.tables["registry"]["also"]
    return read_registries(document, problems)[0]


def _nodes(document: Document, problems: Problems) -> NodesSpec:
    read = read_table(document, ("nodes",), NODES, problems, tables=("tls",), hints=_NODES_HINTS)
    if "token_file" in read:
        read["token_file"] = absolute(document, read["token_file"])
    return NodesSpec(**read, tls=_nodes_tls(document, problems))


def _nodes_tls(document: Document, problems: Problems) -> TlsSpec | None:
    read = read_table(document, ("nodes", "tls"), schema.REGISTRY_TLS, problems)
    for key in ("ca", "cert", "key"):
        if key in read:
            read[key] = absolute(document, read[key])
    if "key" in read and "cert" not in read:
        problems.add(document.error(("nodes", "tls", "key"), "means nothing without cert"))
    spec = TlsSpec(**read)
    return None if spec == TlsSpec() else spec


def _guard(document: Document, problems: Problems) -> GuardPolicy:
    policy = GuardPolicy(**read_table(document, ("guard",), GUARD, problems))
    if policy.backoff_initial > policy.backoff_max:
        problems.add(document.error(("guard", "backoff_initial"), f"is above backoff_max ({policy.backoff_max:g} s)"))
    return policy


def _detector(document: Document, problems: Problems) -> DetectorPolicy:
    policy = DetectorPolicy(**read_table(document, ("detector",), DETECTOR, problems))
    if policy.suspect >= policy.dead:
        problems.add(document.error(("detector", "suspect"), f"must be below dead ({policy.dead:g})"))
    return policy
