"""The table [nginx.NAME]: one nginx whose upstreams are kept in step."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from supervisor.config import values
from supervisor.config.document import Document
from supervisor.config.fill import absolute
from supervisor.config.schema import Key
from supervisor.config.table import Problems, read_table
from supervisor.config.values import Invalid, describe

SERVICE = "{service}"  # stands for the service's name in the name of its upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class NginxSpec:
    """What there is to know of one nginx. Paths are absolute."""

    name: str
    services: tuple[str, ...] = ("*",)
    nginx: tuple[str, ...] = ("nginx",)
    conf: str = "/etc/nginx/nginx.conf"
    file: str = "/etc/nginx/unit-upstreams.conf"
    template: str | None = None
    upstream: str = SERVICE
    pid_file: str = "/run/nginx.pid"
    reload: tuple[str, ...] = ()  # none: the master gets SIGHUP
    error_log: str | None = None
    access_log: str | None = None
    look_seconds: float = 1.0
    coalesce_seconds: float = 1.0
    reload_seconds: float = 10.0  # for the test of a configuration, and again for the reload
    old_workers_seconds: float = 5.0
    weight_steps: tuple[int, ...] = (25, 50, 100)
    balance: str = "least_conn"
    keepalive: int = 32
    keepalive_seconds: float = 4.0
    max_fails: int = 1
    fail_timeout_seconds: float = 5.0
    error_percent: float = 50.0


def _steps(value: Any) -> tuple[int, ...]:
    """Shares in percent, rising to 100."""
    steps = values.list_of(values.integer(1, 100), "[25, 50, 100]")(value)
    if not steps or list(steps) != sorted(steps) or steps[-1] != 100:
        raise Invalid(f"must rise, and end with 100, such as [25, 50, 100], not {list(steps)}")
    return tuple(steps)


def _balance(value: Any) -> str:
    """The directive that chooses a server, without its semicolon; "": nginx's weighted round robin."""
    words = values.any_text(value).strip().removesuffix(";")
    if re.search(r"[;{}#\s]", words.replace(" ", "")):
        raise Invalid(
            f'must be one directive such as "least_conn" or "hash $arg_cart consistent", not {describe(value)}'
        )
    return words


def _upstream(value: Any) -> str:
    name = values.text(value)
    if SERVICE not in name or not re.fullmatch(r"[A-Za-z0-9_.-]*", name.replace(SERVICE, "")):
        raise Invalid(f'must hold {SERVICE}, and else only letters, digits, "_", "." and "-", not {describe(value)}')
    return name


_TIME = values.duration(0.0, 3600.0)
_SOME_TIME = values.duration(0.05, 3600.0)

KEYS: dict[str, Key] = {
    "services": Key("list of patterns", '["*"]', values.list_of(values.text, '["cart", "shop-*"]'), "services"),
    "nginx": Key("command", '["nginx"]', values.command, "nginx"),
    "conf": Key("path", '"/etc/nginx/nginx.conf"', values.text, "conf"),
    "file": Key("path", '"/etc/nginx/unit-upstreams.conf"', values.text, "file"),
    "template": Key("path", "(none)", values.text, "template"),
    "upstream": Key("string", '"{service}"', _upstream, "upstream"),
    "pid_file": Key("path", '"/run/nginx.pid"', values.text, "pid_file"),
    "reload": Key("command", "(SIGHUP to the master)", values.command, "reload"),
    "error_log": Key("path", "(none)", values.text, "error_log"),
    "access_log": Key("path", "(none)", values.text, "access_log"),
    "look_seconds": Key("duration", "1", _SOME_TIME, "look_seconds"),
    "coalesce_seconds": Key("duration", "1", _TIME, "coalesce_seconds"),
    "reload_seconds": Key("duration", "10", values.duration(0.5, 100.0), "reload_seconds"),
    "old_workers_seconds": Key("duration", "5", _TIME, "old_workers_seconds"),
    "weight_steps": Key("list of integers", "[25, 50, 100]", _steps, "weight_steps"),
    "balance": Key("string", '"least_conn"', _balance, "balance"),
    "keepalive": Key("integer", "32", values.integer(0, 100_000), "keepalive"),
    "keepalive_seconds": Key("duration", "4", values.duration(1.0, 3600.0), "keepalive_seconds"),
    "max_fails": Key("integer", "1", values.integer(0, 1_000_000), "max_fails"),
    "fail_timeout_seconds": Key("duration", "5", values.duration(1.0, 3600.0), "fail_timeout_seconds"),
    "error_percent": Key("number", "50", values.number(1, 100), "error_percent"),
}
_HINTS = {
    "output": "it is called file",
    "config": "it is called conf: nginx's main configuration file",
    "pid": "it is called pid_file",
    "workers": "it is said in nginx's own configuration",
    "timeout": "the timeouts of requests are said in nginx's own configuration",
}
_PATHS = ("conf", "file", "template", "pid_file", "error_log", "access_log")
_OF_OUR_RENDERING = ("balance", "keepalive", "keepalive_seconds", "max_fails", "fail_timeout_seconds")


def read(document: Document, name: str, problems: Problems) -> NginxSpec:
    """The table [nginx.NAME]; what is wrong with it goes to `problems`."""
    table = ("nginx", name)
    found = read_table(document, table, KEYS, problems, hints=_HINTS)
    for key in _PATHS:
        if key in found:
            found[key] = absolute(document, found[key])
    if "template" in found:
        for key in _OF_OUR_RENDERING:
            if key in found:
                problems.add(document.error((*table, key), "means nothing with a template: write it there"))
    if "error_percent" in found and "access_log" not in found:
        problems.add(document.error((*table, "error_percent"), "means nothing without access_log"))
    return NginxSpec(name=name, **found)
