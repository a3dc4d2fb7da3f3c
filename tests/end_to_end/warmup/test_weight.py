"""A new process gets a small share of the traffic that grows: what the registry shows, and whom clients choose."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime

import pytest

from bench.load import Load, Mix, following
from bench.load_account import Choice, Period, periods
from registry_client import Entry, open_backend
from registry_client.selection import eligible
from tests.end_to_end.drain.scene import Registry, ask, worker
from tests.end_to_end.host import ROOT, Host
from tests.end_to_end.machine import DEADLINE_SECONDS, until

PERIOD = 0.4
WARMUP = f"""
    [unit.NAME.warmup]
    initial = 20
    step = 40
    period = {PERIOD}
"""
READINESS = """
    [unit.NAME.readiness]
    http = "/healthz"
    period = 0.1
    failure_threshold = {failures}
"""
SERVER = f"{sys.executable} -S {ROOT / 'bench' / 'loaded_server.py'}"
FULL = ("up", 200)
KEYS = ("status", "weight", "full_weight", "warmup_seconds", "generation")


def _is_full(host: Host, unit: str, generation: int = 1) -> bool:
    entry = host.entry(host.unit(unit)["service"], unit)
    return bool(entry and entry["generation"] == generation and entry["weight"] == entry["full_weight"])


def _shop(host: Host, *, tables: str = WARMUP, count: int = 1) -> int:
    """The unit `shop` with the full weight 200, in traffic for the first time."""
    port = host.port(count)
    text = worker(host, "shop", port, count=count, tables=tables)
    host.configure(text.replace("ttl_seconds", "weight = 200\n    ttl_seconds"))
    host.run()
    return port


def test_its_weight_grows_in_the_steps_that_are_configured_and_the_entry_tells_of_the_ramp(host: Host) -> None:
    _shop(host)
    until("it has its full weight", lambda: _is_full(host, "shop"))
    before = datetime.now(UTC)

    with Registry(host, "shop") as registry:
        host.do("restart", "shop")
        status = host.unit("shop")
        assert (status["state"], status["full_weight"]) == ("WARMING", 200) and status["warmup"], status
        assert "warming" in status["why"]
        registry.wait("shop", 2, weight=200)
    after = datetime.now(UTC)

    said = registry.said("shop", *KEYS, generation=2)
    assert said == [
        ("warming", 40, 200, 2 * PERIOD, 2), ("warming", 120, 200, 2 * PERIOD, 2), ("up", 200, 200, 2 * PERIOD, 2),
    ]  # fmt: skip
    [(started_at,)] = registry.said("shop", "started_at", generation=2)
    assert before <= datetime.fromisoformat(started_at) <= after
    status = host.unit("shop")
    assert (status["state"], status["weight"], status["warmup"]) == ("RUNNING", 200, None)


def test_a_unit_without_the_table_has_its_full_weight_at_once(host: Host) -> None:
    _shop(host, tables="")
    entry = host.until_registered("shop")
    assert (entry["status"], entry["weight"], entry["warmup_seconds"]) == ("up", 200, 0)


def test_its_weight_stands_still_while_the_readiness_probe_fails_though_not_yet_for_good(host: Host) -> None:
    port = _shop(host, tables=WARMUP + READINESS.format(failures=1000))
    host.until_registered("shop")

    with Registry(host, "shop") as registry:
        ask(port, "/sick", "POST")
        status = until("its weight is held", lambda: _held(host))
        held_at = status["weight"]
        looks = len(registry.looks)
        until("a whole ramp has passed", lambda: _seconds(registry, looks) > 2 * PERIOD + 0.2)
        assert {look.entries["shop"]["weight"] for look in registry.looks[looks:]} == {held_at}
        ask(port, "/well", "POST")
        registry.wait("shop", weight=200)

    weights = [weight for (weight,) in registry.said("shop", "weight")]
    assert weights == [40, 120, 200][-len(weights) :] and held_at in (40, 120)
    assert host.unit("shop")["generation"] == 1


def _held(host: Host) -> dict[str, object] | None:
    status: dict[str, object] = host.unit("shop")
    assert status["state"] == "WARMING", "it must be held before it is at full weight"
    return status if "held" in str(status["warmup"]) else None


def _seconds(registry: Registry, since: int) -> float:
    looks = registry.looks[since:]
    return looks[-1].asked - looks[0].asked if looks else 0.0


def test_a_unit_that_was_out_of_traffic_for_long_enough_warms_up_again(host: Host) -> None:
    port = _shop(host, tables=WARMUP + READINESS.format(failures=2))
    until("it has its full weight", lambda: _is_full(host, "shop"))

    with Registry(host, "shop") as registry:
        ask(port, "/sick", "POST")
        host.until_state("shop", "UNHEALTHY")
        gone = len(registry.looks)
        until("a period has passed", lambda: _seconds(registry, gone) > PERIOD)
        ask(port, "/well", "POST")
        registry.wait("shop", status="warming")
        registry.wait("shop", weight=200)

    said = registry.said("shop", "status", "weight", generation=1)
    assert said[-3:] == [("warming", 40), ("warming", 120), FULL], said


def test_processes_of_a_service_that_are_restarted_wait_for_each_others_full_weight(host: Host) -> None:
    _shop(host, count=2)
    for name in ("shop:0", "shop:1"):
        until(f"{name} has its full weight", lambda name=name: _is_full(host, name))

    with Registry(host, "shop") as registry:
        operations = host.order("restart", "shop")
        until("the second one waits for the first one's weight", lambda: _waits_for_weight(host, operations[1]["id"]))
        operations = host.finish(operations)
        until("both are at full weight", lambda: _is_full(host, "shop:0", 2) and _is_full(host, "shop:1", 2))

    assert {operation["state"] for operation in operations} == {"succeeded"}
    for look in registry.looks:
        full = [entry for entry in look.entries.values() if entry["weight"] == entry["full_weight"]]
        assert full, "there is always one with all of its weight"


def _waits_for_weight(host: Host, operation: str) -> bool:
    steps = host.ask("GET", f"/v1/operations/{operation}").json["steps"]
    return bool(steps) and steps[-1]["name"] == "wait" and "full weight of shop:0" in steps[-1]["detail"]


# Its share of the traffic.

COUNT, RATE, SHARE_PERIOD = 3, 400.0, 0.6
PASSES = 4
SIGMAS = 4.5  # chance alone goes beyond that once in 150 000 times


async def _choices(host: Host, url: str) -> tuple[list[Choice], list[str]]:
    """Whom clients have chosen while web:0 was restarted and warmed up, and what of it failed."""
    load, enough = Load(RATE, Mix(slow=0.0)), asyncio.Event()
    async with following(load, open_backend("http", url=url), "web"):
        await load.until(_all_full, DEADLINE_SECONDS)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(load.run(enough))
            await load.steady.wait()
            done = await asyncio.to_thread(host.unitctl, "-o", "json", "restart", "web:0")
            await load.until(_all_full, DEADLINE_SECONDS)
            await asyncio.sleep(SHARE_PERIOD)  # at full weight for as long as at each of the others
            enough.set()
            await running
    assert [operation["state"] for operation in json.loads(done.stdout)] == ["succeeded"], done
    choices = [
        Choice(
            {entry.unit: entry.weight for entry in eligible(request.known)},
            request.chosen.unit if request.chosen else "",
        )
        for request in load.requests
    ]
    return choices, [request.failure for request in load.requests if request.failure]


def _all_full(entries: tuple[Entry, ...]) -> bool:
    return sum(entry.status == "up" and entry.weight == entry.full_weight for entry in entries) == COUNT


def _periods_that_say_enough(host: Host, url: str) -> list[Period]:
    """Of a pass in which the clients got to choose often at each weight; on a busy machine that may take another."""
    for _ in range(PASSES):
        choices, failures = asyncio.run(_choices(host, url))
        assert not failures
        seen = periods(choices, "web:0")
        assert [period.weight for period in seen] == [100, 0, 10, 40, 70, 100]
        if all(period.choices >= RATE * SHARE_PERIOD / 2 for period in seen[2:]):
            return seen
    raise AssertionError(f"too few to say anything: {seen}")


@pytest.mark.timeout(90)
def test_its_share_of_the_requests_is_its_weight_over_the_sum_of_all_weights(host: Host) -> None:
    port, http = host.port(COUNT), host.port()
    host.configure(
        f"""
        [unit.web]
        command = "{SERVER} {{port}}"
        numprocs = {COUNT}
        startsecs = 0.1
        service = {{ port = {port}, ttl_seconds = 1 }}
        restart = {{ removal = "deregister", settle_seconds = 0.3 }}
        drain = {{ quiet = 0.2 }}
        warmup = {{ initial = 10, step = 30, period = {SHARE_PERIOD} }}
        """,
        http=f"127.0.0.1:{http}",
    )
    host.run()

    seen = _periods_that_say_enough(host, f"http://127.0.0.1:{http}")

    for period in seen[2:]:
        assert period.errors is not None and abs(period.errors) <= SIGMAS, period
        assert period.expected == pytest.approx(period.weight / (period.weight + 100 * (COUNT - 1)), rel=0.02)
    assert seen[1].chosen == 0
