"""The table [checks] -> where the checks of load balancers are answered."""

from __future__ import annotations

from ..core.model import HttpSpec
from .document import Document
from .schema import CHECKS
from .table import Problems, read_table, table_at

_LISTEN = ("checks", "listen")
_WRITE = 'write listen = "10.0.0.7:9302"'
_HINTS = {
    "port": _WRITE,
    "address": _WRITE,
    "tls": "there is none: what asks cannot do it, and nothing that is answered is secret",
    "access": "there is none: whoever reaches the port may ask",
}
_EVERYWHERE = ("0.0.0.0", "::")


def read_checks(document: Document, http: HttpSpec | None, problems: Problems) -> tuple[str, int] | None:
    """Address and port; None: nowhere. `http` is what else this daemon listens on."""
    if "checks" not in document.tables:
        return None
    listen: tuple[str, int] | None = read_table(document, ("checks",), CHECKS, problems, hints=_HINTS).get("listen")
    if "listen" not in table_at(document, ("checks",), Problems()):
        problems.add(document.error(_LISTEN, f"missing: {_WRITE}, or another address of this host and a free port"))
    if listen is not None and http is not None and _collide(listen, http.listen):
        problems.add(document.error(_LISTEN, "[http] listens there: checks need a port of their own"))
    return listen


def _collide(one: tuple[str, int], other: tuple[str, int]) -> bool:
    addresses = {one[0], other[0]}
    return one[1] == other[1] and (len(addresses) == 1 or not addresses.isdisjoint(_EVERYWHERE))
