"""Where `unitctl` begins: finds the command, loads what it needs and no more, turns errors into exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from ..errors import ConfigError, DaemonUnreachable, SupervisorError
from ..installation import refuse_shared_folder, version
from .client import Refused, Unreachable
from .codes import DONE, FAILED, INTERRUPTED, UNKNOWN, USAGE, ExitWith
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
    "doctor": "doctor",
    "shutdown": "shutdown",
    "completion": "completion",
    "help": "completion",
}


class LazyGroup(click.Group):
    """Commands are loaded when they are named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        found = getattr(import_module(f".{module}", __package__), f"{cmd_name.replace('-', '_')}_command")
        assert isinstance(found, click.Command)
        return found

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """As click does, with a hint for a name that is not quite right."""
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"there is no command {args[0]!r}{_hint(args[0])}")
        return super().resolve_command(ctx, args)


def _hint(name: str) -> str:
    from difflib import get_close_matches

    nearest = get_close_matches(name, COMMANDS, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else "; see unitctl -h"


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="NAME is a unit (addToCart:0), a group (addToCart or 'addToCart:*'), a glob ('add*') or all.",
)
@click.version_option(version(), prog_name="unitctl", message="%(prog)s %(version)s")
def cli() -> None:
    """Command the units of this host.

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
