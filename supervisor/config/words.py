"""What to say of a word that means nothing where it stands, and what people write by habit and mean by it here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def unknown(name: str, known: Iterable[str], hints: Mapping[str, str] | None = None) -> str:
    """What to say of a key that means nothing here."""
    known = list(known)
    if hint := (hints or {}).get(name):
        return f"unknown key: {hint}"
    if near := nearest(name, known):
        return f"unknown key; did you mean {near}?"
    return f"unknown key; known here: {', '.join(known)}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like it, if one is like it."""
    from difflib import get_close_matches

    close = get_close_matches(name[:100].lower(), list(known), n=1)
    return close[0] if close else None


# supervisord's words.
_TREE = "is not needed: the whole process tree is always stopped"
MAIN_HINTS = {
    "program": "write [unit.NAME]",
    "units": "write [unit.NAME]",
    "group": "a unit with numprocs is a group of its own; units are chosen by name, such as web-*",
    "supervisord": "write [daemon]",
    "supervisorctl": "unitctl reads no file: it has --server",
    "unix_http_server": "write [daemon] socket",
    "inet_http_server": "write [http] listen",
    "eventlistener": "follow GET /v1/events instead",
}
# Those of systemd, compose files and Kubernetes besides.
_READINESS = "write it into [unit.NAME.readiness], or liveness or startup"
_WARMUP = "write [unit.NAME.warmup]"
_DRAIN = "write [unit.NAME.drain]"
_HEALTH = "write [unit.NAME.readiness] for whether it gets traffic, [unit.NAME.liveness] for whether it runs on"
UNIT_HINTS = {
    "process_name": "is not needed: processes are called NAME, or NAME:0, NAME:1, ...",
    "stopasgroup": _TREE,
    "killasgroup": _TREE,
    "stdout_logfile": "write it as stdout in [unit.NAME.logs]",
    "stderr_logfile": "write it as stderr in [unit.NAME.logs]",
    "redirect_stderr": "write it as redirect_stderr in [unit.NAME.logs]",
    "stdout_logfile_maxbytes": "write it as max_bytes in [unit.NAME.logs]",
    "stderr_logfile_maxbytes": "write it as max_bytes in [unit.NAME.logs]",
    "stdout_logfile_backups": "write it as backups in [unit.NAME.logs]",
    "stderr_logfile_backups": "write it as backups in [unit.NAME.logs]",
    "stdout_syslog": "syslog is not written to; see [unit.NAME.logs]",
    "stderr_syslog": "syslog is not written to; see [unit.NAME.logs]",
    "port": "write it as port in [unit.NAME.service]",
    "memory_max": "write it as memory_max in [unit.NAME.limits]",
    "nofile": "write it as nofile in [unit.NAME.limits]",
    "kill_timeout": "it is called stopwaitsecs",
    "stop_grace_period": "it is called stopwaitsecs; for the time before the stop signal see [unit.NAME.drain]",
    "terminationGracePeriodSeconds": "it is called stopwaitsecs; for the time before that see [unit.NAME.drain]",
    "serverurl": "is not needed: see UNITCTL_SERVER",
    "env": "it is called environment",
    "env_file": "it is called envfile",
    "working_dir": "it is called directory",
    "healthcheck": _HEALTH,
    "health_check": _HEALTH,
    "probe": _READINESS,
    "probes": _READINESS,
    "readinessProbe": "write [unit.NAME.readiness]",
    "livenessProbe": "write [unit.NAME.liveness]",
    "startupProbe": "write [unit.NAME.startup]",
    "httpGet": _READINESS + ', as http = { path = "/healthz" }',
    "tcpSocket": _READINESS + ", as tcp = {}",
    "periodSeconds": _READINESS + ", as period",
    "timeoutSeconds": _READINESS + ", as timeout",
    "initialDelaySeconds": _READINESS + ", as initial_delay",
    "successThreshold": _READINESS + ", as success_threshold",
    "failureThreshold": _READINESS + ", as failure_threshold",
    "watchdog": "write notify = { watchdog = true } into [unit.NAME.liveness]",
    "WatchdogSec": "write notify = { watchdog = true } into [unit.NAME.liveness]",
    "lifecycle": _DRAIN,
    "preStop": _DRAIN + " with notify",
    "shutdown_delay": _DRAIN + ", or settle_seconds in [unit.NAME.restart]",
    "deregistration_delay": _DRAIN + ", or settle_seconds in [unit.NAME.restart]",
    "slow_start": _WARMUP,
    "slowstart": _WARMUP,
    "warm_up": _WARMUP,
}
_HTTP = 'write http = { path = "/healthz" }'
PROBE_HINTS = {
    "httpGet": _HTTP,
    "path": _HTTP,
    "url": _HTTP,
    "test": 'write exec = ["/bin/test-it"]',
    "command": 'write exec = ["/bin/test-it"]',
    "tcpSocket": "write tcp = {}",
    "port": "write it into the table of the probe's kind, such as tcp = { port = 8080 }",
    "type": _HTTP + ", tcp = {} or another kind as a key of its own",
    "kind": _HTTP + ", tcp = {} or another kind as a key of its own",
    "periodSeconds": "it is called period",
    "interval": "it is called period",
    "timeoutSeconds": "it is called timeout",
    "initialDelaySeconds": "it is called initial_delay",
    "start_period": "it is called initial_delay; a slow start is what [unit.NAME.startup] is for",
    "successThreshold": "it is called success_threshold",
    "rise": "it is called success_threshold",
    "failureThreshold": "it is called failure_threshold",
    "retries": "it is called failure_threshold",
    "fall": "it is called failure_threshold",
    "terminationGracePeriodSeconds": "is not needed: the unit's stopwaitsecs counts",
}
DRAIN_HINTS = {
    "http": 'write notify = { http = "POST /drain" }',
    "signal": 'write notify = { signal = "USR1" }',
    "exec": 'write notify = { exec = ["/bin/drain-it"] }',
    "undrain": "it is called resume",
    "grace": "it is called timeout",
    "inflight": "it is called in_flight",
}
WARMUP_HINTS = {
    "window": "there is none: it takes as many periods of one step as lead from initial to 100 percent",
    "duration": "there is none: it takes as many periods of one step as lead from initial to 100 percent",
    "interval": "it is called period",
}
