"""The first thing that runs as `unit-center`: arguments, the check of the installation, and then the center."""

from __future__ import annotations

import getopt
import os
import sys
from importlib import import_module

from supervisor.errors import ConfigError
from supervisor.installation import refuse_shared_folder, version

from .errors import CenterError

USAGE = """\
Usage: unit-center [-c FILE]

Runs the control center of a fleet in the foreground until it is stopped.

  -c, --config FILE  the configuration (default /etc/unitd/unit-center.toml)
      --check        read the configuration, say what is wrong with it, and end
      --version      print the version
  -h, --help         print this

Signals: TERM and INT end it; open operations go on with the center that leads next.
"""
DEFAULT_CONFIG = "/etc/unitd/unit-center.toml"
EXTRA = frozenset(("aiohttp", "aiosqlite", "asyncpg", "greenlet", "prometheus_client", "sqlalchemy"))


def main() -> int:
    """The console script `unit-center`; its exit code: 0 stopped, 1 failed, 2 wrong usage or configuration."""
    try:
        refuse_shared_folder()
        options, rest = getopt.gnu_getopt(sys.argv[1:], "c:h", ["config=", "check", "help", "version"])
    except getopt.GetoptError as error:
        return _complain(f"{error}; see unit-center --help")
    except RuntimeError as error:
        return _complain(str(error), 1)
    chosen = dict(options)
    if "-h" in chosen or "--help" in chosen:
        print(USAGE, end="")
        return 0
    if "--version" in chosen:
        print(f"unit-center {version()}")
        return 0
    if rest:
        return _complain(f"cannot use {rest[0]!r}: unit-center takes no arguments; see unit-center --help")
    path = chosen.get("--config") or chosen.get("-c") or DEFAULT_CONFIG
    return _run(os.path.abspath(path), check_only="--check" in chosen)


def _run(path: str, *, check_only: bool) -> int:
    try:
        config = import_module(".config", __package__).load(path)
        if check_only:
            print(f"{path}: no mistakes")
            return 0
        import_module(".center", __package__).run(path, config)
    except ConfigError as error:
        for item in getattr(error, "errors", (error,)):
            _complain(str(item))
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        extra = "postgresql" if error.name == "asyncpg" else "center"
        return _complain(f"cannot run: the package {error.name} is missing; install unitd[{extra}]", 1)
    except CenterError as error:
        return _complain(str(error), 1)
    except OSError as error:
        return _complain(f"cannot run: {error}", 1)
    return 0


def _complain(message: str, code: int = 2) -> int:
    print(f"unit-center: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
