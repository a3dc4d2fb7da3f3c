"""The first thing that runs as `unit-gateway`: arguments, the check of the installation, and then the agent."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from supervisor.arguments import complain, read_arguments
from supervisor.errors import ConfigError

from .errors import GatewayError

USAGE = """\
Usage: unit-gateway [-c FILE]
       unit-gateway serve [-c FILE]
       unit-gateway serve --registry URL --listen ADDRESS:PORT --service NAME

Keeps the gateways of this host in step with the registry, in the foreground until it is stopped. With `serve`, only
the embedded gateways of the file run, or one that needs no file.

  -c, --config FILE  the configuration (default /etc/unitd/unit-gateway.toml)
      --check        read the configuration, say what is wrong with it, and end
      --version      print the version
  -h, --help         print this

serve without a file:
      --registry URL          of a unitd or unit-center that hosts the registry
      --listen ADDRESS:PORT   where clients connect
      --service NAME          the service that gets all requests
      --api ADDRESS:PORT      where its own API listens (default: nowhere)
      --name NAME             what it is called (default: the host name)

Signals: TERM and INT end it. Gateways go on with what they were told last; an embedded one lets requests finish.
"""
PROGRAM = "unit-gateway"
DEFAULT_CONFIG = "/etc/unitd/unit-gateway.toml"
EXTRA = frozenset(("aiohttp", "prometheus_client"))
_ALONE = ("registry", "listen", "service", "api", "name")


def main() -> int:
    """The console script `unit-gateway`; its exit code: 0 stopped, 1 failed, 2 wrong usage or configuration."""
    words = sys.argv[1:]
    serves = words[:1] == ["serve"]
    flags = ("check", *(f"{option}=" for option in _ALONE)) if serves else ("check",)
    read = read_arguments(PROGRAM, USAGE, DEFAULT_CONFIG, flags, words[1:] if serves else words)
    if isinstance(read, int):
        return read
    path, given = read
    return _run(path, given, serves=serves)


def _run(path: str, given: Mapping[str, str], *, serves: bool) -> int:
    try:
        config = _config(path, given, serves=serves)
        if "--check" in given:
            print(f"{path}: no mistakes")
            return 0
        import_module(".agent", __package__).run(path, config)
    except ConfigError as error:
        for item in getattr(error, "errors", (error,)):
            complain(PROGRAM, str(item))
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        return complain(PROGRAM, f"cannot run: the package {error.name} is missing; install unitd[gateway]", 1)
    except GatewayError as error:
        return complain(PROGRAM, str(error), 1)
    except OSError as error:
        return complain(PROGRAM, f"cannot run: {error}", 1)
    return 0


def _config(path: str, given: Mapping[str, str], *, serves: bool) -> Any:
    config = import_module(".config", __package__)
    alone = {option: given[f"--{option}"] for option in _ALONE if f"--{option}" in given}
    if alone:
        if "-c" in given or "--config" in given:
            raise ConfigError(f"write it into the file: --{next(iter(alone))} is for `serve` without a file")
        return config.alone(**alone)
    loaded = config.load(path)
    return config.only_embedded(loaded, path) if serves else loaded


if __name__ == "__main__":
    sys.exit(main())
