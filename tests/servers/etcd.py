"""etcd v3: one member, or a cluster of them."""

from __future__ import annotations

import base64
from typing import Any

from .asking import ask
from .cluster import Cluster
from .server import Server, find_program

ROOT_PASSWORD = "root-of-the-tests"
USER = "registrar"
PASSWORD = "of-the-tests"


class Etcd(Server):
    """`auth`: users `root` and `registrar` (rights below `prefix` only). `tls`: clients must show a certificate.

    `quota_bytes`: from this size on nothing is written any more; 0 is etcd's own limit.
    The smallest ttl that the server grants is 1.5 election timeouts, rounded up to seconds: 1 s here, 2 s from 700 ms on.
    """

    install_hint = "apt-get install etcd-server"

    def __init__(
        self,
        *,
        auth: bool = False,
        prefix: str = "/unitd/",
        tls: bool = False,
        heartbeat_milliseconds: int = 100,
        election_milliseconds: int = 600,
        quota_bytes: int = 0,
        name: str = "tests",
    ) -> None:
        self._program = find_program("etcd", self.install_hint)
        super().__init__(("client", "peer"), tls=tls)
        self.name = name
        self.prefix = prefix
        self.user = USER if auth else ""
        self.password = PASSWORD if auth else ""
        self.initial_cluster = ""
        self._auth = auth
        self._quota_bytes = quota_bytes
        self._heartbeat_milliseconds = heartbeat_milliseconds
        self._election_milliseconds = election_milliseconds

    @property
    def port(self) -> int:
        """The port of clients."""
        return self.ports["client"]

    @property
    def url(self) -> str:
        """The address for clients, of gRPC as of the JSON gateway."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def peer_url(self) -> str:
        """The address for other members."""
        return f"http://127.0.0.1:{self.ports['peer']}"

    @property
    def version(self) -> str:
        """The server's version."""
        return str(self.ask("GET", "/version")[1]["etcdserver"])

    def ask(self, method: str, path: str, body: object = None, *, token: str = "") -> tuple[int, Any]:
        """One call of the JSON gateway."""
        return ask(
            self.port, method, path, body, headers={"Authorization": token} if token else {}, tls=self.client_context()
        )

    def authenticate(self, user: str, password: str) -> str:
        """A token of this user."""
        return str(self._call("/v3/auth/authenticate", {"name": user, "password": password})["token"])

    def initialise(self) -> None:
        """Make the users and switch authentication on."""
        if not self._auth:
            return
        self._call("/v3/auth/user/add", {"name": "root", "password": ROOT_PASSWORD})
        self._call("/v3/auth/role/add", {"name": "root"})
        self._call("/v3/auth/user/grant", {"user": "root", "role": "root"})
        self._call("/v3/auth/user/add", {"name": USER, "password": PASSWORD})
        self._call("/v3/auth/role/add", {"name": USER})
        low = self.prefix.encode()
        right = {"permType": "READWRITE", "key": _base64(low), "range_end": _base64(low[:-1] + bytes([low[-1] + 1]))}
        self._call("/v3/auth/role/grant", {"name": USER, "perm": right})
        self._call("/v3/auth/user/grant", {"user": USER, "role": USER})
        self._call("/v3/auth/enable", {})

    def answers(self) -> bool:
        """It has a leader."""
        status, answer = self.ask("GET", "/health")
        return status == 200 and answer.get("health") == "true"

    def member_id(self) -> str:
        """The id of this member, as members know each other."""
        return str(self._status()["header"]["member_id"])

    def leader_id(self) -> str:
        """The id of the member that this one takes for the leader; "0" for none."""
        return str(self._status().get("leader", "0"))

    def command(self) -> list[str]:
        """All that etcd needs is on its command line."""
        command = [
            self._program,
            f"--name={self.name}",
            f"--data-dir={self.data}",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            f"--initial-cluster={self.initial_cluster or f'{self.name}={self.peer_url}'}",
            f"--heartbeat-interval={self._heartbeat_milliseconds}",
            f"--election-timeout={self._election_milliseconds}",
            f"--quota-backend-bytes={self._quota_bytes}",
            "--logger=zap",
            "--log-level=warn",
        ]
        return command + self._tls_arguments()

    def _tls_arguments(self) -> list[str]:
        if self.certificates is None:
            return []
        return [
            "--client-cert-auth",
            f"--trusted-ca-file={self.certificates.ca}",
            f"--cert-file={self.certificates.server_certificate}",
            f"--key-file={self.certificates.server_key}",
        ]

    def _status(self) -> dict[str, Any]:
        return self._call("/v3/maintenance/status", {})

    def _call(self, path: str, body: object) -> dict[str, Any]:
        status, answer = self.ask("POST", path, body)
        if status != 200 or not isinstance(answer, dict):
            raise OSError(f"etcd refuses {path}: {status} {answer}")
        return answer


class EtcdCluster(Cluster[Etcd]):
    """A cluster of `size` members, each a `Server` that can be killed, frozen and started on its own."""

    def __init__(self, size: int = 3, *, heartbeat_milliseconds: int = 100, election_milliseconds: int = 1000) -> None:
        members = [
            Etcd(
                name=f"member{number}",
                heartbeat_milliseconds=heartbeat_milliseconds,
                election_milliseconds=election_milliseconds,
            )
            for number in range(1, size + 1)
        ]
        super().__init__(members)

    @property
    def urls(self) -> list[str]:
        """The addresses of all members, for a client."""
        return [member.url for member in self.members]

    def introduce(self) -> None:
        """Each is told of all."""
        everyone = ",".join(f"{member.name}={member.peer_url}" for member in self.members)
        for member in self.members:
            member.initial_cluster = everyone

    def agreed_leader(self) -> Etcd | None:
        """The one that all that run name."""
        running = [member for member in self.members if member.pid is not None]
        leaders = {member.leader_id() for member in running}
        return next((member for member in running if leaders == {member.member_id()}), None)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
