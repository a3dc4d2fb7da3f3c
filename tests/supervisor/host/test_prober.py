"""When probes are asked, for how long, and how many at once."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from supervisor.core.model import ProbeSpec
from supervisor.host import prober as module
from supervisor.host.prober import GRID_SECONDS, SLACK_SECONDS, Asking, Prober
from supervisor.plugin_api import ProbeResult, Target
from tests.supervisor.fake_time import FakeTimeLoop, run_fake

OK, BAD = ProbeResult(True, "fine"), ProbeResult(False, "answered 500")
SPEC = ProbeSpec("fake", period=10.0, timeout=1.0)
Check = Callable[[], Awaitable[ProbeResult]]


async def well() -> ProbeResult:
    return OK


async def ill() -> ProbeResult:
    return BAD


async def silent() -> ProbeResult:
    await asyncio.sleep(3600)
    return OK


def target(unit: str = "web") -> Target:
    return Target(unit, 1, 4242, "127.0.0.1", None)


class Host:
    """A prober whose only kind does what the test says, and all that came of it, with its time since the beginning."""

    def __init__(self, check: Check = well, *, at_once: int = 100) -> None:
        self.check, self.loop = check, asyncio.get_running_loop()
        self.began = self.loop.time()
        self.asked = list[float]()
        self.told = list[tuple[float, ProbeResult, bool]]()
        self.under_way = self.most = 0
        self.options: Any = None
        self.asking = list[Asking]()
        self.prober = Prober(self._kind, at_once=at_once)

    def _kind(self, name: str) -> Any:
        if name != "fake":
            raise LookupError(f"no kind is called {name}")

        def make(options: Any) -> Host:
            self.options = options
            return self.probe()

        return make

    def probe(self) -> Any:
        host = self

        class Probe:
            async def check(self, target: Target, timeout_seconds: float) -> ProbeResult:
                host.asked.append(host.now())
                host.under_way += 1
                host.most = max(host.most, host.under_way)
                try:
                    return await host.check()
                finally:
                    host.under_way -= 1

        return Probe()

    def now(self) -> float:
        return self.loop.time() - self.began

    def ask(self, spec: ProbeSpec = SPEC, unit: str = "web", *, eager: bool = True) -> Asking:
        asking = self.prober.ask(spec, target(unit), self._report, eager=eager)
        self.asking.append(asking)
        return asking

    def _report(self, result: ProbeResult, due: bool) -> None:
        self.told.append((self.now(), result, due))

    async def close(self) -> None:
        for asking in self.asking:
            asking.close()
        await self.prober.close()


@pytest.fixture
def no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is spread: what is random is nothing, or a whole period."""
    monkeypatch.setattr(module, "chance", lambda: 0.0)


def test_a_starting_unit_is_asked_at_once_then_in_growing_pauses_until_it_answers() -> None:
    async def scenario() -> None:
        host = Host(ill)
        host.ask()
        await asyncio.sleep(8)
        pauses = [later - sooner for sooner, later in zip(host.asked, host.asked[1:])]
        assert host.asked[0] == 0
        assert pauses == sorted(pauses)
        assert pauses[0] == pytest.approx(0.1)
        assert pauses[-1] == pytest.approx(1.0)
        host.check = well
        await asyncio.sleep(1.1)
        assert host.told[-1][1].ok
        count = len(host.told)
        await asyncio.sleep(10)
        assert count + 1 <= len(host.told) <= count + 2, "from then on once in a period"
        await host.close()

    run_fake(scenario())


def test_however_often_a_starting_unit_is_asked_only_one_failure_in_a_period_is_due() -> None:
    async def scenario() -> None:
        host = Host(ill)
        host.ask()
        await asyncio.sleep(30.5)
        assert [round(at, 6) for at, _, due in host.told if due] == [10, 20, 30]
        await host.close()

    run_fake(scenario())


def test_pauses_are_never_longer_than_the_period() -> None:
    async def scenario() -> None:
        host = Host(ill)
        host.ask(ProbeSpec("fake", period=0.05))
        await asyncio.sleep(1.01)
        assert len(host.asked) >= 20
        await host.close()

    run_fake(scenario())


