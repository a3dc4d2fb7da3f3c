"""The keys that a configuration may hold, as data: name, type, default and what each becomes.

The reference page of the configuration is compared with these tables. `type` and `default` are words for it; the
defaults that count are those of `core.model`, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..core.access import Role
from ..core.model import Autorestart, LogFormat, Removal
from . import calls, network, values
from .values import Converter


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a table. `field` is where its value goes: `UnitSpec`'s, dotted, or one of the daemon's."""

    type: str
    default: str  # as it would stand in a file, "required", or in brackets what it depends on
    convert: Converter
    field: str


NAME = values.matching(r"(?!\.\.?\Z)[A-Za-z0-9_.-]{1,64}", 'a name of 1 to 64 letters, digits, "_", "." and "-"')
_SERVICE_NAME = values.matching(
    r"(?!\.\.?\Z)[A-Za-z0-9_.:-]{1,128}", 'a name of 1 to 128 letters, digits, "_", ".", ":" and "-"'
)
_NODE_NAME = values.matching(
    r"(?!\.\.?\Z)[A-Za-z0-9_.-]{1,128}", 'a name of 1 to 128 letters, digits, "_", "." and "-"'
)
TTL = values.duration(0.5, 3600.0)  # the bounds of this package's own registry
_DURATION, _SOME_TIME, _SIZE = values.duration(), values.duration(low=0.001), values.size()
_NAMES = values.list_of(values.text, '["database"]')
_LEVELS = ("debug", "info", "warning", "error")
_AUTORESTART = {
    True: Autorestart.ALWAYS, False: Autorestart.NEVER, "unexpected": Autorestart.UNEXPECTED,
    "always": Autorestart.ALWAYS, "never": Autorestart.NEVER,
}  # fmt: skip

MAIN = {"node": Key("name", "(host name)", _NODE_NAME, "node")}
DAEMON = {
    "socket": Key("path", '"/run/unitd/unitd.sock"', values.text, "socket"),
    "socket_group": Key("string", '"unitd"', values.any_text, "socket_group"),
    "state_dir": Key("path", '"/var/lib/unitd"', values.text, "state_dir"),
    "log_dir": Key("path", '"/var/log/unitd"', values.text, "log_dir"),
    "watch": Key("boolean", "false", values.boolean, "watch"),
    "cgroup": Key('"auto", "off" or path', '"auto"', values.cgroup, "cgroup"),
    "restarts_per_minute": Key("integer", "600", values.integer(1, 1_000_000), "restarts_per_minute"),
    "mass_failure_percent": Key("integer", "50", values.integer(1, 100), "mass_failure_percent"),
    "audit_log": Key("path", "(audit.jsonl in state_dir)", values.any_text, "audit_log"),
    "sigterm": Key('"stop" or "leave"', '"stop"', values.choice({word: word for word in ("stop", "leave")}), "sigterm"),
    "log_level": Key(
        " or ".join(f'"{level}"' for level in _LEVELS),
        '"info"',
        values.choice({level: level for level in _LEVELS}),
        "log_level",
    ),
}
HTTP = {"listen": Key("address:port", "(off)", network.listen, "listen")}
NODE_HTTP = {**HTTP, "advertise": Key("host:port", "(listen)", network.host_and_port, "advertise")}
HTTP_TLS = {
    "cert": Key("path", "required", values.text, "cert"),
    "key": Key("path", "(in the file of cert)", values.text, "key"),
    "client_ca": Key("path", "(none)", values.text, "client_ca"),
}
_GLOBS = values.list_of(values.text, '["cart*"]')
HTTP_ACCESS = {
    "role": Key(
        " or ".join(f'"{role}"' for role in Role),
        "required",
        values.choice({role.value: role for role in Role}),
        "role",
    ),
    "services": Key("list of patterns", '["*"]', _GLOBS, "services"),
    "nodes": Key("list of patterns", '["*"]', _GLOBS, "nodes"),
    "token_sha256": Key("hash or list of hashes", "(none)", values.one_or_more(network.token_sha256), "token_sha256"),
    "certificate": Key("name or list of names", "(none)", values.one_or_more(values.text), "certificates"),
}
REGISTRY = {
    "backend": Key("name of a backend", '"embedded"', values.backend, "backend"),
    "url": Key("URL", "(required but for embedded)", values.url, "url"),
    "ttl_seconds": Key("duration", "10", TTL, "ttl_seconds"),
    "timeout_seconds": Key("duration", "(a sixth of the ttl)", values.duration(0.05, 60.0), "timeout_seconds"),
    "prefix": Key("string", "(the backend's)", values.label, "prefix"),
    "user": Key("string", "(none)", values.text, "user"),
    "password_file": Key("path", "(none)", values.text, "password_file"),
    "token_file": Key("path", "(none)", values.text, "token_file"),
}
REGISTRY_TLS = {
    "verify": Key("boolean", "true", values.boolean, "verify"),
    "ca": Key("path", "(the system's)", values.text, "ca"),
    "cert": Key("path", "(none)", values.text, "cert"),
    "key": Key("path", "(in the file of cert)", values.text, "key"),
    "server_name": Key("string", "(the url's host)", values.text, "server_name"),
}
CENTER = {
    "url": Key("URL or list of URLs", "required", values.one_or_more(network.center_url), "urls"),
    "token_file": Key("path", "(none)", values.text, "token_file"),
    "pull": Key("boolean", "true", values.boolean, "pull"),
}
CHECKS = {"listen": Key("address:port", "(off)", network.listen, "checks")}
INCLUDE = {"files": Key("list of patterns", "[]", values.list_of(values.text, '["units.d/*.toml"]'), "files")}

