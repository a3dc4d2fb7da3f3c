"""The tables [http], [http.tls] and [http.access.NAME] -> where an API is served over TCP, and to whom.

The daemon and the control center have the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.access import Principal, Role
from ..core.model import HttpSpec, ServerTlsSpec
from .document import Document, Keys
from .fill import absolute
from .schema import HTTP, HTTP_ACCESS, HTTP_TLS, NAME, Key
from .table import Problems, read_table, table_at
from .values import Invalid

_PARTS = ("tls", "access")  # tables in [http]
_LISTEN: Keys = ("http", "listen")
_TLS: Keys = ("http", "tls")
_ACCESS: Keys = ("http", "access")
_HINTS = {
    "port": 'write listen = "127.0.0.1:9301"',
    "address": 'write listen = "127.0.0.1:9301"',
    "token": "write [http.access.NAME] with token_sha256; unitctl new-token makes a token and says its hash",
    "password": "write [http.access.NAME] with token_sha256; unitctl new-token makes a token and says its hash",
    "username": "write [http.access.NAME]",
    "cert": "write [http.tls]",
}
_TLS_HINTS = {"ca": "it is called client_ca: the one whose client certificates are taken"}
_ACCESS_HINTS = {
    "token": "tokens do not stand in this file: write token_sha256; unitctl new-token makes a token and says its hash",
    "password": "tokens do not stand in this file: write token_sha256; unitctl new-token makes a token",
}


def read_http(
    document: Document,
    problems: Problems,
    *,
    default_listen: tuple[str, int] | None = None,
    schema: Mapping[str, Key] = HTTP,
) -> HttpSpec | None:
    """What the file says of [http]; None: nothing is served over TCP.

    `default_listen` (a loopback address) counts where the file names no other. `schema` are the keys of [http] itself.
    """
    top = read_table(document, ("http",), schema, problems, tables=_PARTS, hints=_HINTS)
    tls = _read_tls(document, problems)
    principals = _read_access(document, problems, tls)
    listen = top.get("listen", default_listen)
    if listen is None:
        _check_listens(document, problems)
        return None
    if not is_loopback(listen[0]):
        _check_guarded(document, listen[0], problems)
    return HttpSpec(listen, tls, principals, top.get("advertise"))


def is_loopback(host: str) -> bool:
    """Only processes of this host can connect to that address."""
    return host.startswith("127.") or host == "::1"


def _written(document: Document, keys: Keys) -> dict[str, Any]:
    """The table as it stands there; whether it is one has been complained about already."""
    return table_at(document, keys, Problems())


def _check_listens(document: Document, problems: Problems) -> None:
    table = _written(document, ("http",))
    if "listen" not in table and any(part in table for part in _PARTS):
        problems.add(document.error(_LISTEN, 'missing: write where to listen, such as "10.0.0.7:9301"'))


def _check_guarded(document: Document, host: str, problems: Problems) -> None:
    """Beyond loopback everybody could command, and read what is said."""
    here = _written(document, ("http",))
    missing, write = [], []
    if "tls" not in here:
        missing.append("TLS")
        write.append('[http.tls] with cert = "..."')
    if not here.get("access"):
        missing.append("anybody who may use it")
        write.append("[http.access.NAME] with a role and token_sha256 or certificate")
    if missing:
        reason = (
            f"cannot listen on {host} without {' and '.join(missing)}: write {' and '.join(write)}, "
            "or listen on 127.0.0.1"
        )
        problems.add(document.error(_LISTEN, reason))


def _read_tls(document: Document, problems: Problems) -> ServerTlsSpec | None:
    if "tls" not in _written(document, ("http",)):
        return None
    values = read_table(document, _TLS, HTTP_TLS, problems, hints=_TLS_HINTS)
    if "cert" not in _written(document, _TLS):
        problems.add(document.error((*_TLS, "cert"), "missing: the file with the certificate that is shown to clients"))
    paths = {name: absolute(document, path) for name, path in values.items()}
    return ServerTlsSpec(**{"cert": "", **paths})


def _read_access(document: Document, problems: Problems, tls: ServerTlsSpec | None) -> tuple[Principal, ...]:
    principals: list[Principal] = []
    if not _written(document, ("http",)):
        return ()
    for name in table_at(document, _ACCESS, problems):
        keys = (*_ACCESS, name)
        try:
            NAME(name)
        except Invalid as error:
            problems.add(document.error(keys, f"the name of an access entry {error}"))
            continue
        values = read_table(document, keys, HTTP_ACCESS, problems, hints=_ACCESS_HINTS)
        _check_entry(document, keys, values, tls, problems)
        fields = {HTTP_ACCESS[key].field: value for key, value in values.items()}
        principals.append(Principal(**{"name": name, "role": Role.READ, **fields}))
    _check_double(document, principals, problems)
    return tuple(principals)


def _check_entry(
    document: Document, keys: Keys, values: dict[str, Any], tls: ServerTlsSpec | None, problems: Problems
) -> None:
    written = _written(document, keys)
    if "role" not in written:
        roles = ", ".join(Role)
        problems.add(document.error((*keys, "role"), f"missing: one of {roles}"))
    if "token_sha256" not in written and "certificate" not in written:
        reason = "nobody can use this entry: write token_sha256 (unitctl new-token makes a token) or certificate"
        problems.add(document.error(keys, reason))
    if "certificate" in values and (tls is None or tls.client_ca is None):
        reason = "cannot be asked for: write client_ca in [http.tls], the CA that client certificates are from"
        problems.add(document.error((*keys, "certificate"), reason))


def _check_double(document: Document, principals: list[Principal], problems: Problems) -> None:
    """Who comes with a credential must be one and the same, whatever the order of entries."""
    owners: dict[tuple[str, str], str] = {}
    for principal in principals:
        credentials = [("token_sha256", each) for each in principal.token_sha256]
        credentials += [("certificate", each) for each in principal.certificates]
        for credential in credentials:
            owner = owners.setdefault(credential, principal.name)
            if owner != principal.name:
                keys = (*_ACCESS, principal.name, credential[0])
                problems.add(document.error(keys, f"{owner} has the same one: each entry needs its own"))
