"""The tables [registry] and [registry.also.NAME] -> the registries of this host, the main one first."""

from __future__ import annotations

from typing import Any

from ..core.model import DEFAULT_TTL_SECONDS, MAIN_REGISTRY, DaemonSpec, RegistrySpec, TlsSpec
from ..errors import ConfigError
from .document import Document, Keys
from .fill import absolute
from .schema import NAME, REGISTRY, REGISTRY_TLS
from .table import Problems, read_table, table_at
from .values import Invalid, describe

ALSO = "also"
MAX_REGISTRIES = 8
_PARTS = ("tls", "options")  # tables of a registry
_FILES = ("password_file", "token_file", "ca", "cert", "key")


def read_registries(main: Document, problems: Problems) -> tuple[RegistrySpec, ...]:
    """All registries of the main file."""
    specs = [_read(main, ("registry",), MAIN_REGISTRY, problems)]
    for name in table_at(main, ("registry", ALSO), problems):
        keys = ("registry", ALSO, name)
        try:
            NAME(name)
        except Invalid as error:
            problems.add(main.error(keys, f"the name of a registry {error}"))
            continue
        spec = _read(main, keys, name, problems)
        _check_double(main, keys, spec, specs, problems)
        specs.append(spec)
    if len(specs) > MAX_REGISTRIES:
        problems.add(main.error(("registry", ALSO), f"too many registries: at most {MAX_REGISTRIES}"))
    return tuple(specs)


def may_need_ssl(daemon: DaemonSpec) -> bool:
    """Whether the module `ssl` may be needed: some libraries of registries import it in any case."""
    plain = ("embedded", "http", "consul", "etcd")
    if daemon.http is not None and daemon.http.tls is not None:
        return True
    return any(spec.backend not in plain or "https://" in (spec.url or "") for spec in daemon.registries)


def registry_error(path: str, name: str, option: str, reason: str) -> ConfigError:
    """A mistake in a registry's options that only its backend could find, with the line in the main file."""
    keys: Keys = ("registry",) if name == MAIN_REGISTRY else ("registry", ALSO, name)
    key = {"password": "password_file", "token": "token_file"}.get(option, option)
    if option in REGISTRY_TLS:
        keys = (*keys, "tls")
    try:
        with open(path, "rb") as file:
            document = Document(path, file.read())
    except (OSError, ConfigError):  # it was changed since it was read
        return ConfigError(reason, path=path, key=".".join((*keys, key)))
    table: Any = document.tables
    for part in keys:
        table = table.get(part, {}) if isinstance(table, dict) else {}
    if isinstance(table, dict) and key not in REGISTRY and key not in table and "options" in table:
        keys = (*keys, "options")
    return document.error((*keys, key), reason)


def _read(main: Document, keys: Keys, name: str, problems: Problems) -> RegistrySpec:
    inner = (*_PARTS, ALSO) if name == MAIN_REGISTRY else _PARTS
    values = read_table(main, keys, REGISTRY, problems, tables=inner)
    if name == MAIN_REGISTRY:
        values.setdefault("ttl_seconds", DEFAULT_TTL_SECONDS)
    for file in _FILES:
        if file in values:
            values[file] = absolute(main, values[file])
    spec = RegistrySpec(name=name, **values, tls=read_tls(main, keys, problems), options=_options(main, keys, problems))
    if spec.backend != "embedded" and spec.url is None and "url" not in table_at(main, keys, problems):
        problems.add(main.error((*keys, "url"), f"missing: the {spec.backend} backend needs it"))
    return spec


def read_tls(main: Document, keys: Keys, problems: Problems) -> TlsSpec | None:
    """How a server is spoken to over TLS, from the table `tls` at `keys`; None: nothing is said of it."""
    values = read_table(main, (*keys, "tls"), REGISTRY_TLS, problems)
    for file in _FILES:
        if file in values:
            values[file] = absolute(main, values[file])
    if "key" in values and "cert" not in values:
        problems.add(main.error((*keys, "tls", "key"), "means nothing without cert"))
    spec = TlsSpec(**values)
    return None if spec == TlsSpec() else spec


def _options(main: Document, keys: Keys, problems: Problems) -> tuple[tuple[str, object], ...]:
    """What only the backend knows: texts, numbers and booleans."""
    options = table_at(main, (*keys, "options"), problems)
    for name, value in options.items():
        if not isinstance(value, str | int | float):
            place = (*keys, "options", name)
            problems.add(main.error(place, f"must be a string, a number, true or false, not {describe(value)}"))
        elif name in REGISTRY or name in _PARTS:
            problems.add(main.error((*keys, "options", name), "stands one table higher, among the registry's own keys"))
    return tuple(sorted((name, value) for name, value in options.items() if isinstance(value, str | int | float)))


def _check_double(
    main: Document, keys: Keys, spec: RegistrySpec, others: list[RegistrySpec], problems: Problems
) -> None:
    for other in others:
        if spec.name == other.name:
            problems.add(main.error(keys, f"{spec.name} is the name of the registry in [registry]; choose another"))
        elif (spec.backend, spec.url, spec.prefix) == (other.backend, other.url, other.prefix):
            problems.add(main.error(keys, f"is the same registry as {other.name}"))
