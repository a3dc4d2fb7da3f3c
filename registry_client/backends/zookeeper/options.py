"""What the ZooKeeper backend can be told, checked without connecting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import BadOption

PORT, TLS_PORT = 2181, 2281

_SCHEMES = {"zookeeper": False, "zookeeper+tls": True}


def check(options: Mapping[str, Any]) -> None:
    """Raise BadOption for values that cannot be used."""
    _, encrypted = parse(options["url"])
    if options.get("tls") is not None and not encrypted:
        raise BadOption("zookeeper", "tls", "the url must start with zookeeper+tls:// for that")
    if ("user" in options) != ("password" in options):
        missing, other = ("user", "password") if "password" in options else ("password", "user")
        raise BadOption("zookeeper", missing, f"missing: there is a {other}")
    if not options.get("user", "-") or ":" in options.get("user", "-"):
        raise BadOption("zookeeper", "user", "must not be empty and have no colon")
    for name in ("timeout_seconds", "session_seconds"):
        if not 0 < options.get(name, 1.0) < 1e6:
            raise BadOption("zookeeper", name, "must be a number of seconds above 0")
    steps = options.get("prefix", "unitd").split("/")
    if steps[0] == "zookeeper" or not {"", ".", ".."}.isdisjoint(steps) or not all(map(str.isprintable, steps)):
        raise BadOption("zookeeper", "prefix", "must be a path without slashes around it, not below zookeeper/")


def parse(url: object) -> tuple[str, bool]:
    """kazoo's list of hosts, and whether TLS is spoken. Raises BadOption."""
    scheme, separator, rest = str(url).partition("://")
    if not separator or scheme not in _SCHEMES:
        raise BadOption("zookeeper", "url", "must be zookeeper://host[:port][,host[:port]...] or zookeeper+tls://...")
    encrypted = _SCHEMES[scheme]
    return ",".join(_host(part, encrypted) for part in rest.rstrip("/").split(",")), encrypted


def _host(text: str, encrypted: bool) -> str:
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    host, port = (host, port) if colon else (text, str(TLS_PORT if encrypted else PORT))
    inner = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not inner or not inner.isprintable() or set(inner) & set("/@?# []") or (":" in inner and inner == host):
        raise BadOption("zookeeper", "url", f"{text!r} is no host")
    try:
        inner.encode("idna")
    except UnicodeError as error:
        raise BadOption("zookeeper", "url", f"{text!r} is no host") from error
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise BadOption("zookeeper", "url", f"{port!r} is no port")
    return f"{host}:{port}"
