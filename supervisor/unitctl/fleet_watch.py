"""`fleet events` and `logs`: what happens to a fleet, and what a unit of it writes; once, or as it comes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from typing import Any

import click

from ..errors import WireError
from ..wire import decode
from .codes import DONE, STILL_GOING, ExitWith
from .fleet_center import Center, CenterUnreachable, path_of
from .fleet_names import NODES
from .fleet_render import event_line
from .fleet_session import Fleet, fleet_command
from .sse import EventParser, ServerEvent

Raw = dict[str, Any]

_FOLLOWED_LINES = 10
_SILENCE_SECONDS = 45.0  # the control center says something every 15 s
_RETRY_SECONDS = 0.5


@fleet_command("events")
@click.option("-f", "--follow", is_flag=True, help="Go on with events as they happen, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(0), metavar="LINES",
              help="Only the last so many; 10 with -f, else all that the control center still knows.")  # fmt: skip
@click.option("--since", type=click.IntRange(0), metavar="ID", help="Only those after this one; -v shows the ids.")
def fleet_events_command(fleet: Fleet, follow: bool, lines: int | None, since: int | None) -> int:
    """Show what has happened to the fleet, or with -f what happens.

    With -o json: a list, or with -f one JSON object a line.
    """
    center = fleet.center()
    recorded = list(_events(center, since or 0, follow=False))
    if lines is None:
        lines = _FOLLOWED_LINES if follow and since is None else len(recorded)
    shown = recorded[len(recorded) - min(lines, len(recorded)) :]
    if follow:
        return _follow(fleet, center, shown, max([since or 0, *(event["seq"] for event in recorded)]))
    if fleet.session.json:
        fleet.session.out_json(shown)
    else:
        fleet.session.out("".join(f"{event_line(event, with_id=fleet.session.verbose)}\n" for event in shown))
    return DONE


def _events(center: Center, since: int, *, follow: bool) -> Iterator[Raw]:
    parser = EventParser()
    query = {} if follow else {"follow": "0"}
    chunks = center.stream("/v1/events", query, headers={"Last-Event-ID": str(since)}, silence_seconds=_SILENCE_SECONDS)
    for chunk in chunks:
        yield from map(_read, parser.feed(chunk))


def _read(event: ServerEvent) -> Raw:
    """An object with `seq`, `at`, `type` and `body`."""
    value = decode(event.data.encode())
    if not isinstance(value, dict) or not isinstance(value.get("seq"), int):
        raise WireError("cannot read an event of the control center: it is not a JSON object with a number")
    return value


def _follow(fleet: Fleet, center: Center, shown: list[Raw], last: int) -> int:
    """Print until there is no reader; a control center that comes back is asked for what was missed."""
    for event in shown:
        _print_event(fleet, event)
    timeout = fleet.session.timeout
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    is_away = False
    while True:
        try:
            for event in _events(center, last, follow=True):
                last, is_away = event["seq"], False
                _print_event(fleet, event)
        except CenterUnreachable as error:
            if not error.may_pass:
                raise
            if not is_away and error.cause != "timeout":
                fleet.session.err(f"the control center does not answer ({error.reason}): trying again")
            is_away = True
        if fleet.session.terminal.reader_gone():
            return DONE
        if time.monotonic() > deadline:
            raise ExitWith(STILL_GOING, f"no longer following after {timeout:g} s")
        time.sleep(_RETRY_SECONDS)


def _print_event(fleet: Fleet, event: Raw) -> None:
    line = (
        json.dumps(event, separators=(",", ":"))
        if fleet.session.json
        else event_line(event, with_id=fleet.session.verbose)
    )
    fleet.session.terminal.out_bytes(line.encode(errors="backslashreplace") + b"\n")


@fleet_command("logs")
@click.argument("node", type=NODES, metavar="NODE")
@click.argument("unit", metavar="UNIT")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(0, 10_000), default=10, show_default=True, metavar="LINES",
              help="Begin with the last so many lines.")  # fmt: skip
@click.option("--stderr", is_flag=True, help="What it writes to stderr instead of stdout.")
def fleet_logs_command(fleet: Fleet, node: str, unit: str, follow: bool, lines: int, stderr: bool) -> int:
    """Show what a unit has written on its node.

    With -o json: a list of lines, or with -f one JSON object a line.
    """
    stream = "stderr" if stderr else "stdout"
    query = {"stream": stream, "lines": str(lines), **({"follow": "1"} if follow else {})}
    center = fleet.center()
    chunks = center.stream(
        path_of("nodes", node, "units", unit, "logs"), query, silence_seconds=None if follow else _SILENCE_SECONDS
    )
    if not fleet.session.json:
        for chunk in chunks:
            fleet.session.terminal.out_bytes(chunk)
    elif follow:
        for line in _lines_of(chunks):
            told = {"node": node, "unit": unit, "stream": stream, "line": line}
            fleet.session.terminal.out_bytes(json.dumps(told, separators=(",", ":")).encode() + b"\n")
    else:
        fleet.session.out_json(list(_lines_of(chunks)))
    return DONE


def _lines_of(chunks: Iterator[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
    if rest:
        yield rest.decode(errors="replace")
