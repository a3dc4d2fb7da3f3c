"""backends/consul.py: Consul's traps, its rights, its faults. Good behaviour is the contract suite's."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import h11
import pytest

from registry_client import (
    Entry,
    LeaseKey,
    LeaseLost,
    RegistryRejected,
    RegistryUnavailable,
    Secret,
    Snapshot,
    Tls,
    open_backend,
)
from registry_client.backends.consul import ConsulBackend
from registry_client.errors import BadOption
from tests.servers import Consul, Proxy
from tests.servers.fixtures import ShareServer, StartServer

ENTRY = Entry(
    service="cart",
    instance="web-7/cart:0",
    node="web-7",
    unit="cart:0",
    address="192.168.1.2",
    port=9080,
    generation=42,
    started_at="2026-11-23T06:29:10.123Z",
    version="1.4.2",
    metadata={"team": "ä/b", "not for consul!": "x"},
)
KEY = ENTRY.key
DEADLINE = 10.0
pytestmark = pytest.mark.real
T = TypeVar("T")
OpenProxy = Callable[[Consul | int], Proxy]


@asynccontextmanager
async def backend_of(server: Consul | str, **options: Any) -> AsyncIterator[ConsulBackend]:
    """A client, closed at the end."""
    url = server if isinstance(server, str) else server.url
    backend = ConsulBackend(url, **{"timeout_seconds": 5.0, **options})
    try:
        yield backend
    finally:
        await backend.close()


@pytest.fixture
def cart(namespace: str) -> Entry:
    """An entry of a service that no other test uses; the prefix is shared."""
    return replace(ENTRY, service=namespace)


def passing(server: Consul, service: str) -> list[dict[str, Any]]:
    """What a consumer gets that asks Consul for healthy instances."""
    status, answer = server.ask("GET", f"/v1/health/service/{service}?passing")
    assert status == 200
    return list(answer)


def at_agent(server: Consul, service: str) -> list[str]:
    """The ids of a service's checks and services at the agent."""
    checks, services = server.ask("GET", "/v1/agent/checks")[1], server.ask("GET", "/v1/agent/services")[1]
    found = [name for name, check in checks.items() if check["ServiceName"] == service]
    return found + [name for name, item in services.items() if item["Service"] == service]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not await condition():
            await asyncio.sleep(0.02)


async def patient(make_call: Callable[[], Awaitable[T]]) -> T:
    """The answer of a server that has just come to itself."""
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                return await make_call()
            except RegistryUnavailable:
                await asyncio.sleep(0.05)


async def rejected(call: Awaitable[object]) -> RegistryRejected:
    with pytest.raises(RegistryRejected, match=r"^cannot \w+ .*: ") as caught:
        await call
    return caught.value


async def unavailable(call: Awaitable[object]) -> RegistryUnavailable:
    with pytest.raises(RegistryUnavailable, match=r"^cannot \w+ .*: ") as caught:
        await call
    return caught.value


def calls(backend: ConsulBackend, entry: Entry = ENTRY) -> list[Callable[[], Awaitable[object]]]:
    """Every kind of call."""
    return [
        lambda: backend.register(entry, 10),
        lambda: backend.renew([entry.key]),
        lambda: backend.update(entry),
        lambda: backend.deregister(entry.key),
        lambda: backend.get(entry.service, entry.instance),
        lambda: backend.list(entry.service),
        backend.list,
        lambda: anext(backend.watch()),
        lambda: backend.inspect(10),
    ]


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("url", "http://one:8500,http://two:8500"),
        ("url", "consul:8500"),
        ("url", 8500),
        ("prefix", 'a"b'),
        ("prefix", "Unitd"),
        ("prefix", ""),
        ("prefix", 7),
        ("datacenter", "dc 1"),
        ("timeout_seconds", 0),
        ("watch_wait_seconds", float("nan")),
        ("deregister_after_seconds", "60"),
    ],
)
def test_an_option_that_cannot_work_is_named(option: str, value: object) -> None:
    with pytest.raises(BadOption, match=r"^cannot use the registry backend consul: ") as caught:
        open_backend("consul", **{option: value})
    assert caught.value.option == option


