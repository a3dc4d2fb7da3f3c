"""`start`, `stop`, `restart`, `signal`, `enable` and `disable`: commands to units."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any
from uuid import uuid4

import click

from ..wire import Command
from . import decode
from .client import Client, Unreachable, unit_path
from .codes import DONE, INTERRUPTED, ExitWith
from .moments import Moment
from .names import NAMES
from .outcome import conclude
from .session import Session, TextType, command

Raw = dict[str, Any]

names_argument = click.argument("names", nargs=-1, type=NAMES, metavar="NAME...")
no_wait_option = click.option("--no-wait", is_flag=True, help="Print the operations' ids and do not wait.")
reason_option = click.option("--reason", default="", metavar="TEXT", help="Why; kept with the operation.")
force_option = click.option("--force", is_flag=True, help="Stop the unit even if the registry does not answer.")


def _checked(ctx: click.Context, param: click.Parameter, command_id: str | None) -> str | None:
    if command_id is not None and not command_id.strip():
        raise click.UsageError("--command-id must not be empty: give any text that names this command")
    return command_id


_command_id_option = click.option("--command-id", metavar="ID", callback=_checked,
                                  help="An id of yours: a command repeated under it does nothing again.")  # fmt: skip
_deadline_option = click.option("--deadline", type=Moment(), metavar="TIME",
                                help="Do not begin after this (18:00, 2026-11-24T18:00Z).")  # fmt: skip


@dataclass(frozen=True, slots=True)
class How:
    """What every order may say besides what it is about."""

    no_wait: bool
    reason: str
    command_id: str | None
    deadline: str | None

    def command(self, **parameters: Any) -> Command:
        """The order to send."""
        return Command(self.command_id, self.deadline, self.reason, parameters=parameters)


def order_options(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of `How`, which it gets as its argument `how`."""

    @wraps(function)
    def with_how(
        *arguments: Any, no_wait: bool, reason: str, command_id: str | None, deadline: str | None, **named: Any
    ) -> int:
        return function(*arguments, how=How(no_wait, reason, command_id, deadline), **named)

    for option in (_deadline_option, _command_id_option, reason_option, no_wait_option):
        with_how = option(with_how)
    return with_how


@command("start")
@names_argument
@order_options
def start_command(session: Session, names: tuple[str, ...], how: How) -> int:
    """Start units, after the units they depend on.

    A unit that is running stays as it is. A unit that was given up (FATAL) is tried afresh.
    """
    return give(session, "start", names, how)


@command("stop")
@names_argument
@order_options
@force_option
def stop_command(session: Session, names: tuple[str, ...], how: How, force: bool) -> int:
    """Stop units, after the units that depend on them.

    A registered unit leaves the registry first, and is stopped when nobody sends to it any more and what it was
    asked is answered.
    """
    return give(session, "stop", names, how, _force(force))


@command("restart")
@names_argument
@order_options
@force_option
@click.option("--no-drain", is_flag=True, help="Give up what the unit has in flight: it does not answer any more.")
def restart_command(session: Session, names: tuple[str, ...], how: How, force: bool, no_drain: bool) -> int:
    """Stop units and start them again; a stopped one is started.

    The units of one service go one after another, each at full weight before the next.
    """
    return give(session, "restart", names, how, _force(force) | ({"no_drain": True} if no_drain else {}))


def _force(force: bool) -> dict[str, Any]:
    return {"force": True} if force else {}


class SignalName(TextType):
    """A signal by name or number: `HUP`, `SIGHUP`, `1`; becomes `HUP`."""

    name = "signal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name without SIG."""
        from signal import Signals

        text = str(value).upper()
        try:
            found = Signals(int(text)) if text.isdigit() else Signals[f"SIG{text.removeprefix('SIG')}"]
        except (KeyError, ValueError):
            self.fail(f"{value!r} is not a signal such as HUP, USR1 or 15", param, ctx)
        return found.name.removeprefix("SIG")

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """The names that begin so."""
        from signal import Signals

        from click.shell_completion import CompletionItem

        names = (item.name.removeprefix("SIG") for item in Signals)
        return [CompletionItem(name) for name in names if name.startswith(incomplete.upper())]


