"""A real HAProxy has just the servers of the pool, in slots that do not change, and no request fails for a change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.errors import GatewayRefused, GatewayUnreachable
from gateway.feeders.haproxy import make
from gateway.model import Health
from gateway.settings.haproxy import DrainBy, HaproxySpec
from tests.gateway.feeders.haproxy.origin import Origin
from tests.gateway.feeders.haproxy.scene import (
    Clients,
    eventually,
    feeding,
    pool,
    ports,
    server,
    sight,
    states,
)
from tests.servers.fixtures import StartServer
from tests.servers.haproxy import CONFIG, SLOTS, Haproxy
from tests.servers.processes import free_port

pytestmark = pytest.mark.real
Origins = Callable[[int], list[Origin]]


def _view(look, port):
    return next((view for view in look.views if view.instance.endswith(f":{port}")), None)


async def test_a_pool_is_written_into_slots_with_weights(haproxy: Haproxy) -> None:
    """Address, weight (twice the registry's, so that it is exact), ready; and the answer says who is sent to."""
    async with feeding(haproxy) as feeder:
        a, b = server(7001, weight=100), server(7002, weight=10)
        applied = await feeder.apply(pool(a, b, revision=7))
    assert (applied.service, applied.revision, applied.serving) == ("cart", 7, {a.key, b.key})
    assert states(haproxy) == {"cart-1": (7001, "ready", 200), "cart-2": (7002, "ready", 20)}


async def test_servers_stay_in_their_slots_whoever_comes_and_goes(haproxy: Haproxy) -> None:
    """Also when another unit-gateway, which remembers nothing, applies the next pool."""
    many = [server(7000 + number) for number in range(6)]
    async with feeding(haproxy) as feeder:
        await feeder.apply(pool(*many))
        before = states(haproxy)
    async with feeding(haproxy) as feeder:
        await feeder.apply(pool(*many[2:], server(7010), revision=2), full=True)
        after = states(haproxy)
    stayed = {slot: row for slot, row in before.items() if row[0] in range(7002, 7006)}
    assert {slot: after[slot] for slot in stayed} == stayed
    assert ports(haproxy) == {7002, 7003, 7004, 7005, 7010}


async def test_the_same_pool_again_changes_nothing(haproxy: Haproxy) -> None:
    """Not even the time since the last change of a server's state."""
    async with feeding(haproxy, state_file=str(haproxy.folder / "dump")) as feeder:
        await feeder.apply(pool(server(7001)))
        Path(haproxy.folder, "dump").unlink()
        await feeder.apply(pool(server(7001)), full=True)
    assert not Path(haproxy.folder, "dump").exists()


async def test_what_was_changed_behind_our_back_is_mended(haproxy: Haproxy) -> None:
    """Somebody has changed a weight and taken a server out by hand."""
    async with feeding(haproxy) as feeder:
        await feeder.apply(pool(server(7001), server(7002)))
        haproxy.ask("set server cart/cart-1 weight 3;set server cart/cart-2 state maint")
        await feeder.apply(pool(server(7001), server(7002)), full=True)
    assert states(haproxy) == {"cart-1": (7001, "ready", 200), "cart-2": (7002, "ready", 200)}


async def test_shares_of_the_requests_follow_the_weights(haproxy: Haproxy, origins: Origins) -> None:
    """As HAProxy's own counters say."""
    few, half, full = origins(3)
    async with feeding(haproxy) as feeder:
        await feeder.apply(pool(server(few.port, weight=10), server(half.port, weight=50), full))
        with Clients(haproxy, pause=0.0) as clients:
            await clients.more(640)
        look = await sight(feeder)
    shares = [_view(look, each.port).total for each in (few, half, full)]
    total = sum(shares)
    assert total == clients.total
    assert not clients.failures
    for share, weight in zip(shares, (10, 50, 100)):
        assert abs(share - total * weight / 160) <= 3, shares
    assert [_view(look, each.port).weight for each in (few, half, full)] == [20, 100, 200]


async def test_a_draining_server_gets_nothing_new_and_finishes(haproxy: Haproxy, origins: Origins) -> None:
    """Its request in flight is counted until it is answered, also after the server has left the pool."""
    a, b = origins(2)
    async with feeding(haproxy) as feeder:
        await feeder.apply(pool(a))
        with Clients(haproxy, count=1, path="/slow/0.7") as slow:
            await eventually("the request is at the server", lambda: a.requests["/slow/0.7"] == 1)
            applied = await feeder.apply(pool(b, server(a.port, weight=0)))
            assert applied.serving == {server(b.port).key}
            assert ports(haproxy, "drain") == {a.port}
            assert _view(await sight(feeder), a.port).in_flight == 1
            await feeder.apply(pool(b, revision=2))
            assert _view(await sight(feeder), a.port).in_flight == 1
            await slow.more(1)
            await eventually("the slot is put away", lambda: _put_away(feeder, haproxy, a.port))
    assert slow.answers[str(a.port)] == 1
    assert not slow.failures
    assert a.total == 1


async def _put_away(feeder, haproxy, port):
    look = await feeder.look()
    return _view(look, port) is None and port not in {row[0] for row in states(haproxy).values()}


async def test_idle_connections_of_who_has_left_are_closed_and_never_used_for_who_comes(
    start_server: StartServer, origins: Origins
) -> None:
    """With a single slot the next server takes it as soon as it is put away."""
    haproxy = await asyncio.to_thread(start_server, Haproxy, slots=1)
    a, b = origins(2)
    async with feeding(haproxy, add_servers=False) as feeder:
        await feeder.apply(pool(a))
        with Clients(haproxy) as clients:
            await clients.more()
            assert a.open > 0
        await feeder.apply(pool(server(a.port, weight=0)))
        with pytest.raises(
            GatewayRefused, match="no free slot in the backend cart: make its server-template cart- longer"
        ):
            await feeder.apply(pool(b))
        await eventually("the slot is put away", lambda: _put_away(feeder, haproxy, a.port))
        await eventually("its idle connections are closed", lambda: a.open == 0)
        before = a.total
        await feeder.apply(pool(b, revision=2))
        with Clients(haproxy) as clients:
            await clients.more()
    assert not clients.failures
    assert set(clients.answers) == {str(b.port)}
    assert a.total == before


async def test_no_request_fails_from_four_servers_to_six_and_back(haproxy: Haproxy, origins: Origins) -> None:
    """Those that leave drain first; those that come are sent to at once."""
    six = origins(6)
    async with feeding(haproxy) as feeder:
        await feeder.apply(pool(*six[:4]))
        with Clients(haproxy, count=3) as clients:
            await clients.more()
            await feeder.apply(pool(*six, revision=2))
            await eventually("all six answer", lambda: len(clients.answers) == 6)
            leaving = [server(each.port, weight=0) for each in six[4:]]
            await feeder.apply(pool(*six[:4], *leaving, revision=3))
            await eventually("nothing is in flight", lambda: _idle(feeder, six[4:]))
            counts = [each.total for each in six[4:]]
            await feeder.apply(pool(*six[:4], revision=4))
            await clients.more(60)
    assert not clients.failures
    assert clients.closed == 0
    assert [each.total for each in six[4:]] == counts


async def _idle(feeder, some):
    look = await feeder.look()
    return all(_view(look, each.port).in_flight == 0 for each in some)


async def test_another_generation_at_the_same_address_makes_no_pause(haproxy: Haproxy, origins: Origins) -> None:
    """HAProxy has seen the process before die; the registry says that the new one is ready, and that is believed at once."""
    (a,) = origins(1)
    async with feeding(haproxy) as feeder:
        await feeder.apply(pool(server(a.port)))
        haproxy.ask("disable health cart/cart-1;set server cart/cart-1 health down")
        await eventually("it is down", lambda: _has_health(feeder, a.port, Health.DOWN))
        applied = await feeder.apply(pool(server(a.port, generation=2), revision=2))
        with Clients(haproxy) as clients:
            await clients.more()
    assert applied.serving == {server(a.port, generation=2).key}
    assert not clients.failures


async def _has_health(feeder, port, health):
    view = _view(await feeder.look(), port)
    return view is not None and view.health is health


async def test_servers_are_added_where_the_slots_do_not_suffice_and_deleted_again(
    start_server: StartServer, origins: Origins
) -> None:
    """And they are checked like the others."""
    haproxy = await asyncio.to_thread(start_server, Haproxy, slots=2)
    four = origins(4)
    async with feeding(haproxy, server_options="check inter 100ms fall 2 rise 1") as feeder:
        await feeder.apply(pool(*four))
        assert set(states(haproxy)) == {"cart-1", "cart-2", "cart-d1", "cart-d2"}
        with Clients(haproxy) as clients:
            await eventually("all four answer", lambda: len(clients.answers) == 4)
            await eventually("it is checked", lambda: _is_checked(feeder, four))
            held = {row[0] for row in list(states(haproxy).values())[:2]}
            stay = [each for each in four if each.port in held]
            await feeder.apply(pool(*stay, revision=2))
            await eventually("they are deleted", lambda: _deleted(feeder, haproxy))
            await clients.more()
    assert not clients.failures


async def _is_checked(feeder, some):
    return all("L4OK" in view.detail for view in (await feeder.look()).views)


async def _deleted(feeder, haproxy):
    await feeder.look()
    return "cart-d" not in haproxy.ask("show servers state cart")


async def test_a_sticky_backend_sends_nothing_to_a_server_that_drains_by_maintenance(
    start_server: StartServer, origins: Origins
) -> None:
    """Where a table points clients to their server, `drain` alone would go on to send them there."""
    backend = "    stick-table type ip size 1k expire 1m\n    stick on src\n    server-template {service}- 1-{slots} 127.0.0.1:1 disabled\n"
    haproxy = await asyncio.to_thread(start_server, Haproxy, backend=backend)
    a, b = origins(2)
    async with feeding(haproxy, drain_by=DrainBy.MAINT) as feeder:
        await feeder.apply(pool(a))
        with Clients(haproxy) as clients:
            await clients.more()
            applied = await feeder.apply(pool(b, server(a.port, weight=0), revision=2))
            assert applied.serving == {server(b.port).key}
            await eventually("nothing is in flight", lambda: _idle(feeder, [a]))
            before = a.total
            await clients.more()
            assert a.total == before
            applied = await feeder.apply(pool(a, b, revision=3))
            assert server(a.port).key in applied.serving
    assert not clients.failures


async def test_an_empty_pool_leaves_nobody(haproxy: Haproxy, origins: Origins) -> None:
    """HAProxy answers 503 then, at once."""
    (a,) = origins(1)
    async with feeding(haproxy) as feeder:
        await feeder.apply(pool(a))
        applied = await feeder.apply(pool(revision=2))
    assert applied.serving == frozenset()
    assert ports(haproxy) == set()


async def test_servers_of_the_users_own_are_left_alone(start_server: StartServer) -> None:
    """Only names that begin as the slots do, and end with a number, are ours."""
    backend = "    server sorry 127.0.0.1:9 backup\n    server-template {service}- 1-2 127.0.0.1:1 disabled\n"
    haproxy = await asyncio.to_thread(start_server, Haproxy, backend=backend)
    async with feeding(haproxy) as feeder:
        await feeder.apply(pool(server(7001)))
        await feeder.apply(pool())
    assert states(haproxy)["sorry"] == (9, "ready", 1)


async def test_a_name_is_looked_up_and_ipv6_is_taken(haproxy: Haproxy) -> None:
    """HAProxy's socket takes addresses only; a name that nobody knows holds up nobody else."""
    named = replace(server(7001), address="localhost")
    six = replace(server(7002), address="0:0::1")
    lost = replace(server(7003), address="nowhere.invalid")
    async with feeding(haproxy) as feeder:
        applied = await feeder.apply(pool(named, six, lost))
        again = await feeder.apply(pool(named, six, lost), full=True)
    assert applied.serving == again.serving == {named.key, six.key}
    assert ports(haproxy) == {7001, 7002}


async def test_a_backend_that_is_missing_is_refused_with_what_to_write(haproxy: Haproxy) -> None:
    """And does not keep the others from being fed."""
    async with feeding(haproxy) as feeder:
        with pytest.raises(GatewayRefused, match="write `backend books` with `server-template books- 1-16"):
            await feeder.apply(pool(service="books"))
        assert (await feeder.apply(pool(server(7001)))).serving


async def test_a_socket_that_may_only_be_read_is_refused(start_server: StartServer) -> None:
    """`level user` may not change addresses."""
    config = CONFIG.replace("level admin", "level user")
    haproxy = await asyncio.to_thread(start_server, Haproxy, config=config)
    async with feeding(haproxy) as feeder:
        with pytest.raises(GatewayRefused, match="level admin"):
            await feeder.apply(pool(server(7001)))


async def test_a_haproxy_that_is_not_there_is_unreachable_and_fed_when_it_comes(haproxy: Haproxy) -> None:
    """So it is no error at the start."""
    await asyncio.to_thread(haproxy.kill)
    async with feeding(haproxy) as feeder:
        with pytest.raises(GatewayUnreachable, match="cannot connect to HAProxy at"):
            await feeder.apply(pool(server(7001)))
        with pytest.raises(GatewayUnreachable):
            await feeder.look()
        await asyncio.to_thread(haproxy.start)
        await eventually("it is fed by itself", lambda: ports(haproxy) == {7001})


async def test_a_haproxy_that_hangs_is_unreachable_and_fed_when_it_goes_on(haproxy: Haproxy) -> None:
    """No call waits longer than it should."""
    async with feeding(haproxy, timeout_seconds=0.2) as feeder:
        await feeder.apply(pool(server(7001)))
        haproxy.freeze()
        with pytest.raises(GatewayUnreachable):
            await feeder.apply(pool(server(7001), server(7002)))
        haproxy.thaw()
        await eventually("it goes on", lambda: feeder.apply(pool(server(7001), server(7002))))
    assert ports(haproxy) == {7001, 7002}


async def test_a_socket_at_a_port_does_as_well(start_server: StartServer, origins: Origins) -> None:
    """`stats socket 127.0.0.1:9999 level admin`."""
    port = free_port()
    haproxy = await asyncio.to_thread(
        start_server, Haproxy, extra_global=f"    stats socket 127.0.0.1:{port} level admin"
    )
    feeder = make(HaproxySpec(name="edge", socket=("127.0.0.1", port)))
    try:
        assert (await feeder.apply(pool(server(7001)))).serving
    finally:
        await feeder.close()
        await feeder.close()
    assert ports(haproxy) == {7001}


async def test_many_services_with_many_servers_are_written_at_a_time(start_server: StartServer) -> None:
    """Fifty backends of sixteen, concurrently."""
    names = [f"s{number}" for number in range(50)]
    config = CONFIG + "".join(f"backend {name}\n{SLOTS.format(service=name, slots=16)}" for name in names)
    haproxy = await asyncio.to_thread(start_server, Haproxy, config=config)
    async with feeding(haproxy, state_file=str(haproxy.state_file)) as feeder:
        pools = [pool(*(server(7000 + n) for n in range(16)), service=name) for name in names]
        applied = await asyncio.gather(*(feeder.apply(each) for each in pools))
        assert all(len(each.serving) == 16 for each in applied)
    rows = [line.split() for line in haproxy.state_file.read_text().splitlines()[2:]]
    assert sum(row[7] == "200" for row in rows) == 800
