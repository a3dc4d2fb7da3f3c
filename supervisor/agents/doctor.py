"""`unitctl doctor` from within the daemon: asks its registries, its units and its machine whether all of it can work.

It looks and changes nothing. Each registry is asked by itself and within a limit of its own, so one that is away, or
whose backend fails, costs nothing but its own answers.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from registry_client.backend import Backend, Capability, Inspection
from registry_client.errors import RegistryError, RegistryRejected
from registry_client.gateways import GATEWAY_SERVICE
from registry_client.lease import Lease, rpc_timeout
from registry_client.model import Entry

from ..core.doctor import (
    PROBLEM,
    WARNING,
    Finding,
    Held,
    judge_clock,
    judge_entries,
    judge_jump,
    judge_latency,
    judge_missing,
    judge_settle,
    judge_ttl,
    longest_way_out,
)
from ..core.model import JOURNAL_VERSION, DaemonSpec, UnitSpec
from ..folders import journal_of, look_at_folders, look_at_sockets
from ..host import doctor as machine
from ..host.clock import monotonic, wall
from ..host.runner import Runner, Runners
from ..host.traffic import Sockets
from .entry import NODE_SERVICE
from .publisher import is_published
from .registries import Registries, Registry

CALLS = 5  # to learn how fast a registry answers
REGISTRY_SECONDS = 6.0  # for all questions to one registry
DISK_SECONDS = 3.0
OTHER_TTLS = 3
_SECRETS = re.compile(r"//[^/@]*@")


@dataclass(frozen=True, slots=True)
class Patient:
    """A registry of this host, and how it is used."""

    name: str
    backend: Backend
    url: str
    ttl_seconds: float
    timeout_seconds: float
    ttl: Callable[[float], float]  # what it is asked for where a service's own ttl is that
    lease: Callable[[str], Lease | None]  # of a unit, in this registry
    trouble: Callable[[str], str]  # why its last beats failed

    @property
    def subject(self) -> str:
        """What findings call it."""
        return f"registry {self.name}"

    @property
    def place(self) -> str:
        """Where it is, without what is secret."""
        return f" at {_SECRETS.sub('//', self.url)}" if self.url else " in this daemon"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the daemon tells of itself and of its units; everything is asked when it is needed."""

    spec: DaemonSpec
    specs: Callable[[], Mapping[str, UnitSpec]]
    entries: Callable[[], Sequence[Entry]]  # what the heartbeat agents hold; the daemon's own as well
    serving: Callable[[], Mapping[str, int]]  # units that are to be found in every registry -> their generation
    pids: Callable[[], Mapping[str, int]]  # of units with a service
    cgroups: Path | None  # the folder of the units' cgroups
    notify_sockets: Callable[[], frozenset[str]]
    sockets: Sockets
    clocks_apart: float  # the wall clock less the monotonic one, when the daemon was started


