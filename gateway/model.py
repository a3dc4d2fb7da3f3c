"""The vocabulary of unit-gateway: servers and pools, what a gateway was told, and what it sees.

Pure values. A *pool* is what a gateway should know of one service; a *server* is one instance in it, in one generation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

NODE_SERVICE = "unitd"  # under which the daemons themselves register: no service that anybody sends requests to

Key = tuple[str, int]  # (instance, generation)


class Standing(StrEnum):
    """What a server in a pool may get."""

    SERVING = "serving"  # its share of the requests
    DRAINING = "draining"  # nothing new; what it has been sent goes on


class Symptom(StrEnum):
    """What a gateway sees of a server that is not well; the control center knows these words."""

    CONNECT_REFUSED = "connect_refused"
    CONNECT_TIMEOUT = "connect_timeout"
    RESPONSE_TIMEOUT = "response_timeout"
    ERROR_ANSWERS = "error_answers"
    CHECK_FAILED = "check_failed"


class Health(StrEnum):
    """What the gateway itself thinks of a server."""

    UP = "up"
    DOWN = "down"  # it sends nothing to it of its own accord
    UNKNOWN = "unknown"  # it does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One instance in one generation. `weight` is the effective one now, 1 to 65535; 0 exactly when draining."""

    service: str
    instance: str
    generation: int
    address: str
    port: int
    weight: int
    full_weight: int
    standing: Standing = Standing.SERVING
    zone: str | None = None
    held: str = ""  # why it is kept although the registry does not list it; "": it does

    @property
    def key(self) -> Key:
        """Which life of which instance."""
        return self.instance, self.generation

    @property
    def place(self) -> tuple[str, int]:
        """Address and port."""
        return self.address, self.port


@dataclass(frozen=True, slots=True)
class Pool:
    """What a gateway should know of one service: servers sorted by instance. Revisions grow within an epoch."""

    service: str
    revision: int
    epoch: str
    servers: tuple[Server, ...] = ()

    @property
    def serving(self) -> tuple[Server, ...]:
        """Those that get new requests."""
        return tuple(server for server in self.servers if server.standing is Standing.SERVING)


@dataclass(frozen=True, slots=True)
class Applied:
    """What a gateway has taken over. `serving`: to whom it may still send *new* requests, by any of its processes."""

    service: str
    revision: int
    serving: frozenset[Key]


@dataclass(frozen=True, slots=True)
class ServerView:
    """One server as its gateway sees it. `in_flight`: requests (or sessions) that it has open there; None: unknown."""

    service: str
    instance: str
    generation: int
    health: Health = Health.UNKNOWN
    in_flight: int | None = None
    weight: int | None = None  # as the gateway has it, in the gateway's own scale
    total: int | None = None  # requests (or sessions) so far, as the gateway counts them
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Something went wrong with a server. `down`: the gateway has taken it out itself, which is reported at once."""

    service: str
    instance: str
    generation: int
    symptom: Symptom
    count: int = 1
    down: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Recovery:
    """The gateway has seen that the server is well (again)."""

    service: str
    instance: str
    generation: int


Finding = Failure | Recovery


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a gateway has shown: how things are, and what has happened since the look before."""

    views: tuple[ServerView, ...] = ()
    findings: tuple[Finding, ...] = ()
