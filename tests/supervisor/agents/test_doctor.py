"""The doctor in the daemon: registries that answer, that fail in every way, that hold what they should not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from registry_client.backend import Inspection
from registry_client.errors import RegistryRejected, RegistryUnavailable
from registry_client.lease import Lease, confirmed
from registry_client.model import Entry, Snapshot
from registry_client.testing import FakeBackend
from supervisor.agents import doctor
from supervisor.agents.doctor import Doctor, Patient, Surroundings
from supervisor.agents.entry import node_entry, unit_entry
from supervisor.core.doctor import Finding
from supervisor.core.model import DaemonSpec, RestartPolicy, UnitSpec
from supervisor.host.clock import iso, monotonic, wall
from supervisor.host.traffic import Sockets
from tests.supervisor.agents.fleet import plain, service
from tests.supervisor.running import run

TTL = 10.0


class Registry(FakeBackend):
    """One whose words about itself a test decides."""

    def __init__(self) -> None:
        super().__init__()
        self.says: dict[str, Any] = {}
        self.asked_about: list[float] = []

    async def inspect(self, ttl_seconds: float) -> Inspection:
        self.asked_about.append(ttl_seconds)
        return replace(await super().inspect(ttl_seconds), **self.says)


@dataclass
class Host:
    """A daemon whose units are what a test says."""

    folder: Path
    registry: Registry = field(default_factory=Registry)
    specs: dict[str, UnitSpec] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    serving: dict[str, int] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    timeout_seconds: float = 1.0
    url: str = ""
    sockets: Sockets = field(default_factory=Sockets)
    clocks_apart: float = field(default_factory=lambda: wall() - monotonic())

    def add(self, name: str, attempt: int = 1) -> Entry:
        """A unit that serves, and its entry, which is in no registry yet."""
        spec = self.specs[name] = service(name, restart=RestartPolicy())
        assert spec.service is not None
        entry = unit_entry("here", spec, spec.service, attempt, iso())
        self.entries.append(entry)
        self.serving[name] = attempt
        self.leases[name] = confirmed(Lease(TTL), 1.0, 1.0, TTL)
        return entry

    def patient(self, name: str = "main", backend: Any = None) -> Patient:
        return Patient(
            name, backend or self.registry, self.url, TTL, self.timeout_seconds,
            lambda ttl: ttl, self.leases.get, lambda unit: self.troubles.get(unit, ""),
        )  # fmt: skip

    def doctor(self, *patients: Patient) -> Doctor:
        spec = DaemonSpec("here", socket=str(self.folder / "s"), state_dir=str(self.folder), log_dir=str(self.folder))
        return Doctor(
            patients or [self.patient()],
            Surroundings(
                spec, lambda: self.specs, lambda: self.entries, lambda: dict(self.serving), dict, None, frozenset,
                self.sockets, self.clocks_apart,
            ),
        )  # fmt: skip

    async def examine(self, *patients: Patient) -> tuple[list[Finding], Mapping[str, Any]]:
        return await self.doctor(*patients).examine()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.sockets.close()


def of(findings: list[Finding], check: str) -> list[Finding]:
    return [finding for finding in findings if finding.check == check]


def outcome(findings: list[Finding], check: str) -> str:
    (found,) = of(findings, check)
    return found.outcome


def test_a_host_in_order_has_no_problem(host: Host) -> None:
    async def scenario() -> None:
        await host.registry.register(host.add("web"), TTL)
        own = node_entry(DaemonSpec("here"), ("127.0.0.1", 9301), 1, iso())
        host.entries.append(own)
        await host.registry.register(own, TTL)
        findings, facts = await host.examine()
        registered = [item for item in findings if item.check in ("registry", "ttl", "entries", "missing", "settle")]
        assert [item.outcome for item in registered] == ["ok"] * 5, registered
        assert "2 of this node" in of(findings, "entries")[0].message
        assert {item.outcome for item in of(findings, "clock")} == {"ok"}
        assert not {"registry", "state_dir", "log_dir", "journal", "sockets", "cgroup"} - {
            item.check for item in findings
        }
        assert facts["units"] == 1 and facts["way_out_groups"] == ["web"]
        assert facts["way_out_seconds"] > TTL + 30 + 10

    run(scenario())


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RegistryUnavailable("cannot reach it: refused"), "refused"),
        (RegistryRejected("cannot read: denied", code="permission_denied"), "denied"),
        (ZeroDivisionError("oops"), "its backend failed"),
    ],
)
@pytest.mark.parametrize("at", ["get", "inspect", "list"])
def test_a_registry_that_fails_is_a_problem_and_spoils_nothing_else(
    host: Host, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str, at: str
) -> None:
    async def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(host.registry, at, fail)

    async def scenario() -> None:
        findings, _ = await host.examine(host.patient(), host.patient("old", Registry()))
        (found,) = [item for item in of(findings, "registry") if item.outcome == "problem"]
        assert found.subject == "registry main" and words in found.message and found.action
        assert [item.outcome for item in of(findings, "registry") if item.subject == "registry old"] == ["ok"]
        assert outcome(findings, "state_dir") in ("ok", "warning")
        if at == "list":
            assert [item.outcome for item in of(findings, "ttl")] == ["ok", "ok"], "what was answered counts"

    run(scenario())


def test_a_registry_that_hangs_is_given_up(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "REGISTRY_SECONDS", 0.05)
    host.registry.hang()

    async def scenario() -> None:
        findings, _ = await host.examine()
        assert [item.outcome for item in of(findings, "registry")] == ["problem"]
        host.registry.release()

    run(scenario())


def test_warnings_and_an_odd_clock_of_the_registry_are_passed_on(host: Host) -> None:
    host.registry.says = {"warnings": ("its disk is full; make room",), "clock": wall() + 90, "version": "1.8.7"}
    host.url = "http://user:secret@127.0.0.1:8500"

    async def scenario() -> None:
        findings, _ = await host.examine()
        main = [item for item in findings if item.subject == "registry main"]
        assert [item.outcome for item in main] == ["ok", "warning"]
        assert main[0].message.startswith("fake 1.8.7 at http://127.0.0.1:8500, ") and "secret" not in str(findings)
        assert main[1].message == "its disk is full; make room"
        assert [item.outcome for item in of(findings, "clock")] == ["warning", "ok"]

    run(scenario())


def test_another_ttl_than_asked_for_and_calls_that_take_too_long_are_told(host: Host) -> None:
    async def scenario() -> None:
        host.registry.says = {"granted_ttl_seconds": 20.0}
        assert outcome((await host.examine())[0], "ttl") == "warning"
        host.registry.says = {}
        host.timeout_seconds = 9.0
        assert outcome((await host.examine())[0], "ttl") == "problem"

    run(scenario())


def test_services_with_a_ttl_of_their_own_are_looked_at_too(host: Host) -> None:
    entry = host.add("web")
    assert host.specs["web"].service is not None
    host.specs["web"] = replace(host.specs["web"], service=replace(host.specs["web"].service, ttl_seconds=1.2))

    async def scenario() -> None:
        await host.registry.register(entry, TTL)
        findings, _ = await host.examine()
        assert host.registry.asked_about == [TTL, 1.2]
        assert [item.outcome for item in of(findings, "ttl")] == ["ok", "problem"], "a call may take 1 s"

    run(scenario())


def test_entries_of_nobody_are_stale_and_those_of_other_nodes_are_none_of_ours(host: Host) -> None:
    async def scenario() -> None:
        entry = host.add("web", attempt=3)
        await host.registry.register(entry, TTL)
        await host.registry.register(replace(entry, instance="here/old", unit="old", generation=8), TTL)
        await host.registry.register(replace(entry, instance="there/web", node="there"), TTL)
        findings, _ = await host.examine()
        (stale,) = of(findings, "entries")
        assert stale.outcome == "warning" and "here/old of web (generation 8)" in stale.message

    run(scenario())


def test_what_a_gateway_says_that_has_the_hosts_name_is_no_entry_of_a_unit(host: Host) -> None:
    async def scenario() -> None:
        await host.registry.register(host.add("web"), TTL)
        gateway = replace(host.entries[0], service="unit-gateway", instance="here.edge/web", unit="edge", generation=7)
        await host.registry.register(gateway, TTL)
        assert outcome((await host.examine())[0], "entries") == "ok"

    run(scenario())


def test_a_newer_entry_than_the_daemon_knows_is_a_problem(host: Host) -> None:
    async def scenario() -> None:
        await host.registry.register(replace(host.add("web", attempt=3), generation=9), TTL)
        assert outcome((await host.examine())[0], "entries") == "problem"

    run(scenario())


def test_an_entry_whose_unit_is_restarted_meanwhile_is_not_stale(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        old = host.add("web", attempt=3)
        await host.registry.register(old, TTL)
        listed = host.registry.list

        async def slow(service: str | None = None) -> Snapshot:
            snapshot = await listed(service)
            host.entries[:] = [replace(old, generation=4)]
            host.serving["web"] = 4
            return snapshot

        monkeypatch.setattr(host.registry, "list", slow)
        findings, _ = await host.examine()
        assert (outcome(findings, "entries"), outcome(findings, "missing")) == ("ok", "ok")

    run(scenario())


def test_units_that_serve_and_are_not_there_are_a_problem_with_their_reason(host: Host) -> None:
    host.add("web")
    host.add("api")
    host.troubles["api"] = "not registered: permission denied"

    async def scenario() -> None:
        (found,) = of((await host.examine())[0], "missing")
        assert found.outcome == "problem" and "web, api" in found.message and "although" in found.message
        await host.registry.register(host.entries[0], TTL)
        (found,) = of((await host.examine())[0], "missing")
        assert found.outcome == "problem" and "permission denied" in found.message

    run(scenario())


def test_a_unit_whose_registration_is_under_way_is_not_missing(host: Host) -> None:
    host.add("web")

    async def scenario() -> None:
        host.leases["web"] = Lease(TTL)
        assert outcome((await host.examine())[0], "missing") == "ok"
        del host.leases["web"]
        assert outcome((await host.examine())[0], "missing") == "ok"

    run(scenario())


def test_a_clock_that_was_set_since_the_start_is_told(host: Host) -> None:
    host.clocks_apart -= 100

    async def scenario() -> None:
        (found,) = [item for item in of((await host.examine())[0], "clock") if item.subject == "clock of this host"]
        assert found.outcome == "warning" and "forward by 100.0 s" in found.message

    run(scenario())


def test_a_disk_that_hangs_is_told_and_holds_up_one_thread_only(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    answers, threads = threading.Event(), list[str]()

    def hang(spec: DaemonSpec, *, as_daemon: bool) -> list[Finding]:
        threads.append(threading.current_thread().name)
        answers.wait(15)
        return []

    monkeypatch.setattr(doctor, "look_at_folders", hang)
    monkeypatch.setattr(doctor, "DISK_SECONDS", 0.05)

    async def scenario() -> None:
        examiner = host.doctor()
        for _ in range(3):
            findings, _ = await examiner.examine()
            assert (
                outcome(findings, "state_dir") == "problem" and "not answered" in of(findings, "state_dir")[0].message
            )
        assert threads == ["unitd-doctor"]
        answers.set()
        monkeypatch.setattr(doctor, "DISK_SECONDS", 10.0)
        assert outcome((await examiner.examine())[0], "journal") == "ok"

    try:
        run(scenario())
    finally:
        answers.set()


def test_those_who_ask_together_are_answered_one_after_the_other(host: Host) -> None:
    host.specs["job"] = plain("job")

    async def scenario() -> None:
        examiner = host.doctor()
        both = await asyncio.gather(examiner.examine(), examiner.examine())
        assert [facts["units"] for _, facts in both] == [1, 1]

    run(scenario())
