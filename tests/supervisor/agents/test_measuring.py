"""Why units get new processes, and how many requests they lose: counted as it happens."""

from __future__ import annotations

from pathlib import Path

from supervisor.agents.measuring import Measuring
from supervisor.core.events import Drain, Drained, LivenessLost, RestartRequested, Spawn, TimerFired
from supervisor.core.measures import Measures
from supervisor.core.model import DrainSpec, Phase, RestartPolicy
from tests.supervisor.agents.fleet import Fleet, plain, service
from tests.supervisor.running import run

AT_ONCE = RestartPolicy(settle_seconds=0.0, backoff_initial=0.0, startretries=5)


class Counted:
    """A fleet whose units are counted."""

    def __init__(self, folder: Path) -> None:
        self.fleet = Fleet(
            folder, [plain("job", restart=AT_ONCE), service("cart:0", restart=AT_ONCE, drain=DrainSpec())]
        )
        self.measures = Measures()
        measuring = Measuring(self.measures, lambda name: self.fleet.operations.open_of(name) is not None)
        self.fleet.runners.observe(measuring.on_change)

    @property
    def restarts(self) -> dict[tuple[str, ...], int]:
        return self.measures.restarts.values


def test_a_start_is_no_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        counted = Counted(tmp_path)
        counted.fleet.start("job", "cart:0")
        counted.fleet.stop("job")
        counted.fleet.start("job")
        counted.fleet.close()
        assert counted.restarts == {}

    run(scenario())


def test_an_ordered_restart_is_one_by_command(tmp_path: Path) -> None:
    async def scenario() -> None:
        counted = Counted(tmp_path)
        counted.fleet.up("job", "cart:0")
        counted.fleet.restart("job")
        counted.fleet.restart("cart:0")
        counted.fleet.restart("cart:0")
        counted.fleet.close()
        assert counted.restarts == {("job", "command"): 1, ("cart:0", "command"): 2}

    run(scenario())


def test_a_restart_of_an_applied_configuration_is_one_by_config(tmp_path: Path) -> None:
    async def scenario() -> None:
        counted = Counted(tmp_path)
        counted.fleet.up("job")
        counted.fleet.runners.by_name["job"].next_spec = plain("job", umask=0)
        counted.fleet.restart("job")
        counted.fleet.close()
        assert counted.restarts == {("job", "config"): 1}

    run(scenario())


def test_a_restart_that_nobody_ordered_takes_over_what_an_earlier_daemon_left(tmp_path: Path) -> None:
    async def scenario() -> None:
        counted = Counted(tmp_path)
        counted.fleet.up("job")
        counted.fleet.runners.post("job", RestartRequested())
        counted.fleet.close()
        assert counted.restarts == {("job", "recovery"): 1}

    run(scenario())


def test_a_process_that_ends_by_itself_is_a_crash(tmp_path: Path) -> None:
    async def scenario() -> None:
        counted = Counted(tmp_path)
        counted.fleet.up("job")
        counted.fleet.exits("job", code=1)
        assert counted.fleet.phase("job") is Phase.RUNNING
        counted.fleet.close()
        assert counted.restarts == {("job", "crash"): 1}

    run(scenario())


def test_a_process_that_cannot_be_started_is_told_from_a_crash(tmp_path: Path) -> None:
    async def scenario() -> None:
        counted = Counted(tmp_path)
        counted.fleet.up("job")
        counted.fleet.held.add(Spawn)
        counted.fleet.exits("job", code=1)
        counted.fleet.exits("job", stage="exec", errno=11)
        counted.fleet.close()
        assert counted.restarts == {("job", "crash"): 1, ("job", "spawn"): 1}

    run(scenario())


def test_a_unit_that_only_seems_alive_is_restarted_for_its_liveness(tmp_path: Path) -> None:
    async def scenario() -> None:
        counted = Counted(tmp_path)
        counted.fleet.up("cart:0")
        attempt = counted.fleet.runners.by_name["cart:0"].unit.attempt
        counted.fleet.runners.post("cart:0", LivenessLost(attempt, "no answer"))
        counted.fleet.close()
        assert counted.restarts == {("cart:0", "liveness"): 1}

    run(scenario())


def test_a_unit_that_was_not_ready_in_time_is_restarted_for_its_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        counted = Counted(tmp_path)
        counted.fleet.up("job")
        counted.fleet.held.add(Spawn)
        counted.fleet.exits("job", code=1)
        unit = counted.fleet.runners.by_name["job"].unit
        counted.fleet.runners.post("job", TimerFired(unit.timer))
        counted.fleet.close()
        assert counted.restarts == {("job", "crash"): 1, ("job", "start"): 1}

    run(scenario())


def test_who_restarts_what_is_ending_by_itself_has_ordered_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        counted = Counted(tmp_path)
        counted.fleet.up("cart:0")
        counted.fleet.held.add(Drain)
        counted.fleet.restart("cart:0")
        counted.fleet.start("cart:0")
        counted.fleet.release(Drain)
        counted.fleet.close()
        assert counted.restarts == {("cart:0", "command"): 1}

    run(scenario())


def test_requests_that_were_cut_are_counted(tmp_path: Path) -> None:
    async def scenario() -> None:
        counted = Counted(tmp_path)
        counted.fleet.up("cart:0")
        counted.fleet.held.add(Drain)
        counted.fleet.stop("cart:0")
        attempt = counted.fleet.runners.by_name["cart:0"].unit.attempt
        counted.fleet.runners.post("cart:0", Drained(attempt, cut=3))
        counted.fleet.close()
        assert counted.measures.requests_cut.values == {("cart:0",): 3}

    run(scenario())
