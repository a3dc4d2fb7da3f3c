"""A Redis server that keeps its data across a restart."""

from __future__ import annotations

import io
import socket

from .server import Server, find_program

PASSWORD = "of-the-tests"
USER = "registrar"


class Redis(Server):
    """`password`: the default user needs it; `acl`: a user `registrar` with rights below `prefix`, and no default user.

    `tls`: TLS only, and clients must show a certificate (`certificates` has one).
    """

    install_hint = "apt-get install redis-server"

    def __init__(self, *, password: bool = False, acl: bool = False, prefix: str = "unitd:", tls: bool = False) -> None:
        self._program = find_program("redis-server", self.install_hint)
        super().__init__(("redis",), tls=tls)
        self._acl = acl
        self.prefix = prefix
        self.user = USER if acl else ""
        self.password = PASSWORD if password or acl else ""

    @property
    def port(self) -> int:
        """The port of clients."""
        return self.ports["redis"]

    @property
    def url(self) -> str:
        """The address, without user and password."""
        return f"{'rediss' if self.tls else 'redis'}://127.0.0.1:{self.port}"

    @property
    def version(self) -> str:
        """The server's version; asked of the default user or of `registrar`."""
        for line in self.ask("INFO", "server").splitlines():
            name, _, value = line.partition(":")
            if name == "redis_version":
                return value
        raise OSError("Redis does not tell its version")

    def ask(self, *words: str, timeout_seconds: float = 2.0) -> str:
        """One command on a new connection; its answer as text, when that is no list."""
        with socket.create_connection(("127.0.0.1", self.port), timeout_seconds) as plain:
            context = self.client_context()
            if context is None:
                return self._converse(plain, words)
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as secret:
                return self._converse(secret, words)

    def answers(self) -> bool:
        """It answers PING, which it does not while it reads its data."""
        return self.ask("PING") == "PONG"

    def command(self) -> list[str]:
        """Write the configuration and name it."""
        path = self.folder / "redis.conf"
        path.write_text("\n".join(self._configuration()) + "\n")
        return [self._program, str(path)]

    def _configuration(self) -> list[str]:
        lines = [
            "bind 127.0.0.1",
            f"port {0 if self.tls else self.port}",
            f"dir {self.data}",
            "appendonly yes",
            "appendfsync no",  # the page cache survives a SIGKILL of the server, and no test cuts the power
            'save ""',
            "databases 1",
        ]
        if self._acl:
            lines += [
                "user default off",
                f"user {USER} on >{PASSWORD} ~{self.prefix}* &{self.prefix}* +@all -@admin",
            ]
        elif self.password:
            lines.append(f"requirepass {self.password}")
        if self.certificates is not None:
            lines += [
                f"tls-port {self.port}",
                f"tls-ca-cert-file {self.certificates.ca}",
                f"tls-cert-file {self.certificates.server_certificate}",
                f"tls-key-file {self.certificates.server_key}",
                "tls-auth-clients yes",
            ]
        return lines

    def _converse(self, connection: socket.socket, words: tuple[str, ...]) -> str:
        with connection.makefile("rwb") as stream:
            if self.password:
                stream.write(_encode(("AUTH", self.user or "default", self.password)))
            stream.write(_encode(words))
            stream.flush()
            if self.password:
                _read_answer(stream)
            return _read_answer(stream)


def _encode(words: tuple[str, ...]) -> bytes:
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        raw = word.encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


def _read_answer(stream: io.BufferedRWPair) -> str:
    """One answer that is no list; an error of the server and a closed connection raise OSError."""
    line = stream.readline().decode()
    kind, rest = line[:1], line[1:].strip()
    if not line or kind == "-":
        raise OSError(rest or "Redis closed the connection")
    if kind != "$":
        return rest
    length = int(rest)
    return stream.read(length + 2)[:-2].decode() if length >= 0 else ""
