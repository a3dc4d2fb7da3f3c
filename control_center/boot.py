"""The first thing that runs as `unit-center`: arguments, the check of the installation, and then the center."""

from __future__ import annotations

import sys
from importlib import import_module

from supervisor.arguments import complain, read_arguments
from supervisor.errors import ConfigError

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
PROGRAM = "unit-center"
DEFAULT_CONFIG = "/etc/unitd/unit-center.toml"
EXTRA = frozenset(("aiohttp", "aiosqlite", "asyncpg", "greenlet", "prometheus_client", "sqlalchemy"))


def main() -> int:
    """The console script `unit-center`; its exit code: 0 stopped, 1 failed, 2 wrong usage or configuration."""
    read = read_arguments(PROGRAM, USAGE, DEFAULT_CONFIG, ("check",))
    if isinstance(read, int):
        return read
    path, flags = read
    return _run(path, check_only="--check" in flags)


def _run(path: str, *, check_only: bool) -> int:
    try:
        config = import_module(".config", __package__).load(path)
        if check_only:
            print(f"{path}: no mistakes")
            return 0
        import_module(".center", __package__).run(path, config)
    except ConfigError as error:
        for item in getattr(error, "errors", (error,)):
            complain(PROGRAM, str(item))
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        extra = "postgresql" if error.name == "asyncpg" else "center"
        return complain(PROGRAM, f"cannot run: the package {error.name} is missing; install unitd[{extra}]", 1)
    except CenterError as error:
        return complain(PROGRAM, str(error), 1)
    except OSError as error:
        return complain(PROGRAM, f"cannot run: {error}", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
