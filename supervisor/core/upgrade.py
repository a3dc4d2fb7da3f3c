"""What `unitctl upgrade-check` thinks of the facts: whether a daemon of this version would take all over.

Pure: who looks is `unitctl`. A *problem* is what units would notice of a restart of the daemon, or why it would not
come up again; a *warning* happens to a unit, but not because of the restart.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .doctor import OK, PROBLEM, UNKNOWN, WARNING, Finding, names_of
from .model import Unit, UnitSpec
from .plan import Change, Effect, plan
from .stored import StoredError, from_plain

_RELOAD = "systemctl daemon-reload"
_QUIT = "systemctl kill --signal=QUIT unitd: it ends at once, and systemd starts the one that is installed"
_OUTCOMES = (PROBLEM, WARNING, OK)


@dataclass(frozen=True, slots=True)
class Kept:
    """What is on record of a unit, and what lives of it: the pid of its recorded process, and others with its marks."""

    unit: str | None = None  # the fact, JSON
    spec: str | None = None
    leader: int | None = None
    others: tuple[int, ...] = ()

    @property
    def lives(self) -> bool:
        """It has a process."""
        return self.leader is not None or bool(self.others)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What would become of the units, and the specs that those which go on are bound to."""

    findings: tuple[Finding, ...]
    bound: Mapping[str, UnitSpec] = field(default_factory=dict)


def judge_versions(installed: str, running: str | None, pid: int | None) -> Finding:
    """Who runs, and who would come."""
    if running is None:
        return Finding(OK, "version", "versions", f"no unitd runs; {installed} is installed")
    where = f" (pid {pid})" if pid is not None else ""
    if running == installed:
        return Finding(OK, "version", "versions", f"unitd {running}{where} runs, and is what is installed")
    return Finding(OK, "version", "versions", f"unitd {running}{where} runs; {installed} is installed")


def judge_sigterm(wanted: str, changed: Collection[str] | None) -> Finding:
    """What SIGTERM does to the daemon that runs.

    `wanted` is what its files say, `changed` the daemon's own keys that they have other values for than it runs with
    (None: it cannot read them).
    """
    if changed is None:
        said = "it is not known whether the unitd that runs leaves its units at SIGTERM: it cannot read its files"
        return Finding(UNKNOWN, "sigterm", "sigterm", said, f"see unitctl diff; or {_QUIT}")
    leaves = (wanted == "leave") is not ("sigterm" in changed)
    if leaves:
        return Finding(OK, "sigterm", "sigterm", 'the unitd that runs leaves its units at SIGTERM (sigterm = "leave")')
    said = 'the unitd that runs stops all units at SIGTERM (sigterm = "stop")'
    return Finding(PROBLEM, "sigterm", "sigterm", said, _QUIT)


def judge_state_dir(changed: Collection[str] | None) -> Finding | None:
    """Whether the next daemon would look where this one has written; None: yes."""
    if changed is None or "state_dir" not in changed:
        return None
    said = "the files name another state_dir than unitd runs with: the next one would know nothing of its units"
    return Finding(PROBLEM, "state_dir", "state_dir", said, "put the old one back until all units are stopped")


def judge_manager(service: str, answer: Mapping[str, str], inside: Sequence[str]) -> list[Finding]:
    """What systemd would do to units. `answer` is of its properties; `inside`: units in the daemon's own cgroup."""
    mode = answer.get("KillMode", "")
    if mode not in ("process", "none") and inside:
        said = f"systemd kills all of {service} when it stops (KillMode={mode}), {names_of(inside)} too"
        action = f"systemctl edit {service}: [Service] KillMode=process"
        return [Finding(PROBLEM, "kill_mode", "systemd", said, action)]
    findings = [Finding(OK, "kill_mode", "systemd", f"leaves units alone when it stops {service}")]
    if answer.get("NeedDaemonReload") == "yes":
        said = f"has not read {service} again since it was changed: it would start it the old way"
        findings.append(Finding(WARNING, "daemon_reload", "systemd", said, _RELOAD))
    return findings