@pytest.mark.usefixtures("no_chance")
def test_a_probe_is_asked_every_period_from_the_start_of_the_last_check() -> None:
    async def slow() -> ProbeResult:
        await asyncio.sleep(0.7)
        return OK

    async def scenario() -> None:
        host = Host(slow)
        host.ask(eager=False)
        await asyncio.sleep(36)
        assert host.asked == pytest.approx([0, 10, 20, 30])
        assert all(due for _, _, due in host.told)
        await host.close()

    run_fake(scenario())


@pytest.mark.usefixtures("no_chance")
def test_of_the_checks_that_are_due_while_one_is_under_way_one_follows_and_the_others_are_skipped() -> None:
    async def slow() -> ProbeResult:
        await asyncio.sleep(2.5)
        return OK

    async def scenario() -> None:
        host = Host(slow)
        host.ask(ProbeSpec("fake", period=1, timeout=5), eager=False)
        await asyncio.sleep(8.9)
        assert host.asked == pytest.approx([0, 2.5, 5, 7.5])
        assert host.most == 1
        await host.close()

    run_fake(scenario())


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.usefixtures("no_chance")
def test_the_first_check_waits_for_the_initial_delay(eager: bool) -> None:
    async def scenario() -> None:
        host = Host()
        host.ask(ProbeSpec("fake", initial_delay=7), eager=eager)
        await asyncio.sleep(8)
        assert host.asked == pytest.approx([7])
        await host.close()

    run_fake(scenario())


def test_units_that_started_together_are_not_asked_together_but_share_their_wake_ups() -> None:
    async def scenario() -> None:
        host = Host()
        for number in range(1000):
            host.ask(unit=f"web:{number}")
        await asyncio.sleep(0.01)
        assert len(host.asked) == 1000, "all of them start"
        host.asked.clear()
        await asyncio.sleep(10.1)
        in_seconds = [sum(second <= at < second + 1 for at in host.asked) for second in range(10)]
        assert min(in_seconds) > 50 and max(in_seconds) < 200
        lines = {round(at / GRID_SECONDS) for at in host.asked}
        assert len({round(at, 6) for at in host.asked}) == len(lines)
        await host.close()

    run_fake(scenario())


def test_every_check_of_a_probe_that_waits_comes_within_a_period_of_the_last() -> None:
    async def scenario() -> None:
        host = Host()
        host.ask()
        await asyncio.sleep(100)
        gaps = [later - sooner for sooner, later in zip(host.asked, host.asked[1:])]
        assert max(gaps) <= 10 + GRID_SECONDS + 1e-6
        await host.close()

    run_fake(scenario())


def test_a_check_without_an_answer_is_cut_off_and_counts_as_a_failure() -> None:
    async def scenario() -> None:
        host = Host(silent)
        host.ask()
        await asyncio.sleep(1.2)
        at, result, _ = host.told[0]
        assert at == pytest.approx(1 + SLACK_SECONDS)
        assert result == ProbeResult(False, "no answer within 1 s")
        assert host.under_way == 0 or host.most == 1
        await host.close()
        assert host.under_way == 0

    run_fake(scenario())


@pytest.mark.usefixtures("no_chance")
def test_a_check_that_does_not_let_itself_be_cut_off_fails_again_every_period_and_has_no_second_beside_it() -> None:
    gate = asyncio.Event

    async def scenario() -> None:
        released = gate()

        async def stubborn() -> ProbeResult:
            while not released.is_set():
                try:
                    await released.wait()
                except asyncio.CancelledError:
                    continue
            return OK

        host = Host(stubborn)
        host.ask(eager=False)
        await asyncio.sleep(35)
        assert [result.detail for _, result, due in host.told if due] == [
            "no answer within 1 s",
            *["its last check has not ended yet"] * 3,
        ]
        assert len(host.asked) == 1
        released.set()
        await asyncio.sleep(10)
        assert host.told[-1][1] == OK, "it is asked again when it has ended"
        await host.close()

    run_fake(scenario())


