"""Which connections still carry work, by what the kernel says of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor.core.traffic import (
    CLOSE_WAIT,
    CLOSING,
    ESTABLISHED,
    FIN_WAIT_1,
    FIN_WAIT_2,
    LAST_ACK,
    SYN_RECEIVED,
    Connection,
    Traffic,
    count,
)

PEER = ("192.0.2.7", 40000)
QUIET_SECONDS = 1.0

UNUSED = Connection(
    peer=PEER, state=ESTABLISHED, received=0, acked=0, last_received_ago=60.0, last_sent_ago=60.0, receive_queue=0,
    send_queue=0, accepted=True, last_confirmed_ago=60.0, bare_confirmations=0,
)  # fmt: skip
WORKING = replace(UNUSED, received=100, last_received_ago=5.0)
ANSWERED = replace(UNUSED, received=100, acked=900, last_received_ago=9.0, last_sent_ago=5.0, last_confirmed_ago=5.0)
JUST_ANSWERED = replace(ANSWERED, last_sent_ago=0.9, last_confirmed_ago=0.9)
AT_ONCE = replace(ANSWERED, last_received_ago=5.0, bare_confirmations=1)  # request and answer within one tick


def sorted_as(connection: Connection, quiet_seconds: float = QUIET_SECONDS) -> str:
    traffic = count([connection], quiet_seconds=quiet_seconds, ignored=())
    return next(name for name in Traffic.__slots__ if getattr(traffic, name) == 1)


@pytest.mark.parametrize(
    ("connection", "condition"),
    [
        pytest.param(UNUSED, "unused", id="opened, and nothing said"),
        pytest.param(replace(UNUSED, last_received_ago=0.0, last_sent_ago=0.0), "unused", id="just opened"),
        pytest.param(replace(UNUSED, state=CLOSE_WAIT), "unused", id="opened and closed by a client without a word"),
        pytest.param(WORKING, "in_flight", id="asked, and never answered"),
        pytest.param(replace(WORKING, receive_queue=100), "in_flight", id="asked, and not read yet"),
        pytest.param(replace(WORKING, state=CLOSE_WAIT), "in_flight", id="asked by a client that says no more"),
        pytest.param(ANSWERED, "idle", id="answered long ago"),
        pytest.param(JUST_ANSWERED, "trailing", id="answered just now"),
        pytest.param(replace(ANSWERED, last_received_ago=4.9), "in_flight", id="asked again"),
        pytest.param(replace(ANSWERED, receive_queue=1), "in_flight", id="asked again before the answer was out"),
        pytest.param(replace(ANSWERED, send_queue=1), "in_flight", id="answered, but the client does not take it"),
        pytest.param(replace(WORKING, send_queue=9), "in_flight", id="answered, but nothing of it has arrived"),
        pytest.param(replace(ANSWERED, state=CLOSE_WAIT), "idle", id="answered, and closed by the client only"),
        pytest.param(replace(UNUSED, acked=20), "unused", id="greeted by the unit long ago"),
        pytest.param(replace(UNUSED, acked=20, last_sent_ago=0.5), "trailing", id="the unit speaks without being asked"),
        pytest.param(replace(UNUSED, send_queue=20, last_sent_ago=0.5), "trailing", id="greeting not confirmed yet"),
    ],
)  # fmt: skip
def test_an_open_connection(connection: Connection, condition: str) -> None:
    assert sorted_as(connection) == condition


@pytest.mark.parametrize("state", [FIN_WAIT_1, FIN_WAIT_2, LAST_ACK, CLOSING])
def test_a_connection_that_the_unit_has_closed_is_in_flight_while_the_client_has_not_got_everything(state: int) -> None:
    assert sorted_as(replace(ANSWERED, state=state, send_queue=1)) == "in_flight"
    assert sorted_as(replace(ANSWERED, state=state)) == "idle"
    assert sorted_as(replace(WORKING, state=state)) == "idle"
    assert sorted_as(replace(UNUSED, state=state)) == "unused"


def test_a_client_that_goes_on_after_the_unit_has_closed_is_listened_to_for_a_while() -> None:
    assert sorted_as(replace(ANSWERED, state=FIN_WAIT_2, last_received_ago=0.5, receive_queue=10)) == "trailing"


@pytest.mark.parametrize("state", [SYN_RECEIVED, ESTABLISHED, CLOSE_WAIT])
@pytest.mark.parametrize("said", [0, 100])
def test_what_the_unit_has_not_accepted_is_unaccepted_whatever_it_carries(state: int, said: int) -> None:
    assert sorted_as(replace(UNUSED, state=state, received=said, receive_queue=said, accepted=False)) == "unaccepted"


def test_request_and_answer_within_one_tick_are_answered_if_a_confirmation_came_later() -> None:
    assert sorted_as(replace(AT_ONCE, last_confirmed_ago=4.96)) == "idle"


def test_request_and_answer_within_one_tick_are_answered_if_the_kernel_never_confirmed_a_request_by_itself() -> None:
    assert sorted_as(replace(AT_ONCE, bare_confirmations=0)) == "idle"


def test_request_and_answer_within_one_tick_are_in_flight_for_a_while_if_nothing_tells_which_came_first() -> None:
    assert sorted_as(AT_ONCE) == "in_flight"
    assert sorted_as(replace(AT_ONCE, last_received_ago=11.0, last_sent_ago=11.0, last_confirmed_ago=11.0)) == "idle"
    assert count([AT_ONCE], quiet_seconds=QUIET_SECONDS, ignored=(), doubt_seconds=5.0) == Traffic(idle=1)


def test_a_confirmation_that_came_with_the_clients_end_proves_nothing() -> None:
    assert sorted_as(replace(AT_ONCE, state=CLOSE_WAIT, last_confirmed_ago=1.0)) == "in_flight"


def test_without_knowledge_of_confirmations_a_tie_is_in_flight() -> None:
    bare = Connection(PEER, ESTABLISHED, 1, 1, 5.0, 5.0, 0, 0, True)
    assert sorted_as(bare) == "in_flight"


def test_the_quiet_time_is_the_callers() -> None:
    assert sorted_as(ANSWERED, quiet_seconds=5.0) == "idle"
    assert sorted_as(ANSWERED, quiet_seconds=5.1) == "trailing"
    assert sorted_as(replace(JUST_ANSWERED, last_sent_ago=0.0), quiet_seconds=0.0) == "idle"


def test_connections_of_ignored_peers_do_not_count() -> None:
    ours = ("127.0.0.1", 50000)
    connections = [WORKING, replace(WORKING, peer=ours), replace(UNUSED, peer=ours, accepted=False)]
    assert count(connections, quiet_seconds=QUIET_SECONDS, ignored={ours}) == Traffic(in_flight=1)


def test_every_connection_is_counted_once() -> None:
    connections = [WORKING, WORKING, JUST_ANSWERED, ANSWERED, UNUSED, replace(UNUSED, accepted=False)]
    traffic = count(iter(connections), quiet_seconds=QUIET_SECONDS, ignored=frozenset())
    assert traffic == Traffic(in_flight=2, trailing=1, idle=1, unused=1, unaccepted=1)


@pytest.mark.parametrize("kind", ["in_flight", "trailing", "unaccepted"])
def test_it_is_not_quiet_while_anything_may_be_cut(kind: str) -> None:
    assert not Traffic(**{kind: 1}).quiet


def test_it_is_quiet_with_idle_and_unused_connections_or_none() -> None:
    assert Traffic(idle=3, unused=2).quiet
    assert count([], quiet_seconds=QUIET_SECONDS, ignored=()).quiet
