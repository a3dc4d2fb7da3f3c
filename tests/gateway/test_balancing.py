"""Shares follow the weights, and never is too much of a service left out."""

from __future__ import annotations

import time
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.balancing import OutlierPolicy, Outliers, WeightedChoice
from gateway.model import Key, Symptom

REFUSED = Symptom.CONNECT_REFUSED


def key(number: int) -> Key:
    return f"n/{number}", 1


WEIGHTS = st.dictionaries(st.integers(0, 50).map(key), st.integers(1, 60), min_size=1, max_size=12)


def choices(choice: WeightedChoice, count: int) -> list[Key]:
    found = [choice.choose() for _ in range(count)]
    assert None not in found
    return found  # type: ignore[return-value]


@given(WEIGHTS, st.integers(1, 3))
def test_in_a_whole_round_each_is_chosen_exactly_as_often_as_its_weight(weights: dict[Key, int], rounds: int) -> None:
    choice = WeightedChoice(weights)
    for _ in range(rounds):
        assert Counter(choices(choice, sum(weights.values()))) == weights


@given(WEIGHTS)
def test_at_no_time_is_anybody_two_turns_away_from_its_share(weights: dict[Key, int]) -> None:
    choice, total = WeightedChoice(weights), sum(weights.values())
    counts: Counter[Key] = Counter()
    for number in range(1, total + 1):
        counts[choices(choice, 1)[0]] += 1
        assert all(
            abs(counts[each] - number * weight / total) < len(weights) / 2 + 1 for each, weight in weights.items()
        )


def test_equal_ones_take_turns_and_a_heavy_one_gets_no_burst() -> None:
    assert choices(WeightedChoice({key(0): 7, key(1): 7, key(2): 7}), 6) == [key(0), key(1), key(2)] * 2
    turns = choices(WeightedChoice({key(0): 4, key(1): 1, key(2): 1}), 6)
    assert turns[1:-1].count(key(0)) == 2, turns


@given(WEIGHTS, WEIGHTS, st.integers(0, 100))
def test_after_a_change_of_weights_the_shares_are_the_new_ones(
    before: dict[Key, int], after: dict[Key, int], used: int
) -> None:
    choice = WeightedChoice(before)
    choices(choice, used)
    choice.set(after)
    assert len(choice) == len(after)
    rounds = 4
    counts = Counter(choices(choice, rounds * sum(after.values())))
    assert set(counts) == set(after)
    assert all(abs(counts[each] - rounds * weight) <= weight + 2 for each, weight in after.items())


@given(st.lists(st.integers(1, 100), min_size=20, max_size=60))
def test_weights_that_change_all_the_time_starve_nobody_and_favour_nobody(weights: list[int]) -> None:
    choice = WeightedChoice({key(0): 100, key(1): 100})
    counts: Counter[Key] = Counter()
    expected = 0.0
    for weight in weights:  # the warming one's
        choice.set({key(0): 100, key(1): weight})
        counts.update(choices(choice, 3))
        expected += 3 * weight / (100 + weight)
    assert abs(counts[key(1)] - expected) <= 2.5


def test_who_is_new_does_not_get_a_burst() -> None:
    choice = WeightedChoice({key(0): 100, key(1): 100})
    choices(choice, 130)
    choice.set({key(0): 100, key(1): 100, key(2): 100})
    assert Counter(choices(choice, 30))[key(2)] in (9, 10, 11)


def test_who_is_passed_over_keeps_its_turn() -> None:
    choice = WeightedChoice({key(0): 1, key(1): 1})
    assert choice.choose({key(0)}) == key(1)
    assert choice.choose({key(0), key(1)}) is None
    assert Counter(choices(choice, 3)) == {key(0): 2, key(1): 1}
    assert WeightedChoice().choose() is None


def test_a_choice_among_a_thousand_is_cheap() -> None:
    choice = WeightedChoice({key(number): 1 + number % 100 for number in range(1000)})
    began = time.process_time()
    choices(choice, 20_000)
    assert time.process_time() - began < 2.0, "some microseconds each"


# outliers


def outliers(count: int, **policy: float) -> Outliers:
    made = Outliers(OutlierPolicy(**policy))  # type: ignore[arg-type]
    made.keep([key(number) for number in range(count)], 0.0)
    return made


def fail(subject: Outliers, number: int, times: int = 3, now: float = 0.0) -> bool:
    return True in [subject.failed(key(number), REFUSED, now) for _ in range(times)]  # all of them


def test_only_failures_in_a_row_count() -> None:
    subject = outliers(4)
    for _ in range(5):
        assert not fail(subject, 0, 2)
        assert not subject.succeeded(key(0), 0.0)
    assert fail(subject, 0)
    assert subject.ejected == {key(0)}
    assert subject.symptom(key(0)) is REFUSED
    assert not subject.failed(key(0), REFUSED, 0.0), "it is out already"
    assert not subject.succeeded(key(0), 0.0), "an answer to what was sent before proves nothing"
    assert subject.ejected == {key(0)}


