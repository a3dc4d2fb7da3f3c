"""What the kernel knows of a process: memory, CPU time, context switches (proc(5))."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Work:
    """What all threads of a process have done since it began."""

    cpu_ms: float
    voluntary: int
    involuntary: int

    def since(self, earlier: Work) -> Work:
        """What was done in between."""
        return Work(
            self.cpu_ms - earlier.cpu_ms,
            self.voluntary - earlier.voluntary,
            self.involuntary - earlier.involuntary,
        )


def work_of(pid: int) -> Work:
    """Summed over the threads that live; CPU time from schedstat, which counts nanoseconds."""
    cpu_ns = voluntary = involuntary = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        cpu_ns += int((thread / "schedstat").read_text().split()[0])
        status = dict(line.split(":", 1) for line in (thread / "status").read_text().splitlines())
        voluntary += int(status["voluntary_ctxt_switches"])
        involuntary += int(status["nonvoluntary_ctxt_switches"])
    return Work(cpu_ns / 1e6, voluntary, involuntary)


def memory_of(pid: int) -> dict[str, float]:
    """MiB: `pss` (shared pages divided by their users), `own` (pages of this process alone)."""
    found: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":", 1)
        found[name] = int(value.split()[0])
    return {"pss": found["Pss"] / 1024, "own": (found["Private_Clean"] + found["Private_Dirty"]) / 1024}


def peak_of(pid: int) -> float:
    """MiB: the most that the process had in memory since it began, shared pages included (VmHWM)."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024
