"""Values that are wrong for each kind of key, with the keys of that kind."""

from __future__ import annotations

from typing import Any

from tests.supervisor.config_draft import Literal

_DURATIONS: tuple[Any, ...] = (
    "soon", "10 parsecs", "", "-1s", "5", "1h30m", "١s", True, -1, -0.5, [], {}, Literal("nan"), Literal("inf"), 10**30,
    Literal("1e300"), Literal("2026-11-24"), Literal("07:32:00"), 1e9,
)  # fmt: skip
_INTEGERS: tuple[Any, ...] = (
    "many",
    "",
    "3",
    1.5,
    True,
    False,
    [],
    {},
    [1],
    -(10**7),
    10**7,
    10**40,
    Literal("1e3"),
    Literal("nan"),
)
_BOOLEANS: tuple[Any, ...] = ("yes", "true", "on", "", 0, 1, 1.0, [], {}, [True])
_TEXTS: tuple[Any, ...] = ("", "a\0b", 1.5, True, [], {}, ["a"], Literal("2026-11-24T06:29:10Z"))
_LISTS: tuple[Any, ...] = ("database", 1, True, {}, [1], [True], [[]], [""], ["a\0"])
_WORDS: tuple[Any, ...] = ("", "sometimes", "TRUE", 3, [], {}, 1.5)
_TABLES_OF_TEXT: tuple[Any, ...] = (
    "LANG=C",
    1,
    True,
    ["a"],
    {"A": 1},
    {"A": True},
    {"A": ["b"]},
    {"A": "b\0"},
    {"": "a"},
)
WRONG: tuple[tuple[tuple[Any, ...], tuple[str, ...]], ...] = (
    (_DURATIONS, (
        "startsecs", "start_timeout", "stopwaitsecs", "service.ttl_seconds", "restart.settle_seconds",
        "restart.backoff_initial", "restart.backoff_max", "restart.stable_seconds", "readiness.initial_delay",
        "drain.timeout", "drain.quiet",
    )),
    ((*_DURATIONS, 0, "0ms"), ("startup.timeout", "liveness.timeout", "warmup.requests_timeout")),
    ((*_DURATIONS, 0, 0.05), ("startup.period", "readiness.period", "liveness.period", "warmup.period")),
    ((*_INTEGERS, 0), ("readiness.success_threshold", "readiness.failure_threshold", "liveness.failure_threshold")),
    ((0, 2, True, 1.0, "1", [], {}), ("startup.success_threshold", "liveness.success_threshold")),
    ((*_INTEGERS, 0, 101), ("warmup.initial", "warmup.step")),
    (
        ("/warm", {}, True, 1, [1], [""], ["warm"], ["get /warm"], ["GET  "], ["GET /a b"], [["GET /"]], [{"method": "GET"}],
         [{"path": "/", "port": 0}], [{"path": "/", "port": "x"}], [{"path": "/", "header": {}}], ["GET /ä"],
         ["GET /{nubmer}"], ["/"] * 101),
        ("warmup.requests",),
    ),
    (("POST /drain", "USR1", [], ["/bin/true"], True, 1, {}, {"timeout": 1}), ("drain.notify", "drain.resume")),
    (("connection", "NONE", "", True, 1, [], {}), ("drain.in_flight",)),
    (("", "KILL", "SIGSTOP", 9, 0, True, [], {}), ("drain.resume.signal",)),
    (("drain", "", "POST", "post /drain", 1, True, [], "GET /a#b"), ("drain.notify.http", "drain.in_flight.http")),
    ((*_DURATIONS, 0, "2h"), ("drain.notify.timeout",)),
    ((0, 65536, "http", "{prot}", True, 1.5, [], {}), ("readiness.http.port", "startup.tcp.port")),
    (("", "healthz", 1, True, [], {}, "/{nubmer}"), ("readiness.http.path",)),
    (("", [], [""], [1], "/bin/true", True, 1, {}, ["/bin/true", "{process_num}"], ["a\0"]), ("liveness.exec",)),
    ((Literal("2026-11-24"), Literal("nan"), Literal("-inf"), [Literal("07:32:00")]), ("readiness.http", "liveness.exec")),
    ((1, "x", [1], {"A B": "1"}, {"Host": 1}), ("readiness.http.headers", "drain.in_flight.http.headers")),
    ((600, "2xx", "299-200", True, {}, []), ("readiness.http.status",)),
    (_INTEGERS, (
        "numprocs", "numprocs_start", "startretries", "priority", "service.weight", "logs.backups", "limits.nice",
    )),
    (_BOOLEANS, ("autostart", "logs.redirect_stderr", "service.own_port")),
    (_TEXTS, ("directory", "envfile", "service.version", "service.zone", "logs.stdout", "logs.stderr")),
    ((*_TEXTS, "a b", "a/b", "..", "ä", "x" * 200), ("service.name",)),
    ((*_TEXTS, "0.0.0.0", "::", "a b", "http://x"), ("service.address",)),
    ((*_TEXTS, -1, 2**32), ("user", "group")),
    (_LISTS, ("depends_on",)),
    (_WORDS, ("autorestart", "restart.removal", "logs.format")),
    (_TABLES_OF_TEXT, ("environment", "service.metadata")),
    (({"A=B": "c"}, {"A\0": "c"}), ("environment",)),
    (({"k" * 129: "v"}, {"ä": "v"}, {"k": "v" * 513}, {f"k{n}": "" for n in range(65)}), ("service.metadata",)),
    ((True, 1.5, "0", 256, -1, [256], ["0"], [True], {}, "0,2"), ("exitcodes",)),
    (("", "TREM", "SIGSIG", "15", 0, 65, -1, True, 1.5, [], {}), ("stopsignal",)),
    (("", "8", "rwx", "01777", "0o22", 22, 18, 511, -1, True, 1.5, [], Literal("0o1777")), ("umask",)),
    (("big", "", "50 MiB", "1.5GB", "-1MB", -1, True, 1.5, [], {}, 2**63, "9999999999TB"), ("logs.max_bytes",)),
    (
        ("big", "unlimited", "", -1, True, 1.5, {}, [], [1], [1, 2, 3], [2, 1], ["infinity", 1], [[1], 2], 2**63),
        ("limits.nofile", "limits.core", "limits.stack"),
    ),
    (("", "NaN", True, -1, 0.5, 101, [], {}, Literal("nan"), Literal("inf"), 10**400), ("restart.backoff_factor",)),
    (("", True, -0.1, 1.1, [], {}, Literal("-inf")), ("restart.backoff_jitter",)),
    (("", "   ", [], [""], "'", 'say "hi', "a\0b", ["a\0"], [1], [True], [["a"]], {}, 1, True), ("command",)),
    ((0, 65536, -1, "9080", True, 1.5, 65535, [], {}, 10**30, "{port}"), ("service.port",)),
)  # fmt: skip
WRONG_MAIN: tuple[tuple[tuple[Any, ...], tuple[str, ...]], ...] = (
    ((*_TEXTS, "a/b", "web 7", "..", "x" * 200), ("node",)),
    ((*_TEXTS, "s" * 200), ("daemon.socket",)),
    (_TEXTS, ("daemon.state_dir", "daemon.log_dir")),
    ((1, True, [], {}, "a\0"), ("daemon.socket_group",)),
    (_BOOLEANS, ("daemon.watch",)),
    (("", "on", "unitd", 1, True, [], {}), ("daemon.cgroup",)),
    ((*_INTEGERS, 0, -1), ("daemon.restarts_per_minute",)),
    ((*_INTEGERS, 0, -1, 101), ("daemon.mass_failure_percent",)),
    (("", "INFO", "loud", 10, True, [], {}), ("daemon.log_level",)),
    (("consol", "center", "", "htpp", 1, True, [], {}), ("registry.backend",)),
    ((*_DURATIONS, 0, 0.4, 3601, "2h"), ("registry.ttl_seconds",)),
    (("", "10.0.0.5:9301", "http://", "://a", "http://a b", "http://ü", "http://a:b@c", 1, True, [], {}), ("registry.url",)),
    ((*_DURATIONS, 0, 0.01, 61), ("registry.timeout_seconds",)),
    (("", 1, True, [], {}), ("registry.user", "registry.password_file", "registry.token_file", "registry.tls.ca")),
    (
        (
            "", "9301", ":9301", "0.0.0.0:9301", "10.0.0.7:9301", "[::]:9301", "127.0.0.1", "10.0.0.256:9301", "[::1::]:80", "127.0.0.1:0", "web-7:80",
            "127.0.0.1:65536", "127.0.0.1:http", "[fe80::1]:80", "https://127.0.0.1:9301", "127.1:80", 9301, True, [],
        ),
        ("http.listen",),
    ),
    (("units.d/*.toml", 1, True, {}, [1], [""], ["a\0"], [[]]), ("include.files",)),
)  # fmt: skip
