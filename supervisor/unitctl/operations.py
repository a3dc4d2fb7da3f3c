"""`ops` and `abort`: operations that were ordered before."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from . import decode
from .client import Client
from .codes import DONE, UNKNOWN, ExitWith
from .outcome import report
from .render_operations import operation_lines, operation_text
from .session import Session, command
from .waiting import Waiting, get_operation

Raw = dict[str, Any]

command_id_option = click.option("--command-id", metavar="ID", help="All operations that this command has made.")


@command("ops")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("-f", "--follow", is_flag=True, help="Wait until they are done, with progress; the exit code tells.")
@command_id_option
def ops_command(session: Session, ids: tuple[str, ...], follow: bool, command_id: str | None) -> int:
    """List operations, or tell all about some."""
    if follow and not ids and command_id is None:
        raise click.UsageError("name the operations to follow")
    client = session.client()
    found = _find(client, ids, command_id) if ids or command_id else _latest(client)
    if follow:
        return _follow(session, client, found)
    if session.json:
        session.out_json(found)
        return DONE
    operations = decode.operations(found)
    if ids:
        session.out("\n".join(map(operation_text, operations)))
    else:
        session.out("".join(f"{line}\n" for line in operation_lines(operations)))
    return DONE


def _follow(session: Session, client: Client, found: list[Raw]) -> int:
    ended = Waiting(session, client, found).run()
    if session.json:
        session.out_json(ended)
    return report(session, client, decode.operations(ended))


def _latest(client: Client) -> list[Raw]:
    return decode.raw_list(client.get("/v1/operations"), "operations")


def _find(client: Client, ids: tuple[str, ...], command_id: str | None) -> list[Raw]:
    found = [get_operation(client, id_) for id_ in ids]
    if command_id is not None:
        made = decode.raw_list(client.get("/v1/operations", {"command_id": command_id}), "operations")
        if not made:
            raise ExitWith(UNKNOWN, f"unitd knows no operation of command {command_id}")
        found += made
    return found


@command("abort")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@command_id_option
def abort_command(session: Session, ids: tuple[str, ...], command_id: str | None) -> int:
    """Call off operations. What they have done so far is not undone."""
    if not ids and command_id is None:
        raise click.UsageError("name the operations to abort; unitctl ops lists them")
    client = session.client()
    named = [*ids, *_open_ids(client, command_id)]
    answers = [client.post(f"/v1/operations/{quote(id_, safe='')}/abort") for id_ in named]
    if session.json:
        session.out_json(answers)
    else:
        session.out("".join(f"{id_}: called off\n" for id_ in named))
    return DONE


def _open_ids(client: Client, command_id: str | None) -> list[str]:
    if command_id is None:
        return []
    return [item.id for item in decode.operations(_find(client, (), command_id)) if not item.done]
