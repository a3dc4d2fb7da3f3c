"""`upgrade-check`: what would become of units if the daemon were replaced by the one that is installed, now."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass, field
from typing import Any

from .. import config as files
from .. import folders
from ..core import upgrade
from ..core.doctor import OK, PROBLEM, UNKNOWN, Finding
from ..core.model import Config
from ..errors import ConfigError, DaemonUnreachable, SupervisorError
from ..installation import version
from ..wire import to_json
from . import upgrade_look as look
from .address import DEFAULT_CONFIG
from .client import Client, Refused, Unreachable
from .codes import DONE, FAILED
from .decode import raw_list
from .doctor_text import doctor_text
from .render import mistake_line
from .session import Session, command

_AS_ROOT = "ask as root"


@dataclass(slots=True)
class _Report:
    """What was found."""

    running: str | None = None  # the version of the daemon that answers
    living: list[str] = field(default_factory=list)  # units with a process
    findings: list[Finding] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        return upgrade.is_ready(self.findings)


@command("upgrade-check", short_help="Tell what units would notice if unitd were replaced by the installed version.")
def upgrade_check_command(session: Session) -> int:
    """Tell what units would notice if unitd were replaced by the installed version.

    Changes nothing. Looks at the daemon that runs, at what it has written down, at each unit's process and at the
    configuration, all as the installed unitd would read it. Works without a running unitd, too: then it tells what
    the next one would find. Exit code 1: units would notice, or something could not be looked at; ask as root.
    """
    report = _examine(session)
    if session.json:
        session.out_json({
            "ready": report.ready, "installed": version(), "running": report.running, "living": report.living,
            "findings": [to_json(finding) for finding in report.findings],
        })  # fmt: skip
    else:
        session.out(doctor_text(report.findings, color=session.color) + _conclusion(report))
    return DONE if report.ready else FAILED


def _conclusion(report: _Report) -> str:
    if not report.ready:
        return "not ready: units would notice, or not all could be looked at\n"
    if report.running is None:
        return "ready: the next unitd finds all as it must be\n"
    return "ready: no unit notices a restart of unitd (systemctl restart unitd)\n"


def _examine(session: Session) -> _Report:
    report = _Report()
    loaded = _load(session, report)
    asked = _ask(session, report)
    if loaded is None:
        report.findings += _not_looked("without a valid configuration its folders are not known")
        return report
    holder = look.holder_of(loaded.daemon.state_dir)
    report.findings.insert(0, upgrade.judge_versions(version(), report.running, holder))
    if asked.answers:
        report.findings.append(upgrade.judge_sigterm(loaded.daemon.sigterm, asked.changed))
        if (moved := upgrade.judge_state_dir(asked.changed)) is not None:
            report.findings.append(moved)
    elif holder is not None:
        said = f"pid {holder} uses {loaded.daemon.state_dir}, and does not answer {asked.where}"
        report.findings.append(Finding(PROBLEM, "daemon", "daemon", said, "unitctl doctor says why"))
    _look_at_units(session, report, loaded, holder)
    return report


def _not_looked(why: str) -> list[Finding]:
    return [Finding(UNKNOWN, "unit", "units", f"not looked at: {why}", "unitctl check lists every mistake")]


# The configuration, and the daemon.


def _load(session: Session, report: _Report) -> Config | None:
    path = os.path.abspath(session.config or DEFAULT_CONFIG)
    try:
        loaded = files.load(path)
    except ConfigError as error:
        for item in getattr(error, "errors", ()) or (error,):
            said = mistake_line(item.path, item.line, item.key, item.reason)
            action = "mend it: the installed unitd would not start"
            report.findings.append(Finding(PROBLEM, "configuration", "configuration", said, action))
        return None
    except OSError as error:
        said = f"{error.filename or path} cannot be read: {error.strerror}"
        report.findings.append(Finding(UNKNOWN, "configuration", "configuration", said, _AS_ROOT))
        return None
    said = f"valid for the installed unitd: {len(loaded.units)} units in {path}"
    report.findings.append(Finding(OK, "configuration", "configuration", said))
    return loaded


@dataclass(frozen=True, slots=True)
class _Asked:
    """Whether the daemon answers, where, and its own keys that the files would change (None: it cannot read them)."""

    answers: bool
    where: str = ""
    changed: tuple[str, ...] | None = None


def _ask(session: Session, report: _Report) -> _Asked:
    try:
        client = session.client(least_seconds=1.0)
    except ConfigError:
        return _Asked(answers=False)
    where = f"at {client.address}"
    try:
        report.running = str(client.get("/v1/node").get("version"))
        return _Asked(answers=True, where=where, changed=_changed_keys(client))
    except Refused as refusal:
        report.findings.append(Finding(UNKNOWN, "daemon", "daemon", str(refusal), _AS_ROOT))
    except DaemonUnreachable as error:
        if not isinstance(error, Unreachable) or not error.has_ended:
            report.findings.append(Finding(UNKNOWN, "daemon", "daemon", error.reason, _AS_ROOT))
    return _Asked(answers=False, where=where)


def _changed_keys(client: Client) -> tuple[str, ...] | None:
    """The daemon's own keys whose values in the files are not those that it runs with."""
    try:
        answer: Any = client.post("/v1/config/plan")
        if answer.get("errors"):
            return None
        own = [item for item in raw_list(answer, "items") if item.get("unit") == "unitd"]
    except SupervisorError:
        return None
    return tuple(str(key) for item in own for key in item.get("keys") or ())


# Units.


def _look_at_units(session: Session, report: _Report, loaded: Config, holder: int | None) -> None:
    journal = folders.look_at_journal(loaded.daemon)
    report.findings.append(journal)
    if journal.outcome != OK:
        return
    try:
        kept = look.read_journal(loaded.daemon.state_dir)
    except FileNotFoundError:
        kept = {}
    except (OSError, sqlite3.Error) as error:
        said = f"what unitd has written down cannot be read: {error}"
        report.findings.append(Finding(UNKNOWN, "journal", "journal", said, _AS_ROOT))
        return
    report.living = sorted(name for name, each in kept.items() if each.lives)
    verdicts = upgrade.judge_units(kept, look.boot_id())
    report.findings += upgrade.sum_up(verdicts.findings, each=session.verbose)
    report.findings += upgrade.judge_plan(verdicts.bound, kept, loaded.units)
    if holder is not None:
        report.findings += _manager(holder, kept)


def _manager(pid: int, kept: dict[str, upgrade.Kept]) -> list[Finding]:
    found = look.service_of(pid)
    if found is None:
        return [Finding(OK, "kill_mode", "systemd", "does not run this unitd, so it stops nothing of it")]
    service, cgroup = found
    try:
        answer = look.ask_manager(service)
    except (OSError, ValueError) as error:
        said = f"cannot be asked about {service}: {error}"
        return [Finding(UNKNOWN, "kill_mode", "systemd", said, "systemctl status")]
    return upgrade.judge_manager(service, answer, look.units_inside(kept, cgroup))
