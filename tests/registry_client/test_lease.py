"""lease.py, with time as plain numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_client import lease as leases
from registry_client.lease import Lease, LeaseState

TTL = 12.0


def held(sent_at: float = 100.0, answered_at: float = 101.0) -> Lease:
    return leases.confirmed(Lease(TTL), sent_at, answered_at, TTL)


def test_a_new_lease_is_absent_and_due_at_once() -> None:
    lease = Lease(TTL)
    assert leases.state_at(lease, 5.0) is LeaseState.ABSENT
    assert leases.next_beat_at(lease, 0) == -math.inf
    assert leases.confirmed_until(lease) is leases.expires_at(lease) is None


def test_a_confirmed_lease_is_held_for_half_its_ttl_then_doubtful_then_lost() -> None:
    lease = held()
    assert leases.state_at(lease, 100.0) is LeaseState.HELD
    assert leases.state_at(lease, 105.9) is LeaseState.HELD
    assert leases.state_at(lease, 106.0) is LeaseState.SUSPENDED
    assert leases.state_at(lease, 111.9) is LeaseState.SUSPENDED
    assert leases.state_at(lease, 112.0) is LeaseState.LOST


def test_the_two_bounds_count_from_sending_and_from_answering() -> None:
    lease = held(sent_at=100.0, answered_at=101.0)
    assert leases.confirmed_until(lease) == 112.0
    assert leases.expires_at(lease) == 113.0


def test_the_granted_ttl_counts_not_the_asked_one() -> None:
    lease = leases.confirmed(Lease(1.0), 100.0, 100.1, 2.0)
    assert leases.confirmed_until(lease) == 102.0


def test_an_unanswered_beat_makes_it_doubtful_and_may_still_have_prolonged_it() -> None:
    lease = leases.unanswered(held(), 104.0, 106.0)
    assert leases.state_at(lease, 104.5) is LeaseState.SUSPENDED
    assert leases.confirmed_until(lease) == 112.0
    assert leases.expires_at(lease) == 118.0


def test_a_beat_that_was_never_sent_prolongs_nothing() -> None:
    lease = leases.unanswered(held(), 104.0, 104.1, may_have_counted=False)
    assert leases.state_at(lease, 104.2) is LeaseState.SUSPENDED
    assert leases.expires_at(lease) == 113.0


def test_a_confirmed_beat_after_unanswered_ones_holds_it_again() -> None:
    lease = leases.unanswered(leases.unanswered(held(), 104.0, 106.0), 108.0, 110.0)
    assert leases.state_at(lease, 112.5) is LeaseState.LOST
    lease = leases.confirmed(lease, 112.0, 112.6, TTL)
    assert leases.state_at(lease, 113.0) is LeaseState.HELD


def test_a_first_registration_without_an_answer_may_be_held_until_its_ttl_is_over() -> None:
    lease = leases.unanswered(Lease(TTL), 100.0, 102.0)
    assert leases.state_at(lease, 103.0) is LeaseState.SUSPENDED
    assert leases.state_at(lease, 114.0) is LeaseState.LOST
    assert leases.next_beat_at(lease, 0) == 104.0


def test_a_first_registration_that_was_never_sent_is_lost() -> None:
    lease = leases.unanswered(Lease(TTL), 100.0, 102.0, may_have_counted=False)
    assert leases.state_at(lease, 100.0) is LeaseState.LOST
    assert leases.expires_at(lease) is None


def test_a_refused_lease_is_lost_seen_by_nobody_and_due_at_once() -> None:
    lease = leases.refused(held(), 104.0)
    assert leases.state_at(lease, 104.0) is LeaseState.LOST
    assert leases.expires_at(lease) is None
    assert leases.next_beat_at(lease, 0) == -math.inf
    assert leases.state_at(leases.confirmed(lease, 105.0, 105.1, TTL), 105.2) is LeaseState.HELD


def test_a_registration_that_fails_after_a_refusal_waits_for_its_turn() -> None:
    lease = leases.unanswered(leases.refused(held(), 104.0), 104.1, 104.2)
    assert leases.state_at(lease, 104.3) is LeaseState.LOST
    assert leases.next_beat_at(lease, 0) == 108.1
    assert leases.expires_at(lease) == 116.2


def test_a_refusal_overtaken_by_a_confirmed_beat_is_ignored() -> None:
    lease = leases.confirmed(held(), 104.0, 104.5, TTL)
    assert leases.refused(lease, 103.9) == lease


def test_a_refusal_overtaken_by_an_unanswered_beat_does_not_clear_the_bound() -> None:
    lease = leases.refused(leases.unanswered(held(), 104.0, 106.0), 105.0)
    assert leases.state_at(lease, 106.0) is LeaseState.LOST
    assert leases.expires_at(lease) == 118.0


def test_a_late_answer_to_an_older_beat_proves_nothing_new() -> None:
    lease = leases.confirmed(held(), 104.0, 104.5, TTL)
    late = leases.confirmed(lease, 102.0, 105.0, TTL)
    assert leases.confirmed_until(late) == 116.0
    assert leases.expires_at(late) == 117.0
    assert leases.state_at(leases.unanswered(lease, 102.0, 105.0), 105.0) is LeaseState.HELD


def test_a_withdrawn_lease_is_absent_never_due_and_seen_until_its_ttl_is_over() -> None:
    lease = leases.withdrawn(held())
    assert leases.state_at(lease, 101.0) is LeaseState.ABSENT
    assert leases.next_beat_at(lease, 1) == math.inf
    assert leases.expires_at(lease) == 113.0


def test_late_answers_after_a_withdrawal_only_move_the_bound() -> None:
    lease = leases.withdrawn(held())
    for late in (
        leases.confirmed(lease, 104.0, 105.0, TTL),
        leases.unanswered(lease, 104.0, 105.0),
    ):
        assert leases.state_at(late, 105.0) is LeaseState.ABSENT
        assert leases.expires_at(late) == 117.0
    assert leases.expires_at(leases.unanswered(lease, 104.0, 105.0, may_have_counted=False)) == 113.0
    refused = leases.refused(lease, 104.0)
    assert leases.state_at(refused, 105.0) is LeaseState.ABSENT
    assert leases.expires_at(refused) is None


def test_a_resumed_lease_is_due_at_once_and_keeps_its_bound() -> None:
    lease = leases.resumed(leases.withdrawn(held()))
    assert leases.next_beat_at(lease, 0) == -math.inf
    assert leases.state_at(lease, 102.0) is LeaseState.ABSENT
    assert leases.expires_at(lease) == 113.0
    assert leases.state_at(leases.confirmed(lease, 103.0, 103.1, TTL), 104.0) is LeaseState.HELD


def test_a_removed_lease_is_seen_by_nobody() -> None:
    lease = leases.removed(held())
    assert leases.state_at(lease, 101.0) is LeaseState.ABSENT
    assert leases.expires_at(lease) is None


def test_the_next_beat_is_a_third_of_the_ttl_after_the_last_was_sent() -> None:
    assert leases.next_beat_at(held(), 0) == 104.0
    assert leases.next_beat_at(held(), 1) == pytest.approx(104.4)
    assert leases.next_beat_at(held(), -1) == pytest.approx(103.6)
    assert leases.next_beat_at(leases.unanswered(held(), 104.0, 106.0), 0) == 108.0


@pytest.mark.parametrize("jitter", [1.01, -1.01, math.nan])
def test_other_jitter_is_an_error(jitter: float) -> None:
    with pytest.raises(ValueError, match="jitter"):
        leases.next_beat_at(held(), jitter)


def test_a_beat_may_take_a_sixth_of_the_ttl() -> None:
    assert leases.rpc_timeout(TTL) == 2.0


def test_after_one_lost_beat_the_next_is_answered_before_the_lease_is_lost() -> None:
    due_at = leases.next_beat_at(held(), 1)
    lease = leases.unanswered(held(), due_at, due_at + leases.rpc_timeout(TTL))
    due_at = leases.next_beat_at(lease, 1)
    answered_at = due_at + leases.rpc_timeout(TTL)
    assert leases.state_at(lease, answered_at) is LeaseState.SUSPENDED
    assert leases.state_at(leases.confirmed(lease, due_at, answered_at, TTL), answered_at) is LeaseState.HELD


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["confirmed", "unanswered", "unsent", "refused", "withdrawn", "resumed"]),
        st.floats(0.1, 10),
        st.floats(0, 2),
    ),
    max_size=30,
)


def apply(lease: Lease, kind: str, sent_at: float, ended_at: float) -> Lease:
    """One beat's outcome."""
    if kind == "confirmed":
        return leases.confirmed(lease, sent_at, ended_at, TTL)
    if kind in ("unanswered", "unsent"):
        return leases.unanswered(lease, sent_at, ended_at, may_have_counted=kind == "unanswered")
    if kind == "refused":
        return leases.refused(lease, sent_at)
    return leases.withdrawn(lease) if kind == "withdrawn" else leases.resumed(lease)


@given(STEPS)
def test_whatever_happens_a_lease_is_never_held_longer_than_others_can_see_it(
    steps: list[tuple[str, float, float]],
) -> None:
    lease, now, counted_at = Lease(TTL), 0.0, None
    for kind, pause, duration in steps:
        sent_at, now = now + pause, now + pause + duration
        lease = apply(lease, kind, sent_at, now)
        if kind in ("confirmed", "unanswered"):
            counted_at = now
        elif kind == "refused":
            counted_at = None
        until, seen_until = leases.confirmed_until(lease), leases.expires_at(lease)
        assert until is None or lease.lost or (seen_until is not None and until <= seen_until)
        assert seen_until == (None if counted_at is None else counted_at + TTL)
        if leases.state_at(lease, now) is LeaseState.HELD:
            assert until is not None and now < until and not lease.withdrawn
