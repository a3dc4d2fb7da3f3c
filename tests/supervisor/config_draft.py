"""A valid configuration as tables, and a copy of it to spoil: written as TOML, with the line of every key."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAIN, CART, DATABASE, ENV = "unitd.toml", "units.d/cart.toml", "units.d/database.toml", "cart.env"

INLINE = ("environment", "metadata", "http", "tcp", "kernel", "notify", "resume", "in_flight")  # written on one line

Tables = dict[str, Any]
VALID: dict[str, Tables] = {
    MAIN: {
        "node": "web-7",
        "daemon": {
            "socket": "u.sock", "socket_group": "", "state_dir": "state", "log_dir": "log", "watch": False,
            "cgroup": "off", "restarts_per_minute": 600, "log_level": "info",
        },
        "registry": {"backend": "embedded", "ttl_seconds": 10},
        "include": {"files": ["units.d/*.toml"]},
        "unit": {"clock": {"command": "/bin/sleep 1000", "autostart": False}},
    },
    CART: {
        "unit": {
            "cart": {
                "command": ["/bin/sleep", "1000"], "numprocs": 2, "numprocs_start": 0, "autostart": False,
                "autorestart": "unexpected", "exitcodes": [0, 2], "startsecs": 1, "start_timeout": "30s",
                "startretries": 3, "stopsignal": "TERM", "stopwaitsecs": "500ms", "priority": 10, "umask": "027",
                "directory": "/", "environment": {"LANG": "C.UTF-8", "PORT": "{port}"}, "envfile": "../cart.env",
                "depends_on": ["database"],
                "service": {
                    "name": "addToCart", "port": 9080, "address": "127.0.0.1", "weight": 100, "ttl_seconds": "5s",
                    "version": "1.4.{number}", "zone": "a", "metadata": {"team": "cart"},
                },
                "startup": {"tcp": {"port": "{port}"}, "period": 1, "failure_threshold": 30},
                "readiness": {
                    "http": {"path": "/healthz", "port": "{port}", "headers": {"Host": "cart"}, "status": [200, "300-399"]},
                    "period": 5, "timeout": "500ms", "initial_delay": 1, "success_threshold": 2, "failure_threshold": 3,
                },
                "liveness": {"exec": ["/bin/true", "{unit}"], "period": "1m", "timeout": 5, "success_threshold": 1},
                "drain": {
                    "notify": {"http": "POST /drain", "timeout": 2}, "resume": {"signal": "USR2"},
                    "in_flight": {"http": {"path": "/inflight", "headers": {"X-Probe": "1"}}}, "timeout": 20, "quiet": 0.5,
                },
                "warmup": {
                    "initial": 20, "step": 20, "period": 5, "requests": ["GET /warm", {"path": "/warm/{number}"}],
                    "requests_timeout": "10s",
                },
                "restart": {
                    "removal": "expire", "settle_seconds": 1, "backoff_initial": 1, "backoff_factor": 2.0,
                    "backoff_max": "1m", "backoff_jitter": 0.1, "stable_seconds": 10,
                },
                "logs": {
                    "stdout": "log/cart-{number}.log", "stderr": "AUTO", "max_bytes": "50MB", "backups": 3,
                    "format": "json",
                },
                "limits": {"nofile": [1024, 4096], "core": 0, "stack": "infinity", "nice": 5},
            }
        }
    },
    DATABASE: {
        "unit": {
            "database": {"command": "/bin/sleep 1000", "autostart": False, "service": {"port": 5432}},
            "monitor": {
                "command": "/bin/sleep 1000", "autostart": False, "depends_on": ["database"],
                "liveness": {"kernel": True}, "drain": {"notify": {"exec": ["/bin/true", "{unit}"]}},
            },
        }
    },
}  # fmt: skip
VALID_ENV = b"# what cart needs\nexport TOKEN='a b'\nMODE=fast\n"


def write(files: dict[str, bytes], folder: Path) -> Path:
    """Put the files into the folder; answers the main one."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder / MAIN


def valid_files() -> dict[str, bytes]:
    """The configuration without a mistake."""
    return Draft(random.Random(0)).rendered()


class Draft:
    """A copy of the valid configuration that a mistake is being made in."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.tables = copy.deepcopy(VALID)
        self.env = VALID_ENV
        self.extra: dict[str, bytes] = {}
        self.spoil: dict[str, Callable[[bytes], bytes]] = {}  # done to the bytes of a file at the end
        self.file = MAIN  # of the expected error, as are the next two
        self.key: str | None = None
        self.line: int | None = None
        self.places: dict[tuple[str, str], int] = {}

    def unit(self, name: str = "cart") -> Tables:
        """A unit's table; the expected error is in its file, unless something else is said afterwards."""
        self.file = CART if name == "cart" else DATABASE
        return self.tables[self.file]["unit"][name]  # type: ignore[no-any-return]

    def put(self, file: str, key: str, value: Any) -> None:
        """Set a key of a file, dotted."""
        *parents, last = key.split(".")
        table = self.tables[file]
        for parent in parents:
            table = table.setdefault(parent, {})
        table[last] = value

    def blame(self, key: str, file: str | None = None) -> None:
        """Expect an error at that key."""
        self.key = key
        self.file = file or self.file

    def rendered(self) -> dict[str, bytes]:
        files = {ENV: self.env, **self.extra}
        for name, tables in self.tables.items():
            lines: list[str] = []
            places: dict[str, int] = {}
            _render(tables, "", lines, places)
            self.places |= {(name, key): line for key, line in places.items()}
            files[name] = "\n".join([*lines, ""]).encode()
        for name, spoil in self.spoil.items():
            files[name] = spoil(files[name])
        return files


def _render(table: Tables, prefix: str, lines: list[str], places: dict[str, int]) -> None:
    for key, value in table.items():
        if not isinstance(value, dict) or key in INLINE:
            lines.append(f"{_key(key)} = {_value(value)}")
            _note(f"{prefix}{key}", value, len(lines), places)
    for key, value in table.items():
        if isinstance(value, dict) and key not in INLINE:
            # A table without values of its own needs no header.
            if not value or any(not isinstance(item, dict) or name in INLINE for name, item in value.items()):
                lines += ["", "[" + ".".join(map(_key, [*prefix.split(".")[:-1], key])) + "]"]
                places.setdefault(f"{prefix}{key}", len(lines))
            _render(value, f"{prefix}{key}.", lines, places)


def _note(key: str, value: Any, line: int, places: dict[str, int]) -> None:
    """A key has its line, and so have those of a table written on it."""
    places.setdefault(key, line)
    if isinstance(value, dict):
        for name, item in value.items():
            _note(f"{key}.{name}", item, line, places)


def _key(key: str) -> str:
    return key if key and key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\0", "\\u0000").replace("\n", "\\n")
        return f'"{escaped}"'
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
    return value.text if isinstance(value, Literal) else repr(value)


@dataclass(frozen=True)
class Literal:
    """TOML that Python has no value for, or spells otherwise."""

    text: str
