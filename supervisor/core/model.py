"""The vocabulary: what a unit should be (`UnitSpec`) and what it is (`Unit`).

Everything here is frozen. Durations are seconds, sizes bytes, points in time (`*_at`) monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from .access import Principal


class Autorestart(Enum):
    """When an exited process is started again (supervisord's words)."""

    ALWAYS = "true"
    UNEXPECTED = "unexpected"  # when its exit code is not one of `exitcodes`, or a signal ended it
    NEVER = "false"


class Removal(Enum):
    """How an entry leaves the registry."""

    EXPIRE = "expire"  # the heartbeat stops and the entry dies of its ttl
    DEREGISTER = "deregister"  # it is deleted at once


class Phase(Enum):
    """Where a unit stands on the entry path or the exit path; `lifecycle.py` moves it."""

    STOPPED = "stopped"
    WAITING = "waiting"  # wanted, until the units it depends on are ready
    BACKOFF = "backoff"  # wanted, until the delay is over and the old entry is gone
    STARTING = "starting"
    PREWARMING = "prewarming"  # ready; the first requests are ours
    RUNNING = "running"
    EXPIRING = "expiring"  # withdrawn; until the entry is gone from the registry
    SETTLING = "settling"  # gone; gateways get time to act on it
    DRAINING = "draining"  # told to finish; until nothing is in flight
    STOPPING = "stopping"  # stop signal sent; until the whole tree has ended
    KILLING = "killing"  # SIGKILL sent; likewise
    FATAL = "fatal"  # given up; the reason is in `Unit.reason`


class LogFormat(Enum):
    """How lines of a unit are written."""

    RAW = "raw"  # as they come
    PREFIX = "prefix"  # time and unit before every line
    JSON = "json"  # one JSON object a line


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """What makes a unit a registered one."""

    name: str
    address: str  # what others connect to
    port: int  # this process's own: the configured port + process number
    weight: int = 100
    ttl_seconds: float = 10.0
    version: str | None = None
    zone: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    own_port: bool = True  # the listening socket must belong to the unit's own processes, where that can be seen


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """A question that is asked of a unit again and again; words, defaults and meaning are Kubernetes'."""

    kind: str  # "http", "tcp", "exec", "notify", "kernel", or a plugin's
    options: str = "{}"  # what the kind is told, as canonical JSON with its placeholders replaced
    period: float = 10.0
    timeout: float = 1.0
    initial_delay: float = 0.0
    success_threshold: int = 1  # answers in a row that make it hold
    failure_threshold: int = 3  # failures in a row that make it fail


@dataclass(frozen=True, slots=True)
class HttpCall:
    """One HTTP request to a unit. `port` is the service's own where none is given."""

    method: str
    path: str
    port: int | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Hook:
    """How a unit is told something. Exactly one of the three ways is set."""

    http: HttpCall | None = None
    signal: int | None = None
    argv: tuple[str, ...] | None = None
    timeout: float = 5.0


class InFlight(Enum):
    """How it is known what a unit still works on."""

    CONNECTIONS = "connections"  # the kernel tells, of the connections to its port
    HTTP = "http"  # the unit tells
    GATEWAYS = "gateways"  # those who send to it tell, as far as they do; else the kernel
    NONE = "none"  # nobody can tell: the drain takes its whole time


@dataclass(frozen=True, slots=True)
class DrainSpec:
    """How a unit that nobody sends to any more finishes what it has."""

    notify: Hook | None = None  # the shutdown flag: new work is refused from now on
    resume: Hook | None = None  # takes it back
    in_flight: InFlight = InFlight.CONNECTIONS
    in_flight_call: HttpCall | None = None  # of HTTP
    timeout: float = 30.0
    quiet: float = 1.0  # a connection whose last word was the unit's counts until it has been silent for so long


@dataclass(frozen=True, slots=True)
class WarmupSpec:
    """How a unit's weight grows after it has become ready. Percent of its full weight."""

    initial: int = 10
    step: int = 10
    period: float = 10.0
    requests: tuple[HttpCall, ...] = ()  # sent to it before anybody else may
    requests_timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """What happens after an exit, and how the unit leaves the registry."""

    autorestart: Autorestart = Autorestart.UNEXPECTED
    exitcodes: tuple[int, ...] = (0,)
    startretries: int = 3
    backoff_initial: float = 1.0
    backoff_factor: float = 2.0
    backoff_max: float = 60.0
    backoff_jitter: float = 0.1  # share of the delay, added or taken away
    stable_seconds: float = 10.0  # ready for so long: earlier failures are forgotten
    removal: Removal = Removal.EXPIRE
    settle_seconds: float = 0.5  # what was sent just before the entry went may still be on its way
    gateway_seconds: float = 10.0  # so long gateways that send to it are waited for, once they were told; 0: never


@dataclass(frozen=True, slots=True)
class LogSpec:
    """Where the unit's output goes. `None` throws it away; a path is absolute."""

    stdout: str | None = None
    stderr: str | None = None
    redirect_stderr: bool = False  # stderr joins stdout
    max_bytes: int = 50 * 1024 * 1024  # 0: never rotate
    backups: int = 10
    format: LogFormat = LogFormat.RAW
    pipe_bytes: int = 0  # what the pipe holds while nobody reads it; 0: what the kernel gives (64 KiB)


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits. `rlimits` are (resource name without RLIMIT_, soft, hard); -1 is unlimited."""

    rlimits: tuple[tuple[str, int, int], ...] = ()
    memory_max: int | None = None  # bytes; cgroup v2
    pids_max: int | None = None  # cgroup v2
    nice: int | None = None
    oom_score_adj: int | None = None


@dataclass(frozen=True, slots=True)
class UnitSpec:
    """What is wanted of one unit: one process and what it starts. Paths are absolute.

    `name` is `group` when the group has one process, else `group:number`.
    """

    name: str
    group: str
    number: int
    argv: tuple[str, ...]
    autostart: bool = True
    startsecs: float = 1.0
    start_timeout: float = 60.0
    stopsignal: int = 15
    stopwaitsecs: float = 10.0
    priority: int = 999
    user: str | None = None
    os_group: str | None = None
    umask: int = 0o022
    directory: str | None = None
    environment: tuple[tuple[str, str], ...] = ()  # envfile's lines and `environment`, merged and expanded
    depends_on: tuple[str, ...] = ()  # groups
    service: ServiceSpec | None = None
    startup: ProbeSpec | None = None
    readiness: ProbeSpec | None = None
    liveness: ProbeSpec | None = None
    drain: DrainSpec | None = None  # None: as its defaults, if it has a service; else there is nothing to drain
    warmup: WarmupSpec | None = None  # None: full weight at once
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    logs: LogSpec = field(default_factory=LogSpec)
    limits: Limits = field(default_factory=Limits)


DEFAULT_TTL_SECONDS = 10.0
JOURNAL_VERSION = 2  # of the tables in state_dir; a later version's journal is refused
MAIN_REGISTRY = "main"


@dataclass(frozen=True, slots=True)
class TlsSpec:
    """How a registry is spoken to over TLS; absolute paths of PEM files."""

    verify: bool = True
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None


@dataclass(frozen=True, slots=True)
class RegistrySpec:
    """One registry that entries are kept in. Secrets are files, which are read when they are needed."""

    name: str = MAIN_REGISTRY
    backend: str = "embedded"
    url: str | None = None
    ttl_seconds: float | None = None  # None: as the service says, or the main registry
    timeout_seconds: float | None = None  # of one call; None: a sixth of the ttl
    prefix: str | None = None  # None: the backend's own
    user: str | None = None
    password_file: str | None = None
    token_file: str | None = None
    tls: TlsSpec | None = None
    options: tuple[tuple[str, object], ...] = ()  # what only this backend knows


@dataclass(frozen=True, slots=True)
class ServerTlsSpec:
    """How an API is served over TLS; absolute paths of PEM files, which are read again when they have changed."""

    cert: str  # with the chain above it
    key: str | None = None  # None: it is in the file of cert
    client_ca: str | None = None  # whose client certificates are taken; None: nobody is asked for one


@dataclass(frozen=True, slots=True)
class HttpSpec:
    """Where an API is served over TCP, and to whom. Without principals (loopback only) the kernel says who calls."""

    listen: tuple[str, int]  # address and port
    tls: ServerTlsSpec | None = None
    principals: tuple[Principal, ...] = ()
    advertise: tuple[str, int] | None = None  # host and port that others are told of; None: those of listen


@dataclass(frozen=True, slots=True)
class CenterSpec:
    """Where commands are fetched, because nobody can connect to this host."""

    urls: tuple[str, ...]  # of the same control center, tried in turn
    pull: bool = True
    token_file: str | None = None  # read when it is needed
    tls: TlsSpec | None = None


@dataclass(frozen=True, slots=True)
class DaemonSpec:
    """What the daemon itself needs to know; read once at its start."""

    node: str
    socket: str = "/run/unitd/unitd.sock"
    socket_group: str | None = "unitd"  # who may command besides root and the daemon's own user
    state_dir: str = "/var/lib/unitd"
    log_dir: str = "/var/log/unitd"
    watch: bool = False  # apply valid changes of the files by themselves
    cgroup: str = "auto"  # auto | off | absolute path of a delegated cgroup v2 folder
    restarts_per_minute: int = 600  # host-wide budget of automatic restarts
    mass_failure_percent: int = 50  # of the registered units; probes may not take more than that out of traffic
    log_level: str = "info"
    sigterm: str = "stop"  # stop: units are stopped in order; leave: they go on, and the next daemon takes them over
    audit_log: str | None = "/var/lib/unitd/audit.jsonl"  # where commands are written down; None: nowhere
    http: HttpSpec | None = None  # None: the unix socket is all
    registries: tuple[RegistrySpec, ...] = (
        RegistrySpec(ttl_seconds=DEFAULT_TTL_SECONDS),
    )  # the main one first; entries are in all of them
    center: CenterSpec | None = None  # None: whoever commands connects to us
    checks: tuple[str, int] | None = None  # where the checks of load balancers are answered; None: nowhere

    @property
    def registry_ttl_seconds(self) -> float:
        """The ttl of services that say nothing else."""
        return self.registries[0].ttl_seconds or DEFAULT_TTL_SECONDS


@dataclass(frozen=True, slots=True)
class Config:
    """A whole valid configuration: the daemon's part and every unit's spec by name, in file order."""

    daemon: DaemonSpec
    units: dict[str, UnitSpec]
    files: tuple[str, ...] = ()  # every file that was read, the main one first
    patterns: tuple[str, ...] = ()  # absolute ones, of the files to include: another file may match one day


@dataclass(frozen=True, slots=True)
class Exit:
    """How an attempt ended. Exactly one of `code`, `signal` and `stage` is set.

    `stage` (a failed spawn: "exec", "directory", ...) comes with `errno`; `reason` is one sentence for people.
    """

    reason: str
    code: int | None = None
    signal: int | None = None
    stage: str | None = None
    errno: int = 0
    wall: float = 0.0  # unix time, for people only
    can_heal: bool = True  # False: starting again cannot help before a file or the configuration changes


@dataclass(frozen=True, slots=True)
class Unit:
    """What one unit is now. `lifecycle.step` is the only maker of new ones."""

    phase: Phase = Phase.STOPPED
    wanted: bool = False  # up or down, whatever the phase
    attempt: int = 0  # the generation: grows with each spawn, never goes back
    timer: int = 0  # id of the armed timer; a firing with another id is stale
    withdrawal: int = 0  # id of the last withdrawal; a "gone" of another one is stale
    live: bool = False  # its process, or something that it left, may exist
    pid: int | None = None
    ready_at: float | None = None  # of this attempt
    healthy: bool = True  # readiness holds; tells nothing before it was ready
    drained: bool = False  # it is to stay out of traffic, whatever happens, until somebody takes that back
    leaving: bool = False  # EXPIRING to DRAINING: at the end its process is stopped (else it stays, drained)
    told: bool = False  # this attempt was told to refuse new work
    dead: bool = False  # liveness failed: nothing is awaited of this attempt any more
    published: bool = False  # its entry may be in the registry
    withdrawn: bool = False  # a withdrawal of that entry is under way: whoever takes it out will answer
    delay_over: bool = True  # BACKOFF: the delay is over
    crashed: bool = False  # this end was not asked for: the restart policy decides, or has decided, what follows
    forced: bool = False  # stop even if the registry cannot be asked
    failures: int = 0  # in a row, see restart.py
    failed_starts: int = 0  # in a row without becoming ready
    restarts: int = 0  # automatic ones, ever
    last_exit: Exit | None = None
    reason: str = ""  # why it is where it is, one sentence
