"""`logs` and `events`: what units write, and what happens to them; once, or as it comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from ..errors import WireError
from ..wire import decode
from .client import Client, Unreachable, unit_path
from .codes import DONE
from .names import NAMES
from .session import Session, command
from .sse import EventParser, ServerEvent
from .waiting import Patience
from .words import clean, columns

_FOLLOWED_LINES = 10

Event = dict[str, Any]  # seq, at, unit, type, text


@command("logs")
@click.argument("unit", type=NAMES, metavar="UNIT")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(0, 10_000), default=10, show_default=True, metavar="LINES",
              help="Begin with the last so many lines.")  # fmt: skip
@click.option("--stderr", is_flag=True, help="What it writes to stderr instead of stdout.")
def logs_command(session: Session, unit: str, follow: bool, lines: int, stderr: bool) -> int:
    """Show what a unit has written.

    With -o json: a list of lines, or with -f one JSON object a line.
    """
    query = {
        "stream": "stderr" if stderr else "stdout",
        "lines": str(lines),
        **({"follow": "1"} if follow else {}),
    }
    chunks = session.client().stream(
        f"{unit_path(unit)}/logs", query, until=session.terminal.reader_gone if follow else None
    )
    if not session.json:
        for chunk in chunks:
            session.terminal.out_bytes(chunk)
    elif follow:
        for line in _lines_of(chunks):
            _print_json_line(session, {"unit": unit, "stream": query["stream"], "line": line})
    else:
        session.out_json(list(_lines_of(chunks)))
    return DONE


def _lines_of(chunks: Iterator[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
    if rest:
        yield rest.decode(errors="replace")


def _print_json_line(session: Session, value: Any) -> None:
    session.terminal.out_bytes(json.dumps(value, separators=(",", ":")).encode() + b"\n")


@command("events")
@click.option("-f", "--follow", is_flag=True, help="Go on with events as they happen, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(0), metavar="LINES",
              help="Only the last so many; 10 with -f, else all that unitd still knows.")  # fmt: skip
@click.option("--since", type=click.IntRange(0), metavar="ID", help="Only those after this one; -v shows the ids.")
def events_command(session: Session, follow: bool, lines: int | None, since: int | None) -> int:
    """Show what has happened to units, or with -f what happens.

    With -o json: a list, or with -f one JSON object a line.
    """
    client = session.client()
    recorded = _recorded(client, since or 0)
    shown = recorded[len(recorded) - _count(len(recorded), lines, follow and since is None) :]
    if follow:
        return _follow(session, client, shown, max(_last_of(recorded), since or 0))
    if session.json:
        session.out_json(shown)
    else:
        session.out("".join(f"{line}\n" for line in columns(_cells(event, session.verbose) for event in shown)))
    return DONE


def _count(known: int, lines: int | None, few: bool) -> int:
    """How many of those that are known to show."""
    if lines is None:
        lines = _FOLLOWED_LINES if few else known
    return min(lines, known)


def _recorded(client: Client, since: int = 0) -> list[Event]:
    """What unitd still knows of what happened after the event of that id, oldest first."""
    parser = EventParser()
    chunks = client.stream("/v1/events", {"follow": "0"}, headers={"Last-Event-ID": str(since)})
    return [_read(event) for chunk in chunks for event in parser.feed(chunk)]


def _last_of(events: list[Event]) -> int:
    return int(events[-1]["seq"]) if events else 0


def _follow(session: Session, client: Client, shown: list[Event], last: int) -> int:
    """Print until there is no reader; a daemon that comes back is asked for what was missed."""
    patience = Patience()
    while True:
        for event in shown:
            _print_event(session, event)
        try:
            for event in _coming(session, client, patience, last):
                last = int(event["seq"])
                _print_event(session, event)
            if session.terminal.reader_gone():
                return DONE
            raise Unreachable(str(client.address), "lost", "it ended the stream of events")
        except Unreachable as error:
            patience.bear(error)
        shown, last = _missed(client, patience, last)


def _coming(session: Session, client: Client, patience: Patience, last: int) -> Iterator[Event]:
    parser = EventParser()
    headers = {"Last-Event-ID": str(last)}
    for chunk in client.stream("/v1/events", headers=headers, until=session.terminal.reader_gone):
        patience.reset()
        yield from map(_read, parser.feed(chunk))


def _missed(client: Client, patience: Patience, last: int) -> tuple[list[Event], int]:
    """What happened while the stream was cut, and the last id of it. Ids grow on when unitd is started anew."""
    while True:
        try:
            recorded = _recorded(client, last)
        except Unreachable as error:
            patience.bear(error)
            continue
        return recorded, _last_of(recorded) or last


def _print_event(session: Session, event: dict[str, Any]) -> None:
    if session.json:
        _print_json_line(session, event)
    else:
        session.terminal.out_bytes("  ".join(_cells(event, session.verbose)).encode(errors="backslashreplace") + b"\n")


def _read(event: ServerEvent) -> Event:
    value = decode(event.data.encode())
    if not isinstance(value, dict) or not isinstance(value.get("seq"), int):
        raise WireError("cannot read an event of unitd: it is not a JSON object with a number")
    return value


def _cells(event: dict[str, Any], with_id: bool) -> tuple[str, ...]:
    keys = ("seq", "at", "unit", "type", "text") if with_id else ("at", "unit", "type", "text")
    return tuple(clean(str(event.get(key) or "-")) for key in keys)
