"""What `unitctl doctor` thinks of the facts: each function takes what was measured and answers findings.

Pure: who measures is `agents.doctor`, `host.doctor`, `folders` and `unitctl`. A *problem* loses requests, units or
commands sooner or later; a *warning* is a reserve that is small, or a protection that is missing; *unknown* could not
be looked at. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from .model import DrainSpec, UnitSpec

OK, WARNING, PROBLEM, UNKNOWN = "ok", "warning", "problem", "unknown"

BEAT_SHARE, BEAT_JITTER, RETRY_SHARE = 1 / 3, 0.1, 0.15  # of the ttl: pause between beats, and longest one after a miss
CLOCK_SECONDS = 1.0  # two clocks may be that far apart
DESCRIPTORS_OF_DAEMON, DESCRIPTORS_OF_UNIT = 64, 4  # a unit's: two pipes, a pidfd, and its cgroup or its notify socket
FULL_SHARE = 0.8  # of a limit
LEAST_BYTES, FEW_BYTES = 16 * 1024 * 1024, 256 * 1024 * 1024
LEAST_INODES, FEW_INODES = 64, 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check of one thing: what was found in one sentence, and what to do ("": nothing)."""

    outcome: str  # ok | warning | problem | unknown
    check: str  # which check: the same word in every version
    subject: str  # what it looked at, for people
    message: str
    action: str = ""


# Registries.


def span(seconds: float) -> str:
    """A length of time for people: `0.02 ms`, `1.2 ms`, `340 ms`, `12.5 s`."""
    if seconds >= 0.9995:
        return f"{seconds:.1f} s"
    return f"{_milliseconds(seconds)} ms"


def _milliseconds(seconds: float) -> str:
    number = seconds * 1000
    return f"{number:.0f}" if number >= 99.5 else f"{number:.1f}" if number >= 0.095 else f"{number:.2f}"