async def test_making_a_client_connects_to_nothing() -> None:
    backend = open_backend("consul", url="http://127.0.0.1:1", token="t", prefix="p", datacenter="dc1")
    assert backend.name == "consul"
    error = await unavailable(backend.register(ENTRY, 10))
    assert error.may_have_counted is False
    await backend.close()


# -- how an entry looks to others -------------------------------------------------------------------------------------


async def test_other_consumers_find_address_port_weight_and_readable_meta(consul: Consul, cart: Entry) -> None:
    async with backend_of(consul) as backend:
        await backend.register(replace(cart, weight=7), 30)
        [seen] = passing(consul, cart.service)
        service = seen["Service"]
        assert (service["Address"], service["Port"], service["Weights"]["Passing"]) == ("192.168.1.2", 9080, 7)
        assert service["Tags"] == ["unitd"]
        assert service["Meta"]["generation"] == "42"
        assert (service["Meta"]["version"], service["Meta"]["team"]) == ("1.4.2", "ä/b")
        assert "not for consul!" not in service["Meta"]


async def test_draining_hides_an_entry_from_others_but_not_from_us(consul: Consul, cart: Entry) -> None:
    async with backend_of(consul) as backend:
        await backend.register(cart, 30)
        for out in (replace(cart, status="draining"), replace(cart, weight=0)):
            await backend.update(out)
            assert passing(consul, cart.service) == []
            assert await backend.get(cart.service, cart.instance) == out
            await backend.update(cart)
            assert len(passing(consul, cart.service)) == 1
            await backend.register(out, 30)
            assert passing(consul, cart.service) == []
            assert (await backend.list(cart.service)).entries == (out,)
            await backend.register(cart, 30)
            assert len(passing(consul, cart.service)) == 1


async def test_an_update_changes_the_weight_for_others_too(consul: Consul, cart: Entry) -> None:
    async with backend_of(consul) as backend:
        await backend.register(cart, 30)
        await backend.update(replace(cart, weight=3, port=9081))
        [seen] = passing(consul, cart.service)
        assert (seen["Service"]["Weights"]["Passing"], seen["Service"]["Port"]) == (3, 9081)
        await backend.register(replace(cart, weight=4), 30)
        assert await backend.get(cart.service, cart.instance) == replace(cart, weight=4)


async def test_the_second_check_of_an_update_goes_with_the_next_registration(consul: Consul, cart: Entry) -> None:
    async with backend_of(consul) as backend:
        await backend.register(cart, 30)
        await backend.update(replace(cart, weight=3))
        await backend.register(cart, 30)
        name = f"unitd/{cart.service}/web-7/cart:0@42"
        assert at_agent(consul, cart.service) == [f"service:{name}", name]
        await backend.deregister(cart.key)
        assert at_agent(consul, cart.service) == []


async def test_a_new_generation_leaves_nothing_of_the_old_one(consul: Consul, cart: Entry) -> None:
    async with backend_of(consul) as backend:
        await backend.register(cart, 30)
        await backend.update(replace(cart, status="draining"))
        await backend.register(replace(cart, generation=43), 30)
        assert all(name.endswith("@43") for name in at_agent(consul, cart.service))
        assert len(passing(consul, cart.service)) == 1


async def test_the_longest_entry_is_read_back_as_it_was(consul: Consul, cart: Entry) -> None:
    async with backend_of(consul) as backend:
        long = replace(
            cart,
            instance="/".join(["ü" * 60] * 2),
            unit="u" * 255,
            zone='"`\\',
            metadata={f"{number:02}{'k' * 126}": "w" * 512 for number in range(64)},
        )
        await backend.register(long, 30)
        assert await backend.get(long.service, long.instance) == long
        assert await backend.renew([long.key]) == frozenset()
        assert await backend.deregister(long.key) is True


