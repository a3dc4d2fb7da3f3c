"""`drain`, `undrain`, `warm` and `weight`: how much traffic units get, with their processes alive."""

from __future__ import annotations

from typing import Any

import click

from .moments import Moment
from .orders import How, give, names_argument, order_options
from .session import Seconds, Session, TextType, command

_PERCENT = click.IntRange(1, 100)


@command("drain", short_help="Keep units out of traffic, with their processes alive.")
@names_argument
@click.option("--for", "for_", type=Seconds(), metavar="DURATION", help="Undrain them after this time (90s, 2h, 3d).")
@click.option("--until", type=Moment(), metavar="TIME", help="Undrain them then (18:00, 2026-11-24T18:00Z).")
@click.option("--owner", metavar="NAME", help="Who keeps them out; you, if not given.")
@order_options
def drain_command(
    session: Session, names: tuple[str, ...], for_: float | None, until: str | None, owner: str | None, how: How
) -> int:
    """Keep units out of traffic, with their processes alive.

    They leave the registry and finish what they were asked. Nothing but `undrain`, or the end of the time that was
    given, brings them back: no restart of the unit, of unitd, or of the host.
    """
    if for_ is not None and until is not None:
        raise click.UsageError("--for and --until exclude each other: give one of them, or none to drain until undrain")
    if for_ == 0:
        raise click.UsageError("--for 0 would drain nothing: give a time such as 90s, or none to drain until undrain")
    return give(session, "drain", names, how, given(for_seconds=for_, until=until, owner=owner))


@command("undrain")
@names_argument
@order_options
def undrain_command(session: Session, names: tuple[str, ...], how: How) -> int:
    """Let drained units into traffic again; their weight grows from the start."""
    return give(session, "undrain", names, how)


@command("warm")
@names_argument
@click.option("--initial", type=_PERCENT, metavar="N", help="Begin with N percent of the full weight.")
@click.option("--step", type=_PERCENT, metavar="N", help="Add N percent after each period.")
@click.option("--period", type=Seconds(), metavar="DURATION", help="The time between two steps (10s, 2m).")
@click.option("--pause", is_flag=True, help="Stay at the present weight.")
@click.option("--resume", is_flag=True, help="Go on growing.")
@click.option("--jump", type=_PERCENT, metavar="PERCENT", help="Go to that percentage at once, and on from there.")
@order_options
def warm_command(session: Session, names: tuple[str, ...], how: How, **wishes: Any) -> int:
    """Let the weight of units grow from the start, or change how it grows.

    Without an option it grows as configured. Does not wait for the full weight.
    """
    parameters = given(**{key: value for key, value in wishes.items() if value is not False})
    check_warm(parameters)
    return give(session, "warm", names, how, parameters)


def check_warm(parameters: dict[str, Any]) -> None:
    """Raises click.UsageError for wishes that exclude each other."""
    ways = [f"--{key}" for key in ("pause", "resume", "jump") if key in parameters]
    ramp = [f"--{key}" for key in ("initial", "step", "period") if key in parameters]
    if len(ways) + bool(ramp) > 1:
        raise click.UsageError(
            f"{' and '.join([*ramp, *ways])} cannot be given together: choose a new ramp "
            "(--initial, --step, --period), --pause, --resume or --jump"
        )
    if parameters.get("period") == 0:
        raise click.UsageError("--period 0 is no time: give one such as 10s, or use --jump 100 for the full weight now")


class Weight(TextType):
    """A weight as a whole number, or `auto`."""

    name = "weight"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """An int, or "auto"."""
        text = str(value)
        if text == "auto":
            return text
        if not (text.isascii() and text.isdigit()):
            self.fail(
                f"{text!r} is neither a weight nor auto: say for example 'unitctl weight addToCart:0 40'", param, ctx
            )
        return int(text)


@command("weight")
@names_argument
@click.argument("weight", type=Weight(), metavar="N|auto")
@order_options
def weight_command(session: Session, names: tuple[str, ...], weight: int | str, how: How) -> int:
    """Fix the weight of units at N, or give it back (auto).

    N is in units of the configured weight. It stays through restarts of the unit and of unitd.
    """
    return give(session, "weight", names, how, {"weight": weight})


def given(**parameters: Any) -> dict[str, Any]:
    """What was given on the line."""
    return {key: value for key, value in parameters.items() if value is not None}
