"""detector.py: how suspicious silence is."""

from __future__ import annotations

import math
import random
import statistics
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_center.detector import MAX_PHI, Detector, DetectorPolicy, phi_of

REGULAR = DetectorPolicy(pause_seconds=0, min_std_seconds=0.1)


def beaten(policy: DetectorPolicy, intervals: list[float], expected: float | None = None) -> tuple[Detector, float]:
    """A detector after heartbeats with these intervals, and the time of the last one."""
    detector = Detector(policy, expected if expected is not None else intervals[0])
    now = 100.0
    detector.heartbeat(now)
    for interval in intervals:
        now += interval
        detector.heartbeat(now)
    return detector, now


def convicted_after(detector: Detector, now: float, phi: float) -> float:
    """Seconds of silence until phi is reached, by bisection."""
    low, high = 0.0, 1000.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if detector.phi(now + middle) >= phi else (middle, high)
    return high


def exact_phi(deviations: float) -> float:
    """From the normal distribution itself."""
    return -math.log10(0.5 * math.erfc(deviations / math.sqrt(2)))


@pytest.mark.parametrize(
    ("interval", "deviation", "pause", "seconds"),
    [
        (1, 0.1, 0, 1.52), (1, 0.1, 3, 4.52), (5, 0.5, 0, 7.61), (5, 0.5, 3, 10.61), (5, 1.25, 0, 11.5),
        (5, 1.25, 3, 14.5), (5, 0.5, 5, 12.61),
    ],
)  # fmt: skip
def test_a_silent_node_is_suspected_after_as_long_as_the_formula_says(
    interval: float, deviation: float, pause: float, seconds: float
) -> None:
    policy = DetectorPolicy(pause_seconds=pause, min_std_seconds=deviation)
    detector, now = beaten(policy, [interval] * 2000)
    assert convicted_after(detector, now, 8) == pytest.approx(seconds, abs=0.05)
    assert 0.08 < convicted_after(detector, now, 12) - convicted_after(detector, now, 8) < 1.5


@pytest.mark.parametrize("deviations", [-8, -3, -1, -0.3, 0, 0.2, 0.5, 1, 1.5, 2, 2.5, 3, 4])
def test_the_approximation_is_close_to_the_normal_distribution(deviations: float) -> None:
    assert 10 ** -phi_of(deviations) == pytest.approx(10 ** -exact_phi(deviations), abs=1.5e-4)


def test_phi_is_the_published_approximation() -> None:
    for deviations in (-2.0, -0.5, 0.0, 1.0, 3.0, 5.0):
        e = math.exp(-deviations * (1.5976 + 0.070566 * deviations**2))
        assert phi_of(deviations) == pytest.approx(-math.log10(e / (1 + e)))


def test_far_out_phi_is_a_little_above_the_exact_one_and_never_far_below() -> None:
    """So nobody is suspected much later than the mathematics would have it."""
    for deviations in (4.0, 5.0, 5.6, 6.0, 7.0, 8.0):
        assert exact_phi(deviations) <= phi_of(deviations) <= exact_phi(deviations) * 1.6


@given(st.floats(-1e9, 1e300), st.floats(0, 1e9))
def test_phi_grows_with_silence_and_stays_finite(deviations: float, more: float) -> None:
    assert 0 <= phi_of(deviations) <= phi_of(deviations + more) <= MAX_PHI


def test_a_silence_of_years_is_only_very_suspicious() -> None:
    detector, now = beaten(DetectorPolicy(), [5] * 10)
    assert detector.phi(now + 3600) == MAX_PHI
    assert math.isfinite(detector.phi(now + 1e15))
    assert detector.state(now + 1e15) == "dead"


def test_the_first_samples_stand_for_the_expected_interval() -> None:
    detector = Detector(DetectorPolicy(min_std_seconds=0), 4.0)
    assert (detector.mean_seconds, detector.deviation_seconds) == (4.0, 1.0)
    assert detector.state(1e9) == "unknown"
    assert detector.phi(1e9) == 0
    detector.heartbeat(50.0)
    assert detector.state(58.0) == "up"
    assert detector.state(100.0) == "dead"


def test_the_states_follow_the_two_limits() -> None:
    detector, now = beaten(DetectorPolicy(), [5] * 1000)
    suspect, dead = convicted_after(detector, now, 8), convicted_after(detector, now, 12)
    states = [detector.state(now + seconds) for seconds in (suspect - 0.01, suspect, dead - 0.01, dead)]
    assert states == ["up", "suspect", "suspect", "dead"]


