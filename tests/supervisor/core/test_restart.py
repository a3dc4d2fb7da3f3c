"""What follows an exit, by policy alone."""

import pytest

from supervisor.core.model import Autorestart, Exit, RestartPolicy
from supervisor.core.restart import TokenBucket, backoff_delay, judge

CLEAN = Exit("exited with code 0", code=0)
BAD = Exit("exited with code 3", code=3)
KILLED = Exit("killed by SIGKILL", signal=9)
POLICY = RestartPolicy(backoff_initial=1, backoff_factor=2, backoff_max=10, backoff_jitter=0.1)


def verdict(policy, exit_, *, failures=1, failed_starts=0, was_ready=True):
    return judge(policy, exit_, failures=failures, failed_starts=failed_starts, was_ready=was_ready, jitter=0.5)


@pytest.mark.parametrize(
    ("autorestart", "exit_", "follow"),
    [
        (Autorestart.ALWAYS, CLEAN, "restart"),
        (Autorestart.ALWAYS, BAD, "restart"),
        (Autorestart.UNEXPECTED, CLEAN, "rest"),
        (Autorestart.UNEXPECTED, BAD, "restart"),
        (Autorestart.UNEXPECTED, KILLED, "restart"),
        (Autorestart.NEVER, CLEAN, "rest"),
        (Autorestart.NEVER, KILLED, "rest"),
    ],
)
def test_autorestart_decides_after_a_unit_was_ready(autorestart, exit_, follow):
    assert verdict(RestartPolicy(autorestart=autorestart), exit_).follow == follow


def test_the_first_exit_of_a_unit_that_was_ready_is_answered_at_once():
    assert verdict(POLICY, BAD).delay == 0


def test_a_clean_exit_before_readiness_is_a_failed_start_whatever_the_policy():
    answer = verdict(RestartPolicy(autorestart=Autorestart.NEVER), CLEAN, failed_starts=1, was_ready=False)
    assert answer.follow == "restart"
    assert answer.delay > 0


def test_failed_starts_in_a_row_are_given_up_after_startretries():
    policy = RestartPolicy(startretries=3)
    assert verdict(policy, BAD, failures=3, failed_starts=3, was_ready=False).follow == "restart"
    answer = verdict(policy, BAD, failures=4, failed_starts=4, was_ready=False)
    assert answer.follow == "give up"
    assert "4 failed starts" in answer.reason
    assert "exited with code 3" in answer.reason


def test_what_cannot_heal_is_given_up_at_once():
    answer = verdict(POLICY, Exit("no such file: /x", stage="exec", errno=2, can_heal=False), was_ready=False)
    assert answer.follow == "give up"
    assert "no such file: /x" in answer.reason


def test_backoff_grows_to_its_cap():
    delays = [backoff_delay(POLICY, n, was_ready=False, jitter=0.5) for n in (1, 2, 3, 4, 5, 1000)]
    assert delays == [1, 2, 4, 8, 10, 10]
    assert [backoff_delay(POLICY, n, was_ready=True, jitter=0.5) for n in (1, 2, 3)] == [0, 1, 2]


def test_jitter_spreads_around_the_delay():
    low, high = (backoff_delay(POLICY, 2, was_ready=False, jitter=jitter) for jitter in (0, 0.999999))
    assert low == pytest.approx(1.8)
    assert high == pytest.approx(2.2, rel=1e-3)


def test_the_bucket_gives_its_burst_at_once_and_then_on_credit():
    bucket = TokenBucket.full(per_minute=60, burst=2, now=0)
    waits = []
    for _ in range(4):
        bucket, wait = bucket.take(0)
        waits.append(wait)
    assert waits == [0, 0, 1, 2]


def test_the_bucket_refills_with_time_but_never_above_its_burst():
    bucket = TokenBucket.full(per_minute=60, burst=2, now=0)
    bucket, _ = bucket.take(1000)
    assert bucket.tokens == 1
    bucket, wait = bucket.take(1000)
    assert wait == 0
    bucket, wait = bucket.take(1000.5)
    assert wait == pytest.approx(0.5)
