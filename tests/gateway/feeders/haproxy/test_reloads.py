"""A reload, a restart or a crash of HAProxy in the middle: no request fails for it, and its servers are right at once."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
from collections.abc import Callable
from contextlib import closing

import pytest

from gateway.errors import GatewayUnreachable
from tests.gateway.feeders.haproxy.origin import Origin
from tests.gateway.feeders.haproxy.scene import Clients, eventually, feeding, pool, ports, server, sight, states
from tests.servers.fixtures import StartServer
from tests.servers.haproxy import CONFIG, Haproxy

pytestmark = pytest.mark.real
Origins = Callable[[int], list[Origin]]
KEEPING = "    option idle-close-on-response"  # idle clients are not closed by a reload, but answered once more


@pytest.fixture(params=["alone", "master"])
def keeping(request: pytest.FixtureRequest, start_server: StartServer) -> Haproxy:
    """A HAProxy whose old processes answer kept-alive clients once more; without a master, and with one."""
    return start_server(Haproxy, extra_defaults=KEEPING, master=request.param == "master")


async def test_reloads_under_requests_fail_nothing(keeping: Haproxy, origins: Origins) -> None:
    """Three of them, with kept-alive clients; each process begins with the right servers, from the state file."""
    four = origins(4)
    async with feeding(keeping, state_file=str(keeping.state_file)) as feeder:
        await feeder.apply(pool(*four))
        with Clients(keeping) as clients:
            for _ in range(3):
                await clients.more()
                await asyncio.to_thread(keeping.reload)
                assert ports(keeping) == {each.port for each in four}
            await clients.more()
    assert not clients.failures
    assert clients.closed == 0


async def test_pools_that_change_while_haproxy_is_reloaded_fail_nothing_and_are_right_afterwards(
    keeping: Haproxy, origins: Origins
) -> None:
    """One server after the other drains, leaves and comes back, with a reload in the middle of it."""
    three = origins(3)
    async with feeding(keeping, state_file=str(keeping.state_file)) as feeder:
        await feeder.apply(pool(*three))
        with Clients(keeping) as clients:
            for number, leaving in enumerate(three, 1):
                others = [each for each in three if each is not leaving]
                reload = asyncio.create_task(asyncio.to_thread(keeping.reload))
                for change in (pool(*others, server(leaving.port, weight=0)), pool(*others), pool(*three)):
                    await eventually("it is applied", lambda: feeder.apply(change, full=number > 1))  # noqa: B023
                    await clients.more(10)
                await reload
                await eventually("the new process is right", lambda: ports(keeping) == {each.port for each in three})
    assert not clients.failures
    assert clients.closed == 0


async def test_a_reload_without_a_state_file_is_mended_at_once(haproxy: Haproxy, origins: Origins) -> None:
    """By the watch, without a call of anybody's; and the next look says once that all should be applied again."""
    (a,) = origins(1)
    async with feeding(haproxy) as feeder:
        await feeder.apply(pool(a))
        await feeder.look()
        await asyncio.to_thread(haproxy.reload)
        await eventually("it is fed again", lambda: ports(haproxy) == {a.port})
        with pytest.raises(GatewayUnreachable, match="has begun anew"):
            await feeder.look()
        assert (await feeder.look()).views


async def test_after_a_restart_no_request_meets_an_empty_backend(haproxy: Haproxy, origins: Origins) -> None:
    """While HAProxy itself is away nobody can connect; from its first answer on all are good."""
    four = origins(4)
    async with feeding(haproxy, state_file=str(haproxy.state_file)) as feeder:
        await feeder.apply(pool(*four))
        with Clients(haproxy) as clients:
            clients.tolerates_absence = True
            await clients.more()
            await asyncio.to_thread(haproxy.restart)
            await clients.more()
            await asyncio.to_thread(haproxy.kill)
            await asyncio.to_thread(haproxy.start)
            await clients.more()
            await eventually("the feeder has found the new process", lambda: feeder.apply(pool(*four, revision=2)))
    assert not clients.failures
    assert ports(haproxy) == {each.port for each in four}


