"""`doctor`: whether all that a host needs is as it must be: what the daemon tells, and what is seen without it."""

from __future__ import annotations

import os
from typing import Any

from ..core.doctor import OK, PROBLEM, UNKNOWN, WARNING, Finding, judge_stop_limit
from ..core.model import Config
from ..errors import ConfigError, DaemonUnreachable, SupervisorError, WireError
from ..installation import version
from ..wire import to_json
from .address import DEFAULT_CONFIG
from .client import Client, Refused, Unreachable
from .codes import DONE, FAILED, UNAVAILABLE
from .codes import UNKNOWN as NOT_ALLOWED
from .decode import raw_list
from .doctor_local import find_stop_limit, look_at_socket
from .doctor_text import doctor_text
from .render import mistake_line
from .session import Session, command
from .words import counted

EXAMINATION_SECONDS = 15.0  # a registry that is away takes its time
_RESTART = "restart unitd with the version that is installed"
_FIELDS = ("outcome", "check", "subject", "message")


@command("doctor")
def doctor_command(session: Session) -> int:
    """Check this host: configuration, rights, registries, ttls, clocks, entries, limits, disks.

    Changes nothing. Without a running unitd it checks what can be seen without it. Exit code 1: there is a problem
    (warnings are none); 69: unitd does not answer.
    """
    findings, code = _examine(session)
    if session.json:
        session.out_json({"findings": [to_json(finding) for finding in findings]})
    else:
        session.out(doctor_text(findings, color=session.color))
    return FAILED if code == DONE and any(finding.outcome == PROBLEM for finding in findings) else code


def _examine(session: Session) -> tuple[list[Finding], int]:
    try:
        client = session.client(least_seconds=1.0)
    except ConfigError as error:
        return [_mistake(error), _not_asked("it is not known where unitd listens")], FAILED
    rights = look_at_socket(client.address)
    try:
        answer = client.get("/v1/doctor", wait_seconds=0.0 if session.timeout is not None else EXAMINATION_SECONDS)
    except Refused as refusal:
        return _refused(session, client, refusal, rights)
    except DaemonUnreachable as error:
        denied = isinstance(error, Unreachable) and error.cause == "permission"
        daemon = Finding(PROBLEM, "daemon", "daemon", error.reason)
        return [daemon, *rights, *_without_daemon(session)], NOT_ALLOWED if denied else UNAVAILABLE
    return [*_about_daemon(client, answer), *rights, *_plan(client), *_told(answer), *_manager(answer)], DONE


# What the daemon tells.


def _refused(session: Session, client: Client, refusal: Refused, rights: list[Finding]) -> tuple[list[Finding], int]:
    if refusal.status == 404:
        said = f"what answers at {client.address} is older than this unitctl ({version()}): it cannot be examined"
        daemon = Finding(PROBLEM, "version", "daemon", said, _RESTART)
    else:
        daemon = Finding(PROBLEM, "daemon", "daemon", str(refusal))
    return [daemon, *rights, *_without_daemon(session)], FAILED if refusal.status == 404 else refusal.exit_code


def _about_daemon(client: Client, answer: Any) -> list[Finding]:
    if not isinstance(answer, dict):
        raise WireError("cannot read the answer of unitd: it is no object; do unitd and unitctl fit together?")
    theirs = str(answer.get("version"))
    findings = [Finding(OK, "daemon", "daemon", f"unitd {theirs} answers at {client.address}")]
    if theirs != version():
        said = f"unitd is {theirs}, unitctl is {version()}"
        findings.append(Finding(WARNING, "version", "versions", said, _RESTART))
    refusal = answer.get("may_not_command")
    if refusal:
        findings.append(Finding(WARNING, "rights", "rights", f"you may look and not command: {refusal}"))
    else:
        findings.append(Finding(OK, "rights", "rights", "you may look and command"))
    return findings