UNIT = {
    "command": Key("string or list of strings", "required", values.command, "argv"),
    "numprocs": Key("integer", "1", values.integer(1, 1000), "numprocs"),
    "numprocs_start": Key("integer", "0", values.integer(0, 65535), "numprocs_start"),
    "autostart": Key("boolean", "true", values.boolean, "autostart"),
    "autorestart": Key(
        'true, false, "unexpected", "always" or "never"',
        '"unexpected"',
        values.choice(_AUTORESTART),
        "restart.autorestart",
    ),
    "exitcodes": Key("list of integers", "[0]", values.exit_codes, "restart.exitcodes"),
    "startsecs": Key("duration", "1", _DURATION, "startsecs"),
    "start_timeout": Key("duration", "60", _SOME_TIME, "start_timeout"),
    "startretries": Key("integer", "3", values.integer(0, 1_000_000), "restart.startretries"),
    "stopsignal": Key("signal", '"TERM"', values.signal_number, "stopsignal"),
    "stopwaitsecs": Key("duration", "10", _DURATION, "stopwaitsecs"),
    "priority": Key("integer", "999", values.integer(-1_000_000, 1_000_000), "priority"),
    "user": Key("string or integer", "(the daemon's)", values.user, "user"),
    "group": Key("string or integer", "(the user's)", values.user, "os_group"),
    "umask": Key("octal", '"022"', values.umask, "umask"),
    "directory": Key("path", "(the daemon's)", values.text, "directory"),
    "environment": Key(
        "table of strings",
        "{}",
        values.texts(r"[^=\0]+", 'names hold no "="', '{ LANG = "C.UTF-8" }'),
        "environment",
    ),
    "envfile": Key("path", "(none)", values.text, "envfile"),
    "depends_on": Key("list of names", "[]", _NAMES, "depends_on"),
}
SERVICE = {
    "name": Key("name", "(NAME)", _SERVICE_NAME, "service.name"),
    "port": Key("integer", "required", values.integer(1, 65535), "service.port"),
    "address": Key("host name or IP address", "(see below)", values.address, "service.address"),
    "weight": Key("integer", "100", values.integer(1, 65535), "service.weight"),
    "ttl_seconds": Key("duration", "(the registry's)", TTL, "service.ttl_seconds"),
    "own_port": Key("boolean", "true", values.boolean, "service.own_port"),
    "version": Key("string", "(none)", values.text, "service.version"),
    "zone": Key("string", "(none)", values.label, "service.zone"),
    "metadata": Key(
        "table of strings",
        "{}",
        values.texts(r"[!-~]{1,128}", "at most 128 printable ASCII characters", '{ team = "cart" }'),
        "service.metadata",
    ),
}


def _probe(name: str, successes: Converter) -> dict[str, Key]:
    """The keys of a probe, besides the one that names its kind."""
    return {
        "period": Key("duration", "10", values.duration(low=0.1), f"{name}.period"),
        "timeout": Key("duration", "1", _SOME_TIME, f"{name}.timeout"),
        "initial_delay": Key("duration", "0", _DURATION, f"{name}.initial_delay"),
        "success_threshold": Key("integer", "1", successes, f"{name}.success_threshold"),
        "failure_threshold": Key("integer", "3", _THRESHOLD, f"{name}.failure_threshold"),
    }


