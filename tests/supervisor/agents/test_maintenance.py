"""Drains that last: they end at their time by the wall clock, and no restart forgets them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.agents.maintenance import KIND, LONGEST_SLEEP, Maintenance, Maintenances, moment_of, until_of
from supervisor.errors import WireError
from supervisor.host.journal import Journal
from supervisor.wire import MaintenanceStatus
from tests.supervisor.fake_time import run_fake

START = 1_800_000_000.5  # 2027-01-15T08:00:00.500Z


class Clock:
    """A wall clock that goes with the loop's, unless somebody sets it."""

    def __init__(self) -> None:
        self.set_by = 0.0

    def __call__(self) -> float:
        try:
            return START + asyncio.get_running_loop().time() - 1000.0 + self.set_by
        except RuntimeError:
            return START


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("supervisor.agents.maintenance.wall", made)
    return made


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Iterator[Journal]:
    made = Journal(str(tmp_path))
    yield made
    made.close()


class People:
    """Who is told of an end, and undrains."""

    def __init__(self, journal: Journal) -> None:
        self.told = list[tuple[str, float]]()
        self.all = Maintenances(journal, self.expired)

    def expired(self, unit: str) -> None:
        self.told.append((unit, asyncio.get_running_loop().time() - 1000.0))
        self.all.end(unit)


def test_what_was_begun_is_known_until_it_is_ended_and_a_restart_forgets_neither(journal: Journal) -> None:
    async def scenario() -> None:
        people = People(journal)
        people.all.begin("web", Maintenance("ops", "disk swap", START))
        people.all.begin("cart:0", Maintenance("", "", START, START + 600))
        people.all.close()
        again = People(journal)
        assert again.all.of("web") == Maintenance("ops", "disk swap", START)
        assert again.all.of("cart:0") == Maintenance("", "", START, START + 600)
        again.all.end("web")
        again.all.end("nobody")
        assert again.all.of("web") is None
        again.all.close()
        assert set(journal.facts(KIND)) == {"cart:0"}

    run_fake(scenario())


def test_the_last_word_counts(journal: Journal) -> None:
    async def scenario() -> None:
        people = People(journal)
        people.all.begin("web", Maintenance("ops", "", START, START + 5))
        people.all.begin("web", Maintenance("ann", "", START, START + 50))
        await asyncio.sleep(20)
        assert people.told == []
        assert people.all.of("web") == Maintenance("ann", "", START, START + 50)
        people.all.close()

    run_fake(scenario())


def test_each_ends_at_its_time(journal: Journal) -> None:
    async def scenario() -> None:
        people = People(journal)
        people.all.begin("late", Maintenance("", "", START, START + 100))
        people.all.begin("ever", Maintenance("", "", START))
        people.all.begin("soon", Maintenance("", "", START, START + 10))
        await asyncio.sleep(5 * LONGEST_SLEEP)
        assert people.told == [("soon", pytest.approx(10, abs=0.1)), ("late", pytest.approx(100, abs=0.1))]
        assert people.all.of("ever") is not None
        people.all.close()

    run_fake(scenario())


def test_what_ended_while_nobody_looked_is_told_at_the_start(journal: Journal) -> None:
    async def scenario() -> None:
        journal.record_fact(KIND, "web", '{"owner": "", "reason": "", "since": 0, "until": 1800000000}')
        people = People(journal)
        assert people.told == [], "first the daemon must be there"
        people.all.watch()
        assert [unit for unit, _ in people.told] == ["web"]
        people.all.close()

    run_fake(scenario())


def test_it_is_the_wall_clock_that_counts_however_it_is_set(journal: Journal, clock: Clock) -> None:
    async def scenario() -> None:
        people = People(journal)
        people.all.begin("web", Maintenance("", "", START, START + 10 * 3600))
        clock.set_by = 10 * 3600 - 60.0
        await asyncio.sleep(LONGEST_SLEEP + 1)
        assert [unit for unit, _ in people.told] == ["web"], "it looks every hour at least"
        clock.set_by = -1000.0
        people.all.begin("web", Maintenance("", "", START, clock() + 5))
        await asyncio.sleep(1)
        assert len(people.told) == 1
        await asyncio.sleep(6)
        assert len(people.told) == 2
        people.all.close()

    run_fake(scenario())


def test_nobody_is_told_after_the_end(journal: Journal) -> None:
    async def scenario() -> None:
        people = People(journal)
        people.all.begin("web", Maintenance("", "", START, START + 10))
        people.all.close()
        await asyncio.sleep(60)
        assert people.told == []
        People(journal).all.close()

    run_fake(scenario())


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "{}", "null", '{"owner": "ops"}', "3"])
def test_a_record_that_cannot_be_read_keeps_its_unit_out(
    journal: Journal, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        journal.record_fact(KIND, "web", text)
        people = People(journal)
        assert people.all.of("web") == Maintenance("", "", START)
        assert "cannot read why web is kept out of traffic" in caplog.text
        people.all.watch()
        people.all.end("web")
        assert journal.facts(KIND) == {}

    run_fake(scenario())


def test_people_see_its_times_as_they_write_them() -> None:
    shown = Maintenance("ops", "disk swap", START, START + 60).status()
    assert shown == MaintenanceStatus("ops", "disk swap", "2027-01-15T08:00:00.500Z", "2027-01-15T08:01:00.500Z")
    assert Maintenance("", "", START).status().until is None


# What a command says.


@pytest.mark.parametrize(
    ("parameters", "until"),
    [
        ({}, None),
        ({"for_seconds": 60}, START + 60),
        ({"for_seconds": 0.5}, START + 0.5),
        ({"until": "2027-01-15T08:01:00.500Z"}, START + 60),
        ({"until": "2027-01-15T09:01:00.500+01:00"}, START + 60),
        ({"until": None, "for_seconds": None}, None),
    ],
)
def test_a_command_says_when_a_drain_ends(clock: Clock, parameters: dict[str, object], until: float | None) -> None:
    assert until_of(parameters) == until


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"for_seconds": 1, "until": "2030-01-01T00:00:00Z"}, "give for_seconds or until, not both"),
        ({"for_seconds": 0}, "for_seconds must be a number"),
        ({"for_seconds": True}, "for_seconds must be a number"),
        ({"for_seconds": "60"}, "for_seconds must be a number"),
        ({"for_seconds": float("nan")}, "for_seconds must be a number"),
        ({"for_seconds": 367 * 86400}, "for_seconds must be a number"),
        ({"until": "tomorrow"}, "it must be ISO 8601 in UTC"),
        ({"until": 7}, "it must be ISO 8601 in UTC"),
        ({"until": "2030-01-01T00:00:00"}, "it names no time zone; end it with Z"),
        ({"until": "2027-01-15T08:00:00Z"}, "that is past"),
    ],
)
def test_an_end_that_makes_no_sense_is_refused(clock: Clock, parameters: dict[str, object], words: str) -> None:
    with pytest.raises(WireError, match=words):
        until_of(parameters)


def test_a_moment_may_be_past_when_a_command_is_looked_at_again(clock: Clock) -> None:
    assert moment_of({"until": "2027-01-15T08:00:00Z"}) == START - 0.5
    assert moment_of({"for_seconds": 3}) is None
