"""What `unitctl doctor` asks this machine, from within the daemon: limits, cgroups, what may be seen of units.

It looks and changes nothing; what the numbers mean is `core.doctor`'s.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from pathlib import Path

from ..core.doctor import OK, WARNING, Finding, judge_cgroup, judge_descriptors, judge_processes, names_of
from ..core.model import UnitSpec
from .cgroup import own_cgroup
from .traffic import Sockets


def look_at_cgroups(setting: str, home: Path | None, specs: Mapping[str, UnitSpec]) -> Finding:
    """Whether units have cgroups, and their limits an effect. `home` is the folder of those of units."""
    limited = [
        name for name, spec in specs.items() if spec.limits.memory_max is not None or spec.limits.pids_max is not None
    ]
    controllers = _words(home / "cgroup.subtree_control") if home is not None else []
    return judge_cgroup(setting, str(home) if home is not None else None, controllers, limited)


def look_at_descriptors(units: int) -> Finding:
    """This process's limit of open files."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    known = None if limit == resource.RLIM_INFINITY else limit
    return judge_descriptors(known, len(os.listdir("/proc/self/fd")) - 1, units)


def look_at_processes(units: int) -> list[Finding]:
    """The limits of processes that count for units: of the user (not root's), of the cgroups, of the kernel."""
    findings = [
        judge_processes(f"pids.max of {folder}", limit, used, units) for folder, limit, used in _cgroup_limits()
    ]
    limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if os.geteuid() != 0 and limit != resource.RLIM_INFINITY:  # root is not bound by it, setrlimit(2)
        findings.append(judge_processes("RLIMIT_NPROC", limit, _tasks_of(os.geteuid()), units))
    findings.append(judge_processes("threads of the kernel", _number("/proc/sys/kernel/threads-max"), _tasks(), units))
    return [finding for finding in findings if finding.outcome != OK] or findings[:1]


def _cgroup_limits() -> list[tuple[str, int, int]]:
    """(folder, limit, in use) of our cgroup and those above it that have a limit."""
    own = own_cgroup()
    found = []
    for folder in () if own is None else (own, *own.parents):
        limit, used = _number(folder / "pids.max"), _number(folder / "pids.current")
        if limit is not None and used is not None:
            found.append((str(folder), limit, used))
    return found


def _number(path: str | Path) -> int | None:
    """The number in a file; None: there is no file, or it says `max`."""
    words = _words(Path(path))
    return int(words[0]) if words and words[0].isdigit() else None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _tasks() -> int:
    """How many tasks there are on this machine: the `12/345` of proc(5), /proc/loadavg."""
    words = _words(Path("/proc/loadavg"))
    return int(words[3].partition("/")[2]) if len(words) > 3 else 0


def _tasks_of(uid: int) -> int:
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == uid:
                    count += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                continue
    return count


def look_at_sight(sockets: Sockets, pids: Mapping[str, int]) -> list[Finding]:
    """Whether connections of units, and who owns their ports, can be seen. `pids` of units with a service."""
    return [_look_at_connections(sockets), _look_at_owners(pids)]


def _look_at_connections(sockets: Sockets) -> Finding:
    subject = "connections"
    try:
        sockets.connections("127.0.0.1", 1)
    except OSError as error:
        said = f"the kernel does not list them (sock_diag: {error.strerror}): a drain of a unit takes its whole time"
        return Finding(WARNING, "sight", subject, said, "load the kernel modules inet_diag and tcp_diag, or let units "
                       "tell what is in flight (drain.in_flight)")  # fmt: skip
    return Finding(OK, "sight", subject, "the kernel lists them (sock_diag), so work in flight is seen")


def _look_at_owners(pids: Mapping[str, int]) -> Finding:
    subject = "owners of ports"
    blind = [unit for unit, pid in pids.items() if _is_hidden(pid)]
    if not blind:
        return Finding(OK, "sight", subject, "to be seen, for every registered unit that runs")
    said = f"{names_of(blind)}: /proc/PID/fd may not be read, so a stranger that listens on the port is not noticed"
    return Finding(WARNING, "sight", subject, said, "run unitd as root or with CAP_SYS_PTRACE")


def _is_hidden(pid: int) -> bool:
    try:
        os.listdir(f"/proc/{pid}/fd")
    except PermissionError:
        return True
    except OSError:
        return False  # it has ended
    return False


def manager_unit() -> str | None:
    """The systemd service that this daemon is; None: it is none."""
    if "INVOCATION_ID" not in os.environ:
        return None
    own = own_cgroup()
    names = own.parts if own is not None else ()
    return next((name for name in reversed(names) if name.endswith(".service")), None)