def test_the_pause_is_added_to_the_mean() -> None:
    without, now = beaten(REGULAR, [1] * 50)
    with_pause, _ = beaten(DetectorPolicy(pause_seconds=3, min_std_seconds=0.1), [1] * 50)
    assert with_pause.phi(now + 4.3) == pytest.approx(without.phi(now + 1.3))


def test_a_very_regular_node_is_given_the_least_deviation() -> None:
    detector, _ = beaten(DetectorPolicy(samples=10), [5] * 20)
    assert detector.deviation_seconds == 0.5


def test_an_irregular_node_is_given_more_time_than_a_regular_one() -> None:
    dice = random.Random(3)
    irregular, end = beaten(REGULAR, [dice.uniform(3, 7) for _ in range(500)], 5.0)
    regular, now = beaten(REGULAR, [5] * 500)
    assert convicted_after(irregular, end, 8) > convicted_after(regular, now, 8) + 2


@given(
    st.lists(st.floats(0.0009765625, 1e4, width=32), min_size=1, max_size=200),
    st.integers(1, 20),
)
def test_mean_and_deviation_are_those_of_the_window(intervals: list[float], samples: int) -> None:
    policy = DetectorPolicy(suspect=MAX_PHI * 2, samples=samples, min_std_seconds=0)  # nothing is too suspicious
    detector = Detector(policy, 10.0)
    now, window = 0.0, [7.5, 12.5]
    detector.heartbeat(now)
    for interval in intervals:
        before, now = now, now + interval
        window.append(now - before)
        detector.heartbeat(now)
    # The first samples are replaced first, as the oldest.
    expected = window[-samples:]
    assert detector.mean_seconds == pytest.approx(statistics.fmean(expected), rel=1e-5, abs=1e-6)
    spread = max(expected) - min(expected)
    assert detector.deviation_seconds == pytest.approx(statistics.pstdev(expected), rel=1e-3, abs=1e-3 + spread * 1e-6)


def test_rounding_does_not_add_up_over_a_million_heartbeats() -> None:
    dice = random.Random(7)
    detector, _ = beaten(DetectorPolicy(samples=100, min_std_seconds=0), [1000.0], 1000.0)
    now, last = 2000.0, []
    detector.begin_anew(1000.0, now)
    for _ in range(200_050):
        interval = 1000 + dice.uniform(-0.5, 0.5)
        last.append(now + interval - now)
        now += interval
        detector.heartbeat(now)
    assert detector.mean_seconds == pytest.approx(statistics.fmean(last[-100:]), abs=1e-4)
    assert detector.deviation_seconds == pytest.approx(statistics.pstdev(last[-100:]), rel=1e-3)


def test_a_clock_that_does_not_move_teaches_nothing() -> None:
    detector, now = beaten(DetectorPolicy(), [5] * 20)
    before = detector.mean_seconds, detector.deviation_seconds
    for _ in range(100):
        detector.heartbeat(now)
        detector.heartbeat(now - 1)
    assert (detector.mean_seconds, detector.deviation_seconds) == before
    assert detector.last == now
    assert detector.phi(now) < 0.01


def test_a_silence_that_was_suspicious_does_not_excuse_the_next_one() -> None:
    detector, now = beaten(DetectorPolicy(), [5] * 100)
    before = convicted_after(detector, now, 8)
    detector.heartbeat(now + 300)
    assert detector.state(now + 300) == "up"
    assert convicted_after(detector, now + 300, 8) == pytest.approx(before)


def test_forgiven_silence_is_no_silence_and_no_sample() -> None:
    detector, now = beaten(DetectorPolicy(), [5] * 100)
    detector.forgive(60)
    assert detector.state(now + 62) == "up"
    detector.heartbeat(now + 65)
    assert detector.mean_seconds == pytest.approx(5)


def test_forgiveness_before_the_first_heartbeat_changes_nothing() -> None:
    detector = Detector(DetectorPolicy(), 5)
    detector.forgive(10)
    assert detector.last is None


def test_a_new_window_knows_nothing_of_the_old_one() -> None:
    detector, now = beaten(DetectorPolicy(), [5] * 100)
    detector.begin_anew(20.0, now + 40)
    assert detector.mean_seconds == 20
    assert detector.last == now + 40
    detector.begin_anew(10.0)
    assert (detector.mean_seconds, detector.last) == (10, now + 40)


def test_two_thousand_full_detectors_take_less_than_ten_megabytes() -> None:
    detector, _ = beaten(DetectorPolicy(), [5] * 3000)
    samples = detector._intervals
    size = sys.getsizeof(samples) + sys.getsizeof(detector) + 3 * sys.getsizeof(1.5)
    assert not hasattr(detector, "__dict__")
    assert len(samples) == 1000
    assert size < 5000
    assert 2000 * size < 10_000_000
