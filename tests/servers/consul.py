"""A Consul server of one node, with a data folder."""

from __future__ import annotations

import json
import os
import uuid
from typing import Any

from .asking import ask
from .server import Server, find_program

MANAGEMENT_TOKEN = "5a9a5a9e-4e7f-4f3c-9c0d-0d6f0a3b7c11"
REGISTRAR_TOKEN = "0b3c6a1e-93b5-4a3f-8a57-3f1d2e4c5b66"
# What an agent needs that registers services, keeps them alive and reads them back: nothing else.
REGISTRAR_RULES = (
    'service_prefix "" { policy = "write" } node_prefix "" { policy = "read" } agent_prefix "" { policy = "read" }'
)


class Consul(Server):
    """`acl`: nothing is allowed without a token; `management_token` may all, `registrar_token` may register services.

    `tls`: HTTPS only, and clients must show a certificate (`certificates` has one).
    """

    install_hint = "run .ci/install-registries, or name the program in $CONSUL"

    def __init__(self, *, acl: bool = False, tls: bool = False) -> None:
        self._program = find_program(
            "consul", self.install_hint, os.environ.get("CONSUL", ""), "/opt/unitd-tests/consul/usr/bin/consul"
        )
        super().__init__(("http", "serf", "server"), tls=tls)
        self._acl = acl

    @property
    def port(self) -> int:
        """The port of the HTTP API."""
        return self.ports["http"]

    @property
    def url(self) -> str:
        """The address of the HTTP API."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def version(self) -> str:
        """The agent's version."""
        status, answer = self.ask("GET", "/v1/agent/self")
        assert status == 200, answer
        return str(answer["Config"]["Version"])

    @property
    def management_token(self) -> str:
        """A token that may all; empty without `acl`."""
        return MANAGEMENT_TOKEN if self._acl else ""

    @property
    def registrar_token(self) -> str:
        """A token that may register services and read; empty without `acl`."""
        return REGISTRAR_TOKEN if self._acl else ""

    def ask(self, method: str, path: str, body: object = None, *, token: str | None = None) -> tuple[int, Any]:
        """One call of the API, with the management token unless another is given."""
        token = self.management_token if token is None else token
        return ask(
            self.port, method, path, body, headers={"X-Consul-Token": token} if token else {}, tls=self.client_context()
        )

    def make_token(self, rules: str) -> str:
        """A new token with these rules; its policy has a name that is used once."""
        policy = self._create("/v1/acl/policy", {"Name": uuid.uuid4().hex, "Rules": rules})
        return str(self._create("/v1/acl/token", {"Policies": [{"ID": policy["ID"]}]})["SecretID"])

    def initialise(self) -> None:
        """Make the registrar's token, with the same secret after each loss of the data."""
        if not self._acl:
            return
        policy = self._create("/v1/acl/policy", {"Name": "registrar", "Rules": REGISTRAR_RULES})
        self._create("/v1/acl/token", {"SecretID": REGISTRAR_TOKEN, "Policies": [{"ID": policy["ID"]}]})

    def answers(self) -> bool:
        """There is a leader, and the node is in its catalog."""
        status, nodes = self.ask("GET", "/v1/catalog/service/consul")
        return status == 200 and bool(nodes)

    def command(self) -> list[str]:
        """Write the configuration and name it."""
        path = self.folder / "consul.json"
        path.write_text(json.dumps(self._configuration()))
        return [self._program, "agent", f"-config-file={path}"]

    def _configuration(self) -> dict[str, Any]:
        configuration: dict[str, Any] = {
            "server": True,
            "bootstrap_expect": 1,
            "node_name": "tests",
            "data_dir": str(self.data),
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "ports": {
                "http": -1 if self.tls else self.port,
                "https": self.port if self.tls else -1,
                "dns": -1,
                "grpc": -1,
                "serf_wan": -1,
                "serf_lan": self.ports["serf"],
                "server": self.ports["server"],
            },
            "performance": {"raft_multiplier": 1},
            "disable_update_check": True,
            "log_level": "warn",
            # Tests open many connections to one agent from one address.
            "limits": {"http_max_conns_per_client": 5000},
        }
        if self._acl:
            configuration["acl"] = {
                "enabled": True,
                "default_policy": "deny",
                "enable_token_persistence": True,
                "tokens": {"master": MANAGEMENT_TOKEN, "agent": MANAGEMENT_TOKEN},
            }
        if self.certificates is not None:
            configuration |= {
                "verify_incoming_https": True,
                "ca_file": str(self.certificates.ca),
                "cert_file": str(self.certificates.server_certificate),
                "key_file": str(self.certificates.server_key),
            }
        return configuration

    def _create(self, path: str, body: object) -> dict[str, Any]:
        status, answer = self.ask("PUT", path, body)
        if status != 200:
            raise OSError(f"cannot create {path}: {status} {answer}")
        assert isinstance(answer, dict)
        return answer
