"""Where `unitctl` begins: finds the command, loads what it needs and no more, turns errors into exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

from ..errors import ConfigError, DaemonUnreachable, SupervisorError
from ..installation import refuse_shared_folder, version
from .client import Refused, Unreachable
from .codes import DONE, FAILED, INTERRUPTED, UNKNOWN, USAGE, ExitWith
from .lazy import LazyGroup
from .session import Session, shared_options
from .terminal import ReaderGone

COMMANDS = {  # command: its module; in the order of the help
    "status": "status",
    "start": "orders",
    "stop": "orders",
    "restart": "orders",
    "drain": "traffic",
    "undrain": "traffic",
    "warm": "traffic",
    "weight": "traffic",
    "signal": "orders",
    "logs": "logs",
    "events": "logs",
    "why": "status",
    "is-active": "status",
    "ops": "operations",
    "abort": "operations",
    "enable": "orders",
    "disable": "orders",
    "check": "config_commands",
    "diff": "config_commands",
    "apply": "config_commands",
    "audit": "audit",
    "new-token": "tokens",
    "doctor": "doctor",
    "upgrade-check": "upgrade",
    "shutdown": "shutdown",
    "fleet": "fleet",
    "completion": "completion",
    "help": "completion",
}


class UnitctlGroup(LazyGroup):
    """The commands of `unitctl`."""

    modules = COMMANDS


@click.group(
    cls=UnitctlGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="NAME is a unit (addToCart:0), a group (addToCart or 'addToCart:*'), a glob ('add*') or all.",
)
@click.version_option(version(), prog_name="unitctl", message="%(prog)s %(version)s")
def cli() -> None:
    """Command the units of this host; with `fleet`, those of many.

    Commands wait until they are done; Ctrl-C stops the waiting, not what was ordered.
    """


cli.params.extend(shared_options(listed=True))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code."""
    session = Session()
    try:
        if "_UNITCTL_COMPLETE" in os.environ:
            import_module(".completion", __package__)  # teaches click our way of completing
        code = cli.main(list(arguments), prog_name="unitctl", standalone_mode=False, obj=session)
        return code if isinstance(code, int) else DONE
    except (click.ClickException, click.Abort) as error:
        return _usage(error)
    except ReaderGone:
        return DONE
    except (SupervisorError, OSError) as error:
        session.err(f"unitctl: {error}")
        return _code_of(error, session)
    finally:
        session.close()


def _usage(error: click.ClickException | click.Abort) -> int:
    if isinstance(error, click.Abort):
        return INTERRUPTED
    error.show(sys.stderr)
    return USAGE if isinstance(error, click.UsageError) else FAILED


def _code_of(error: Exception, session: Session) -> int:
    if isinstance(error, ExitWith):
        return error.code
    if isinstance(error, Refused):
        return error.exit_code
    if isinstance(error, DaemonUnreachable):
        denied = isinstance(error, Unreachable) and error.cause == "permission"
        return UNKNOWN if denied else session.unreachable_code
    return USAGE if isinstance(error, ConfigError) else FAILED


def main() -> NoReturn:
    """The console script."""
    try:
        refuse_shared_folder()
    except RuntimeError as error:
        sys.exit(f"unitctl: {error}")
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
