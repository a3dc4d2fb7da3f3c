"""One run of `unitctl fleet`: where the control center is, who we are to it, and how a function becomes a command."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from .session import Session, SharedOption, shared_options

if TYPE_CHECKING:
    from .fleet_center import Center

DEFAULT_CENTER = "http://127.0.0.1:9300"
VARIABLES = {  # option: the variable that stands for it
    "center": "UNITCTL_CENTER",
    "token_file": "UNITCTL_CENTER_TOKEN_FILE",
    "ca": "UNITCTL_CENTER_CA",
    "cert": "UNITCTL_CENTER_CERT",
    "key": "UNITCTL_CENTER_KEY",
}
_META = "supervisor.unitctl.center"
_NOT_HERE = ("server", "config")  # shared options that say where the host's own unitd is


@dataclass(slots=True)
class Fleet:
    """What every command of the group gets: the shared options, and the control center."""

    session: Session
    given: Mapping[str, str]  # options of the line
    _center: Center | None = field(default=None, init=False)

    def option(self, name: str) -> str | None:
        """What the line says, or else the variable."""
        return self.given.get(name) or os.environ.get(VARIABLES[name]) or None

    def center(self) -> Center:
        """The client of the control center that is meant.

        Raises click.UsageError for a wrong URL, ExitWith for a file that cannot be used.
        """
        if self._center is None:
            from .fleet_center import ANSWER_SECONDS, Center, read_credentials

            credentials = read_credentials(*(self.option(name) for name in ("token_file", "ca", "cert", "key")))
            seconds = min(ANSWER_SECONDS, self.session.timeout or ANSWER_SECONDS)
            try:
                self._center = Center(self.option("center") or DEFAULT_CENTER, credentials, seconds)
            except ValueError as error:
                raise click.UsageError(f"cannot tell where the control center is: {error}") from error
            for warning in self._center.warnings:
                self.session.err(f"unitctl: warning: {warning}")
        return self._center

    def close(self) -> None:
        """Close what was opened."""
        if self._center is not None:
            self._center.close()

    def line(self, rest: str) -> str:
        """A command line to type, that reaches the same control center."""
        from shlex import quote

        options = (f"--{name.replace('_', '-')} {quote(value)}" for name, value in self.given.items())
        return " ".join(["unitctl", "fleet", *options, rest])


class CenterOption(SharedOption):
    """An option of every command of the group; a command's own help leaves it out."""

    def __init__(self, *flags: str, listed: bool, **attributes: Any) -> None:
        super().__init__(*flags, listed=listed, **attributes)
        self.callback = _remember


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value is not None:  # not given here; it may have been given before the command
        ctx.meta.setdefault(_META, {})[str(param.name)] = value


def center_options(*, listed: bool) -> list[click.Parameter]:
    """A new set of the options that say where the control center is; `listed`: with their lines in the help."""

    def option(flag: str, metavar: str, help_: str) -> click.Parameter:
        return CenterOption(flag, listed=listed, metavar=metavar, help=help_)

    return [
        option("--center", "URL", f"Where the control center listens (UNITCTL_CENTER; {DEFAULT_CENTER})."),
        option("--token-file", "FILE", "The file with our token (UNITCTL_CENTER_TOKEN_FILE)."),
        option("--ca", "FILE", "Who may certify the control center (UNITCTL_CENTER_CA)."),
        option("--cert", "FILE", "Our certificate (UNITCTL_CENTER_CERT)."),
        option("--key", "FILE", "Its key, if it is not in the same file (UNITCTL_CENTER_KEY)."),
    ]


def fleet_shared_options() -> list[click.Parameter]:
    """Those of the options of every command that make sense here."""
    return [option for option in shared_options(listed=False) if option.name not in _NOT_HERE]


EPILOG = "Options --center --token-file --ca --cert --key work here too: see unitctl fleet -h."


def fleet_command(name: str, **attributes: Any) -> Callable[[Callable[..., int]], click.Command]:
    """Make a function a command: it gets the Fleet first, and returns the exit code."""

    def decorate(function: Callable[..., int]) -> click.Command:
        @click.pass_context
        def run(ctx: click.Context, /, **arguments: Any) -> int:
            fleet = open_fleet(ctx)
            try:
                return function(fleet, **arguments)
            finally:
                fleet.close()

        run.__doc__ = function.__doc__
        # options that decorators have put on the function
        run.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        make: Callable[[Callable[..., int]], click.Command] = click.command(name, epilog=EPILOG, **attributes)
        made = make(run)
        made.params.extend([*center_options(listed=False), *fleet_shared_options()])
        return made

    return decorate


def open_fleet(ctx: click.Context) -> Fleet:
    """What the line has said so far. Raises click.UsageError for options that mean the host's own unitd."""
    session = ctx.find_object(Session)
    assert session is not None
    for value, flag in ((session.server, "-s"), (session.config, "-c")):
        if value is not None:
            raise click.UsageError(f"{flag} is about this host's unitd: say where the control center is with --center")
    return Fleet(session, ctx.meta.get(_META, {}))
