"""unit-gateway's configuration: one TOML file becomes a `GatewayConfig`, or errors with file, line and key.

Strict like the daemon's, and with the same machinery: the tables below are data, which the reference page is compared
with, and the defaults that count are those of the dataclasses. What each kind of gateway may be told stands in
`settings`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

from supervisor.config import network, schema, values
from supervisor.config.access import is_loopback
from supervisor.config.center import read_center
from supervisor.config.document import Document
from supervisor.config.fill import absolute, why_unreadable
from supervisor.config.loader import ConfigErrors, read_file
from supervisor.config.registries import read_registries
from supervisor.config.schema import Key
from supervisor.config.table import Problems, TooManyErrors, read_table, table_at
from supervisor.config.values import Converter, Invalid, describe
from supervisor.core.model import CenterSpec, RegistrySpec
from supervisor.errors import ConfigError

from .pool import PoolPolicy
from .reports import ReportPolicy
from .settings import envoy, haproxy, nginx, proxy

DEFAULT_LISTEN = ("127.0.0.1", 9320)
STATE_DIR = "/var/lib/unit-gateway"
EMBEDDED = "proxy"  # the kind that is its own gateway


class FeederSpec(Protocol):
    """What every kind of gateway is told; the rest is its own."""

    @property
    def name(self) -> str:
        """NAME of its table."""

    @property
    def services(self) -> tuple[str, ...]:
        """Patterns of the services that it serves."""


@dataclass(frozen=True, slots=True)
class FedGateway:
    """One gateway that is to be kept in step: the kind of its table, and what that says."""

    kind: str
    spec: FeederSpec


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """A whole valid configuration. Paths are absolute."""

    name: str
    registry: RegistrySpec
    feeders: tuple[FedGateway, ...]  # in the order of the file, kind by kind
    state_dir: str | None = STATE_DIR  # None: nothing survives
    log_level: str = "info"
    ttl_seconds: float = 10.0  # of its own entries
    resync_seconds: float = 60.0
    pools: PoolPolicy = field(default_factory=PoolPolicy)
    reports: ReportPolicy = field(default_factory=ReportPolicy)
    listen: tuple[str, int] | None = DEFAULT_LISTEN  # of its own API; None: it has none
    center: CenterSpec | None = None  # None: nobody is told of dead servers


# Tables.

_SERVICE = schema.SERVICE["name"].convert
_DURATION, _SOME_TIME = values.duration(), values.duration(low=0.001)


def _loopback(value: Any) -> tuple[str, int]:
    host, port = network.listen(value)
    if not is_loopback(host):
        raise Invalid(f"cannot listen on {host}: this API asks nobody who they are; listen on 127.0.0.1")
    return host, port


def _keys(of: type, **converters: tuple[str, Converter]) -> dict[str, Key]:
    """Keys for the fields of a dataclass, with its own defaults."""
    defaults = {each.name: each.default for each in fields(of)}
    return {key: Key(kind, f"{defaults[key]:g}", convert, key) for key, (kind, convert) in converters.items()}


def _own_keys() -> dict[str, Key]:
    return {
        "state_dir": Key("path", f'"{STATE_DIR}"', values.text, "state_dir"),
        "log_level": schema.DAEMON["log_level"],
        **_keys(
            GatewayConfig,
            ttl_seconds=("duration", schema.TTL),
            resync_seconds=("duration", values.duration(1.0, 86400.0)),
        ),
    }


MAIN = {"name": Key("name", "(host name)", schema.MAIN["node"].convert, "name")}
POOLS = _keys(
    PoolPolicy,
    confirm_seconds=("duration", _DURATION),
    hold_percent=("number", values.number(0, 100)),
    young_seconds=("duration", _DURATION),
)
GATEWAY = {**_own_keys(), **POOLS}
HTTP = {"listen": Key("address:port", '"127.0.0.1:9320"', _loopback, "listen")}
REGISTRY = {
    **{key: each for key, each in schema.REGISTRY.items() if key != "ttl_seconds"},
    "backend": Key("name of a backend", "required", values.backend, "backend"),
    "url": Key("URL", "required", values.url, "url"),
}
CENTER = {key: each for key, each in schema.CENTER.items() if key != "pull"}
REPORTS = _keys(
    ReportPolicy,
    failures=("integer", values.integer(1, 1_000_000)),
    within_seconds=("duration", _SOME_TIME),
    repeat_seconds=("duration", values.duration(low=0.1)),
    clear_seconds=("duration", _SOME_TIME),
)
KINDS: Mapping[str, Any] = {"haproxy": haproxy, "nginx": nginx, "envoy": envoy, EMBEDDED: proxy}  # the modules


def _tables_of(kind: str) -> dict[str, Mapping[str, Key]]:
    inner: Mapping[str, Mapping[str, Key]] = getattr(KINDS[kind], "TABLES", {})
    return {f"{kind}.NAME": KINDS[kind].KEYS, **{f"{kind}.NAME.{table}": keys for table, keys in inner.items()}}


TABLES: Mapping[str, Mapping[str, Key]] = {
    "gateway": GATEWAY, "http": HTTP, "registry": REGISTRY, "registry.tls": schema.REGISTRY_TLS,
    "center": CENTER, "center.tls": schema.REGISTRY_TLS, "reports": REPORTS,
    **{table: keys for kind in KINDS for table, keys in _tables_of(kind).items()},
}  # fmt: skip
_HINTS = {
    "node": "it is called name",
    "daemon": "write [gateway]",
    "unit": "units stand in the daemon's configuration on each host",
    "listen": "write it into [http] or [proxy.NAME]",
    "routes": "write [[proxy.NAME.routes]]",
    "embedded": "write [proxy.NAME]",
    **dict.fromkeys(GATEWAY, "write it into [gateway]"),
}
_HTTP_HINTS = dict.fromkeys(
    ("tls", "access"), "this API is for this host alone, in plain HTTP: who can connect may read it"
)
_WHERE = 'write backend = "http" with the url of a unitd or unit-center, or "consul", "etcd", "zookeeper", "redis"'


# Reading.


def load(path: str, *, read: Callable[[str], bytes] = read_file, host: str | None = None) -> GatewayConfig:
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


def only_embedded(config: GatewayConfig, path: str) -> GatewayConfig:
    """What `serve` runs of a file: its embedded gateways. Raises ConfigError: it has none."""
    feeders = tuple(gateway for gateway in config.feeders if gateway.kind == EMBEDDED)
    if not feeders:
        raise ConfigError("there is no embedded gateway to run: write [proxy.NAME]", path=path)
    return replace(config, feeders=feeders)


def alone(*, registry: str = "", listen: str = "", service: str = "", api: str = "", name: str = "") -> GatewayConfig:
    """The configuration of one embedded gateway without a file, from the options of `serve`. Raises ConfigError."""
    if not (registry and listen and service):
        raise ConfigError("serve without a file needs --registry, --listen and --service")
    spec = proxy.alone(_option("listen", listen, network.listen), _option("service", service, _SERVICE))
    return GatewayConfig(
        name=_option("name", name or os.uname().nodename, MAIN["name"].convert),
        registry=RegistrySpec(backend="http", url=_option("registry", registry, values.url)),
        feeders=(FedGateway(EMBEDDED, spec),),
        state_dir=None,
        listen=_option("api", api, _loopback) if api else None,
    )


def _option(name: str, text: str, convert: Converter) -> Any:
    try:
        return convert(text)
    except Invalid as error:
        raise ConfigError(str(error), key=f"--{name}") from None


def check(path: str, *, read: Callable[[str], bytes] = read_file, host: str | None = None) -> list[ConfigError]:
    """The errors of a configuration, line by line; at most 100. Empty: `load` accepts it."""
    try:
        load(path, read=read, host=host)
    except ConfigErrors as error:
        return list(error.errors)
    return []


def _read(document: Document, problems: Problems, host: str) -> GatewayConfig:
    tables = sorted({name.partition(".")[0] for name in TABLES})
    name = read_table(document, (), MAIN, problems, tables=tables, hints=_HINTS).get("name")
    if "name" not in document.tables:
        name = _host_name(document, host, problems)
    return GatewayConfig(
        name=name or "",
        registry=_registry(document, problems),
        feeders=_feeders(document, problems),
        **_gateway(document, problems),
        reports=ReportPolicy(**read_table(document, ("reports",), REPORTS, problems)),
        listen=read_table(document, ("http",), HTTP, problems, hints=_HTTP_HINTS).get("listen", DEFAULT_LISTEN),
        center=_center(document, problems),
    )


def _host_name(document: Document, host: str, problems: Problems) -> str:
    try:
        MAIN["name"].convert(host)
    except Invalid as error:
        problems.add(document.error(("name",), f"missing, and the host's name cannot stand for it: it {error}"))
    return host


def _gateway(document: Document, problems: Problems) -> dict[str, Any]:
    read = read_table(document, ("gateway",), GATEWAY, problems)
    if "state_dir" in read:
        read["state_dir"] = absolute(document, read["state_dir"])
    policy = PoolPolicy(**{key: read.pop(key) for key in POOLS if key in read})
    return {**read, "pools": policy}


def _registry(document: Document, problems: Problems) -> RegistrySpec:
    _refuse(document, "registry", "also", "a gateway follows one registry: only nodes may register in more", problems)
    hint = "write it into [gateway]: how long the gateway's own entries live without a heartbeat"
    _refuse(document, "registry", "ttl_seconds", hint, problems)
    if table_at(document, ("registry",), Problems()).get("backend", "embedded") == "embedded":
        problems.add(document.error(("registry", "backend"), f"a gateway hosts no registry: {_WHERE}"))
    return read_registries(document, problems)[0]


def _center(document: Document, problems: Problems) -> CenterSpec | None:
    _refuse(document, "center", "pull", "unknown key: a gateway fetches no commands", problems)
    return read_center(document, problems)


def _refuse(document: Document, table: str, key: str, reason: str, problems: Problems) -> None:
    """A key of another program's table of the same name: complained of here, and not read by what both share."""
    written = table_at(document, (table,), Problems())
    if key in written:
        problems.add(document.error((table, key), reason))
        del written[key]


