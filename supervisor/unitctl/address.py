"""Where the daemon listens: what the options, the environment and the configuration say about it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ConfigError

DEFAULT_CONFIG = "/etc/unitd/unitd.toml"
DEFAULT_SOCKET = "/run/unitd/unitd.sock"
DEFAULT_PORT = 9301
SERVER_VARIABLE = "UNITCTL_SERVER"


@dataclass(frozen=True, slots=True)
class Address:
    """A unix socket's `path`, or `host` and `port`; `source` tells people who said so ("" for an option)."""

    url: str
    source: str = ""
    path: str | None = None
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return f"{self.url} ({self.source})" if self.source else self.url


def parse_address(url: str, source: str = "") -> Address:
    """Read `unix:///path`, `/path` or `http://HOST[:PORT]` with a loopback HOST. Raises ValueError with the reason."""
    if url.startswith("/"):
        url = f"unix://{url}"
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "unix" and rest.startswith("/"):
        return Address(url, source, path=rest)
    if separator and scheme == "http":
        return _parse_http(url, rest.rstrip("/"), source)
    raise ValueError(f"{url!r} is neither unix:///path/to/socket nor http://127.0.0.1:{DEFAULT_PORT}")


def _parse_http(url: str, rest: str, source: str) -> Address:
    host, colon, port = rest.rpartition(":") if not rest.endswith("]") else (rest, "", "")
    if not colon:
        host, port = rest, str(DEFAULT_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{url!r} has no port between 1 and 65535")
    if host not in ("localhost", "::1") and not host.startswith("127."):
        raise ValueError(f"{url!r} is not a loopback address; log in to that host and run unitctl there")
    return Address(url, source, host=host, port=int(port))


def find_address(server: str | None, config: str | None, environment: Mapping[str, str]) -> Address:
    """The first of: `--server`, `--config`, UNITCTL_SERVER, the default configuration file, the default socket.

    Raises ValueError for a wrong URL and ConfigError for a wrong file.
    """
    if server is not None:
        return parse_address(server)
    if config is not None:
        return _unix(_socket_of(config), f"from {config}")
    if environment.get(SERVER_VARIABLE):
        return parse_address(environment[SERVER_VARIABLE], f"from {SERVER_VARIABLE}")
    return _default_address()


def _default_address() -> Address:
    if not os.path.exists(DEFAULT_CONFIG):
        return _unix(DEFAULT_SOCKET, "the default")
    try:
        return _unix(_socket_of(DEFAULT_CONFIG), f"from {DEFAULT_CONFIG}")
    except ConfigError as error:
        # the daemon may run with what the file said before, and not everybody who may command may read it
        return _unix(DEFAULT_SOCKET, f"the default, for want of a better one: {error}")


def _unix(path: str, source: str) -> Address:
    return Address(f"unix://{path}", source, path=path)


def _socket_of(config: str) -> str:
    """What a configuration file says about the socket; nothing else in it, or in the files it names, matters here."""
    try:
        with open(config, "rb") as file:
            text = file.read()
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", path=config) from error
    if b"socket" not in text:  # the usual case, without the cost of a TOML reader
        return DEFAULT_SOCKET
    path = _daemon_table(config, text).get("socket", DEFAULT_SOCKET)
    if not isinstance(path, str) or not path:
        raise ConfigError("must be a path", path=config, key="daemon.socket")
    return os.path.join(os.path.dirname(os.path.abspath(config)), path)


def _daemon_table(config: str, text: bytes) -> dict[str, object]:
    import tomllib  # rarely needed, and slow to load

    try:
        table = tomllib.loads(text.decode()).get("daemon", {})
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError
        raise ConfigError(f"cannot read it: {error}", path=config) from error
    return table if isinstance(table, dict) else {}
