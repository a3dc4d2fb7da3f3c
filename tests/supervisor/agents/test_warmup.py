"""All ramps of a host: who is told of which step, and what people may order about them."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import selectors
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from supervisor.agents import warmup
from supervisor.agents.warmup import Warmups
from supervisor.core.model import ServiceSpec, UnitSpec, WarmupSpec
from supervisor.core.warmup import Ramp, Share
from supervisor.errors import WireError
from tests.supervisor.running import until

SLOW = WarmupSpec(10, 10, 3600.0)
QUICK = WarmupSpec(40, 30, 0.1)


def spec(name: str = "cart", ramp: WarmupSpec | None = SLOW, full: int = 100) -> UnitSpec:
    return UnitSpec(name, name, 0, (name,), service=ServiceSpec("shop", "127.0.0.1", 9080, weight=full), warmup=ramp)


class Hurrying(selectors.SelectSelector):
    """Where a loop would sleep, its clock is set forward instead: ramps of hours take no time, and always the same."""

    def __init__(self, loop: FastLoop) -> None:
        super().__init__()
        self.loop = loop

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "the loop waits for ever"
        self.loop.now += timeout
        return super().select(0)


class FastLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.now = 1_000.0
        super().__init__(Hurrying(self))

    def time(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def the_loops_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warmup, "monotonic", lambda: asyncio.get_running_loop().time())


class Host:
    """What the ramps' owner is told."""

    def __init__(self) -> None:
        self.told = list[tuple[str, Share]]()
        self.told_at = list[float]()
        self.full = list[str]()
        self.saved = dict[str, dict[str, object] | None]()
        self.saves = 0
        self.mistake: Callable[[str], None] = lambda unit: None
        self.sizes = dict[str, int]()
        self.warmups = Warmups(self.change, self.save, self.full.append)

    def change(self, unit: str) -> None:
        self.told.append((unit, self.warmups.share(unit, self.sizes.get(unit, 100))))
        self.told_at.append(asyncio.get_running_loop().time())
        self.mistake(unit)

    def save(self, unit: str, record: dict[str, object] | None) -> None:
        self.saves += 1
        self.saved[unit] = json.loads(json.dumps(record))

    def begin(self, unit: UnitSpec, attempt: int = 1, **how: Any) -> None:
        assert unit.service is not None
        self.sizes[unit.name] = unit.service.weight
        self.warmups.begin(unit, attempt, **how)

    def weights(self, unit: str = "cart") -> list[int]:
        return [share.weight for name, share in self.told if name == unit]

    def weight(self, unit: str = "cart") -> int:
        return self.warmups.weight(unit, self.sizes.get(unit, 100))

    def order(self, parameters: dict[str, object], verb: str = "warm", unit: UnitSpec | None = None) -> str:
        return self.warmups.command(unit or spec(), verb, parameters)


@asynccontextmanager
async def a_host() -> AsyncIterator[Host]:
    host = Host()
    try:
        yield host
    finally:
        host.warmups.close()


def on_host(scenario: Callable[[Host], Any]) -> None:
    """Run a scenario; one that is no coroutine function is over in one turn of the loop."""

    async def all_of_it() -> None:
        faults = list[dict[str, Any]]()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        async with a_host() as host:
            result = scenario(host)
            if asyncio.iscoroutine(result):
                await result
        assert not faults, faults

    with asyncio.Runner(loop_factory=FastLoop) as runner:
        runner.run(all_of_it())


# Growing.


def test_each_step_is_told_once_and_the_end_of_the_ramp_too() -> None:
    async def scenario(host: Host) -> None:
        host.begin(spec(ramp=QUICK))
        assert host.weight() == 40
        assert not host.warmups.is_full("cart")
        assert host.told == []  # the first weight is published with the entry
        await until(lambda: host.full)
        assert host.told == [
            ("cart", Share(40 + 30, True, QUICK.period * 2)),
            ("cart", Share(100, False, QUICK.period * 2)),
        ]
        assert host.full == ["cart"]
        assert host.warmups.is_full("cart")
        assert host.warmups._timer is None  # nothing more to wake up for

    on_host(scenario)


def test_a_step_that_does_not_change_the_rounded_weight_is_not_told_but_the_end_is() -> None:
    async def scenario(host: Host) -> None:
        host.begin(spec(ramp=WarmupSpec(10, 10, 0.01), full=1))
        await until(lambda: host.full)
        assert host.told == [("cart", Share(1, False, pytest.approx(0.09)))]

    on_host(scenario)


