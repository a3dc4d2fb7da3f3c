"""From a TOML value to an address, a URL of ours or a hash: as in `values`, a function answers it or raises Invalid."""

from __future__ import annotations

import re
from typing import Any

from .values import Invalid, address, describe

_LISTEN = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+|localhost)):([0-9]{1,5})", re.ASCII)


def listen(value: Any) -> tuple[str, int]:
    """(address, port) of "127.0.0.1:9301", "10.0.0.7:9301" or "[::]:9301"."""
    match = _LISTEN.fullmatch(value) if isinstance(value, str) else None
    if match is None or not 1 <= int(match[3]) <= 65535:
        raise Invalid(f'must be an IP address and a port such as "127.0.0.1:9301", not {describe(value)}')
    host = match[1] or ("127.0.0.1" if match[2] == "localhost" else match[2])
    if not _is_address(host):
        raise Invalid(f"cannot listen on {host}: it is no IP address")
    return host, int(match[3])


def host_and_port(value: Any) -> tuple[str, int]:
    """(host, port) of "node-7.example:9301", "10.0.0.7:9301" or "[2001:db8::7]:9301"."""
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    plain = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not re.fullmatch("[0-9]{1,5}", port, re.ASCII) or not 1 <= int(port) <= 65535 or (":" in host and plain == host):
        raise Invalid(f'must be a host and a port such as "10.0.0.7:9301", not {describe(value)}')
    return address(plain), int(port)


def _is_address(host: str) -> bool:
    import socket

    try:
        socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    except OSError:
        return False
    return True


def token_sha256(value: Any) -> str:
    """What is kept of a token, in lower case."""
    if not isinstance(value, str) or not re.fullmatch("[0-9A-Fa-f]{64}", value):
        shown = "that" if isinstance(value, str) else describe(value)  # it might be the token itself
        raise Invalid(f"must be 64 hexadecimal digits, not {shown}: unitctl new-token makes a token and says its hash")
    return value.lower()


_CENTER = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?((?:/[!-~]*)?)", re.ASCII)


def center_url(value: Any) -> str:
    """Where a control center answers, without a slash at its end."""
    match = _CENTER.fullmatch(value) if isinstance(value, str) else None
    if match is None or not 1 <= int((match[3] or ":80")[1:]) <= 65535 or set("?#@").intersection(match[4]):
        raise Invalid(f'must be a URL such as "https://center.example:9300", not {describe(value)}')
    if match[1] == "http" and not re.fullmatch(r"localhost|\[::1\]|127(\.[0-9]{1,3}){3}", match[2]):
        raise Invalid("must begin with https: without TLS, anybody on the way could command this host")
    return match[0].rstrip("/")
