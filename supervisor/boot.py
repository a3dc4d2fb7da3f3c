"""The first thing that runs as `unitd`: arguments, the check of the installation, and then the daemon.

The daemon lives on every host for months, so it imports only what it uses. asyncio imports `ssl`, which maps 4 MB
of OpenSSL, whether or not anything is encrypted; so the import is refused before asyncio asks for it, and asyncio does
without (a documented use of `sys.modules`), unless a registry is spoken to, or the API served, over TLS. The first
https probe imports it after all, see `host/tls.py`.
"""

from __future__ import annotations

import sys
from importlib import import_module

from .arguments import complain, read_arguments
from .errors import ConfigError

USAGE = """\
Usage: unitd [-c FILE]

Runs the units of this host in the foreground until it is stopped.

  -c, --config FILE  the configuration (default /etc/unitd/unitd.toml)
      --version      print the version
  -h, --help         print this

Signals: INT stops all units in order, a second INT kills them; TERM stops them too, or leaves them running, as sigterm
in the configuration says; HUP applies the configuration's changes; USR2 opens the logs of units again; USR1 logs the
state of every unit; QUIT ends unitd at once and leaves units running.
"""
PROGRAM = "unitd"
DEFAULT_CONFIG = "/etc/unitd/unitd.toml"


def main() -> int:
    """The console script `unitd`; answers its exit code: 0 stopped, 1 failed, 2 wrong usage or configuration."""
    read = read_arguments(PROGRAM, USAGE, DEFAULT_CONFIG)
    return read if isinstance(read, int) else _run(read[0])


def _run(path: str) -> int:
    try:
        config = import_module(".config", __package__)
        loaded = config.load(path)
        if not config.may_need_ssl(loaded.daemon):
            sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]
        import_module(".daemon", __package__).run(path, loaded)
    except ConfigError as error:
        for item in getattr(error, "errors", (error,)):
            complain(PROGRAM, str(item))
        return 2
    except RuntimeError as error:
        return complain(PROGRAM, str(error), 1)
    except OSError as error:
        return complain(PROGRAM, f"cannot run: {error}", 1)
    return 0