async def test_services_whose_names_consul_takes_for_the_same_stay_apart(consul: Consul, cart: Entry) -> None:
    async with backend_of(consul) as backend:
        upper = replace(cart, service=cart.service.upper())
        await backend.register(cart, 30)
        assert await backend.get(upper.service, upper.instance) is None
        await backend.register(upper, 30)
        assert (await backend.list(cart.service)).entries == (cart,)
        assert (await backend.list(upper.service)).entries == (upper,)
        await backend.deregister(cart.key)
        await backend.deregister(upper.key)


async def test_a_renewal_writes_nothing_to_the_servers(consul: Consul, cart: Entry) -> None:
    async with backend_of(consul) as backend:
        await backend.register(cart, 30)
        await backend.renew([cart.key])
        before = (await backend.list(cart.service)).revision
        for _ in range(5):
            await backend.renew([cart.key])
        assert (await backend.list(cart.service)).revision == before


# -- others in the same Consul ----------------------------------------------------------------------------------------


async def test_services_of_strangers_and_rubbish_disturb_nothing(
    consul: Consul, cart: Entry, caplog: pytest.LogCaptureFixture
) -> None:
    def put(name: str, identifier: str, notes: str) -> None:
        check = {"CheckID": f"service:{identifier}", "Name": "x", "TTL": "60s", "Status": "passing", "Notes": notes}
        body = {"ID": identifier, "Name": name, "Tags": ["unitd"], "Check": check}
        assert consul.ask("PUT", "/v1/agent/service/register", body)[0] == 200

    rubbish = ("", "{}", "[" * 5000, json.dumps(cart.to_json()), json.dumps({**cart.to_json(), "weight": -1}))
    identifiers = [f"unitd/{cart.service}/n/{number}@1" for number in range(len(rubbish))]
    strangers = [f"{cart.service}-of-others", f"unitd/{cart.service}/x", f"unitd/{cart.service}/x@y"]
    try:
        for identifier, notes in zip(identifiers, rubbish, strict=True):
            put(cart.service, identifier, notes)
        for identifier in strangers:
            put(cart.service, identifier, json.dumps(cart.to_json()))
        async with backend_of(consul) as backend:
            await backend.register(cart, 30)
            with caplog.at_level(logging.WARNING):
                for _ in range(2):
                    assert (await backend.list(cart.service)).entries == (cart,)
                    assert cart in (await backend.list()).entries
                    assert await backend.get(cart.service, "n/1") is None
            assert len(caplog.messages) == len(rubbish)
            async with aclosing(backend.watch(cart.service)) as watch:
                assert (await anext(watch)).entries == (cart,)
            taken = LeaseKey(cart.service, "n/0", 2)  # rubbish under a name of ours can be replaced
            await backend.register(replace(cart, instance="n/0", generation=2), 30)
            assert await backend.renew([taken]) == frozenset()
            assert f"unitd/{cart.service}/n/0@1" not in at_agent(consul, cart.service)
    finally:
        for identifier in (*identifiers, *strangers):
            consul.ask("PUT", f"/v1/agent/service/deregister/{identifier}")


async def test_what_an_operator_takes_out_of_traffic_is_shown_as_draining(consul: Consul, cart: Entry) -> None:
    async with backend_of(consul) as backend:
        await backend.register(cart, 30)
        path = f"/v1/agent/service/maintenance/unitd/{cart.service}/web-7/cart:0@42"
        assert consul.ask("PUT", f"{path}?enable=true&reason=mine")[0] == 200
        assert await backend.get(cart.service, cart.instance) == replace(cart, status="draining")
        await backend.register(replace(cart, weight=9), 30)  # a step of a warm-up does not end it
        assert await backend.get(cart.service, cart.instance) == replace(cart, weight=9, status="draining")
        assert consul.ask("PUT", f"{path}?enable=false")[0] == 200
        assert await backend.get(cart.service, cart.instance) == replace(cart, weight=9)


