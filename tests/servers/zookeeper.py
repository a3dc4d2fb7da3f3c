"""A ZooKeeper server of one node."""

from __future__ import annotations

import socket
from pathlib import Path

from .certificates import Certificates
from .server import MissingProgram, Server, find_program

JARS = Path("/usr/share/java")


class ZooKeeper(Server):
    """A session's timeout lies between `minimum_session_milliseconds` and `maximum_session_milliseconds`.

    The server rounds its end up to the next tick. Digest ACLs are a matter of clients, nothing is set up for them.
    `tls`: clients come over TLS only and must show a certificate (`certificates` has one).
    """

    install_hint = "apt-get install zookeeper (or run .ci/install-registries)"

    def __init__(
        self,
        *,
        tick_milliseconds: int = 100,
        minimum_session_milliseconds: int | None = None,
        maximum_session_milliseconds: int = 60_000,
        tls: bool = False,
    ) -> None:
        self._java = find_program("java", self.install_hint)
        if not (JARS / "zookeeper.jar").exists():
            raise MissingProgram(f"ZooKeeper is not installed: {self.install_hint}")
        super().__init__(("plain", "secure") if tls else ("plain",), tls=tls)
        self.tick_milliseconds = tick_milliseconds
        self.minimum_session_milliseconds = minimum_session_milliseconds or 2 * tick_milliseconds
        self.maximum_session_milliseconds = maximum_session_milliseconds

    @property
    def port(self) -> int:
        """The port of clients."""
        return self.ports["secure" if self.tls else "plain"]

    @property
    def url(self) -> str:
        """`host:port`, as ZooKeeper's clients want it."""
        return f"127.0.0.1:{self.port}"

    @property
    def version(self) -> str:
        """The server's version."""
        first_line = self.ask("srvr").splitlines()[0]
        return first_line.partition(": ")[2].partition("-")[0]

    def ask(self, word: str, *, timeout_seconds: float = 2.0) -> str:
        """One of the four-letter commands, all of which are allowed."""
        with socket.create_connection(("127.0.0.1", self.ports["plain"]), timeout_seconds) as connection:
            connection.sendall(word.encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def answers(self) -> bool:
        """It says that it is ready for requests."""
        # A connection that comes too early is sometimes never answered: do not wait long for that one.
        return "Mode: standalone" in self.ask("srvr", timeout_seconds=0.5)

    def command(self) -> list[str]:
        """Write the configuration and name the main class of a server without a quorum."""
        path = self.folder / "zoo.cfg"
        path.write_text("\n".join(self._configuration()) + "\n")
        options = [
            # Small and quick to start: the compilers for code that runs long are of no use here.
            *("-Xshare:auto", "-XX:TieredStopAtLevel=1", "-Xmx128m", "-XX:+UseSerialGC", "-XX:-UsePerfData"),
            "-Dzookeeper.admin.enableServer=false",
            "-Dzookeeper.4lw.commands.whitelist=*",
            "-Dzookeeper.preAllocSize=64",
            "-Dzookeeper.forceSync=no",  # the page cache survives a SIGKILL of the server, and no test cuts the power
            "-Dzookeeper.jmx.log4j.disable=true",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        ]
        if self.tls:
            options.append("-Dzookeeper.serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory")
        main_class = "org.apache.zookeeper.server.ZooKeeperServerMain"
        # The manifest of zookeeper.jar names most of what it needs; the rest are the logger, and what Netty needs for TLS.
        names = ["zookeeper.jar", "slf4j-simple.jar", *(["netty-codec.jar", "netty-resolver.jar"] if self.tls else [])]
        class_path = ":".join(str(JARS / name) for name in names)
        return [self._java, *options, "-cp", class_path, main_class, str(path)]

    def _configuration(self) -> list[str]:
        lines = [
            f"dataDir={self.data}",
            f"tickTime={self.tick_milliseconds}",
            f"minSessionTimeout={self.minimum_session_milliseconds}",
            f"maxSessionTimeout={self.maximum_session_milliseconds}",
            "clientPortAddress=127.0.0.1",
            f"clientPort={self.ports['plain']}",
            "maxClientCnxns=0",
        ]
        if self.certificates is not None:
            lines += [
                "secureClientPortAddress=127.0.0.1",
                f"secureClientPort={self.port}",
                "ssl.clientAuth=need",
                *self._stores(self.certificates),
            ]
        return lines

    def _stores(self, certificates: Certificates) -> list[str]:
        """ZooKeeper reads PEM files, with the key and its certificate in one."""
        key_store = self.folder / "certificates" / "server-both.pem"
        key_store.write_text(certificates.server_key.read_text() + certificates.server_certificate.read_text())
        return [
            f"ssl.keyStore.location={key_store}",
            "ssl.keyStore.type=PEM",
            f"ssl.trustStore.location={certificates.ca}",
            "ssl.trustStore.type=PEM",
        ]
