"""Who gets which slot, and what HAProxy is told for it: pure."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayRefused
from gateway.feeders.haproxy.slots import (
    Backend,
    Slot,
    State,
    Wanted,
    parse_state,
    plan,
    put_away,
    ready_places,
    scaled,
    wanted,
)
from gateway.settings.haproxy import DrainBy
from tests.gateway.feeders.haproxy.scene import server

BACKEND = Backend("cart", "cart-", options="check inter 1s")
NOWHERE = ("127.0.0.1", 1)
STATE = """\
1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port
3 cart 1 cart-1 127.0.0.1 2 4 200 1 0 8 2 0 6 0 0 0 - 7001 - 0 0 - - 0
3 cart 2 cart-2 ::1 0 12 20 1 0 8 2 0 6 0 0 0 - 7002 - 0 0 - - 0
3 cart 3 cart-3 127.0.0.1 0 5 1 1 4 1 0 0 14 0 0 0 - 1 - 0 0 - - 0
4 stock 1 stock-1 127.0.0.1 2 4 1 1 4 1 0 0 14 0 0 0 - 9 - 0 0 - - 0
"""


def slot(number: int | str, port: int = 1, state: State = State.MAINT, weight: int = 1, running: bool = True) -> Slot:
    return Slot(f"cart-{number}", ("127.0.0.1", port), state, running, weight)


def want(*ports: int, weight: int = 200, serving: bool = True, fresh: bool = False) -> dict[tuple[str, int], Wanted]:
    return {("127.0.0.1", port): Wanted(((f"i{port}", 1),), weight, serving, fresh) for port in ports}


def test_the_state_of_a_backend_is_read() -> None:
    """Only its own rows, with the administrative state told from the bits of the mask."""
    assert parse_state(STATE, "cart") == [
        Slot("cart-1", ("127.0.0.1", 7001), State.READY, True, 200),
        Slot("cart-2", ("::1", 7002), State.DRAIN, False, 20),
        Slot("cart-3", NOWHERE, State.MAINT, False, 1),
    ]


@pytest.mark.parametrize(
    "text", ["", "Can't find backend.\n", "1\n", "Permission denied\n\n", "2\n# be_name srv_name\ncart cart-1\n"]
)
def test_what_is_no_state_is_refused_with_its_words(text: str) -> None:
    """Instead of taking it for a backend without servers."""
    with pytest.raises(GatewayRefused, match="cannot read the servers of the backend cart"):
        parse_state(text, "cart")


def test_a_free_slot_is_filled_in_order() -> None:
    """Address and weight before it is ready: no request goes to the wrong place, or with the wrong share."""
    assert plan([slot(2), slot(1)], want(7001), BACKEND).commands == (
        "set server cart/cart-1 addr 127.0.0.1 port 7001",
        "set server cart/cart-1 weight 200",
        "enable health cart/cart-1",
        "set server cart/cart-1 state ready",
    )


def test_who_comes_is_told_before_who_goes() -> None:
    """Or the backend would be empty for a moment."""
    told = plan([slot(1, 7001, State.READY, 200), slot(2)], want(7002), BACKEND)
    assert told.commands[-2:] == ("set server cart/cart-2 state ready", "set server cart/cart-1 state drain")
    assert told.left == {"cart-1": ("127.0.0.1", 7001)}


def test_what_is_right_is_left_alone() -> None:
    """No command at all."""
    slots = [slot(1, 7001, State.READY, 200), slot(2, 7002, State.DRAIN, 9), slot(3)]
    places = {**want(7001), **want(7002, serving=False)}
    assert plan(slots, places, BACKEND).commands == ()


def test_a_server_that_comes_back_gets_the_slot_that_it_had() -> None:
    """Slots keep their address while nobody has them."""
    assert plan([slot(1), slot(2, 7002, weight=200)], want(7002), BACKEND).commands == (
        "set server cart/cart-2 state ready",
    )


def test_a_slot_with_requests_of_who_has_left_is_given_to_nobody_else() -> None:
    """But to the same server again."""
    slots = [slot(1, 7001, State.DRAIN, 200)]
    assert plan(slots, want(7002), Backend("cart", "cart-"), {"cart-1"}).missing == (("127.0.0.1", 7002),)
    assert plan(slots, want(7001), BACKEND, {"cart-1"}).commands == ("set server cart/cart-1 state ready",)


def test_two_slots_with_one_address_become_one() -> None:
    """The one that is sent to stays."""
    slots = [slot(1, 7001, State.DRAIN, 200), slot(2, 7001, State.READY, 200)]
    assert plan(slots, want(7001), BACKEND).left == {"cart-1": ("127.0.0.1", 7001)}
    assert plan(slots, want(7001), BACKEND).commands == ()


def test_a_slot_that_is_ready_for_nobody_is_drained() -> None:
    """The template stands in haproxy.cfg without `disabled`."""
    assert plan([slot(1, 1, State.READY)], {}, BACKEND).commands == ("set server cart/cart-1 state drain",)


def test_a_fresh_process_is_believed_to_be_well_although_the_one_before_was_not() -> None:
    """And only then."""
    down = slot(1, 7001, State.READY, 200, running=False)
    assert plan([down], want(7001, fresh=True), BACKEND).commands == ("set server cart/cart-1 health up",)
    assert plan([down], want(7001), BACKEND).commands == ()


def test_servers_are_added_with_names_that_nobody_has() -> None:
    """IPv6 in brackets, as on a server line."""
    places = {**want(7001), ("::1", 7002): Wanted((("six", 1),), 5, True)}
    told = plan([slot("d1", 7009, State.READY), slot("x", 7010, State.READY)], places, BACKEND).commands
    assert told == (
        "add server cart/cart-d2 127.0.0.1:7001 check inter 1s weight 200",
        "enable health cart/cart-d2",
        "set server cart/cart-d2 state ready",
        "add server cart/cart-d3 [::1]:7002 check inter 1s weight 5",
        "enable health cart/cart-d3",
        "set server cart/cart-d3 state ready",
        "set server cart/cart-d1 state drain",
    )


def test_an_idle_slot_is_put_away_and_only_an_added_one_deleted() -> None:
    """HAProxy would delete those of its configuration, too."""
    assert put_away(BACKEND, "cart-1") == ["set server cart/cart-1 state maint"]
    assert put_away(BACKEND, "cart-d1") == ["set server cart/cart-d1 state maint", "del server cart/cart-d1"]


def test_by_maintenance_nothing_is_sent_where_clients_stick() -> None:
    """A draining server that was put there stays there."""
    sticky = Backend("cart", "cart-", DrainBy.MAINT)
    places = want(7001, serving=False)
    assert plan([slot(1, 7001, State.READY)], places, sticky).commands == ("set server cart/cart-1 state maint",)
    assert plan([slot(1, 7001, State.MAINT)], places, sticky).commands == ()


def test_ready_places_are_those_of_our_slots() -> None:
    """Not of a server that the user has written."""
    slots = [slot(1, 7001, State.READY), slot(2, 7002, State.DRAIN), slot("sorry", 9, State.READY)]
    assert ready_places(slots, BACKEND) == {("127.0.0.1", 7001)}


def test_two_generations_at_one_place_are_one_server_that_serves() -> None:
    """The older one has not left the registry yet."""
    old, new = server(7001, weight=0, instance="a"), server(7001, generation=2, instance="b")
    place = ("127.0.0.1", 7001)
    found = wanted([(place, old), (place, new)], {place: (old.key,)})
    assert found == {place: Wanted((old.key, new.key), 200, True, fresh=True)}


@pytest.mark.parametrize(
    ("weights", "full", "expected"),
    [
        ([10, 50, 100], 100, [20, 100, 200]),
        ([1, 256], 256, [1, 256]),
        ([1, 2], 2, [128, 256]),
        ([100, 1000], 1000, [26, 256]),
        ([1, 65535], 65535, [1, 256]),
    ],
)
def test_weights_are_scaled(weights: list[int], full: int, expected: list[int]) -> None:
    """Exactly up to a full weight of 256; rounded above, and never 0."""
    servers = [server(7000 + number, weight=weight, full=full) for number, weight in enumerate(weights)]
    assert list(scaled(servers).values()) == expected


@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(1, 65535)), max_size=8))
def test_scaled_weights_keep_their_order_and_their_bounds(pairs: list[tuple[int, int]]) -> None:
    """Whatever the registry holds."""
    servers = [server(7000 + number, weight=weight, full=full) for number, (weight, full) in enumerate(pairs)]
    found = scaled(servers)
    assert all(1 <= weight <= 256 for weight in found.values())
    ordered = sorted(servers, key=lambda each: each.weight)
    assert [found[each.key] for each in ordered] == sorted(found.values())


PORTS = st.integers(7001, 7006)
SLOTS = st.lists(
    st.tuples(st.sampled_from([1, *range(7001, 7007)]), st.sampled_from(list(State)), st.booleans()),
    min_size=1,
    max_size=8,
)


def _carry_out(slots: list[Slot], commands: tuple[str, ...]) -> list[Slot]:
    """What HAProxy makes of the commands."""
    now = {each.name: each for each in slots}
    for command in commands:
        words = command.split()
        name = words[2].partition("/")[2]
        if words[0] == "add":
            host, _, port = words[3].rpartition(":")
            now[name] = Slot(name, (host, int(port)), State.MAINT, True, int(words[-1]))
        elif words[3:4] == ["addr"]:
            now[name] = replace(now[name], place=(words[4], int(words[6])))
        elif words[3:4] == ["state"]:
            now[name] = replace(now[name], state=State(words[4]))
        elif words[3:4] == ["weight"]:
            now[name] = replace(now[name], weight=int(words[4]))
    return list(now.values())


@given(SLOTS, st.dictionaries(PORTS, st.booleans(), max_size=6))
def test_whatever_was_there_just_the_pool_is_ready_afterwards(
    before: list[tuple[int, State, bool]], pool: dict[int, bool]
) -> None:
    """Who was in a slot that served stays in it, and a second time there is nothing to do."""
    slots = [slot(number, port, state, 200, running) for number, (port, state, running) in enumerate(before, 1)]
    places = {place: each for port, serving in pool.items() for place, each in want(port, serving=serving).items()}
    told = plan(slots, places, BACKEND)
    after = _carry_out(slots, told.commands)
    assert ready_places(after, BACKEND) == {place for place, each in places.items() if each.serving}
    assert sum(each.state is State.READY for each in after) == sum(pool.values())
    assert plan(after, places, BACKEND).commands == ()
    stayed = {each.place for each in slots if each.state is State.READY and each.place in places}
    names = {each.name for each in slots}
    assert all(any(each.place == place and each.name in names for each in after) for place in stayed)