async def test_an_entry_of_a_node_in_maintenance_is_not_listed_and_yet_not_gone(consul: Consul, cart: Entry) -> None:
    async with backend_of(consul) as backend:
        await backend.register(cart, 30)
        try:
            assert consul.ask("PUT", "/v1/agent/maintenance?enable=true")[0] == 200
            assert await backend.get(cart.service, cart.instance) == cart
            assert (await backend.list(cart.service)).entries == ()
            assert cart not in (await backend.list()).entries
        finally:
            assert consul.ask("PUT", "/v1/agent/maintenance?enable=false")[0] == 200
        assert await backend.get(cart.service, cart.instance) == cart
        assert await backend.renew([cart.key]) == frozenset()


async def test_what_is_deleted_in_the_catalog_alone_is_not_gone_but_to_be_registered_again(
    consul: Consul, cart: Entry
) -> None:
    async with backend_of(consul) as writer:
        await writer.register(cart, 30)
    async with backend_of(consul) as backend:
        assert await backend.renew([cart.key]) == frozenset()
    body = {"Node": "tests", "ServiceID": f"unitd/{cart.service}/web-7/cart:0@42"}
    assert consul.ask("PUT", "/v1/catalog/deregister", body)[0] == 200
    async with backend_of(consul) as backend:
        assert (await backend.list(cart.service)).entries == ()
        assert await backend.get(cart.service, cart.instance) == cart  # the agent will bring it back
        assert await backend.renew([cart.key]) == {cart.key}
        await backend.register(cart, 30)
        assert (await backend.list(cart.service)).entries == (cart,)
        assert consul.ask("PUT", "/v1/catalog/deregister", body)[0] == 200
        assert await backend.deregister(replace(cart, generation=43).key) is True
        assert at_agent(consul, cart.service) == []
        await backend.register(cart, 30)
        assert await backend.renew([cart.key]) == frozenset()
        assert await backend.deregister(cart.key) is True
        assert await backend.get(cart.service, cart.instance) is None


async def test_one_client_renews_what_another_has_just_registered(consul: Consul, cart: Entry) -> None:
    async with backend_of(consul) as backend, backend_of(consul) as other:
        await backend.register(cart, 30)
        assert await backend.renew([cart.key]) == frozenset()
        others = replace(cart, instance="web-7/cart:1")
        await other.register(others, 30)
        assert await backend.renew([cart.key, others.key]) == frozenset()
        await other.register(replace(cart, generation=43), 30)
        assert await backend.renew([cart.key, others.key]) == {cart.key}


async def test_an_entry_of_another_agent_is_seen_guarded_and_not_deleted(consul: Consul, cart: Entry) -> None:
    identifier = f"unitd/{cart.service}/web-7/cart:0@42"
    check = {"Node": "other", "CheckID": f"service:{identifier}", "Status": "passing", "ServiceID": identifier}
    body = {
        "Node": "other",
        "Address": "127.0.0.9",
        "Service": {"ID": identifier, "Service": cart.service, "Tags": ["unitd"], "Port": 1},
        "Checks": [
            {**check, "Notes": json.dumps(cart.to_json())},
            {"Node": "other", "CheckID": "serfHealth", "Status": "passing"},
        ],
    }
    try:
        assert consul.ask("PUT", "/v1/catalog/register", body)[0] == 200
        async with backend_of(consul) as backend:
            assert await backend.get(cart.service, cart.instance) == cart
            assert (await backend.list(cart.service)).entries == (cart,)
            assert (await rejected(backend.register(replace(cart, generation=41), 30))).code == "stale_generation"
            assert await backend.renew([cart.key]) == {cart.key}  # to be registered here
            with pytest.raises(LeaseLost):
                await backend.update(cart)
            assert (await rejected(backend.deregister(cart.key))).code == "other_agent"
            body["Checks"] = [{"Node": "other", "CheckID": "serfHealth", "Status": "critical"}]
            assert consul.ask("PUT", "/v1/catalog/register", body)[0] == 200  # its agent is dead
            assert await backend.get(cart.service, cart.instance) is None
            assert (await backend.list(cart.service)).entries == ()
            assert cart not in (await backend.list()).entries
    finally:
        assert consul.ask("PUT", "/v1/catalog/deregister", {"Node": "other"})[0] == 200


# -- races ------------------------------------------------------------------------------------------------------------


Requests = Callable[[str, str, bytes], Awaitable[tuple[int, int, bytes]]]


