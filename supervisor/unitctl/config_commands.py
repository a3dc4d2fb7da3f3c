"""`check`, `diff` and `apply`: the configuration's files."""

from __future__ import annotations

import os
from typing import Any

import click

from ..errors import ConfigError
from ..wire import Command
from . import decode
from .address import DEFAULT_CONFIG
from .client import Refused
from .codes import DONE, USAGE
from .orders import new_command, no_wait_option, reason_option
from .outcome import conclude
from .render import mistake_line, plan_lines
from .session import Session, command
from .words import counted

Mistake = dict[str, Any]  # path, line, key, reason


@command("check")
@click.argument("file", required=False, type=click.Path())
def check_command(session: Session, file: str | None) -> int:
    """Read the files and list every mistake.

    Needs no running unitd. FILE is the main file; without it -c counts, or else /etc/unitd/unitd.toml.
    """
    count, mistakes = _load(os.path.abspath(file or session.config or DEFAULT_CONFIG))
    if session.json:
        session.out_json({"units": count, "errors": mistakes})
    elif not mistakes:
        session.out(f"{counted(count, 'unit')}, no mistakes\n")
    return _tell(session, mistakes)


def _load(path: str) -> tuple[int, list[Mistake]]:
    """How many units a file and those that it includes have, and every mistake."""
    from .. import config  # knows the files' format; no other command needs it

    try:
        return len(config.load(path).units), []
    except ConfigError as error:
        each = getattr(error, "errors", ()) or (error,)
        return 0, [_mistake(item) for item in each]
    except OSError as error:
        return 0, [_mistake(ConfigError(f"cannot read it: {error.strerror}", path=error.filename or path))]


def _mistake(error: ConfigError) -> Mistake:
    return {"path": error.path, "line": error.line, "key": error.key, "reason": error.reason}


def _tell(session: Session, mistakes: list[Mistake]) -> int:
    """Print mistakes; the exit code."""
    lines = [
        mistake_line(item.get("path"), item.get("line") or 0, item.get("key") or "", str(item.get("reason")))
        for item in mistakes
    ]
    if lines:
        session.err("\n".join(lines))
    return USAGE if lines else DONE


@command("diff")
def diff_command(session: Session) -> int:
    """Tell what `apply` would do; change nothing.

    Effects: live (changed in place), reregister, restart, new, removed, and with -v none. Exit code 2: the files
    have mistakes.
    """
    answer = session.client().post("/v1/config/plan")
    items = decode.raw_list(answer, "items")
    if session.json:
        session.out_json(answer)
    elif not answer.get("errors"):
        _show_plan(session, items)
    return _tell(session, answer.get("errors") or [])


def _show_plan(session: Session, items: list[dict[str, Any]]) -> None:
    lines = plan_lines(decode.plan_items(items), verbose=session.verbose)
    session.out("".join(f"{line}\n" for line in lines) or "nothing to do\n")


@command("apply")
@no_wait_option
@reason_option
def apply_command(session: Session, no_wait: bool, reason: str) -> int:
    """Let unitd do what `diff` tells.

    It reads its files again, and changes everything, or nothing if they have mistakes.

    Exit code 2: the files have mistakes; then nothing was changed.
    """
    client = session.client(least_seconds=1.0)
    try:
        answer = client.post("/v1/config/apply", new_command(Command(reason=reason)))
    except Refused as refusal:
        mistakes = refusal.problem.get("errors")
        if refusal.status != 422 or not mistakes:
            raise
        return _tell(session, mistakes)
    if not session.json:
        _show_plan(session, decode.raw_list(answer, "items"))
    return conclude(session, client, decode.raw_list(answer, "operations"), no_wait=no_wait)
