"""The arguments of the programs that run in the foreground; `unitctl` has its own way. Light: no click."""

from __future__ import annotations

import getopt
import os
import sys
from collections.abc import Mapping, Sequence

from .installation import refuse_shared_folder, version


def read_arguments(
    program: str, usage: str, default_config: str, flags: Sequence[str] = (), words: Sequence[str] | None = None
) -> tuple[str, Mapping[str, str]] | int:
    """The path of the configuration, and all options that were given; or an exit code, when there is nothing to run.

    `flags` are options besides those that every program has, `listen=` one that takes a value. `words` are the
    arguments; None: those of this process.
    """
    try:
        refuse_shared_folder()
        given = sys.argv[1:] if words is None else list(words)
        options, rest = getopt.gnu_getopt(given, "c:h", ["config=", "help", "version", *flags])
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
    return os.path.abspath(path), chosen


def complain(program: str, message: str, code: int = 2) -> int:
    """Say what is wrong; the exit code for it."""
    print(f"{program}: {message}", file=sys.stderr)
    return code
