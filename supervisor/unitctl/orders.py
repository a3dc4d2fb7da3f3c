"""`start`, `stop`, `restart`, `signal`, `enable` and `disable`: commands to units."""

from __future__ import annotations

import os
from typing import Any
from uuid import uuid4

import click

from ..wire import Command
from . import decode
from .client import Client, unit_path
from .codes import DONE, INTERRUPTED, ExitWith
from .names import NAMES
from .outcome import conclude
from .session import Session, TextType, command

Raw = dict[str, Any]

names_argument = click.argument("names", nargs=-1, type=NAMES, metavar="NAME...")
no_wait_option = click.option("--no-wait", is_flag=True, help="Print the operations' ids and do not wait.")
reason_option = click.option("--reason", default="", metavar="TEXT", help="Why; kept with the operation.")
force_option = click.option("--force", is_flag=True, help="Stop the unit even if the registry does not answer.")


@command("start")
@names_argument
@no_wait_option
@reason_option
def start_command(session: Session, names: tuple[str, ...], no_wait: bool, reason: str) -> int:
    """Start units, after the units they depend on.

    A unit that is running stays as it is. A unit that was given up (FATAL) is tried afresh.
    """
    return _order(session, "start", names, Command(reason=reason), no_wait=no_wait)


@command("stop")
@names_argument
@no_wait_option
@reason_option
@force_option
def stop_command(session: Session, names: tuple[str, ...], no_wait: bool, reason: str, force: bool) -> int:
    """Stop units, after the units that depend on them.

    A registered unit leaves the registry first and is stopped when nobody sends to it any more.
    """
    return _order(session, "stop", names, Command(reason=reason, parameters=_force(force)), no_wait=no_wait)


@command("restart")
@names_argument
@no_wait_option
@reason_option
@force_option
def restart_command(session: Session, names: tuple[str, ...], no_wait: bool, reason: str, force: bool) -> int:
    """Stop units and start them again; a stopped one is started."""
    return _order(session, "restart", names, Command(reason=reason, parameters=_force(force)), no_wait=no_wait)


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
@no_wait_option
@reason_option
def signal_command(session: Session, signal: str, names: tuple[str, ...], no_wait: bool, reason: str) -> int:
    """Send a signal to the main process of units.

    SIGNAL is a name or a number: HUP, SIGUSR1, 15.
    """
    order = Command(reason=reason, parameters={"signal": signal})
    return _order(session, "signal", names, order, no_wait=no_wait, signal=signal)


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


def _order(
    session: Session, verb: str, names: tuple[str, ...], order: Command, *, no_wait: bool, signal: str = ""
) -> int:
    client = session.client(least_seconds=1.0)
    answer = _send(session, client, verb, names, order)
    return conclude(session, client, decode.raw_list(answer, "operations"), no_wait=no_wait, signal=signal)


def _mark(session: Session, verb: str, names: tuple[str, ...], reason: str, words: str) -> int:
    answer = _send(session, session.client(), verb, names, Command(reason=reason))
    marked = answer.get("units") or []
    if session.json:
        session.out_json(marked)
    else:
        session.out("".join(f"{name}: {words}\n" for name in marked))
    return DONE


def _send(session: Session, client: Client, verb: str, names: tuple[str, ...], order: Command) -> Any:
    """One request for all names: unitd does it for all, or refuses it for all."""
    if not names:
        raise click.UsageError(f"name the units to {verb}, or say: {session.line(f'{verb} all')}")
    message = new_command(order)
    try:
        return client.post(unit_path(",".join(names), verb), message)
    except KeyboardInterrupt:
        raise ExitWith(
            INTERRUPTED,
            "interrupted before unitd had answered; this tells whether it does what was ordered:\n"
            f"    {session.line('ops --command-id ' + message['command_id'])}",
        ) from None


def new_command(order: Command) -> Raw:
    """The body of a command: with an id of its own, and who it is from."""
    return {
        "command_id": uuid4().hex,
        "reason": order.reason,
        "issued_by": _user(),
        "parameters": order.parameters,
    }


def _user() -> str:
    from pwd import getpwuid

    uid = os.getuid()
    try:
        name = getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    behind = os.environ.get("SUDO_USER")
    return f"{behind} (sudo)" if uid == 0 and behind else name