def _latency(seconds: Collection[float]) -> str:
    """`1.2 ms (0.9 to 2.1)`."""
    middle, ends = sorted(seconds)[len(seconds) // 2], (min(seconds), max(seconds))
    if ends[1] >= 0.9995:
        return f"{span(middle)} ({span(ends[0])} to {span(ends[1])})"
    return f"{span(middle)} ({_milliseconds(ends[0])} to {_milliseconds(ends[1])})"


def units_of(count: int) -> str:
    """`1 unit`, `2 units`."""
    return f"{count} unit" if count == 1 else f"{count} units"


def judge_latency(subject: str, what: str, seconds: Collection[float], timeout: float) -> Finding:
    """How fast a registry answers, against the time that a call may take. `what` it is, and where."""
    text = f"{what}, {_latency(seconds)}"
    if max(seconds) <= timeout / 2:
        return Finding(OK, "registry", subject, text)
    return Finding(
        WARNING,
        "registry",
        subject,
        f"{text}, where a call may take {span(timeout)}: renewals will be late or fail",
        "find out what makes the registry slow, or give its entries a longer ttl",
    )


def judge_ttl(subject: str, asked: float, granted: float, timeout: float, slowest: float, bound: float) -> Finding:
    """Whether leases of that ttl survive one lost beat. `slowest` answer that was seen, `bound` of a removal."""
    beat = granted * BEAT_SHARE
    spare = granted - beat * (1 + BEAT_JITTER) - timeout - granted * RETRY_SHARE - slowest
    text = f"{asked:g} s, renewed every {beat:.1f} s, gone at most {bound:.1f} s after the last renewal"
    if spare < 0:
        outcome = PROBLEM if spare < -granted * RETRY_SHARE else WARNING
        said = f"{text}; a call may take {span(timeout)}, so after one lost call the next renewal can come too late"
        action = f"set its timeout to at most {granted / 6:.1f} s, or a longer ttl"
        return Finding(outcome, "ttl", subject, said, action)
    if abs(granted - asked) > 0.01:
        so = "entries are seen longer than is written down" if granted > asked else "entries die earlier"
        said = f"{granted:g} s are granted where {asked:g} s were asked for, so {so}"
        return Finding(WARNING, "ttl", subject, said, f"set ttl_seconds to {granted:g} where {asked:g} is set")
    return Finding(OK, "ttl", subject, text)


def judge_settle(specs: Iterable[UnitSpec], slowest: float) -> Finding | None:
    """Whether what was sent just before an entry went is waited for. None: there are no registered units."""
    registered = [spec for spec in specs if spec.service is not None]
    if not registered:
        return None
    short = [spec.name for spec in registered if spec.restart.settle_seconds < slowest]
    if not short:
        least = min(spec.restart.settle_seconds for spec in registered)
        return Finding(OK, "settle", "settle", f"{least:g} s or more, and registries answer within {span(slowest)}")
    return Finding(
        WARNING,
        "settle",
        "settle",
        f"{names_of(short)}: shorter than the slowest answer of a registry ({span(slowest)}), so readers may still "
        "send to a unit that is told to refuse",
        f"set settle_seconds to {max(0.5, 2 * slowest):.1f} or more",
    )


def judge_clock(subject: str, clock: float, resolution: float, asked_at: float, answered_at: float) -> Finding:
    """How far a registry's clock is from ours; all unix seconds. What cannot be known is left out of the difference."""
    least, most = clock - answered_at, clock + resolution - asked_at
    middle, doubt = (least + most) / 2, (most - least) / 2
    text = f"{span(abs(middle))} {'ahead of' if middle >= 0 else 'behind'} ours, give or take {span(doubt)}"
    if least <= CLOCK_SECONDS and most >= -CLOCK_SECONDS:
        return Finding(OK, "clock", subject, text)
    said = f"{text}: leases do not mind, but the times in entries, events and logs of several hosts do not fit together"
    return Finding(WARNING, "clock", subject, said, "let both hosts follow a time server (chrony, systemd-timesyncd)")


def judge_jump(before: float, now: float) -> Finding:
    """Whether the wall clock was set while the daemon ran: how far it was, and is, from the monotonic one."""
    jump = now - before
    if abs(jump) <= CLOCK_SECONDS:
        return Finding(OK, "clock", "clock of this host", "not set since unitd was started")
    way = "forward" if jump > 0 else "back"
    said = f"set {way} by {span(abs(jump))} since unitd was started: no wait was wrong, but times of events jump"
    return Finding(WARNING, "clock", "clock of this host", said, "see why the clock was set (chronyc tracking)")


@dataclass(frozen=True, slots=True)
class Held:
    """An entry of this node, in a registry or in the daemon's own books."""

    service: str
    instance: str
    unit: str
    generation: int

    def __str__(self) -> str:
        return f"{self.instance} of {self.service} (generation {self.generation})"


def judge_entries(
    subject: str, found: Collection[Held], known: Collection[Held], bound: float, *, can_delete: bool
) -> list[Finding]:
    """Entries of this node in a registry that no unit of this daemon holds.

    `known` are those that units hold, or held a moment ago.
    """
    newest: dict[tuple[str, str], int] = {}
    for item in known:
        place = item.service, item.instance
        newest[place] = max(item.generation, newest.get(place, item.generation))
    findings = []
    for item in sorted(set(found) - set(known), key=str):
        if item.generation > newest.get((item.service, item.instance), item.generation):
            said = f"{item} is newer than what this daemon has: another unitd has the same node name, or its state_dir"
            action = "give each unitd its own node name and its own state_dir"
            findings.append(Finding(PROBLEM, "entries", subject, f"{said} was lost", action))
        else:
            said = f"{item} belongs to no unit of this daemon: an earlier one, or a removed unit, has left it"
            findings.append(Finding(WARNING, "entries", subject, said, _how_it_goes(bound, can_delete)))
    return findings or [Finding(OK, "entries", subject, f"{len(found)} of this node, none of them stale")]


def _how_it_goes(bound: float, can_delete: bool) -> str:
    by_hand = " (delete it then)" if can_delete else ""
    return (
        f"ask again in {bound:.1f} s: by then it has expired, unless somebody else renews it "
        f"(another unitd of the same node name), or it has no ttl{by_hand}"
    )


def judge_missing(subject: str, missing: Mapping[str, str]) -> Finding:
    """Units that serve and are not in a registry: dict[unit, why]."""
    if not missing:
        return Finding(OK, "missing", subject, "every unit that serves is there")
    first = next(iter(missing))
    said = f"{names_of(missing)} serve, and nobody finds them: {first}: {missing[first]}"
    return Finding(PROBLEM, "missing", subject, said, f"unitctl why {first}")


def names_of(names: Iterable[str]) -> str:
    """Some names of many: `a, b, c and 4 more`."""
    every = list(names)
    more = f" and {len(every) - 3} more" if len(every) > 3 else ""
    return ", ".join(every[:3]) + more


# Ends.


def way_out(spec: UnitSpec, bound: float) -> float:
    """The longest time from a unit's withdrawal to the end of its process; `bound` of a removal by expiry."""
    seconds = spec.stopwaitsecs
    if spec.service is not None:
        restart = spec.restart
        seconds += bound + restart.gateway_seconds + restart.settle_seconds + (spec.drain or DrainSpec()).timeout
    return seconds


def longest_way_out(specs: Mapping[str, UnitSpec], bounds: Mapping[str, float]) -> tuple[float, tuple[str, ...]]:
    """The longest time to take down all units, which go after those that depend on them; and by which groups."""
    groups: dict[str, float] = {}
    above: dict[str, set[str]] = {}  # group -> those that depend on it, and so go first
    for name, spec in specs.items():
        groups[spec.group] = max(groups.get(spec.group, 0.0), way_out(spec, bounds.get(name, 0.0)))
        for needed in spec.depends_on:
            above.setdefault(needed, set()).add(spec.group)
    ends: dict[str, tuple[float, tuple[str, ...]]] = {}
    waiting = list(groups)
    while waiting:  # no recursion: a chain may be as long as the configuration, and has no circles
        group = waiting[-1]
        first = [other for other in above.get(group, ()) if other in groups]
        if group in ends or (undone := [other for other in first if other not in ends]) == []:
            waiting.pop()
            seconds, path = max((ends[other] for other in first), default=(0.0, ()))
            ends[group] = ends.get(group, (seconds + groups[group], (*path, group)))
        else:
            waiting.extend(undone)
    return max(ends.values(), default=(0.0, ()))


def judge_stop_limit(limit: float | None, seconds: float, groups: Iterable[str]) -> Finding:
    """systemd's TimeoutStopSec (None: it waits for ever) against the longest way out."""
    text = f"stopping all units takes at most {seconds:.0f} s"
    if limit is None or limit > seconds:
        waits = "waits for ever" if limit is None else f"waits {limit:g} s"
        return Finding(OK, "stop_limit", "systemd", f"{text}, and systemd {waits}")
    said = f"{text} ({' then '.join(groups)}), but systemd kills everything after TimeoutStopSec={limit:g}"
    action = f"systemctl edit unitd: [Service] TimeoutStopSec={int(seconds * 1.2) + 10}"
    return Finding(PROBLEM, "stop_limit", "systemd", said, action)


# The machine.


def judge_cgroup(setting: str, home: str | None, controllers: Collection[str], limited: Collection[str]) -> Finding:
    """Whether units have cgroups. `limited` are the units with memory_max or pids_max."""
    lost = "what a unit leaves behind is found by its session alone"
    if home is None:
        said = "switched off" if setting == "off" else "there is no delegated cgroup v2"
        if limited:
            text = f"{said}: memory_max and pids_max of {names_of(limited)} have no effect, and {lost}"
            return Finding(PROBLEM, "cgroup", "cgroups", text, _DELEGATE)
        if setting == "off":
            return Finding(OK, "cgroup", "cgroups", f"{said}: {lost}")
        outcome = WARNING if setting == "auto" else PROBLEM
        return Finding(outcome, "cgroup", "cgroups", f"{said}: {lost}, and limits cannot be set", _DELEGATE)
    missing = sorted({"memory", "pids"}.difference(controllers))
    if missing and limited:
        said = f"{home} has no controller {' and no '.join(missing)}: limits of {names_of(limited)} have no effect"
        return Finding(PROBLEM, "cgroup", "cgroups", said, _DELEGATE)
    more = f" (without {' and '.join(missing)}: no limits can be set)" if missing else ""
    return Finding(OK, "cgroup", "cgroups", f"units have theirs below {home}{more}")


_DELEGATE = "run unitd under systemd with Delegate=yes, or set daemon.cgroup to a delegated cgroup v2 folder"


def judge_descriptors(limit: int | None, in_use: int, units: int) -> Finding:
    """The limit of open files of the daemon (None: unlimited) against what its units need."""
    needed = max(DESCRIPTORS_OF_DAEMON + DESCRIPTORS_OF_UNIT * units, in_use)
    allowed = limit if limit is not None else "any number"
    text = f"{in_use} open, {needed} needed when {units_of(units)} run, {allowed} allowed"
    action = f"LimitNOFILE={max(65536, 2 * needed)} in unitd.service"
    return _judge_limit("descriptors", "open files", text, limit, needed, action)


def judge_processes(name: str, limit: int | None, in_use: int, units: int) -> Finding:
    """A limit of processes (`name`: where it is) against what is there and what units would add."""
    needed = in_use + units
    allowed = limit if limit is not None else "any number"
    text = f"{name}: {in_use} in use, {allowed} allowed, and {units_of(units)} will need as many more"
    action = "TasksMax=infinity in unitd.service, or raise the limit that is named"
    return _judge_limit("processes", "processes", text, limit, needed, action)


def _judge_limit(check: str, subject: str, text: str, limit: int | None, needed: int, action: str) -> Finding:
    if limit is None or needed <= limit * FULL_SHARE:
        return Finding(OK, check, subject, text)
    return Finding(PROBLEM if needed > limit else WARNING, check, subject, text, action)


def judge_room(check: str, path: str, free_bytes: int, free_inodes: int | None, *, writable: bool) -> Finding:
    """Whether a folder can be written to. `free_inodes` is None where the file system does not count them."""
    inodes = "" if free_inodes is None else f", {free_inodes} inodes"
    text = f"{free_bytes / 1024 / 1024:.0f} MiB{inodes} left"
    if not writable:
        return Finding(PROBLEM, check, check, f"{path} cannot be written to", "give it to the user that unitd runs as")
    few = FEW_INODES if free_inodes is None else free_inodes
    if free_bytes >= FEW_BYTES and few >= FEW_INODES:
        return Finding(OK, check, check, f"{path} can be written to, {text}")
    outcome = PROBLEM if free_bytes < LEAST_BYTES or few < LEAST_INODES else WARNING
    return Finding(outcome, check, check, f"{path}: only {text}", "make room on that file system")
