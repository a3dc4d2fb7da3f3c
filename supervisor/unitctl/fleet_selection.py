"""Which units a fleet command is for, and in which steps it goes through them: options to members of the request."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click

from .fleet_names import INSTANCES, NODES, SERVICES
from .moments import Moment
from .session import Seconds, TextType

Raw = dict[str, Any]

_BATCH = re.compile(r"[1-9][0-9]{0,5}|(100|[1-9][0-9]?)%", re.ASCII)


class Label(TextType):
    """`team=cart`: a key of an entry's metadata, and what it must be."""

    name = "label"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Key and value."""
        key, equals, wanted = str(value).partition("=")
        if not (key and equals):
            self.fail(f"{value!r} is not a label such as team=cart", param, ctx)
        return key, wanted


class BatchSize(TextType):
    """`2`, or `25%` of each service's targets."""

    name = "batch"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """As it is, if it is one."""
        if not _BATCH.fullmatch(str(value)):
            self.fail(f"{value!r} is neither a number such as 2 nor a share such as 25%", param, ctx)
        return str(value)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the options say; all that is given must hold."""

    nodes: tuple[str, ...]
    units: tuple[str, ...]
    instances: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]
    zone: str | None

    def selection(self, services: tuple[str, ...] = (), nodes: tuple[str, ...] = ()) -> Raw:
        """The request's member. Raises click.UsageError where nothing is named, or a label twice."""
        labels = [*self.labels, *([("zone", self.zone)] if self.zone is not None else [])]
        if len(dict(labels)) < len(labels):
            raise click.UsageError("each label can be given once: all that is given must hold")
        named = {
            "services": services,
            "nodes": (*nodes, *self.nodes),
            "units": self.units,
            "instances": self.instances,
        }
        made: Raw = {key: list(values) for key, values in named.items() if values}
        made |= {"labels": dict(labels)} if labels else {}
        if not made:
            raise click.UsageError(
                "say which units: services (cart, 'ca*', '*' for all), --node, --unit, --instance, --label or --zone"
            )
        return made


def selection_options(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of `Chosen`, which it gets as its argument `chosen`."""

    @wraps(function)
    def with_chosen(*arguments: Any, **named: Any) -> int:
        given = {key: named.pop(key) for key in ("nodes", "units", "instances", "labels", "zone")}
        return function(*arguments, chosen=Chosen(**given), **named)

    for option in (
        click.option("--zone", metavar="ZONE", help="Only those of this zone."),
        click.option(
            "--label", "labels", type=Label(), multiple=True, metavar="KEY=VALUE", help="Only those with this label."
        ),
        click.option(
            "--instance", "instances", type=INSTANCES, multiple=True, metavar="NODE/UNIT", help="Only these (globs)."
        ),
        click.option("--unit", "units", multiple=True, metavar="UNIT", help="Only units of these names (globs)."),
        click.option(
            "--node", "nodes", type=NODES, multiple=True, metavar="NODE", help="Only those on these nodes (globs)."
        ),
    ):
        with_chosen = option(with_chosen)
    return with_chosen


services_argument = click.argument("services", nargs=-1, type=SERVICES, metavar="[NAME]...")

_STRATEGY = {  # option: member of the request's strategy
    "batch": "batch",
    "canary": "canary",
    "bake": "bake_seconds",
    "floor": "floor_percent",
    "max_failures": "max_failures",
    "target_timeout": "target_seconds",
}


def rolling_options(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of a rolling operation; it gets what they say as its argument `rolling`."""

    @wraps(function)
    def with_rolling(*arguments: Any, no_zones: bool, all_at_once: bool, **named: Any) -> int:
        given = {member: named.pop(option) for option, member in _STRATEGY.items()}
        return function(*arguments, rolling=_rolling(given, no_zones, all_at_once), **named)

    count, seconds = click.IntRange(0), Seconds()
    for option in (
        click.option("--target-timeout", type=seconds, metavar="SECONDS", help="Give one unit up after this time."),
        click.option("--all-at-once", is_flag=True, help="No batches, no floor: all at the same time."),
        click.option("--no-zones", is_flag=True, help="Not one zone after another."),
        click.option("--max-failures", type=count, metavar="N", help="Go on while no more than N have failed."),
        click.option("--floor", type=click.FloatRange(0, 100), metavar="PERCENT",
                     help="So much of a service's weight stays in the registry."),
        click.option("--bake", type=seconds, metavar="SECONDS", help="Watch the canary for this long."),
        click.option("--canary", type=count, metavar="N", help="Begin with N units; 0: none."),
        click.option("--batch", type=BatchSize(), metavar="N|N%", help="So many of each service at a time."),
    ):  # fmt: skip
        with_rolling = option(with_rolling)
    return with_rolling


def _rolling(given: Raw, no_zones: bool, all_at_once: bool) -> Raw:
    """The request's member `strategy`, or no member: the control center's own."""
    said = {member: value for member, value in given.items() if value is not None}
    said |= {"by_zone": False} if no_zones else {}
    if all_at_once and said:
        raise click.UsageError("--all-at-once knows no batches, floor or canary: give it alone, or leave it out")
    if all_at_once:
        return {"strategy": None}
    return {"strategy": said} if said else {}


@dataclass(frozen=True, slots=True)
class Order:
    """What every fleet command may say besides what it is about."""

    no_wait: bool
    dry_run: bool
    yes: bool
    reason: str
    command_id: str | None
    deadline: str | None
    expected_generation: int | None

    def members(self) -> Raw:
        """Of the request."""
        given = {"deadline": self.deadline, "expected_generation": self.expected_generation}
        return {"reason": self.reason, **{key: value for key, value in given.items() if value is not None}}


def fleet_order_options(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of `Order`, which it gets as its argument `order`."""

    @wraps(function)
    def with_order(*arguments: Any, **named: Any) -> int:
        given = {key: named.pop(key) for key in Order.__slots__}
        if given["command_id"] is not None and not given["command_id"].strip():
            raise click.UsageError("--command-id must not be empty: give any text that names this command")
        return function(*arguments, order=Order(**given), **named)

    for option in (
        click.option("--expected-generation", type=click.IntRange(0), metavar="N",
                     help="Only if the one unit is still of this generation."),
        click.option("--deadline", type=Moment(), metavar="TIME",
                     help="Begin no unit after this (18:00); in an hour, if not given."),
        click.option("--command-id", metavar="ID",
                     help="An id of yours: a command repeated under it does nothing again."),
        click.option("--reason", default="", metavar="TEXT", help="Why; kept with the operation."),
        click.option("-y", "--yes", is_flag=True, help="Do not ask."),
        click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing."),
        click.option("--no-wait", is_flag=True, help="Print the operation's id and do not wait."),
    ):  # fmt: skip
        with_order = option(with_order)
    return with_order