def test_it_is_left_out_for_longer_each_time_and_comes_back_only_when_it_has_answered() -> None:
    subject = outliers(2, eject_seconds=1.0, max_seconds=10.0)
    fail(subject, 0)
    assert (subject.probes(0.9), subject.seconds_left(key(0), 0.4)) == ([], 0.6)
    now, waits = 0.0, []
    for _ in range(6):
        began = now
        while not subject.probes(now):
            now += 0.5
        waits.append(now - began)
        assert subject.probes(now + 100) == [], "it is being asked"
        assert not subject.probed(key(0), False, now)
        assert subject.ejected == {key(0)}
    assert waits == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert subject.probes(now + 10.0) == [key(0)]
    assert subject.probed(key(0), True, now + 10.0)
    assert subject.ejected == frozenset()
    assert subject.symptom(key(0)) is None


def test_who_is_back_is_on_trial_until_its_first_success() -> None:
    subject = outliers(2)
    for _ in range(2):
        fail(subject, 0)
        subject.probes(1000.0)
        subject.probed(key(0), True, 1000.0)
        assert fail(subject, 0, times=1, now=1000.0), "one is enough"
        subject.probes(2000.0)
        subject.probed(key(0), True, 2000.0)
        assert not subject.succeeded(key(0), 2000.0), "that it is well was said when it answered"
        assert not fail(subject, 0, times=2, now=2000.0)
        subject.succeeded(key(0), 2000.0)


def test_who_has_been_well_for_long_is_forgiven() -> None:
    subject = outliers(2, eject_seconds=1.0, max_seconds=60.0)
    for _ in range(3):
        fail(subject, 0, now=0.0)
        subject.probes(100.0)
        subject.probed(key(0), True, 100.0)
        subject.succeeded(key(0), 100.0)
    fail(subject, 0, now=100.0)
    assert subject.seconds_left(key(0), 100.0) > 1.0
    subject.probes(1000.0)
    subject.probed(key(0), True, 1000.0)
    fail(subject, 0, now=1060.0)
    assert subject.seconds_left(key(0), 1060.0) == 1.0


@given(
    st.integers(0, 9),
    st.integers(0, 50),
    st.lists(
        st.tuples(st.sampled_from(("fail", "ok", "probe", "keep")), st.integers(0, 9), st.booleans()), max_size=60
    ),
)
def test_never_more_than_the_share_is_left_out_nor_the_last_one(
    count: int, percent: int, steps: list[tuple[str, int, bool]]
) -> None:
    subject, there = outliers(count, failures=1, percent=percent), count
    for now, (what, number, well) in enumerate(steps):
        match what:
            case "fail":
                subject.failed(key(number), REFUSED, float(now))
            case "ok":
                subject.succeeded(key(number), float(now))
            case "probe":
                for each in subject.probes(float(now)):
                    subject.probed(each, well, float(now))
            case "keep":
                there = number
                subject.keep([key(each) for each in range(number)], float(now))
        assert len(subject.ejected) <= there * percent / 100
        assert len(subject.ejected) < max(there, 1)
        assert subject.ejected <= {key(each) for each in range(there)}


def test_when_servers_leave_the_one_that_was_out_longest_comes_back() -> None:
    subject = outliers(4)
    fail(subject, 1, now=1.0)
    fail(subject, 0, now=2.0)
    assert subject.ejected == {key(0), key(1)}
    assert subject.keep([key(0), key(1), key(2)], 3.0)
    assert subject.ejected == {key(0)}
    assert not subject.keep([key(0), key(2)], 3.0)
    assert subject.ejected == {key(0)}
    assert subject.keep([key(0)], 3.0)
    assert subject.ejected == frozenset()
    assert subject.succeeded(key(0), 4.0), "it had been said to be down"
    assert not subject.succeeded(key(0), 4.0)


def test_answers_that_say_so_count_for_less_than_no_answer_or_not_at_all() -> None:
    subject = outliers(4, failures=3, errors=5)
    assert [subject.failed(key(0), Symptom.ERROR_ANSWERS, 0.0) for _ in range(5)] == [False] * 4 + [True]
    assert not any(subject.failed(key(1), Symptom.ERROR_ANSWERS, 0.0) for _ in range(3))
    assert subject.failed(key(1), Symptom.RESPONSE_TIMEOUT, 0.0), "the fourth in a row"
    subject = outliers(4, errors=0)
    assert not any(subject.failed(key(0), Symptom.ERROR_ANSWERS, 0.0) for _ in range(50))
    assert not subject.is_failing(key(0), Symptom.ERROR_ANSWERS)


def test_who_cannot_be_left_out_is_known_to_fail() -> None:
    subject = outliers(1)
    assert not fail(subject, 0, 2)
    assert not subject.is_failing(key(0), REFUSED)
    assert not fail(subject, 0, 1)
    assert subject.is_failing(key(0), REFUSED)
    assert not subject.failed(key(7), REFUSED, 0.0), "nobody knows it"
    assert not subject.probed(key(7), True, 0.0)
    assert not subject.succeeded(key(7), 0.0)