def _told(answer: Any) -> list[Finding]:
    """The daemon's own findings. Raises WireError."""
    items = raw_list(answer, "findings")
    if not all(isinstance(item.get(name), str) for item in items for name in _FIELDS):
        raise WireError("cannot read the answer of unitd: a finding lacks a field; do unitd and unitctl fit together?")
    return [
        Finding(item["outcome"], item["check"], item["subject"], item["message"], str(item.get("action") or ""))
        for item in items
    ]


def _plan(client: Client) -> list[Finding]:
    """Whether the files are as the daemon runs, which alone knows all of them."""
    try:
        answer = client.post("/v1/config/plan")
        items = raw_list(answer, "items")
    except SupervisorError as error:
        return [Finding(UNKNOWN, "configuration", "configuration", f"cannot be compared: {error}")]
    mistakes = answer.get("errors") or []
    if mistakes:
        return [
            _mistake(ConfigError(item.get("reason", ""), path=item.get("path"), line=item.get("line") or 0,
                                 key=item.get("key") or ""))
            for item in mistakes
        ]  # fmt: skip
    waiting = [item for item in items if item.get("effect") != "none"]
    if not waiting:
        return [Finding(OK, "configuration", "configuration", "valid, and what unitd runs with")]
    own = any(item.get("unit") == "unitd" for item in waiting)
    action = "restart unitd; unitctl diff tells which keys" if own else "unitctl diff, then unitctl apply"
    said = f"valid, but not applied: {counted(len(waiting), 'change')}"
    return [Finding(WARNING, "configuration", "configuration", said, action)]


def _manager(answer: Any) -> list[Finding]:
    """What systemd would do to the daemon; it tells everybody."""
    unit, seconds = answer.get("manager_unit"), answer.get("way_out_seconds")
    if not isinstance(unit, str) or not isinstance(seconds, int | float):
        return [Finding(OK, "stop_limit", "systemd", "does not run this unitd, so it does not cut its end short")]
    try:
        limit = find_stop_limit(unit)
    except (OSError, ValueError) as error:
        return [Finding(UNKNOWN, "stop_limit", "systemd", f"cannot be asked about {unit}: {error}")]
    return [judge_stop_limit(limit, seconds, map(str, answer.get("way_out_groups") or ()))]


# What can be seen without it.


def _without_daemon(session: Session) -> list[Finding]:
    path = os.path.abspath(session.config or DEFAULT_CONFIG)
    from .. import config  # only where the daemon does not read it itself

    try:
        loaded = config.load(path)
    except ConfigError as error:
        findings = [_mistake(item) for item in getattr(error, "errors", ()) or (error,)]
        return [*findings, _not_asked("without its configuration its folders are not known")]
    except OSError as error:
        said = f"cannot be read: {error.strerror}"
        return [Finding(UNKNOWN, "configuration", path, said, "name the file with -c, or ask as root"),
                _not_asked("without its configuration its folders are not known")]  # fmt: skip
    return _local(path, loaded)


def _local(path: str, loaded: Config) -> list[Finding]:
    from .. import folders

    spec, count = loaded.daemon, counted(len(loaded.units), "unit")
    return [
        Finding(OK, "configuration", "configuration", f"valid: {count} in {path}"),
        *folders.look_at_folders(spec, as_daemon=os.geteuid() == 0),
        folders.look_at_journal(spec),
        *folders.look_at_sockets(spec, None),
        *(
            Finding(UNKNOWN, "registry", f"registry {item.name}", "not asked: only a running unitd asks it", _ASK)
            for item in spec.registries
        ),
        _not_asked("its limits, cgroups, leases and entries are its own"),
    ]


_ASK = "start unitd, or ask by yourself: python -m registry_client list"


def _mistake(error: ConfigError) -> Finding:
    said = mistake_line(error.path, error.line, error.key, error.reason)
    return Finding(PROBLEM, "configuration", "configuration", said, "unitctl check lists every mistake")


def _not_asked(why: str) -> Finding:
    return Finding(UNKNOWN, "daemon", "the rest", f"not looked at, for {why}", "start unitd and ask again")