def _feeders(document: Document, problems: Problems) -> tuple[FedGateway, ...]:
    found: list[FedGateway] = []
    owners: dict[str, str] = {}
    for kind, module in KINDS.items():
        for name, table in table_at(document, (kind,), problems).items():
            if not isinstance(table, dict):
                reason = f"must be a table, not {describe(table)}: write [{kind}.NAME], with a NAME of your own"
                problems.add(document.error((kind, name), reason))
            elif _check_name(document, kind, name, owners, problems):
                found.append(FedGateway(kind, module.read(document, name, problems)))
    _check_alone(document, found, problems)
    if not found and not problems.errors:
        tables = ", ".join(f"[{kind}.NAME]" for kind in KINDS)
        problems.add(document.error((), f"there is no gateway to keep in step: write {tables}"))
    return tuple(found)


def _check_name(document: Document, kind: str, name: str, owners: dict[str, str], problems: Problems) -> bool:
    try:
        schema.NAME(name)
    except Invalid as error:
        problems.add(document.error((kind, name), f"the name of a gateway {error}"))
        return False
    owner = owners.setdefault(name, kind)
    if owner != kind:
        problems.add(document.error((kind, name), f"[{owner}.{name}] has the same name: each gateway needs its own"))
    return True


_OWN = {"nginx": "file", EMBEDDED: "listen"}  # what two gateways of a kind cannot both have


def _check_alone(document: Document, found: list[FedGateway], problems: Problems) -> None:
    owners: dict[Any, str] = {}
    for gateway in found:
        key = _OWN.get(gateway.kind)
        if key is None:
            continue
        name = gateway.spec.name
        owner = owners.setdefault((key, getattr(gateway.spec, key)), name)
        if owner != name:
            problems.add(document.error((gateway.kind, name, key), f"[{gateway.kind}.{owner}] has the same one"))
