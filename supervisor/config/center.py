"""The table [center] -> where a host that nobody can connect to fetches its commands."""

from __future__ import annotations

from ..core.model import CenterSpec
from .document import Document
from .fill import absolute
from .registries import read_tls
from .schema import CENTER
from .table import Problems, read_table, table_at

_KEYS = ("center",)
_HINTS = {
    "token": "tokens do not stand in this file: write token_file",
    "urls": "it is called url, and takes a list too",
    "ca": "write it into [center.tls]",
    "cert": "write it into [center.tls]",
}


def read_center(document: Document, problems: Problems) -> CenterSpec | None:
    """What the main file says of the control center; None: nothing."""
    if "center" not in document.tables:
        return None
    values = read_table(document, _KEYS, CENTER, problems, tables=("tls",), hints=_HINTS)
    tls = read_tls(document, _KEYS, problems)
    if "url" not in table_at(document, _KEYS, Problems()):
        problems.add(document.error((*_KEYS, "url"), "missing: where the control center answers"))
    if "token_file" in values:
        values["token_file"] = absolute(document, values["token_file"])
    urls = values.get("url", ())
    if tls is not None and urls and all(url.startswith("http:") for url in urls):
        problems.add(document.error((*_KEYS, "tls"), "means nothing with a url that begins with http:"))
    return CenterSpec(**{"urls": (), **{CENTER[key].field: value for key, value in values.items()}}, tls=tls)
