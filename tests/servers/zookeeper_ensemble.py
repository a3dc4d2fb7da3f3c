"""ZooKeeper with several servers that vote."""

from __future__ import annotations

from pathlib import Path

from .cluster import Cluster
from .processes import free_port
from .proxy import Proxy
from .zookeeper import ZooKeeper

INITIAL_TICKS, SYNC_TICKS = 30, 20


class ZooKeeperMember(ZooKeeper):
    """One server of an ensemble. Others reach it through `replication`, if there is one, whose delay makes them lag."""

    def __init__(self, number: int, *, tick_milliseconds: int = 100) -> None:
        super().__init__(tick_milliseconds=tick_milliseconds)
        self.ports |= {"quorum": free_port(), "election": free_port()}
        self.number = number
        self.others: list[ZooKeeperMember] = []
        self.replication: Proxy | None = None

    def mode(self) -> str:
        """`leader` or `follower`; empty while it serves nobody."""
        return self.ask("srvr", timeout_seconds=0.5).partition("Mode: ")[2].partition("\n")[0]

    def answers(self) -> bool:
        """It belongs to a majority."""
        return self.mode() in ("leader", "follower")

    def has_session(self, session_id: int) -> bool:
        """Whether the client of this session is connected here."""
        return f"sid=0x{session_id:x}," in self.ask("cons")

    def owner_of(self, path: str) -> int:
        """The session of an ephemeral node, as this server knows it; 0: there is no such node."""
        owner = 0
        for line in self.ask("dump").partition("Sessions with Ephemerals")[2].splitlines():
            if line.startswith("0x"):
                owner = int(line.rstrip(":"), 16)
            elif line.strip() == path:
                return owner
        return 0

    def command(self) -> list[str]:
        """Write the configuration and name the main class of a server with others."""
        (self.data / "myid").write_text(f"{self.number}\n")
        *options, _, path = super().command()
        lines = [f"initLimit={INITIAL_TICKS}", f"syncLimit={SYNC_TICKS}", self.line(self.ports["quorum"])]
        lines += [other.line(other.replication_port) for other in self.others]
        with Path(path).open("a") as configuration:
            configuration.writelines(f"{line}\n" for line in lines)
        return [*options, "org.apache.zookeeper.server.quorum.QuorumPeerMain", path]

    @property
    def replication_port(self) -> int:
        """The port at which others find it."""
        return self.replication.port if self.replication else self.ports["quorum"]

    def line(self, quorum_port: int) -> str:
        """How an ensemble's configuration names it."""
        return f"server.{self.number}=127.0.0.1:{quorum_port}:{self.ports['election']}"


class ZooKeeperEnsemble(Cluster[ZooKeeperMember]):
    """`size` servers; with `may_lag`, `lag` makes the followers hear of changes later than the leader.

    That takes proxies between them, which accept connections for servers that do not listen yet: an election then may
    take until the init limit.
    """

    def __init__(self, size: int = 3, *, may_lag: bool = False) -> None:
        super().__init__([ZooKeeperMember(number) for number in range(1, size + 1)])
        self._may_lag = may_lag

    @property
    def url(self) -> str:
        """All servers, as ZooKeeper's clients want them."""
        return ",".join(member.url for member in self.members)

    def introduce(self) -> None:
        """Each gets to know the others, or the proxies in front of them."""
        self._close_proxies()
        for member in self.members:
            member.others = [other for other in self.members if other is not member]
            if self._may_lag:
                member.replication = Proxy(member.ports["quorum"])
                member.replication.open()

    def agreed_leader(self) -> ZooKeeperMember | None:
        """The one that says so, when all others that run follow."""
        modes = {member.number: member.mode() for member in self.members if member.pid is not None}
        leaders = [member for member in self.members if modes.get(member.number) == "leader"]
        agreed = len(leaders) == 1 and all(mode in ("leader", "follower") for mode in modes.values())
        return leaders[0] if agreed else None

    def lag(self, seconds: float) -> None:
        """Let whatever the leader tells the others come so much later; 0 ends that. Needs `may_lag`."""
        replication = self.leader().replication
        assert replication is not None
        replication.delay(seconds)

    def stop(self) -> None:
        """End all servers and proxies."""
        super().stop()
        self._close_proxies()

    def _close_proxies(self) -> None:
        for member in self.members:
            if member.replication is not None:
                member.replication.close()
                member.replication = None