async def test_the_state_file_may_be_one_for_each_backend(start_server: StartServer) -> None:
    """`server-state-base` and `load-server-state-from-file local`: small files where there are many services."""
    config = CONFIG.replace("server-state-file {state_file}", "server-state-base {state_file}.d").replace(
        "load-server-state-from-file global", "load-server-state-from-file local"
    )
    haproxy = await asyncio.to_thread(start_server, Haproxy, config=config)
    folder = haproxy.folder / "servers.state.d"
    folder.mkdir()
    async with feeding(haproxy, state_file=f"{folder}/{{service}}") as feeder:
        await feeder.apply(pool(server(7001), server(7002)))
    await asyncio.to_thread(haproxy.restart)
    assert ports(haproxy) == {7001, 7002}
    assert [path.name for path in folder.iterdir()] == ["cart"]


async def test_whom_an_old_process_may_send_to_counts_until_it_sends_no_more(
    keeping: Haproxy, origins: Origins
) -> None:
    """A kept-alive client of it, and one that was just sending its head, are sent to the servers of before the reload.

    A request that is at its server already makes no difference: no other comes on that connection.
    """
    a, b = origins(2)
    drained = pool(server(a.port, weight=0), b, revision=2)
    async with feeding(keeping, state_file=str(keeping.state_file)) as feeder:
        await feeder.apply(pool(a, b))
        await feeder.look()
        with closing(client(keeping)) as kept, closing(client(keeping)) as slow, late_client(keeping) as late:
            kept.request("GET", "/")
            kept.getresponse().read()
            slow.request("GET", "/slow/1.5")
            await eventually("the request is at a server", lambda: a.total + b.total == 2)
            old = keeping.worker_pid
            await asyncio.to_thread(keeping.reload)
            await eventually("the new process is found", lambda: _begun_anew(feeder))
            applied = await feeder.apply(drained)
            assert applied.serving == {server(a.port).key, server(b.port).key}
            kept.request("GET", "/kept")
            assert kept.getresponse().getheader("Connection") == "close"
            assert server(a.port).key in (await feeder.apply(pool(b, revision=3))).serving
            late.sendall(b"\r\n")
            assert await asyncio.to_thread(late.recv, 1000)
            await eventually("the agent is asked to apply again", lambda: _begun_anew(feeder))
            assert os.path.exists(f"/proc/{old}")
            assert (await feeder.apply(drained, full=True)).serving == {server(b.port).key}
            assert slow.getresponse().status == 200
        await eventually("the old process ends", lambda: _has_ended(feeder, old))


def client(haproxy: Haproxy) -> http.client.HTTPConnection:
    """A client that keeps its connection."""
    return http.client.HTTPConnection("127.0.0.1", haproxy.port, timeout=5.0)


def late_client(haproxy: Haproxy) -> socket.socket:
    """A client that has sent its head but for the last line."""
    late = socket.create_connection(("127.0.0.1", haproxy.port), timeout=5.0)
    late.sendall(b"GET /late HTTP/1.1\r\nHost: here\r\n")
    return late


async def _begun_anew(feeder):
    try:
        await feeder.look()
    except GatewayUnreachable:
        return True
    return False


async def _has_ended(feeder, pid):
    await sight(feeder)
    return not os.path.exists(f"/proc/{pid}")