class Doctor:
    """One examination after the other; whoever asks meanwhile waits."""

    def __init__(self, patients: Sequence[Patient], surroundings: Surroundings) -> None:
        self._patients, self._host = patients, surroundings
        self._turn = asyncio.Lock()
        self._disks: asyncio.Future[list[Finding]] | None = None

    async def examine(self) -> tuple[list[Finding], dict[str, object]]:
        """All findings, and the facts that only the command line can judge: dict[name, value]."""
        async with self._turn:
            seen: list[float] = []  # seconds of the slowest answer of each registry that answers
            asked = await asyncio.gather(*(self._registry(patient, seen) for patient in self._patients))
            findings = [finding for found in asked for finding in found]
            settle = judge_settle(self._host.specs().values(), max(seen, default=0.0))
            findings += [settle] if settle is not None else []
            findings.append(judge_jump(self._host.clocks_apart, wall() - monotonic()))
            findings += self._machine()
            findings += await self._folders()
            return findings, self._facts()

    # Registries.

    async def _registry(self, patient: Patient, seen: list[float]) -> list[Finding]:
        findings: list[Finding] = []
        try:
            async with asyncio.timeout(REGISTRY_SECONDS):
                async for found in self._questions(patient, seen):
                    findings += found
        except RegistryRejected as error:
            findings.append(_failed(patient, str(error), "correct its options: rights, token, password"))
        except RegistryError as error:
            findings.append(_failed(patient, str(error), "see whether it runs, and whether this host may reach it"))
        except TimeoutError:
            said = f"its answers took more than {REGISTRY_SECONDS:g} s together"
            findings.append(_failed(patient, said, "find out what makes the registry slow"))
        except Exception as error:  # backends are plugins
            findings.append(_failed(patient, f"its backend failed: {error!r}", "tell whoever wrote the backend"))
        return findings

    async def _questions(self, patient: Patient, seen: list[float]) -> AsyncIterator[list[Finding]]:
        """One after the other: what was answered counts, even if the next question is not. Raises RegistryError."""
        seconds = [await self._timed_read(patient) for _ in range(CALLS)]
        seen.append(max(seconds))
        asked_at = wall()
        inspection = await patient.backend.inspect(patient.ttl_seconds)
        answered_at = wall()
        bound = patient.backend.removal_bound(inspection.granted_ttl_seconds)
        version = f" {inspection.version}" if inspection.version else ""
        what = f"{patient.backend.name}{version}{patient.place}"
        yield [judge_latency(patient.subject, what, seconds, patient.timeout_seconds)]
        yield [Finding(WARNING, "registry", patient.subject, warning) for warning in inspection.warnings]
        yield [_ttl(patient, patient.ttl_seconds, inspection, max(seconds))]
        for ttl in self._other_ttls(patient):
            yield [_ttl(patient, ttl, await patient.backend.inspect(ttl), max(seconds))]
        if inspection.clock is not None:
            resolution = inspection.clock_resolution_seconds
            yield [judge_clock(f"clock of {patient.name}", inspection.clock, resolution, asked_at, answered_at)]
        yield await self._entries(patient, bound)

    async def _timed_read(self, patient: Patient) -> float:
        began = monotonic()
        await patient.backend.get(NODE_SERVICE, self._host.spec.node)
        return monotonic() - began

    def _other_ttls(self, patient: Patient) -> list[float]:
        """Those of services that have their own: the shortest, for they are the ones that may not work."""
        services = [spec.service for spec in self._host.specs().values() if spec.service is not None]
        return sorted({patient.ttl(service.ttl_seconds) for service in services} - {patient.ttl_seconds})[:OTHER_TTLS]

    async def _entries(self, patient: Patient, bound: float) -> list[Finding]:
        """Entries of this node and units of this daemon, compared. Raises RegistryError.

        Units come and go meanwhile: what was right before or after the list was taken is right.
        """
        node, began = self._host.spec.node, monotonic()
        before, served = self._held(), self._host.serving()
        snapshot = await patient.backend.list()
        # A gateway beside this daemon may have the host's name, too.
        ours = (entry for entry in snapshot.entries if entry.node == node and entry.service != GATEWAY_SERVICE)
        found = [_held(entry) for entry in ours]
        can_delete = Capability.DEREGISTER in patient.backend.capabilities
        findings = judge_entries(
            f"entries in {patient.name}", found, {*before, *self._held()}, bound, can_delete=can_delete
        )
        present = {(item.unit, item.generation) for item in found}
        serving = {unit: attempt for unit, attempt in self._host.serving().items() if served.get(unit) == attempt}
        missing = {
            unit: why
            for unit, attempt in serving.items()
            if (unit, attempt) not in present and (why := _why_missing(patient, unit, began))
        }
        return [*findings, judge_missing(f"entries in {patient.name}", missing)]

    def _held(self) -> set[Held]:
        return {_held(entry) for entry in self._host.entries()}

    # The machine.

    def _machine(self) -> list[Finding]:
        specs, home = self._host.specs(), self._host.cgroups
        return [
            machine.look_at_cgroups(self._host.spec.cgroup, home, specs),
            machine.look_at_descriptors(len(specs)),
            *machine.look_at_processes(len(specs)),
            *machine.look_at_sight(self._host.sockets, self._host.pids()),
        ]

    async def _folders(self) -> list[Finding]:
        """A disk that hangs holds up one thread, however often somebody asks."""
        if self._disks is None or self._disks.done():
            self._disks = self._look_at_disks()
        done, _ = await asyncio.wait([self._disks], timeout=DISK_SECONDS)
        if done:
            return self._disks.result()
        said = f"their disk has not answered for {DISK_SECONDS:g} s"
        return [Finding(PROBLEM, "state_dir", "folders", said, "see what the kernel says of the disk (dmesg)")]

    def _look_at_disks(self) -> asyncio.Future[list[Finding]]:
        loop, spec, living = asyncio.get_running_loop(), self._host.spec, self._host.notify_sockets()
        found: asyncio.Future[list[Finding]] = loop.create_future()

        def look() -> None:
            findings = [
                *look_at_folders(spec, as_daemon=True),
                journal_of(spec.state_dir, JOURNAL_VERSION),
                *look_at_sockets(spec, living),
            ]
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(found.set_result, findings)

        # Not the loop's own threads: their end is awaited when the daemon ends.
        threading.Thread(target=look, name="unitd-doctor", daemon=True).start()
        return found

    def _facts(self) -> dict[str, object]:
        specs = self._host.specs()
        seconds, groups = longest_way_out(specs, {name: self._bound(spec) for name, spec in specs.items()})
        return {
            "wall": wall(), "manager_unit": machine.manager_unit(), "way_out_seconds": round(seconds, 3),
            "way_out_groups": list(groups), "units": len(specs),
        }  # fmt: skip

    def _bound(self, spec: UnitSpec) -> float:
        """How long its entry can be seen after the last beat: also where it is deleted, for that may fail."""
        if spec.service is None:
            return 0.0
        ttl = spec.service.ttl_seconds
        return max(patient.backend.removal_bound(patient.ttl(ttl)) for patient in self._patients)