@asynccontextmanager
async def answering(respond: Requests) -> AsyncIterator[str]:
    """The url of an HTTP server; `respond` makes (status, index, body) of method, target and body."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state, request, body = (
            h11.Connection(h11.SERVER),
            h11.Request(method="GET", target="/", headers=[("Host", "x")]),
            b"",
        )
        while True:
            event = state.next_event()
            if event is h11.NEED_DATA:
                state.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                status, index, data = await respond(request.method.decode(), request.target.decode(), body)
                headers = [("Content-Length", str(len(data))), ("X-Consul-Index", str(index))]
                events = (h11.Response(status_code=status, headers=headers), h11.Data(data=data), h11.EndOfMessage())
                writer.write(b"".join(state.send(event) or b"" for event in events))
                state.start_next_cycle()
            else:
                return

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(lambda task: writer.transport.abort())

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


@asynccontextmanager
async def between(server: Consul, before: Callable[[str, str, bytes], None]) -> AsyncIterator[ConsulBackend]:
    """A client of the server; `before` is told method, target and body of each request that it makes."""

    async def respond(method: str, target: str, body: bytes) -> tuple[int, int, bytes]:
        before(method, target, body)
        status, answer = await asyncio.to_thread(server.ask, method, target, json.loads(body) if body else None)
        return status, 7, answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()

    async with answering(respond) as url, backend_of(url) as backend:
        yield backend


async def test_an_update_of_what_is_deleted_meanwhile_leaves_nothing(consul: Consul, cart: Entry) -> None:
    identifier = f"unitd/{cart.service}/web-7/cart:0@42"
    for moment in ("/v1/agent/check/register", "/v1/agent/check/pass", "/v1/agent/service/register"):
        seen: list[str] = []

        def delete(method: str, target: str, body: bytes, moment: str = moment, seen: list[str] = seen) -> None:
            if target.startswith(moment):
                assert consul.ask("PUT", f"/v1/agent/service/deregister/{identifier}")[0] == 200
            if seen or target.startswith(moment):
                seen.append(target)
                assert passing(consul, cart.service) == []  # at no time

        async with backend_of(consul) as writer:
            await writer.register(cart, 30)
        async with between(consul, delete) as backend:
            with pytest.raises(LeaseLost):
                await backend.update(replace(cart, weight=1))
        assert seen
        assert at_agent(consul, cart.service) == []


async def test_an_update_does_not_bring_back_what_expires_meanwhile(consul: Consul, cart: Entry) -> None:
    def outlast(method: str, target: str, body: bytes) -> None:
        if target.startswith("/v1/agent/check/register"):
            deadline = time.monotonic() + DEADLINE
            while passing(consul, cart.service):
                assert time.monotonic() < deadline
                time.sleep(0.02)

    async with backend_of(consul) as writer:
        await writer.register(cart, 0.7)
    async with between(consul, outlast) as backend:
        with suppress(LeaseLost):  # on a slow machine it is over before the update has begun
            await backend.update(replace(cart, weight=1))
        assert await backend.get(cart.service, cart.instance) is None
        assert await backend.renew([cart.key]) == {cart.key}
    assert passing(consul, cart.service) == []


async def test_an_older_registration_that_was_overtaken_takes_itself_back(consul: Consul, cart: Entry) -> None:
    newer = replace(cart, generation=43)
    async with backend_of(consul) as other:
        loop = asyncio.get_running_loop()

        def overtake(method: str, target: str, body: bytes) -> None:
            if target.startswith("/v1/agent/service/register"):
                consul_task.append(loop.create_task(other.register(newer, 30)))

        consul_task: list[asyncio.Task[Any]] = []
        async with between(consul, overtake) as backend:
            for _ in range(5):  # whichever of the two reaches the agent first
                outcome = await asyncio.gather(backend.register(cart, 30), return_exceptions=True)
                await consul_task.pop()
                assert await other.get(cart.service, cart.instance) == newer
                assert all(name.endswith("@43") for name in at_agent(consul, cart.service))
                if isinstance(outcome[0], RegistryRejected):
                    assert outcome[0].code == "stale_generation"
                await other.deregister(newer.key)


# -- rights and encryption --------------------------------------------------------------------------------------------


async def test_tokens_decide_what_is_allowed(share_server: ShareServer, cart: Entry, tmp_path: Path) -> None:
    server = await asyncio.to_thread(share_server, Consul, acl=True)
    writing, nodes = 'service "%s" { policy = "write" }', 'node_prefix "" { policy = "read" }'
    path = tmp_path / "token"
    path.write_text(server.registrar_token + "\n")
    draining = replace(cart, status="draining")
    async with backend_of(server, token=Secret(path=str(path))) as backend:
        await backend.register(cart, 30)
        await backend.update(draining)
        assert await backend.renew([cart.key]) == frozenset()
        assert (await backend.list()).entries == (await backend.list(cart.service)).entries == (draining,)
        assert (await backend.inspect(10)).warnings == ()
    async with backend_of(
        server, token=server.make_token(f'service_prefix "" {{ policy = "read" }} {nodes}')
    ) as backend:
        assert (await backend.list()).entries == (draining,)
        denied = (
            backend.register(cart, 30),
            backend.renew([cart.key]),
            backend.update(cart),
            backend.deregister(cart.key),
        )
        for call in denied:
            assert (await rejected(call)).code == "permission_denied"
        assert await backend.get(cart.service, cart.instance) == draining
    async with backend_of(server, token=server.make_token(f"{writing % cart.service} {nodes}")) as backend:
        await backend.register(cart, 30)
        assert "service:read for the service consul" in str(await unavailable(backend.list(cart.service)))
        assert await backend.deregister(cart.key) is True
    async with backend_of(server, token="00000000-0000-0000-0000-000000000000") as backend:
        for make_call in calls(backend):
            error = await rejected(make_call())
            assert (error.code, "0000" in str(error)) == ("permission_denied", False)
    async with backend_of(server) as backend:
        assert (await rejected(backend.register(cart, 30))).code == "permission_denied"
    for content in ("", "ä", "two words"):
        path.write_text(content)
        async with backend_of(server, token=Secret(path=str(path))) as backend:
            failed = await unavailable(backend.renew([cart.key]))
            assert (failed.may_have_counted, "two" in str(failed)) == (False, False)


async def test_a_server_that_wants_certificates_gets_ours(share_server: ShareServer, cart: Entry) -> None:
    server = await asyncio.to_thread(share_server, Consul, tls=True)
    made = server.certificates
    assert made is not None
    ours = Tls(ca=str(made.ca), cert=str(made.client_certificate), key=str(made.client_key))
    async with backend_of(server, tls=ours) as backend:
        await backend.register(cart, 30)
        assert await backend.renew([cart.key]) == frozenset()
        async with aclosing(backend.watch(cart.service)) as watch:
            assert (await anext(watch)).entries == (cart,)
    for tls in (replace(ours, cert=None, key=None), replace(ours, ca=None), replace(ours, server_name="other")):
        async with backend_of(server, tls=tls) as backend:
            for call in (backend.get(cart.service, cart.instance), backend.renew([cart.key])):
                await unavailable(call)


async def test_a_datacenter_other_than_the_agents_is_refused(consul: Consul, cart: Entry) -> None:
    async with backend_of(consul, datacenter="dc1") as backend:
        await backend.register(cart, 30)
        assert await backend.get(cart.service, cart.instance) == cart
    async with backend_of(consul, datacenter="dc9") as backend:
        assert "is in the datacenter dc1" in str(await rejected(backend.register(cart, 30)))
        await unavailable(backend.get(cart.service, cart.instance))
        assert "name an agent of that datacenter" in (await backend.inspect(10)).warnings[0]


async def test_an_inspection_tells_version_clock_and_what_cannot_work(consul: Consul) -> None:
    async with backend_of(consul, deregister_after_seconds=5) as backend:
        found = await backend.inspect(0.001)
        assert found.version == consul.version
        assert found.clock is not None and abs(found.clock - time.time()) < 60
        assert found.granted_ttl_seconds == 0.1
        assert len(found.warnings) == 1 and "at least 60 s" in found.warnings[0]
        assert (await backend.list("no such service")).entries == ()
        assert (await rejected(backend.inspect(0))).code == "bad_ttl"


# -- faults -----------------------------------------------------------------------------------------------------------


async def test_an_agent_that_was_killed_comes_back_with_its_entries(consul: Consul, cart: Entry) -> None:
    async with backend_of(consul) as backend:
        await backend.register(cart, 30)
        await backend.renew([cart.key])
        changed = replace(cart, weight=3)
        await backend.update(changed)
        before = await backend.list(cart.service)
        async with aclosing(backend.watch(cart.service)) as watch:
            assert (await anext(watch)).entries == (changed,)
            consul.kill()
            for call in (
                backend.renew([cart.key]),
                backend.get(cart.service, cart.instance),
                backend.register(cart, 9),
            ):
                await unavailable(call)
            await asyncio.to_thread(consul.start)

            assert await patient(lambda: backend.renew([cart.key])) == frozenset()
            assert await backend.get(cart.service, cart.instance) == changed
            assert len(passing(consul, cart.service)) == 1
            await backend.register(replace(cart, weight=4), 30)
            while (snapshot := await next_of(watch)).entries != (replace(cart, weight=4),):
                assert snapshot.entries in ((changed,), ())
            assert snapshot.epoch == before.epoch
            assert snapshot.revision > before.revision


async def next_of(watch: AsyncGenerator[Snapshot, None]) -> Snapshot:
    async with asyncio.timeout(DEADLINE):
        return await anext(watch)


async def test_a_frozen_agent_is_no_answer_and_afterwards_what_expired_is_lost(consul: Consul, cart: Entry) -> None:
    async with backend_of(consul, timeout_seconds=0.5) as hasty, backend_of(consul) as backend:

        async def does_not_answer() -> bool:
            try:
                return await hasty.renew([cart.key]) is None
            except RegistryUnavailable:
                return True

        await backend.register(cart, 0.6)
        consul.freeze()
        try:
            await until(does_not_answer)  # the signal takes a moment to arrive
            for call in (hasty.get(cart.service, cart.instance), hasty.list()):
                await unavailable(call)
        finally:
            consul.thaw()

        async def is_gone() -> bool:
            return await patient(lambda: backend.get(cart.service, cart.instance)) is None

        await until(is_gone)  # not renewed before, for its timer runs only now
        assert await backend.renew([cart.key]) == {cart.key}
        await backend.register(cart, 30)
        assert await backend.get(cart.service, cart.instance) == cart


async def test_a_registration_cut_in_its_middle_can_be_repeated(
    consul: Consul, cart: Entry, open_proxy: OpenProxy
) -> None:
    proxy = open_proxy(consul)
    async with backend_of(proxy.url) as backend, backend_of(consul) as direct:
        for part in (b"PUT /v1/agent/service/register", b"GET /v1/health/checks"):
            proxy.cut_after_request(part)
            try:
                await backend.register(cart, 30)
            except RegistryUnavailable as error:
                assert error.may_have_counted is (part[:3] == b"PUT")
            assert proxy.calls_cut
            await backend.register(cart, 30)
            assert await direct.get(cart.service, cart.instance) == cart
        proxy.cut_after_request(b"PUT /v1/agent/check/pass")
        await backend.renew([cart.key])  # sent once more
        proxy.cut_after_request(b"PUT /v1/agent/service/deregister")
        await backend.deregister(cart.key)
        assert await direct.get(cart.service, cart.instance) is None


async def test_a_call_that_was_given_up_is_not_sent_any_more(
    consul: Consul, cart: Entry, open_proxy: OpenProxy
) -> None:
    proxy = open_proxy(consul)
    async with backend_of(proxy.url, timeout_seconds=0.5) as backend, backend_of(consul) as direct:
        proxy.stall()
        error = await unavailable(backend.register(cart, 30))
        assert error.may_have_counted is False  # it was still asking what is there
        proxy.mend()
        assert await direct.get(cart.service, cart.instance) is None
        await patient(lambda: backend.register(cart, 30))
        proxy.stall()
        assert (await unavailable(backend.renew([cart.key]))).may_have_counted is False
        proxy.mend()
        assert await patient(lambda: backend.renew([cart.key])) == frozenset()


async def test_what_is_no_answer_of_consul_is_never_an_answer(consul: Consul, open_proxy: OpenProxy) -> None:
    proxy = open_proxy(consul)
    page = b"<html>not found</html>"
    for status, body in (
        (404, page),
        (403, page),
        (400, page),
        (500, page),
        (503, b"no cluster leader"),
        (200, page),
        (200, b"7"),
        (200, b"null"),
        (200, b'[{"Checks": 7}]'),
        (200, b'{"Config": 7}'),
    ):
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nX-Consul-Index: 5\r\n\r\n".encode()
        proxy.answer_with(head + body)
        async with backend_of(proxy.url) as backend:
            for make_call in (*calls(backend)[:7], calls(backend)[-1]):  # a watch tries again instead
                await unavailable(make_call())
    for rubbish in (b"\x00\x01\x02\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"):  # no index
        proxy.answer_with(rubbish)
        async with backend_of(proxy.url) as backend:
            await unavailable(backend.get("cart", "web-7/cart:0"))
            await unavailable(backend.list("cart"))


async def test_a_watch_survives_every_fault_and_gives_no_set_twice(
    consul: Consul, cart: Entry, open_proxy: OpenProxy
) -> None:
    proxy = open_proxy(consul)
    async with backend_of(proxy.url, timeout_seconds=0.5) as backend, backend_of(consul) as writer:
        async with aclosing(backend.watch(cart.service)) as watch:
            seen = [await next_of(watch)]
            for weight, fault in enumerate(
                (
                    proxy.reset_connections,
                    proxy.cut,
                    lambda: proxy.answer_with(b"HTTP/1.1 500 X\r\nContent-Length: 17\r\n\r\nNo cluster leader"),
                ),
                1,
            ):
                following = asyncio.ensure_future(next_of(watch))
                await asyncio.sleep(0.1)
                fault()
                await asyncio.sleep(0.3)
                proxy.mend()
                assert not following.done()
                await writer.register(replace(cart, weight=weight), 30)
                seen.append(await following)
        assert [[entry.weight for entry in snapshot.entries] for snapshot in seen] == [[], [1], [2], [3]]
        assert len({snapshot.epoch for snapshot in seen}) == 1
        revisions = [snapshot.revision for snapshot in seen]
        assert revisions == sorted(set(revisions))


async def test_servers_that_are_set_back_are_another_life() -> None:
    """An operator has restored an old copy of the state: same servers, smaller indexes."""
    indexes = [50, 40, 41]

    async def respond(method: str, target: str, body: bytes) -> tuple[int, int, bytes]:
        if "/v1/catalog/service/consul" not in target:
            return 200, indexes[0], b"[]"
        if len(indexes) > 1:
            del indexes[0]
        return 200, 9, b'[{"ID": "a", "CreateIndex": 3}]'

    async with answering(respond) as url, backend_of(url) as backend, aclosing(backend.watch("s")) as watch:
        first, second = await next_of(watch), await next_of(watch)
    assert (first.revision, second.revision) == (50, 40)
    assert first.epoch != second.epoch


async def test_a_resumed_watch_of_a_wiped_server_does_not_wait_for_the_old_revision(
    start_server: StartServer,
) -> None:
    server = await asyncio.to_thread(start_server, Consul)
    async with backend_of(server) as backend:
        for generation in range(10):
            await backend.register(replace(ENTRY, generation=generation), 30)
        last = await backend.list("cart")
        await asyncio.to_thread(server.lose_everything)
        async with aclosing(backend.watch("cart", last.revision, last.epoch)) as watch:
            after = await next_of(watch)
        assert after.entries == () and after.epoch != last.epoch
        assert await backend.renew([replace(ENTRY, generation=9).key]) == {replace(ENTRY, generation=9).key}
