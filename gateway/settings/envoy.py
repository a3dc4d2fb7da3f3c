"""What the configuration says of an Envoy, or of several that read the same files: `[envoy.NAME]`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from supervisor.config import network, values
from supervisor.config.document import Document
from supervisor.config.fill import absolute
from supervisor.config.schema import Key
from supervisor.config.table import Problems, read_table, table_at
from supervisor.config.values import Invalid, describe

KIND = "envoy"
PLACEHOLDER = "{service}"


@dataclass(frozen=True, slots=True)
class EnvoySpec:
    """One set of EDS files, and who reads it. `admin`: "address:port", or the absolute path of a unix socket."""

    name: str
    folder: str
    admin: tuple[str, ...]
    services: tuple[str, ...] = ("*",)
    file: str = f"{PLACEHOLDER}.json"
    cluster: str = PLACEHOLDER
    event_log: tuple[str, ...] = ()
    zones: bool = False
    look_seconds: float = 1.0
    apply_seconds: float = 5.0


def _admin(value: Any) -> str:
    """An address and a port, or the absolute path of a unix socket."""
    if isinstance(value, str) and value.startswith("/"):
        return values.socket_path(values.text(value))
    try:
        host, port = network.host_and_port(value)
    except Invalid:
        wanted = 'must be where Envoy\'s admin interface listens, such as "127.0.0.1:9901" or "/run/envoy/admin.sock"'
        raise Invalid(f"{wanted}, not {describe(value)}") from None
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _pattern(value: Any) -> str:
    """A text that is another one for each service."""
    if PLACEHOLDER not in values.text(value):
        raise Invalid(f"must hold {PLACEHOLDER}: it is another one for each service")
    return str(value)


def _file(value: Any) -> str:
    if "/" in _pattern(value):
        raise Invalid("must be a name in the folder, without a slash")
    return str(value)


KEYS: dict[str, Key] = {
    "folder": Key("path", "required", values.text, "folder"),
    "admin": Key("address:port or path, or a list", "required", values.one_or_more(_admin), "admin"),
    "services": Key("list of patterns", '["*"]', values.list_of(values.text, '["cart*"]'), "services"),
    "file": Key("name", '"{service}.json"', _file, "file"),
    "cluster": Key("name", '"{service}"', _pattern, "cluster"),
    "event_log": Key("path or list of paths", "(none)", values.one_or_more(values.text), "event_log"),
    "zones": Key("boolean", "false", values.boolean, "zones"),
    "look_seconds": Key("duration", "1", values.duration(0.05, 60.0), "look_seconds"),
    "apply_seconds": Key("duration", "5", values.duration(0.1, 60.0), "apply_seconds"),
}
_HINTS = {
    "path": "write the folder of the EDS files as folder",
    "eds": "write the folder of the EDS files as folder",
    "clusters": "it is called cluster, and names one for each service",
    "log": "it is called event_log",
    "socket": "it is called admin, and takes a path too",
}


def read(document: Document, name: str, problems: Problems) -> EnvoySpec:
    """What `[envoy.NAME]` says; what is wrong goes to `problems`."""
    keys = (KIND, name)
    found = read_table(document, keys, KEYS, problems, hints=_HINTS)
    given = table_at(document, keys, Problems())
    for key, what in (
        ("folder", "where Envoy reads its EDS files"),
        ("admin", "where Envoy's admin interface listens"),
    ):
        if key not in given:
            problems.add(document.error((*keys, key), f"missing: {what}"))
    found["folder"] = absolute(document, found.get("folder", "."))
    found["event_log"] = tuple(absolute(document, path) for path in found.get("event_log", ()))
    return EnvoySpec(**{"admin": (), **found}, name=name)
