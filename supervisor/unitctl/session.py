"""One run of `unitctl`: what the shared options say, and what every command needs: a client, a terminal, JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from .address import find_address
from .client import ANSWER_SECONDS, Client
from .codes import UNAVAILABLE
from .terminal import Terminal

if TYPE_CHECKING:
    FloatType = click.ParamType[float]
    TextType = click.ParamType[str]
else:  # older versions of click have no such parameters
    FloatType = TextType = click.ParamType


@dataclass(slots=True)
class Session:
    """The shared options, wherever on the line they stood."""

    server: str | None = None
    config: str | None = None
    output: str = "text"
    quiet: bool = False
    verbose: bool = False
    timeout: float | None = None
    no_color: bool = False
    unreachable_code: int = UNAVAILABLE  # the exit code when the daemon does not answer
    terminal: Terminal = field(default_factory=Terminal)
    opened: list[Client] = field(default_factory=list)  # to be closed at the end

    @property
    def json(self) -> bool:
        """Whether JSON is asked for."""
        return self.output == "json"

    @property
    def color(self) -> bool:
        """Whether to print colours."""
        return not self.no_color and self.terminal.wants_color(os.environ)

    def client(self, *, least_seconds: float = 0.0) -> Client:
        """A client of the daemon that is meant; `least_seconds`: allow each answer that much whatever `--timeout`.

        Raises click.UsageError for a wrong URL, ConfigError for a wrong file.
        """
        seconds = ANSWER_SECONDS if self.timeout is None else min(ANSWER_SECONDS, max(self.timeout, least_seconds))
        try:
            client = Client(find_address(self.server, self.config, os.environ), seconds)
        except ValueError as error:
            raise click.UsageError(f"cannot tell where unitd is: {error}") from error
        self.opened.append(client)
        return client

    def close(self) -> None:
        """Close what was opened."""
        for client in self.opened:
            client.close()

    def out(self, text: str) -> None:
        """Print a result, unless `--quiet`."""
        if not self.quiet:
            self.terminal.out(text)

    def out_json(self, value: Any) -> None:
        """Print one JSON document, unless `--quiet`: indented for people, in one line for programs."""
        indent = 2 if self.terminal.is_interactive else None
        separators = None if indent else (",", ":")
        ascii_only = not self.terminal.takes_unicode
        self.out(json.dumps(value, indent=indent, separators=separators, ensure_ascii=ascii_only) + "\n")

    def err(self, text: str) -> None:
        """Print a message that matters even with `--quiet`."""
        self.terminal.err(text)

    def line(self, rest: str) -> str:
        """A command line to type, that reaches the same daemon."""
        options = [("-s", self.server), ("-c", self.config)]
        return " ".join(["unitctl", *(f"{flag} {value}" for flag, value in options if value is not None), rest])


class SharedOption(click.Option):
    """An option of every command. It goes into the Session; a command's own help leaves it out."""

    def __init__(self, *flags: str, listed: bool, **attributes: Any) -> None:
        self._listed = listed
        super().__init__(list(flags), expose_value=False, callback=_remember, **attributes)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Its line in the help, or None."""
        return super().get_help_record(ctx) if self._listed else None


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value is not None and value is not False:  # not given here; it may have been given before the command
        setattr(ctx.find_object(Session), str(param.name), value)


class Seconds(FloatType):
    """A length of time: `5`, `0.5`, `500ms`, `10s`, `2m`, `1h`, `3d`."""

    name = "seconds"
    _UNITS = (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86400.0))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Text to seconds."""
        text = str(value)
        number, factor = next(
            ((text.removesuffix(unit), factor) for unit, factor in self._UNITS if text.endswith(unit)),
            (text, 1.0),
        )
        try:
            seconds = float(number) * factor
        except ValueError:
            seconds = -1.0
        if not 0.0 <= seconds <= 10_000_000.0:  # also refuses nan
            self.fail(f"{text!r} is not a length of time such as 5, 500ms, 10s or 2m", param, ctx)
        return seconds


def shared_options(*, listed: bool) -> list[click.Parameter]:
    """A new set of the options that every command takes; `listed`: with their lines in the help."""

    def option(*flags: str, **attributes: Any) -> click.Parameter:
        return SharedOption(*flags, listed=listed, **attributes)

    return [
        option(
            "-s",
            "--server",
            metavar="URL",
            help="Where unitd listens: unix:///path or http://127.0.0.1:9301.",
        ),
        option("-c", "--config", metavar="FILE", help="Take the socket's path from this configuration file."),
        option("-o", "--output", type=click.Choice(["text", "json"]), help="How results are printed."),
        option("-q", "--quiet", is_flag=True, default=None, help="No results, no progress; errors only."),
        option("-v", "--verbose", is_flag=True, default=None, help="Tell more."),
        option("--timeout", type=Seconds(), metavar="SECONDS", help="Wait no longer than this (5, 500ms, 2m)."),
        option(
            "--no-color",
            is_flag=True,
            default=None,
            help="No colours, even on a terminal (so does NO_COLOR).",
        ),
    ]


EPILOG = "Options -s -c -o -q -v --timeout --no-color work here too: see unitctl -h."


def command(name: str, **attributes: Any) -> Callable[[Callable[..., int]], click.Command]:
    """Make a function a command: it gets the Session first, and returns the exit code."""

    def decorate(function: Callable[..., int]) -> click.Command:
        make: Callable[[Callable[..., int]], click.Command] = click.command(name, epilog=EPILOG, **attributes)
        made = make(click.pass_obj(function))
        made.params.extend(shared_options(listed=False))
        return made

    return decorate
