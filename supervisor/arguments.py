"""The arguments of the programs that run in the foreground; `unitctl` has its own way. Light: no click."""

from __future__ import annotations

import getopt
import os
import sys
from collections.abc import Collection, Sequence

from .installation import refuse_shared_folder, version


def read_arguments(
    program: str, usage: str, default_config: str, flags: Sequence[str] = ()
) -> tuple[str, Collection[str]] | int:
    """The path of the configuration and the flags that were given; or an exit code, when there is nothing to run."""
    try:
        refuse_shared_folder()
        options, rest = getopt.gnu_getopt(sys.argv[1:], "c:h", ["config=", "help", "version", *flags])
    except getopt.GetoptError as error:
        return complain(program, f"{error}; see {program} --help")
    except RuntimeError as error:
        return complain(program, str(error), 1)
    chosen = dict(options)
    if "-h" in chosen or "--help" in chosen:
        print(usage, end="")
        return 0
    if "--version" in chosen:
        print(f"{program} {version()}")
        return 0
    if rest:
        return complain(program, f"cannot use {rest[0]!r}: {program} takes no arguments; see {program} --help")
    path = chosen.get("--config") or chosen.get("-c") or default_config
    return os.path.abspath(path), chosen.keys()


def complain(program: str, message: str, code: int = 2) -> int:
    """Say what is wrong; the exit code for it."""
    print(f"{program}: {message}", file=sys.stderr)
    return code