_THRESHOLD = values.integer(1, 10_000)
PROBES: Mapping[str, Mapping[str, Key]] = {
    "startup": _probe("startup", values.only_one),
    "readiness": _probe("readiness", _THRESHOLD),
    "liveness": _probe("liveness", values.only_one),
}
RESTART = {
    "removal": Key(
        '"expire" or "deregister"',
        '"expire"',
        values.choice({each.value: each for each in Removal}),
        "restart.removal",
    ),
    "settle_seconds": Key("duration", "0.5", _DURATION, "restart.settle_seconds"),
    "gateway_seconds": Key("duration", "10", _DURATION, "restart.gateway_seconds"),
    "backoff_initial": Key("duration", "1", _DURATION, "restart.backoff_initial"),
    "backoff_factor": Key("number", "2", values.number(1, 100), "restart.backoff_factor"),
    "backoff_max": Key("duration", "60", _DURATION, "restart.backoff_max"),
    "backoff_jitter": Key("number", "0.1", values.number(0, 1), "restart.backoff_jitter"),
    "stable_seconds": Key("duration", "10", _DURATION, "restart.stable_seconds"),
}
DRAIN = {
    "notify": Key("hook", "(none)", calls.hook, "drain.notify"),
    "resume": Key("hook", "(none)", calls.hook, "drain.resume"),
    "in_flight": Key('"connections", "gateways", "none" or table', '"connections"', calls.in_flight, "drain.in_flight"),
    "timeout": Key("duration", "30", _DURATION, "drain.timeout"),
    "quiet": Key("duration", "1", _DURATION, "drain.quiet"),
}
WARMUP = {
    "initial": Key("integer", "10", values.integer(1, 100), "warmup.initial"),
    "step": Key("integer", "10", values.integer(1, 100), "warmup.step"),
    "period": Key("duration", "10", values.duration(low=0.1), "warmup.period"),
    "requests": Key("list of requests", "[]", calls.http_calls, "warmup.requests"),
    "requests_timeout": Key("duration", "30", _SOME_TIME, "warmup.requests_timeout"),
}
LOGS = {
    "stdout": Key('"AUTO", "NONE" or path', '"AUTO"', values.text, "logs.stdout"),
    "stderr": Key('"AUTO", "NONE" or path', '"AUTO"', values.text, "logs.stderr"),
    "redirect_stderr": Key("boolean", "false", values.boolean, "logs.redirect_stderr"),
    "max_bytes": Key("size", '"50MB"', _SIZE, "logs.max_bytes"),
    "backups": Key("integer", "10", values.integer(0, 1000), "logs.backups"),
    "pipe_bytes": Key("size", "(the kernel's, 64KB)", _SIZE, "logs.pipe_bytes"),
    "format": Key(
        '"raw", "prefix" or "json"',
        '"raw"',
        values.choice({each.value: each for each in LogFormat}),
        "logs.format",
    ),
}
RLIMITS = ("nofile", "nproc", "core", "fsize", "stack", "memlock", "as")
LIMITS = {
    "memory_max": Key("size", "(none)", values.size(low=1), "limits.memory_max"),
    "pids_max": Key("integer", "(none)", values.integer(1, 2**22), "limits.pids_max"),
    **{name: Key("limit", "(the daemon's)", values.rlimit, "limits.rlimits") for name in RLIMITS},
    "nice": Key("integer", "(the daemon's)", values.integer(-20, 19), "limits.nice"),
    "oom_score_adj": Key("integer", "(the daemon's)", values.integer(-1000, 1000), "limits.oom_score_adj"),
}

MAIN_TABLES: Mapping[str, Mapping[str, Key]] = {
    "daemon": DAEMON, "http": NODE_HTTP, "http.tls": HTTP_TLS, "http.access.NAME": HTTP_ACCESS,
    "registry": REGISTRY, "registry.tls": REGISTRY_TLS, "center": CENTER, "center.tls": REGISTRY_TLS,
    "checks": CHECKS, "include": INCLUDE,
}  # fmt: skip
UNIT_TABLES: Mapping[str, Mapping[str, Key]] = {
    "service": SERVICE, **PROBES, "drain": DRAIN, "warmup": WARMUP, "restart": RESTART, "logs": LOGS, "limits": LIMITS,
}  # fmt: skip