def test_units_that_are_due_at_about_the_same_time_are_told_in_one_turn_and_soon() -> None:
    async def scenario(host: Host) -> None:
        loop = asyncio.get_running_loop()
        names = [f"cart:{number}" for number in range(50)]
        for name in names:
            await asyncio.sleep(0.001)
            host.begin(spec(name, WarmupSpec(50, 50, 60.0)))
        at_the_end_of_the_turn = list[int]()
        host.mistake = lambda unit: loop.call_soon(lambda: at_the_end_of_the_turn.append(len(host.told))) and None
        await until(lambda: host.told, seconds=100)
        assert at_the_end_of_the_turn[0] == len(names)
        assert sorted(name for name, _ in host.told) == sorted(names)
        assert 1060.05 <= host.told_at[0] <= 1060 + warmup.TOGETHER + 0.001

    on_host(scenario)


def test_a_later_unit_with_an_earlier_step_is_not_kept_waiting() -> None:
    async def scenario(host: Host) -> None:
        host.begin(spec("slow"))
        host.begin(spec("quick", QUICK))
        await until(lambda: host.full == ["quick"])
        assert host.weight("slow") == 10

    on_host(scenario)


def test_a_mistake_of_whoever_is_told_stops_neither_this_ramp_nor_others(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(host: Host) -> None:
        def fail(unit: str) -> None:
            if unit == "a":
                raise RuntimeError("no")

        host.mistake = fail
        for name in "ab":
            host.begin(spec(name, QUICK))
        await until(lambda: sorted(host.full) == ["a", "b"])
        assert host.weights("b") == [70, 100] == host.weights("a")

    with caplog.at_level(logging.ERROR):
        on_host(scenario)
    assert "a: cannot carry out a change of its weight" in caplog.text


def test_a_unit_that_is_forgotten_by_whoever_is_told_is_not_told_again() -> None:
    async def scenario(host: Host) -> None:
        def forget_both(unit: str) -> None:
            for name in "ab":
                host.warmups.forget(name)

        host.mistake = forget_both
        for name in "ab":
            host.begin(spec(name, QUICK))
        host.begin(spec("c", QUICK))
        await until(lambda: "c" in host.full)
        assert len([name for name, _ in host.told if name in "ab"]) == 1
        assert host.saved["a"] is None is host.saved["b"]

    on_host(scenario)


def test_units_without_a_ramp_have_their_full_weight_at_once_and_leave_no_record() -> None:
    def scenario(host: Host) -> None:
        host.begin(spec(ramp=None, full=40))
        assert host.warmups.share("cart", 40) == Share(40)
        assert host.warmups.is_full("cart")
        assert host.warmups.describe("cart") == ""
        assert host.warmups.share("unknown", 30) == Share(30)
        assert host.warmups.percent("unknown") == 100
        assert host.warmups.is_full("unknown")
        assert (host.told, host.full, host.saved) == ([], [], {})

    on_host(scenario)


def test_units_that_nobody_sends_to_are_let_alone() -> None:
    def scenario(host: Host) -> None:
        lonely = replace(spec(), service=None)
        host.warmups.begin(lonely, 1)
        for call in (host.warmups.lost, host.warmups.hold, host.warmups.release, host.warmups.forget):
            call("cart")
        with pytest.raises(WireError, match="no service"):
            host.order({}, unit=lonely)
        assert host.saved == {}

    on_host(scenario)


# Probes, and coming back.


def test_a_failing_probe_holds_the_weight_until_it_answers_again() -> None:
    async def scenario(host: Host) -> None:
        host.begin(spec(ramp=QUICK))
        host.begin(spec("other", QUICK))
        host.warmups.hold("cart")
        await until(lambda: "other" in host.full)
        assert host.weights() == []
        assert host.warmups.describe("cart") == "held at 40 of 100: its readiness probe fails"
        host.warmups.release("cart")
        await until(lambda: "cart" in host.full)
        assert host.weights() == [70, 100]

    on_host(scenario)


def test_a_unit_that_is_back_within_a_period_goes_on_where_it_was() -> None:
    def scenario(host: Host) -> None:
        host.begin(spec())
        host.order({"jump": 60})
        host.warmups.lost("cart")
        host.begin(spec())
        assert host.weight() == 60
        assert host.warmups.describe("cart").startswith("warming: 60 of 100")

    on_host(scenario)


def test_a_unit_that_is_back_later_begins_again() -> None:
    async def scenario(host: Host) -> None:
        host.begin(spec(ramp=WarmupSpec(40, 60, 0.15)))
        await until(lambda: host.full)
        host.warmups.lost("cart")
        host.begin(spec("clock", WarmupSpec(40, 60, 0.2)))
        await until(lambda: "clock" in host.full)
        host.begin(spec(ramp=WarmupSpec(40, 60, 3600.0)))
        assert host.weight() == 40

    on_host(scenario)


def test_a_full_unit_that_is_back_within_a_period_is_full() -> None:
    def scenario(host: Host) -> None:
        host.begin(spec())
        host.order({"jump": 100})
        host.warmups.lost("cart")
        host.begin(spec())
        assert host.warmups.is_full("cart")
        assert host.full == ["cart"]  # once, for the jump

    on_host(scenario)


def test_while_it_is_away_nobody_is_told_and_its_time_does_not_go_on() -> None:
    async def scenario(host: Host) -> None:
        host.begin(spec(ramp=QUICK))
        host.begin(spec("other", QUICK))
        host.warmups.lost("cart")
        host.warmups.lost("cart")
        host.warmups.hold("cart")
        host.warmups.release("cart")  # a probe's last word must not set it going
        await until(lambda: host.full == ["other"])
        assert host.weights() == []
        assert host.weight() == 40
        assert host.warmups.describe("cart") == ""

    on_host(scenario)


def test_coming_back_ends_a_hold_and_keeps_an_operators_pause() -> None:
    def scenario(host: Host) -> None:
        host.begin(spec())
        host.order({"pause": True})
        host.warmups.hold("cart")
        host.warmups.lost("cart")
        host.begin(spec())
        assert host.warmups.describe("cart") == "paused at 10 of 100"

    on_host(scenario)


def test_publishing_again_what_is_in_traffic_moves_nothing_and_takes_the_new_full_weight() -> None:
    def scenario(host: Host) -> None:
        host.begin(spec())
        host.order({"jump": 50})
        host.warmups.hold("cart")
        host.begin(spec(full=300))
        assert host.weight() == 150
        assert host.warmups.describe("cart") == "held at 150 of 300: its readiness probe fails"

    on_host(scenario)


def test_a_new_attempt_begins_with_its_spec_or_with_the_ramp_that_is_given() -> None:
    def scenario(host: Host) -> None:
        host.begin(spec(), 1)
        host.order({"jump": 50})
        host.warmups.lost("cart")
        host.begin(spec(), 2)
        assert host.weight() == 10
        host.begin(spec(), 3, ramp=Ramp(25, 25, 60))
        assert host.warmups.share("cart", 100) == Share(25, True, 180)

    on_host(scenario)


# Orders: warm.


def test_a_new_ramp_begins_now() -> None:
    async def scenario(host: Host) -> None:
        host.begin(spec())
        words = host.order({"initial": 40, "step": 30, "period": 0.1})
        assert words == "warming: 40 of 100, next step in 0.1 s"
        assert host.told == [("cart", Share(40, True, 0.2))]
        await until(lambda: host.full)
        assert host.weights() == [40, 70, 100]

    on_host(scenario)


@pytest.mark.parametrize(
    ("parameters", "ramp"),
    [
        ({}, Ramp(10, 10, 3600.0)),
        ({"initial": 30}, Ramp(30, 10, 3600.0)),
        ({"step": 90, "period": None}, Ramp(10, 90, 3600.0)),
        ({"period": 20}, Ramp(10, 10, 20)),
    ],
)
def test_what_a_new_ramp_does_not_say_is_as_configured(parameters: dict[str, object], ramp: Ramp) -> None:
    def scenario(host: Host) -> None:
        host.begin(spec())
        host.order({"jump": 95})
        host.order(parameters)
        assert host.warmups.share("cart", 100) == Share(ramp.initial, True, ramp.seconds)

    on_host(scenario)


def test_a_unit_at_full_weight_can_be_warmed_again_with_or_without_a_configured_ramp() -> None:
    def scenario(host: Host) -> None:
        host.begin(spec(ramp=None))
        assert host.order({}, unit=spec(ramp=None)).startswith("warming: 10 of 100, next step in ")
        assert host.weights() == [10]
        assert host.saved["cart"] is not None

    on_host(scenario)


def test_a_pause_lasts_until_it_is_resumed() -> None:
    async def scenario(host: Host) -> None:
        host.begin(spec(ramp=QUICK))
        host.begin(spec("other", QUICK))
        assert host.order({"pause": True}) == "paused at 40 of 100"
        host.warmups.hold("cart")
        host.warmups.release("cart")
        await until(lambda: host.full == ["other"])
        assert host.weights() == []
        assert host.order({"jump": 70}) == "paused at 70 of 100"
        assert host.order({"resume": True}).startswith("warming: 70 of 100")
        await until(lambda: "cart" in host.full)
        assert host.weights() == [70, 100]

    on_host(scenario)


def test_orders_that_have_nothing_to_do_say_how_it_stands() -> None:
    def scenario(host: Host) -> None:
        host.begin(spec())
        assert host.order({"resume": True}).startswith("warming: 10 of 100")
        host.order({"jump": 100})
        assert host.order({"pause": True}) == "at its full weight of 100"
        assert host.order({"weight": "auto"}, "weight") == "at its full weight of 100"
        assert host.warmups.describe("cart") == ""

    on_host(scenario)


def test_a_jump_to_the_end_ends_the_ramp() -> None:
    def scenario(host: Host) -> None:
        host.begin(spec())
        assert host.order({"jump": 100}) == "at its full weight of 100"
        assert host.told[-1][1].warming is False
        assert host.full == ["cart"]

    on_host(scenario)


BAD_WARM: list[tuple[dict[str, object], str]] = [
    ({"pause": True, "resume": True}, "exclude each other"),
    ({"pause": True, "jump": 40}, "exclude each other"),
    ({"jump": 40, "initial": 10}, "exclude each other"),
    ({"resume": True, "period": 10}, "exclude each other"),
    ({"pause": False}, "pause must be true"),
    ({"resume": "yes"}, "resume must be true"),
    ({"jump": 0}, "jump must be a whole percentage from 1 to 100, not 0"),
    ({"jump": 101}, "jump must be"),
    ({"jump": 4.5}, "jump must be"),
    ({"jump": True}, "jump must be"),
    ({"initial": 0}, "initial must be"),
    ({"initial": "10"}, "initial must be"),
    ({"step": 0}, "step must be"),
    ({"step": 101}, "step must be"),
    ({"period": 0}, "period must be a number of seconds above 0"),
    ({"period": -1}, "period must be"),
    ({"period": "10s"}, "period must be"),
    ({"period": True}, "period must be"),
    ({"period": math.nan}, "period must be"),
    ({"period": math.inf}, "period must be"),
    ({"initial": 1, "step": 1, "period": 604_800}, "the ramp would take"),
    ({"percent": 10}, "unknown parameter 'percent'; known: initial, step, period, pause, resume, jump"),
    ({"weight": 10}, "unknown parameter 'weight'"),
]

BAD_WEIGHT: list[tuple[dict[str, object], str]] = [
    ({}, 'from 1 to its full weight of 100, or "auto", not None'),
    ({"weight": 0}, "use drain"),
    ({"weight": -1}, "from 1 to"),
    ({"weight": 101}, "from 1 to its full weight of 100"),
    ({"weight": 40.0}, "from 1 to"),
    ({"weight": True}, "from 1 to"),
    ({"weight": "40"}, "from 1 to"),
    ({"weight": 40, "jump": 10}, "unknown parameter 'jump'; known: weight"),
]


@pytest.mark.parametrize(
    ("verb", "parameters", "words"),
    [("warm", *case) for case in BAD_WARM] + [("weight", *case) for case in BAD_WEIGHT],
)
def test_an_order_that_makes_no_sense_is_refused_and_changes_nothing(
    verb: str, parameters: dict[str, object], words: str
) -> None:
    def scenario(host: Host) -> None:
        host.begin(spec())
        before = (host.warmups.share("cart", 100), host.saves)
        with pytest.raises(WireError) as caught:
            host.order(parameters, verb)
        assert words in str(caught.value)
        assert str(caught.value).startswith(("cannot warm up cart: ", "cannot set the weight of cart: "))
        assert (host.warmups.share("cart", 100), host.saves) == before
        assert host.told == []

    on_host(scenario)


@pytest.mark.parametrize("parameters", [{}, {"initial": 20}, {"pause": True}, {"resume": True}, {"jump": 50}])
def test_a_unit_out_of_traffic_cannot_be_warmed(parameters: dict[str, object]) -> None:
    def scenario(host: Host) -> None:
        with pytest.raises(WireError, match="not in traffic"):
            host.order(parameters)
        host.begin(spec())
        host.warmups.lost("cart")
        with pytest.raises(WireError, match="not in traffic"):
            host.order(parameters)

    on_host(scenario)


# Orders: weight.


def test_a_fixed_weight_stays_until_it_is_given_back() -> None:
    async def scenario(host: Host) -> None:
        host.begin(spec(ramp=QUICK, full=300))
        assert host.order({"weight": 41}, "weight", spec(ramp=QUICK, full=300)) == "fixed at 41 of 300"
        assert host.told == [("cart", Share(41))]  # it is "up", and nothing for readers to compute
        assert host.full == ["cart"]  # whoever waits for it need not wait any longer
        assert host.warmups.is_full("cart")
        assert host.warmups.describe("cart") == "fixed at 41 of 300"
        host.begin(spec("other", QUICK))
        await until(lambda: "other" in host.full)
        assert host.weight() == 41
        words = host.order({"weight": "auto"}, "weight", spec(ramp=QUICK, full=300))
        assert words == "at its full weight of 300"  # the ramp has ended meanwhile
        assert host.weights() == [41, 300]

    on_host(scenario)


def test_a_weight_that_is_given_back_early_goes_on_with_the_ramp() -> None:
    async def scenario(host: Host) -> None:
        host.begin(spec())
        host.order({"weight": 5}, "weight")
        assert host.order({"weight": "auto"}, "weight").startswith("warming: 10 of 100")
        host.order({"initial": 50, "step": 50, "period": 0.1})
        await until(lambda: len(host.full) == 2)
        assert host.weights() == [5, 10, 50, 100]

    on_host(scenario)


def test_a_fixed_weight_survives_new_attempts_and_can_be_set_before_the_first() -> None:
    def scenario(host: Host) -> None:
        for ramp in (SLOW, None):
            host.order({"weight": 40}, "weight", spec(ramp=ramp))
            assert host.told == []  # there is nothing to publish
            for attempt in (1, 2, 3):
                host.begin(spec(ramp=ramp), attempt)
                assert host.warmups.share("cart", 100) == Share(40)
                host.warmups.lost("cart")
            host.order({"weight": "auto"}, "weight", spec(ramp=ramp))
            host.begin(spec(ramp=ramp), 4)
            assert host.weight() == (10 if ramp else 100)
            host.warmups.forget("cart")
            assert host.saved["cart"] is None

    on_host(scenario)


@pytest.mark.parametrize("parameters", [{}, {"jump": 50}, {"pause": True}, {"resume": True}])
def test_a_fixed_weight_comes_before_orders_about_the_ramp(parameters: dict[str, object]) -> None:
    def scenario(host: Host) -> None:
        host.begin(spec())
        host.order({"weight": 40}, "weight")
        with pytest.raises(WireError, match='give it back with weight "auto"'):
            host.order(parameters)
        assert host.weight() == 40

    on_host(scenario)


def test_while_its_probe_fails_no_order_raises_the_weight_but_any_may_lower_it() -> None:
    def scenario(host: Host) -> None:
        host.begin(spec())
        host.order({"jump": 50})
        host.warmups.hold("cart")
        for verb, parameters in (("warm", {"jump": 60}), ("warm", {"initial": 51}), ("weight", {"weight": 51})):
            with pytest.raises(WireError, match="its readiness probe fails"):
                host.order(dict(parameters), verb)
        assert host.order({"jump": 40}) == "held at 40 of 100: its readiness probe fails"
        assert host.order({"initial": 30}) == "held at 30 of 100: its readiness probe fails"
        host.order({"weight": 20}, "weight")
        with pytest.raises(WireError, match="its readiness probe fails"):
            host.order({"weight": "auto"}, "weight")
        host.warmups.release("cart")
        host.order({"weight": "auto"}, "weight")
        assert host.weight() == 30

    on_host(scenario)


# What survives the daemon.


def restarted(record: object, elapsed: float, attempt: int = 1, unit: UnitSpec | None = None) -> tuple[str, Share]:
    """How a unit stands once a new daemon has restored and published it."""
    answers = list[tuple[str, Share]]()

    def scenario(host: Host) -> None:
        host.warmups.restore("cart", record, elapsed)
        assert host.warmups.describe("cart") == ""
        host.begin(unit or spec(), attempt)
        answers.append((host.warmups.describe("cart"), host.warmups.share("cart", 100)))

    on_host(scenario)
    return answers[0]


def record_after(*actions: Callable[[Host], object]) -> dict[str, object]:
    records = list[dict[str, object] | None]()

    def scenario(host: Host) -> None:
        host.begin(spec())
        for action in actions:
            action(host)
        records.append(host.saved["cart"])

    on_host(scenario)
    assert records[0] is not None
    return records[0]


def test_the_same_attempt_goes_on_with_the_time_that_passed_without_a_daemon() -> None:
    words, share = restarted(record_after(), 3 * SLOW.period + 60)
    assert share == Share(40, True, 9 * SLOW.period)
    assert words.startswith("warming: 40 of 100, next step in 35")


def test_another_attempt_begins_anew() -> None:
    assert restarted(record_after(), 3 * SLOW.period, attempt=2)[1].weight == 10


def test_a_pause_and_a_fixed_weight_go_on() -> None:
    paused = record_after(lambda host: host.order({"jump": 30}), lambda host: host.order({"pause": True}))
    assert restarted(paused, 1e6)[0] == "paused at 30 of 100"
    fixed = record_after(lambda host: host.order({"weight": 40}, "weight"))
    assert restarted(fixed, 1e6, attempt=7)[0] == "fixed at 40 of 100"


def test_a_unit_that_had_left_begins_anew_if_it_was_away_for_a_period_in_all() -> None:
    left = record_after(lambda host: host.order({"jump": 30}), lambda host: host.warmups.lost("cart"))
    assert restarted(left, SLOW.period / 2)[1].weight == 30
    assert restarted(left, SLOW.period)[1].weight == 10


def test_time_while_its_probe_failed_does_not_count() -> None:
    assert restarted(record_after(lambda host: host.warmups.hold("cart")), 3 * SLOW.period)[1].weight == 10


def test_a_restored_unit_is_told_of_nothing_before_it_is_published() -> None:
    async def scenario(host: Host) -> None:
        host.warmups.restore("cart", record_after_quickly, 0.0)
        host.begin(spec("other", QUICK))
        await until(lambda: "other" in host.full)
        assert host.weights() == []

    record_after_quickly = record_after(lambda host: host.order({"initial": 10, "step": 10, "period": 0.01}))
    on_host(scenario)


@pytest.mark.parametrize(
    "damage", [{"attempt": "1"}, {"attempt": True}, {"away": "x"}, {"away": True}, {"initial": 0}, {"paused": None}]
)
def test_a_damaged_record_is_dropped_with_a_warning(
    damage: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    assert restarted(record_after() | damage, 3 * SLOW.period)[1].weight == 10
    assert "cart: cannot go on with its warm-up, which starts again: " in caplog.text


@pytest.mark.parametrize("record", [None, [], "x"])
def test_what_is_no_record_is_dropped_with_a_warning(record: object, caplog: pytest.LogCaptureFixture) -> None:
    assert restarted(record, 0.0)[1].weight == 10
    assert "it is no JSON object" in caplog.text


def test_a_configuration_without_a_ramp_ends_the_record_with_the_next_attempt() -> None:
    def scenario(host: Host) -> None:
        host.begin(spec(), 1)
        assert host.saved["cart"] is not None
        host.begin(spec(ramp=None), 2)
        assert host.saved["cart"] is None
        saves = host.saves
        host.begin(spec(ramp=None), 3)
        assert host.saves == saves

    on_host(scenario)


def test_steps_are_not_saved_for_they_follow_from_the_time() -> None:
    async def scenario(host: Host) -> None:
        host.begin(spec(ramp=QUICK))
        saves = host.saves
        await until(lambda: host.full)
        assert host.saves == saves

    on_host(scenario)


def test_a_closed_one_tells_nobody() -> None:
    async def scenario(host: Host) -> None:
        host.begin(spec(ramp=QUICK))
        host.warmups.close()
        other = Host()
        other.begin(spec(ramp=QUICK))
        await until(lambda: other.full)
        other.warmups.close()
        assert (host.told, host.full) == ([], [])

    on_host(scenario)


def test_a_thousand_units_wake_the_loop_a_few_times_a_second_not_once_each() -> None:
    async def scenario(host: Host) -> None:
        for number in range(1000):
            host.begin(spec(f"cart:{number}", WarmupSpec(50, 50, 1.0 + number / 1000)))
        await until(lambda: len(host.full) == 1000)
        assert len(set(host.told_at)) <= 11

    on_host(scenario)