async def test_requests_in_flight_in_an_old_process_are_counted(keeping: Haproxy, origins: Origins) -> None:
    """The slot of a server that has left is not put away while one of them is open, in whatever process."""
    a, b = origins(2)
    async with feeding(keeping, state_file=str(keeping.state_file)) as feeder:
        await feeder.apply(pool(a))
        await feeder.look()
        with Clients(keeping, count=1, path="/slow/0.7") as slow:
            await eventually("the request is at the server", lambda: a.total == 1)
            await asyncio.to_thread(keeping.reload)
            await eventually("the new process is found", lambda: _begun_anew(feeder))
            await feeder.apply(pool(b, revision=2))
            view = next(view for view in (await sight(feeder)).views if view.instance.endswith(f":{a.port}"))
            assert view.in_flight == 1
            await slow.more(1)
            await eventually("nothing is in flight", lambda: _gone(feeder, a.port))
    assert not slow.failures


async def _gone(feeder, port):
    return all(not view.instance.endswith(f":{port}") for view in (await sight(feeder)).views)


async def test_an_old_process_that_cannot_be_told_counts_as_sending_until_it_ends(
    keeping: Haproxy, origins: Origins
) -> None:
    """unit-gateway was not there when HAProxy was reloaded: it finds the old process, and whom it may send to."""
    a, b = origins(2)
    async with feeding(keeping, state_file=str(keeping.state_file)) as feeder:
        await feeder.apply(pool(a, b))
    with closing(client(keeping)) as kept:
        kept.request("GET", "/")
        kept.getresponse().read()
        old = keeping.worker_pid
        await asyncio.to_thread(keeping.reload)
        async with feeding(keeping, state_file=str(keeping.state_file)) as feeder:
            applied = await feeder.apply(pool(server(a.port, weight=0), b, revision=2))
            assert applied.serving == {server(a.port).key, server(b.port).key}
            kept.close()
            await eventually("the old process ends", lambda: not os.path.exists(f"/proc/{old}"))
            with pytest.raises(GatewayUnreachable, match="no process left"):
                await feeder.look()
            applied = await feeder.apply(pool(server(a.port, weight=0), b, revision=2), full=True)
            assert applied.serving == {server(b.port).key}


async def test_two_haproxies_do_not_take_each_others_processes_for_old_ones(start_server: StartServer) -> None:
    """They have other configuration files."""
    one, _ = [await asyncio.to_thread(start_server, Haproxy) for _ in range(2)]
    async with feeding(one) as feeder:
        assert (await feeder.apply(pool(server(7001, weight=0), server(7002)))).serving == {server(7002).key}


async def test_a_drained_server_is_drained_in_the_next_process_from_its_first_moment(
    haproxy: Haproxy, origins: Origins
) -> None:
    """The state file is written before `apply` answers."""
    a, b = origins(2)
    async with feeding(haproxy, state_file=str(haproxy.state_file)) as feeder:
        await feeder.apply(pool(a, b))
        await feeder.apply(pool(server(a.port, weight=0), b, revision=2))
    await asyncio.to_thread(haproxy.restart)
    assert (ports(haproxy), ports(haproxy, "drain")) == ({b.port}, {a.port})


async def test_servers_that_were_added_are_added_again(start_server: StartServer, origins: Origins) -> None:
    """A reload forgets them: only what the configuration has comes back by itself."""
    haproxy = await asyncio.to_thread(start_server, Haproxy, slots=1)
    two = origins(2)
    async with feeding(haproxy, state_file=str(haproxy.state_file)) as feeder:
        await feeder.apply(pool(*two))
        await asyncio.to_thread(haproxy.reload)
        await eventually("both are there again", lambda: ports(haproxy) == {each.port for each in two})


async def test_a_longer_template_after_a_reload_moves_nobody(haproxy: Haproxy) -> None:
    """The servers keep their slots, by name."""
    async with feeding(haproxy, state_file=str(haproxy.state_file)) as feeder:
        await feeder.apply(pool(*(server(7000 + number) for number in range(5))))
        before = states(haproxy)
        haproxy.change(slots=12)
        await asyncio.to_thread(haproxy.reload)
        await eventually("it is found", lambda: feeder.apply(pool(*(server(7000 + number) for number in range(5)))))
        after = states(haproxy)
    assert after == before
