"""What the holder of a registration knows about it, and when to do what. Pure: every instant is an argument.

    ABSENT --confirmed--> HELD --unanswered, or half the ttl without confirmation--> SUSPENDED
      |                     ^                                                           |
      |                     +--------------------------confirmed------------------------+
      +--unanswered--> SUSPENDED --the ttl is over, or the registry says so--> LOST --confirmed--> HELD
    any state --withdrawn--> ABSENT, and no late answer leads out of it (only `resumed` does)

Two bounds, for two questions. *Can I rely on being registered?* Only until `confirmed_until`: the registry counts
the ttl from when a beat arrived, which is never before it was sent. *Can anybody still see me?* Until `expires_at`,
for a beat may count although its answer never came, and as late as the moment when it was given up.

Instants are monotonic seconds of one clock; durations are seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum

JITTER = 0.1  # share of the interval, added or taken away


class LeaseState(Enum):
    """How sure the holder is of its entry."""

    ABSENT = "absent"  # not registered, or withdrawn
    HELD = "held"
    SUSPENDED = "suspended"  # no answer of late; may still be held
    LOST = "lost"  # expired, or refused by the registry: register anew


@dataclass(frozen=True, slots=True)
class Lease:
    """The facts of one lease; the functions of this module make new ones."""

    ttl_seconds: float  # as granted; as asked for until something was
    sent_at: float | None = None  # when the last confirmed beat was sent
    beat_at: float | None = None  # when the last beat was sent, however it ended; None: one is due at once
    last_possible_at: float | None = None  # the last instant at which a call could have prolonged the entry
    unanswered: bool = False  # the last beat was
    lost: bool = False  # the registry said so
    withdrawn: bool = False


def confirmed(lease: Lease, sent_at: float, answered_at: float, ttl_seconds: float) -> Lease:
    """A beat was answered well. An answer to a beat older than the last confirmed one proves nothing new."""
    lease = replace(lease, last_possible_at=_later(lease.last_possible_at, answered_at))
    if lease.withdrawn or (lease.sent_at is not None and sent_at < lease.sent_at):
        return lease
    beat_at = _later(lease.beat_at, sent_at)
    return replace(lease, ttl_seconds=ttl_seconds, sent_at=sent_at, beat_at=beat_at, unanswered=False, lost=False)


def unanswered(lease: Lease, sent_at: float, given_up_at: float, *, may_have_counted: bool = True) -> Lease:
    """A beat got no answer until it was given up, which must mean: its connection was closed.

    `may_have_counted=False` says that it was never sent.
    """
    if may_have_counted:
        lease = replace(lease, last_possible_at=_later(lease.last_possible_at, given_up_at))
    if lease.withdrawn:
        return lease
    overtaken = lease.sent_at is not None and sent_at < lease.sent_at
    return replace(lease, beat_at=_later(lease.beat_at, sent_at), unanswered=lease.unanswered or not overtaken)


def refused(lease: Lease, sent_at: float) -> Lease:
    """The registry answered to a beat that it has no such entry; another beat (a registration) is due at once.

    A refusal that a later, confirmed beat has overtaken is ignored.
    """
    if lease.sent_at is not None and sent_at < lease.sent_at:
        return lease
    overtaken = lease.last_possible_at is not None and sent_at < lease.last_possible_at
    last_possible_at = lease.last_possible_at if overtaken else None  # None: it was seen to be absent since
    if lease.withdrawn:
        return replace(lease, last_possible_at=last_possible_at)
    return replace(lease, beat_at=None, last_possible_at=last_possible_at, unanswered=False, lost=True)


def withdrawn(lease: Lease) -> Lease:
    """No more beats are sent. Answers still on their way only move `last_possible_at`."""
    return replace(lease, sent_at=None, beat_at=None, unanswered=False, lost=False, withdrawn=True)


def resumed(lease: Lease) -> Lease:
    """Beats are wanted again after `withdrawn`; the first is due at once."""
    return replace(lease, withdrawn=False)


def removed(lease: Lease) -> Lease:
    """The entry was deleted, or read and not found, while no beat was on its way: nobody sees it any more."""
    return replace(withdrawn(lease), last_possible_at=None)


def state_at(lease: Lease, now: float) -> LeaseState:
    """The state at an instant."""
    if lease.lost:
        return LeaseState.LOST
    until = confirmed_until(lease)
    if until is None:
        return _never_confirmed(lease, now)
    if now >= until:
        return LeaseState.LOST
    doubtful = lease.unanswered or now >= until - lease.ttl_seconds / 2
    return LeaseState.SUSPENDED if doubtful else LeaseState.HELD


def _never_confirmed(lease: Lease, now: float) -> LeaseState:
    until = expires_at(lease)
    if lease.withdrawn or not lease.unanswered:
        return LeaseState.ABSENT
    return LeaseState.SUSPENDED if until is not None and now < until else LeaseState.LOST


def confirmed_until(lease: Lease) -> float | None:
    """Until when the entry is certainly there (if the registry keeps its memory); None: nothing was confirmed."""
    return None if lease.sent_at is None else lease.sent_at + lease.ttl_seconds


def expires_at(lease: Lease) -> float | None:
    """From when on a registry that is never late does not show the entry; None: it does not show it now.

    For a real registry, add its lateness: `last_possible_at + backend.removal_bound(ttl_seconds)`.
    """
    return None if lease.last_possible_at is None else lease.last_possible_at + lease.ttl_seconds


def next_beat_at(lease: Lease, jitter: float) -> float:
    """When to send the next beat: a third of the ttl after the last one was sent, give or take a tenth.

    `jitter` is uniformly random, -1 <= jitter <= 1. Minus infinity: at once. Plus infinity: never (withdrawn).
    """
    if not -1 <= jitter <= 1:
        raise ValueError(f"cannot plan a beat: jitter must be from -1 to 1, not {jitter}")
    if lease.withdrawn:
        return math.inf
    return -math.inf if lease.beat_at is None else lease.beat_at + lease.ttl_seconds / 3 * (1 + JITTER * jitter)


def rpc_timeout(ttl_seconds: float) -> float:
    """The longest time to wait for the answer to a beat: so that after a lost one the next still fits into the ttl."""
    return ttl_seconds / 6


def _later(known: float | None, instant: float) -> float:
    return instant if known is None else max(known, instant)
