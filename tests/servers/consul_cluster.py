"""Consul as it is used: servers that vote, and an agent without data of its own that talks to them."""

from __future__ import annotations

from typing import Any

from .cluster import Cluster
from .consul import Consul
from .server import Server


class ConsulMember(Consul):
    """A server of a cluster, or with `votes=False` the client agent of a node."""

    def __init__(self, name: str, *, votes: bool = True) -> None:
        super().__init__()
        self.name, self.votes = name, votes
        self.servers = 1
        self.others: list[str] = []  # the addresses to join

    @property
    def server_address(self) -> str:
        """What servers call each other."""
        return f"127.0.0.1:{self.ports['server']}"

    @property
    def join_address(self) -> str:
        """Where it gossips."""
        return f"127.0.0.1:{self.ports['serf']}"

    def leader_address(self) -> str:
        """The `server_address` of who leads, as this one sees it; empty for nobody."""
        status, answer = self.ask("GET", "/v1/status/leader")
        return str(answer) if status == 200 else ""

    def answers(self) -> bool:
        """It finds a leader, and its own node in the catalog."""
        status, nodes = self.ask("GET", "/v1/catalog/nodes")
        return status == 200 and any(node["Node"] == self.name for node in nodes or ())

    def _configuration(self) -> dict[str, Any]:
        configuration = super()._configuration() | {"node_name": self.name, "retry_join": self.others}
        # The default is 30 s between two attempts.
        configuration |= {"retry_interval": "200ms", "server": self.votes}
        if self.votes:
            # One that is killed is expected back, and not voted out.
            return configuration | {"bootstrap_expect": self.servers, "autopilot": {"cleanup_dead_servers": False}}
        del configuration["bootstrap_expect"]
        return configuration


class ConsulCluster(Cluster[ConsulMember]):
    """`size` servers, and one client `agent` that is no server."""

    def __init__(self, size: int = 3) -> None:
        super().__init__([ConsulMember(f"server{number}") for number in range(1, size + 1)])
        self.agent = ConsulMember("client", votes=False)

    @property
    def everyone(self) -> list[Server]:
        """The servers and the agent."""
        return [*self.members, self.agent]

    def introduce(self) -> None:
        """All join all: servers that come back with nothing find the agent, too."""
        everyone = [*self.members, self.agent]
        for member in everyone:
            member.servers = len(self.members)
            member.others = [other.join_address for other in everyone if other is not member]

    def agreed_leader(self) -> ConsulMember | None:
        """Ask each server that runs."""
        running = [member for member in self.members if member.pid is not None]
        leaders = {member.leader_address() for member in running}
        return next((member for member in running if leaders == {member.server_address}), None)
