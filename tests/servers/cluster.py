"""Several servers that are one registry: started together, with a leader, and whole again after each test."""

from __future__ import annotations

import shutil
import time
from abc import ABC, abstractmethod
from typing import Generic, Self, TypeVar

from .server import POLL_SECONDS, START_SECONDS, NotReady, Server

CLUSTER_START_SECONDS = 2 * START_SECONDS  # three programs, and an election

Member = TypeVar("Member", bound=Server)


class Cluster(ABC, Generic[Member]):
    """Members that can be killed, frozen and started each on its own; `members` vote for a leader."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members

    @abstractmethod
    def introduce(self) -> None:
        """Tell the members the addresses of each other."""

    @abstractmethod
    def agreed_leader(self) -> Member | None:
        """Ask the members that run for their leader; None, or OSError: they do not agree on one of them yet."""

    @property
    def everyone(self) -> list[Server]:
        """All processes; more than the members where some do not vote."""
        return list(self.members)

    @property
    def followers(self) -> list[Member]:
        """The members that run, without the leader."""
        leader = self.leader()
        return [member for member in self.members if member.pid is not None and member is not leader]

    def start(self) -> None:
        """Start all; return when they have a leader and serve clients."""
        for _ in range(3):
            self.introduce()
            self._launch()
            self.wait_ready()
            if all(server.pid is not None for server in self.everyone):
                return
            # Somebody took a port of one that has ended by now.
            self.stop()
            for server in self.everyone:
                server.move()
        raise NotReady("a member of the cluster ends after each start")

    def wait_ready(self, within_seconds: float = CLUSTER_START_SECONDS) -> None:
        """Return when all that run have the same leader, and each serves clients."""
        self.leader(within_seconds)
        for server in self.everyone:
            if server.pid is not None:
                server.wait_ready(within_seconds)

    def leader(self, within_seconds: float = CLUSTER_START_SECONDS) -> Member:
        """The member that leads, once all that run agree."""
        deadline = time.monotonic() + within_seconds
        while (leader := self._leader_now()) is None:
            if time.monotonic() > deadline:
                logs = "\n".join(member.log[-500:] for member in self.members)
                raise NotReady(f"the members have no leader after {within_seconds} s: {logs}")
            time.sleep(POLL_SECONDS)
        return leader

    def heal(self) -> None:
        """All thawed, running and answering, whatever was done to them."""
        for server in self.everyone:
            server.thaw()
        self._launch()
        self.wait_ready()

    def lose_everything(self) -> None:
        """SIGKILL for all members, then start them with nothing. Who does not vote lives on."""
        for member in self.members:
            member.kill()
        for member in self.members:
            shutil.rmtree(member.data, ignore_errors=True)
        self._launch()
        self.wait_ready()

    def stop(self) -> None:
        """End all and remove their folders."""
        for server in self.everyone:
            server.kill()
        for server in self.everyone:
            server.stop()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _launch(self) -> None:
        for server in self.everyone:
            server.launch()

    def _leader_now(self) -> Member | None:
        try:
            return self.agreed_leader()
        except OSError:
            return None