def make_doctor(
    spec: DaemonSpec,
    registries: Registries,
    runners: Runners,
    *,
    cgroups: Path | None,
    notify_sockets: Callable[[], frozenset[str]],
    sockets: Sockets,
    clocks_apart: float,
) -> Doctor:
    """The doctor of a daemon; for the last four see `Surroundings`."""

    def units() -> Iterator[Runner]:
        return (runner for runner in runners.by_name.values() if runner.spec.service is not None)

    def entries() -> list[Entry]:
        known = (registries.entry(name) for name in (NODE_SERVICE, *runners.by_name))
        return [entry for entry in known if entry is not None]

    return Doctor(
        [_patient(item, spec) for item in registries.all],
        Surroundings(
            spec,
            specs=lambda: {name: runner.spec for name, runner in runners.by_name.items()},
            entries=entries,
            serving=lambda: {item.spec.name: item.unit.attempt for item in units() if is_published(item.unit)},
            pids=lambda: {item.spec.name: item.unit.pid for item in units() if item.unit.pid is not None},
            cgroups=cgroups,
            notify_sockets=notify_sockets,
            sockets=sockets,
            clocks_apart=clocks_apart,
        ),
    )


def _patient(registry: Registry, spec: DaemonSpec) -> Patient:
    ttl = registry.ttl(spec.registry_ttl_seconds)
    configured = next((item.timeout_seconds for item in spec.registries if item.name == registry.name), None)
    heartbeats = registry.heartbeats
    return Patient(
        registry.name, registry.backend, registry.url, ttl, configured or rpc_timeout(ttl), registry.ttl,
        heartbeats.lease, heartbeats.trouble,
    )  # fmt: skip


def _ttl(patient: Patient, ttl: float, inspection: Inspection, slowest: float) -> Finding:
    granted = inspection.granted_ttl_seconds
    bound = patient.backend.removal_bound(granted)
    return judge_ttl(f"ttl of {patient.name}", ttl, granted, patient.timeout_seconds, slowest, bound)


def _failed(patient: Patient, said: str, action: str) -> Finding:
    return Finding(PROBLEM, "registry", patient.subject, f"{patient.backend.name}{patient.place}: {said}", action)


def _held(entry: Entry) -> Held:
    return Held(entry.service, entry.instance, entry.unit, entry.generation)


def _why_missing(patient: Patient, unit: str, listed_at: float) -> str:
    """Why a unit that serves is not listed; "": it cannot be expected to be there yet."""
    if trouble := patient.trouble(unit):
        return trouble
    lease = patient.lease(unit)
    if lease is None or lease.sent_at is None or lease.last_possible_at is None:
        return ""
    return "its entry is not there although it was confirmed" if lease.last_possible_at < listed_at else ""
