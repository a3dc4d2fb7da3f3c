"""The weight that grows, by time alone."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.warmup import NO_RAMP, Ramp, Share, Warmup

START = 5_000.25
RAMP = Ramp(10, 10, 10.0)


def begun(ramp=RAMP, **facts):
    return replace(Warmup.begin(ramp, START), **facts)


ramps = st.builds(
    Ramp, st.integers(1, 100), st.integers(1, 100), st.floats(0.001, 86_400, allow_nan=False, allow_infinity=False)
)
waits = st.floats(0, 100_000, allow_nan=False)
percents = st.integers(1, 100)
changes = st.lists(
    st.tuples(waits, st.sampled_from(["hold", "release", "pause", "resume", "save", "wait"])), max_size=12
)


def changed(value, now, name):
    if name == "save":
        fresh = Warmup.from_json(json.loads(json.dumps(value.to_json(now))), now, 0.0)
        return fresh if value.held_since is None else fresh.hold(now)
    return value if name == "wait" else getattr(value, name)(now)


@pytest.mark.parametrize(
    ("seconds", "percent"),
    [(0, 10), (9.999, 10), (10, 20), (19.9, 20), (20, 30), (89.9, 90), (90, 100), (91, 100), (1e6, 100)],
)
def test_it_begins_low_and_grows_by_a_step_each_period_to_a_hundred(seconds, percent):
    assert begun().percent(START + seconds) == percent


def test_the_last_step_goes_to_a_hundred_and_no_further():
    value = begun(Ramp(25, 30, 1))
    assert [value.percent(START + second) for second in range(5)] == [25, 55, 85, 100, 100]


@pytest.mark.parametrize(
    ("ramp", "seconds"),
    [(RAMP, 90), (Ramp(25, 30, 1), 3), (Ramp(99, 100, 0.5), 0.5), (Ramp(40, 1, 2), 120), (NO_RAMP, 0)],
)
def test_the_length_of_a_ramp_is_when_it_is_full(ramp, seconds):
    assert ramp.seconds == seconds
    assert begun(ramp).is_full(START + seconds)
    assert seconds == 0 or not begun(ramp).is_full(START + seconds - 0.001)


def test_a_clock_that_reads_earlier_than_the_beginning_counts_nothing():
    assert begun().percent(START - 1000) == 10


@pytest.mark.parametrize(
    ("full", "percent", "weight"),
    [
        (100, 10, 10),
        (1, 10, 1),
        (3, 10, 1),
        (3, 50, 2),
        (5, 50, 3),
        (7, 50, 4),
        (65535, 100, 65535),
        (2, 1, 1),
        (256, 10, 26),
    ],
)
def test_the_weight_is_the_rounded_share_of_the_full_one_and_at_least_one(full, percent, weight):
    assert begun(Ramp(percent)).weight(full, START) == weight


@given(st.integers(1, 65535).flatmap(lambda full: st.tuples(st.just(full), st.integers(1, full))))
def test_a_weight_that_was_fixed_in_units_of_the_full_one_comes_back_exactly(pair):
    full, weight = pair
    assert begun().fix(weight / full * 100).weight(full, START) == weight


@given(ramps, st.lists(waits, max_size=8), st.integers(1, 65535))
def test_it_never_falls_by_itself_and_stays_within_its_bounds(ramp, steps, full):
    value, now, last = begun(ramp), START, ramp.initial
    for wait in steps:
        now += wait
        percent = value.percent(now)
        assert last <= percent <= 100
        assert 1 <= value.weight(full, now) <= full
        last = percent


@given(ramps, changes, st.integers(1, 65535))
def test_whatever_happens_it_grows_only_while_neither_held_nor_paused(ramp, happened, full):
    value, now = begun(ramp), START
    for wait, name in happened:
        before, stopped = value.percent(now), value.held_since is not None or value.paused_since is not None
        now += wait
        assert value.percent(now) >= before
        assert not stopped or value.percent(now) == before
        assert not stopped or value.next_change_at(now) is None
        at, value = value.percent(now), changed(value, now, name)
        assert value.percent(now) == at  # none of these moves it


@given(ramps, changes, waits)
def test_time_that_does_not_count_is_only_put_off(ramp, happened, rest):
    """Where it stands follows from the sum of the time in which nothing held it."""
    value, now, counted = begun(ramp), START, 0
    for wait, name in happened:
        if value.held_since is None and value.paused_since is None:
            counted += round((now + wait) * 1e6) - round(now * 1e6)
        now += wait
        value = changed(value, now, name)
    value = value.release(now).resume(now)
    counted += round((now + rest) * 1e6) - round(now * 1e6)
    assert value.percent(now + rest) == ramp.percent_after(counted // round(ramp.period * 1e6))


@given(ramps, waits)
def test_the_next_change_is_an_instant_at_which_it_grows_and_none_is_before(ramp, wait):
    value, now = begun(ramp), START + wait
    at = value.next_change_at(now)
    if at is None:
        assert value.percent(now) == 100
    else:
        assert at > now
        assert value.percent(at) > value.percent(now)
        assert value.percent(at - 0.0005) == value.percent(now)


def test_following_the_next_changes_takes_every_step_once():
    value, now, seen = begun(Ramp(10, 10, 0.1)), START, []
    while (at := value.next_change_at(now)) is not None:
        now = at
        seen.append(value.percent(now))
    assert seen == [20, 30, 40, 50, 60, 70, 80, 90, 100]


def test_held_and_paused_at_once_it_goes_on_only_when_both_are_over():
    value = begun().hold(START + 12).pause(START + 15)
    assert value.release(START + 40).percent(START + 1000) == 20
    assert value.resume(START + 40).percent(START + 1000) == 20
    value = value.release(START + 40).resume(START + 50)
    assert value.percent(START + 57.9) == 20
    assert value.percent(START + 58) == 30  # 12 s before, 8 s after


def test_holding_again_what_is_held_and_releasing_what_is_not_changes_nothing():
    held = begun().hold(START + 12)
    assert held.hold(START + 20) is held
    assert begun().pause(START).pause(START + 9) == begun().pause(START)
    assert begun().release(START + 3) == begun() == begun().resume(START + 3)


@given(ramps, waits, percents, waits)
def test_a_jump_goes_on_from_there_with_whole_periods(ramp, wait, percent, later):
    value = begun(ramp).jump(percent, START + wait)
    assert value == Warmup.begin(replace(ramp, initial=percent), START + wait)
    assert value.percent(START + wait) == percent
    assert percent <= value.percent(START + wait + later) <= 100


def test_a_jump_moves_a_paused_or_held_one_and_leaves_it_paused_or_held():
    assert begun().pause(START + 1).jump(60, START + 5).percent(START + 1000) == 60
    assert begun().hold(START + 1).jump(60, START + 5).percent(START + 1000) == 60
    assert begun().hold(START + 1).jump(60, START + 5).release(START + 9).percent(START + 19) == 70


def test_another_ramp_begins_anew_unpaused_and_still_held():
    value = begun().pause(START + 1).restart(Ramp(50, 25, 2), START + 5)
    assert [value.percent(START + 5 + second) for second in (0, 2, 4)] == [50, 75, 100]
    assert begun().hold(START + 1).restart(Ramp(50, 25, 2), START + 5).percent(START + 1000) == 50


def test_a_fixed_share_hides_the_ramp_whose_time_goes_on():
    value = begun().fix(40)
    assert value.percent(START) == value.percent(START + 1000) == 40
    assert value.next_change_at(START) is None
    assert value.unfix().percent(START + 25) == 30
    assert value.unfix() == begun()


def test_a_new_beginning_can_keep_what_was_fixed():
    assert Warmup.begin(RAMP, START, fixed=12.5).percent(START + 50) == 12.5


def test_the_entry_says_warming_below_the_full_weight_and_how_long_the_ramp_is():
    assert begun().share(200, START) == Share(20, True, 90)
    assert begun().share(200, START + 90) == Share(200, False, 90)
    assert begun(NO_RAMP).share(200, START) == Share(200)
    assert begun().fix(40).share(200, START) == Share(80)
    assert begun().share(1, START) == Share(1, True, 90)  # though its weight cannot be lower


# What survives the daemon.


def saved(value, now, elapsed, later):
    return Warmup.from_json(json.loads(json.dumps(value.to_json(now))), later, elapsed)


@given(ramps, waits, waits, waits)
def test_a_saved_one_goes_on_as_if_nothing_had_happened_on_whatever_clock(ramp, before, elapsed, after):
    value = begun(ramp)
    restored = saved(value, START + before, elapsed, 77.0)
    at = (START + before, elapsed, after)
    steps = {
        value.ramp.percent_after(math.floor((sum(at) - START + shift) / ramp.period)) for shift in (-1e-5, 0, 1e-5)
    }
    assert restored.percent(77.0 + after) in steps


def test_time_without_a_daemon_does_not_count_where_it_was_paused_or_held():
    paused = saved(begun().pause(START + 25), START + 30, 1000, 7.0)
    assert paused.percent(7.0 + 1000) == 30
    assert paused.resume(8.0).percent(13.0) == 40
    held = saved(begun().hold(START + 25), START + 30, 1000, 7.0)
    assert held.percent(7.0) == 30
    assert held.percent(12.0) == 40  # the probes have to say anew that they fail


def test_what_was_fixed_stays_fixed_and_time_that_ran_backwards_counts_nothing():
    assert saved(begun().fix(12.5), START, 5, 7.0).percent(7.0) == 12.5
    assert saved(begun(), START + 25, -500, 7.0).percent(7.0) == 30


GOOD = begun().to_json(START)


def test_a_record_says_what_it_says():
    assert GOOD == {
        "initial": 10, "step": 10, "period": 10.0, "counted": 0.0, "held": False, "paused": False, "fixed": None,
    }  # fmt: skip
    assert Warmup.from_json(GOOD | {"more": 1}, START, 0.0) == begun()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("initial", 0), ("initial", 101), ("initial", "10"), ("initial", True), ("initial", None), ("step", 0),
        ("step", 1.5), ("period", "x"), ("period", -1), ("period", 0), ("period", math.nan), ("period", math.inf), ("period", True),
        ("counted", -1), ("counted", None), ("counted", 10**400), ("counted", math.nan), ("held", None), ("held", 1),
        ("paused", "no"), ("fixed", 101), ("fixed", "all"), ("fixed", False), ("fixed", 0),
    ],
)  # fmt: skip
def test_a_damaged_record_is_refused_with_the_key_that_is_wrong(key, value):
    with pytest.raises(ValueError, match=key):
        Warmup.from_json(GOOD | {key: value}, START, 0.0)


@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_what_is_no_record_at_all_is_refused(value):
    with pytest.raises(ValueError, match="no JSON object"):
        Warmup.from_json(value, START, 0.0)