def judge_units(kept: Mapping[str, Kept], boot: str) -> Verdicts:
    """What would become of each unit that is on record, or that lives; `boot` is the id of this one."""
    bound: dict[str, UnitSpec] = {}
    findings = tuple(_judge_unit(name, each, boot, bound) for name, each in sorted(kept.items()))
    return Verdicts(findings, bound)


def _judge_unit(name: str, kept: Kept, boot: str, bound: dict[str, UnitSpec]) -> Finding:
    if kept.unit is None:
        return _judge_unknown(name, kept, "nothing of it is on record")
    try:
        value = json.loads(kept.unit)
        if value["boot"] != boot:
            return _judge_unknown(name, kept, "what is on record of it is of an earlier boot")
        unit = from_plain(Unit, value["unit"])
        spec = from_plain(UnitSpec, json.loads(kept.spec or ""))
    except (StoredError, ValueError, KeyError, TypeError) as error:
        return _judge_unknown(name, kept, f"what is on record of it is not of this version ({error})")
    if unit.live or unit.published:
        bound[name] = spec
    return _judge_known(name, unit, kept)


def _judge_known(name: str, unit: Unit, kept: Kept) -> Finding:
    if not unit.live:
        return Finding(OK, "unit", name, f"stays as it is ({unit.phase.value}): it has no process")
    if kept.leader is not None:
        return Finding(OK, "unit", name, f"goes on with its process {kept.leader} ({unit.phase.value})")
    if kept.others:
        said = "its main process has ended, and others of it live: they are ended, and it goes on as after any exit"
        return Finding(WARNING, "unit", name, said)
    return Finding(WARNING, "unit", name, "its process has ended: it goes on as after any exit")


def _judge_unknown(name: str, kept: Kept, why: str) -> Finding:
    if not kept.lives:
        return Finding(OK, "unit", name, f"begins afresh: {why}, and nothing of it lives")
    pid = kept.leader or kept.others[0]
    said = f"would be taken out of traffic, ended (process {pid}) and started again: {why}"
    return Finding(PROBLEM, "unit", name, said, f"unitctl restart {name}, when that suits, and ask again")


def sum_up(findings: Iterable[Finding], *, each: bool) -> list[Finding]:
    """Units that are well are counted unless `each` is asked for."""
    every = sorted(findings, key=lambda finding: _OUTCOMES.index(finding.outcome))
    well = [finding for finding in every if finding.outcome == OK]
    if each or len(well) < 2:
        return every or [Finding(OK, "unit", "units", "there are none on record")]
    going = sum(finding.message.startswith("goes on") for finding in well)
    said = f"going on with the processes that they have: {going}; without one, as before: {len(well) - going}"
    return [*(finding for finding in every if finding.outcome != OK), Finding(OK, "unit", "units", said)]


def judge_plan(bound: Mapping[str, UnitSpec], known: Collection[str], specs: Mapping[str, UnitSpec]) -> list[Finding]:
    """What the configuration would do to units as soon as the next daemon reads it.

    `bound` are the specs that units go on with, `known` all that are on record, `specs` what the files say.
    """
    findings = [found for change in plan(bound, specs) if (found := _judge_change(change, known, specs)) is not None]
    return findings or [Finding(OK, "plan", "plan", "nothing that the files say would touch a unit")]


def _judge_change(change: Change, known: Collection[str], specs: Mapping[str, UnitSpec]) -> Finding | None:
    keys = ", ".join(change.keys)
    match change.effect:
        case Effect.RESTART:
            said = f"would be restarted, for its configuration has changed: {keys}"
            return Finding(PROBLEM, "plan", change.unit, said, "unitctl diff, then unitctl apply, and ask again")
        case Effect.REMOVED:
            said = "would be stopped: it is not in the configuration any more"
            return Finding(PROBLEM, "plan", change.unit, said, "unitctl diff, then unitctl apply, and ask again")
        case Effect.LIVE | Effect.REREGISTER:
            return Finding(OK, "plan", change.unit, f"goes on, with new values of {keys}")
        case Effect.NEW if change.unit not in known and specs[change.unit].autostart:
            return Finding(WARNING, "plan", change.unit, "is new, and would be started")
    return None


def is_ready(findings: Iterable[Finding]) -> bool:
    """Nothing stands against it, and nothing that matters is unknown."""
    return all(finding.outcome in (OK, WARNING) for finding in findings)