def test_a_loop_that_was_busy_does_not_blame_the_unit() -> None:
    async def scenario() -> None:
        async def answers_soon() -> ProbeResult:
            await asyncio.sleep(0.5)
            return OK

        host = Host(answers_soon)
        host.ask()
        await asyncio.sleep(0.2)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, FakeTimeLoop)
        loop.now += 30
        await asyncio.sleep(0.05)
        assert [result for _, result, _ in host.told] == [OK]
        await host.close()

    run_fake(scenario())


def test_after_such_a_time_a_silent_unit_is_still_found() -> None:
    async def scenario() -> None:
        host = Host(silent)
        host.ask()
        await asyncio.sleep(0.2)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, FakeTimeLoop)
        loop.now += 30
        await asyncio.sleep(2 * SLACK_SECONDS)
        assert [result.ok for _, result, _ in host.told] == [False]
        await host.close()

    run_fake(scenario())


def test_an_exception_is_a_failure_and_is_logged_once_for_each_kind_and_unit(caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> ProbeResult:
        raise ValueError("no\nsuch thing")

    async def scenario() -> None:
        host = Host(broken)
        host.ask()
        host.ask(unit="cart")
        with caplog.at_level(logging.INFO):
            await asyncio.sleep(60)
        assert {result for _, result, _ in host.told} == {
            ProbeResult(False, "its fake probe raised ValueError: no such thing")
        }
        assert sorted(record.getMessage() for record in caplog.records) == [
            "cart: its fake probe has failed by itself; said only once",
            "web: its fake probe has failed by itself; said only once",
        ]
        assert all(record.exc_info for record in caplog.records)
        await host.close()

    run_fake(scenario())


def test_a_failed_answer_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        host = Host(ill)
        host.ask()
        await asyncio.sleep(60)
        assert caplog.records == []
        await host.close()

    run_fake(scenario())


async def nothing() -> Any:
    return None


async def leave() -> ProbeResult:
    sys.exit(3)


async def cancelled() -> ProbeResult:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("check", "detail"),
    [
        (nothing, "its fake probe raised TypeError: it answered None, which is no ProbeResult"),
        (leave, "its fake probe raised RuntimeError: it called exit"),
        (cancelled, "its fake probe was cancelled"),
    ],
)
def test_whatever_a_probe_does_instead_of_answering_is_a_failure(check: Check, detail: str) -> None:
    async def scenario() -> None:
        host = Host(check)
        host.ask()
        await asyncio.sleep(0.05)
        assert [result for _, result, _ in host.told] == [ProbeResult(False, detail)]
        await host.close()

    run_fake(scenario())


def test_a_probe_that_cannot_be_made_fails_and_says_why() -> None:
    async def scenario() -> None:
        host = Host()
        host.ask(ProbeSpec("unheard"))
        await asyncio.sleep(0.05)
        assert host.told[0][1].detail == "its unheard probe raised LookupError: no kind is called unheard"
        await host.close()

    run_fake(scenario())


def test_a_kind_is_told_its_options_as_they_were_written() -> None:
    async def scenario() -> None:
        host = Host()
        host.ask(ProbeSpec("fake", options='{"path":"/healthz","port":9080}'))
        assert host.options == {"path": "/healthz", "port": 9080}
        await host.close()

    run_fake(scenario())


def test_details_become_one_short_line() -> None:
    async def chatty() -> ProbeResult:
        return ProbeResult(True, "first\n  second \x00" + "x" * 1000)

    async def scenario() -> None:
        host = Host(chatty)
        host.ask()
        await asyncio.sleep(0.05)
        detail = host.told[0][1].detail
        assert host.told[0][1].ok
        assert detail.startswith("first second ") and len(detail) == 200
        await host.close()

    run_fake(scenario())


def test_only_so_many_checks_are_under_way_and_the_others_have_their_turn() -> None:
    async def scenario() -> None:
        host = Host(silent, at_once=5)
        asked = [host.ask(unit=f"web:{number}") for number in range(20)]
        await asyncio.sleep(0.5)
        assert (host.under_way, len(host.asked)) == (5, 5)
        asked[7].close()
        asked[0].close()
        await asyncio.sleep(0.1)
        assert (host.under_way, len(host.asked)) == (5, 6), "a slot became free"
        await asyncio.sleep(6)
        assert host.most == 5
        assert len(host.told) >= 18
        await host.close()

    run_fake(scenario())