@command("signal")
@click.argument("signal", type=SignalName(), metavar="SIGNAL")
@names_argument
@order_options
def signal_command(session: Session, signal: str, names: tuple[str, ...], how: How) -> int:
    """Send a signal to the main process of units.

    SIGNAL is a name or a number: HUP, SIGUSR1, 15.
    """
    return give(session, "signal", names, how, {"signal": signal})


@command("enable")
@names_argument
@reason_option
def enable_command(session: Session, names: tuple[str, ...], reason: str) -> int:
    """Let units be started when unitd starts. Starts nothing now."""
    return _mark(session, "enable", names, reason, "enabled: started with unitd")


@command("disable")
@names_argument
@reason_option
def disable_command(session: Session, names: tuple[str, ...], reason: str) -> int:
    """Let units stay down when unitd starts. Stops nothing now."""
    return _mark(session, "disable", names, reason, "disabled: not started with unitd")


def give(
    session: Session, verb: str, names: tuple[str, ...], how: How, parameters: Mapping[str, Any] | None = None
) -> int:
    """Order it, wait for it unless told otherwise, and print how it ended; the exit code."""
    client = session.client(least_seconds=1.0)
    parameters = parameters or {}
    message = new_command(how.command(**parameters))
    try:
        answer = _send(session, client, verb, names, message)
    except KeyboardInterrupt:
        hint = _how_to_ask(session, message["command_id"])
        raise ExitWith(INTERRUPTED, f"interrupted before unitd had answered; {hint}") from None
    except Unreachable as error:
        if error.cause not in ("lost", "timeout"):
            raise
        hint = _how_to_ask(session, message["command_id"])
        raise ExitWith(session.unreachable_code, f"{error}; {hint}") from error
    made = decode.raw_list(answer, "operations")
    return conclude(session, client, made, no_wait=how.no_wait, signal=str(parameters.get("signal", "")))


def _mark(session: Session, verb: str, names: tuple[str, ...], reason: str, words: str) -> int:
    answer = _send(session, session.client(), verb, names, new_command(Command(reason=reason)))
    marked = answer.get("units") or []
    if session.json:
        session.out_json(marked)
    else:
        session.out("".join(f"{name}: {words}\n" for name in marked))
    return DONE


def _send(session: Session, client: Client, verb: str, names: tuple[str, ...], message: Raw) -> Any:
    """One request for all names: unitd does it for all, or refuses it for all."""
    if not names:
        line = session.line(_for_all(verb, message["parameters"]))
        raise click.UsageError(f"name the units to {verb}, or say: {line}")
    return client.post(unit_path(",".join(names), verb), message)


def _for_all(verb: str, parameters: Mapping[str, Any]) -> str:
    if verb == "signal":
        return f"signal {parameters['signal']} all"
    return f"weight all {parameters['weight']}" if verb == "weight" else f"{verb} all"


def _how_to_ask(session: Session, command_id: str) -> str:
    from shlex import quote

    ask = session.line(f"ops --command-id {quote(command_id)}")
    return f"this tells whether it does what was ordered:\n    {ask}"


def new_command(order: Command) -> Raw:
    """The body of a command: with an id of its own unless it has one, and who it is from."""
    body = {
        "command_id": order.command_id or uuid4().hex,
        "reason": order.reason,
        "issued_by": user(),
        "parameters": order.parameters,
    }
    return body if order.deadline is None else {**body, "deadline": order.deadline}


def user() -> str:
    """Who types: the user, and behind sudo whom sudo names."""
    from pwd import getpwuid

    uid = os.getuid()
    try:
        name = getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    behind = os.environ.get("SUDO_USER")
    return f"{behind} (sudo)" if uid == 0 and behind else name