def test_checks_that_cannot_be_cut_off_do_not_keep_others_from_being_asked() -> None:
    async def scenario() -> None:
        released = asyncio.Event()

        async def stubborn() -> ProbeResult:
            while not released.is_set():
                try:
                    await released.wait()
                except asyncio.CancelledError:
                    continue
            return OK

        host = Host(stubborn, at_once=1)
        host.ask(unit="bad")
        await asyncio.sleep(0.1)
        host.check = well
        host.ask(unit="good")
        await asyncio.sleep(2)
        assert OK in [result for _, result, _ in host.told]
        released.set()
        await host.close()

    run_fake(scenario())


def test_a_poke_asks_at_once_and_does_not_move_the_schedule() -> None:
    async def scenario() -> None:
        host = Host()
        asking = host.ask(eager=False)
        await asyncio.sleep(10.1)
        first = host.asked[0]
        await asyncio.sleep(first + 5 - host.now() if first + 5 > host.now() else 0)
        before = len(host.asked)
        asking.poke()
        await asyncio.sleep(0.01)
        assert len(host.asked) == before + 1
        assert host.told[-1][2] is False
        await asyncio.sleep(first + 20.5 - host.now())
        assert [due for _, _, due in host.told].count(True) == 3
        await host.close()

    run_fake(scenario())


def test_a_poke_during_a_check_is_followed_by_another_one() -> None:
    async def slow() -> ProbeResult:
        await asyncio.sleep(0.3)
        return OK

    async def scenario() -> None:
        host = Host(slow)
        asking = host.ask()
        await asyncio.sleep(0.1)
        asking.poke()
        asking.poke()
        await asyncio.sleep(0.5)
        assert host.asked == pytest.approx([0, 0.3])
        await host.close()

    run_fake(scenario())


def test_a_poke_of_what_waits_for_its_turn_or_is_closed_does_nothing() -> None:
    async def scenario() -> None:
        host = Host(silent, at_once=1)
        host.ask(unit="first")
        waiting = host.ask(unit="second")
        await asyncio.sleep(0.1)
        waiting.poke()
        waiting.close()
        waiting.poke()
        await asyncio.sleep(0.5)
        assert host.asked == [0]
        await host.close()

    run_fake(scenario())


def test_what_is_closed_never_reports_again_and_its_check_is_cut_off() -> None:
    async def scenario() -> None:
        host = Host(silent)
        asking = host.ask()
        await asyncio.sleep(0.1)
        asking.close()
        asking.close()
        await asyncio.sleep(30)
        assert (host.told, host.under_way, len(host.asked)) == ([], 0, 1)
        await host.prober.close()

    run_fake(scenario())


def test_it_may_be_closed_by_whoever_is_told() -> None:
    async def scenario() -> None:
        host = Host(at_once=1)
        told = list[ProbeResult]()

        def report(result: ProbeResult, due: bool) -> None:
            told.append(result)
            asking.close()

        asking = host.prober.ask(SPEC, target(), report, eager=True)
        await asyncio.sleep(30)
        assert told == [OK]
        host.ask()
        await asyncio.sleep(0.1)
        assert host.told, "its slot is free"
        await host.close()

    run_fake(scenario())


def test_an_idle_probe_has_no_task() -> None:
    async def scenario() -> None:
        host = Host()
        for number in range(50):
            host.ask(unit=f"web:{number}")
        await asyncio.sleep(0.01)
        assert len(host.told) == 50
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await host.close()

    run_fake(scenario())


@pytest.mark.usefixtures("no_chance")
def test_after_the_loop_was_busy_for_several_periods_a_probe_is_asked_once() -> None:
    async def scenario() -> None:
        host = Host()
        host.ask(eager=False)
        await asyncio.sleep(5)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, FakeTimeLoop)
        loop.now += 37
        await asyncio.sleep(0.01)
        assert host.asked == pytest.approx([0, 42])
        await asyncio.sleep(20)
        assert host.asked == pytest.approx([0, 42, 50, 60])
        await host.close()

    run_fake(scenario())
