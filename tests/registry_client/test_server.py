"""server.py: routes, long-polling, and answers that say what to do."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from registry_client import Entry
from registry_client.backends.embedded import EmbeddedRegistry
from registry_client.server import MAX_BODY_BYTES, RegistryApi, Response

SERVICES = "/v1/registry/services"
VALUE: dict[str, Any] = {
    "schema": 1,
    "service": "cart",
    "instance": "web-7/cart:0",
    "node": "web-7",
    "unit": "cart:0",
    "address": "192.168.1.2",
    "port": 9080,
    "generation": 42,
    "status": "up",
    "weight": 100,
    "full_weight": 100,
    "started_at": "2026-11-23T06:29:10.123Z",
    "warmup_seconds": 0,
    "version": None,
    "zone": None,
    "metadata": {},
}
PATH = f"{SERVICES}/cart/web-7%2Fcart%3A0"


class Api:
    """The API with shorter calls."""

    def __init__(self) -> None:
        self.registry = EmbeddedRegistry()
        self.api = RegistryApi(self.registry)

    async def __call__(self, method: str, path: str, body: object = b"", **query: str) -> Response:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.api.handle(method, path, query, data)

    async def put(self, **changes: Any) -> Response:
        value = VALUE | changes
        body = {"entry": value, "ttl_seconds": 10}
        return await self("PUT", f"{SERVICES}/{value['service']}/{value['instance']}", body)


@asynccontextmanager
async def serving() -> AsyncIterator[Api]:
    api = Api()
    try:
        yield api
    finally:
        api.registry.close()


def said(response: Response) -> Any:
    return json.loads(response.body)


def problem(response: Response) -> tuple[int, str]:
    """Status and code of a well-formed problem."""
    value = said(response)
    assert response.content_type == "application/problem+json"
    assert value["status"] == response.status and value["title"] and value["detail"]
    return response.status, value["code"]


async def test_an_entry_is_put_read_changed_and_deleted() -> None:
    async with serving() as api:
        granted = await api("PUT", PATH, {"entry": VALUE, "ttl_seconds": 10})
        assert said(granted) == {"ttl_seconds": 10.0, "epoch": api.registry.epoch, "revision": 2}
        assert said(await api("GET", PATH)) == VALUE
        assert (await api("PATCH", PATH, {"entry": VALUE | {"weight": 3}})).status == 200
        assert said(await api("GET", PATH))["weight"] == 3
        assert said(await api("DELETE", PATH, generation="42"))["removed"] is True
        assert said(await api("DELETE", PATH, generation="42"))["removed"] is False
        assert problem(await api("GET", PATH)) == (404, "no_such_entry")
        assert problem(await api("PATCH", PATH, {"entry": VALUE})) == (404, "lease_lost")


async def test_an_instance_may_be_spelled_with_plain_slashes() -> None:
    async with serving() as api:
        await api.put()
        assert said(await api("GET", f"{SERVICES}/cart/web-7/cart:0")) == VALUE
        assert said(await api("GET", PATH)) == VALUE


async def test_lists_carry_epoch_revision_and_entries() -> None:
    async with serving() as api:
        await api.put()
        await api.put(service="stock")
        every, one = said(await api("GET", SERVICES)), said(await api("GET", f"{SERVICES}/stock"))
        assert every == {
            "epoch": api.registry.epoch,
            "revision": 3,
            "service": None,
            "entries": [VALUE, VALUE | {"service": "stock"}],
        }
        assert one == every | {"service": "stock", "entries": [VALUE | {"service": "stock"}]}
        assert said(await api("GET", f"{SERVICES}/nobody")) == every | {"service": "nobody", "entries": []}


async def test_an_older_generation_is_a_conflict_that_names_the_newer_one() -> None:
    async with serving() as api:
        await api.put()
        for response in (await api.put(generation=41), await api("DELETE", PATH, generation="41")):
            assert problem(response) == (409, "stale_generation")
            assert said(response)["held_generation"] == 42


async def test_renewing_answers_what_is_lost() -> None:
    async with serving() as api:
        await api.put()
        held = {"service": "cart", "instance": "web-7/cart:0", "generation": 42}
        lost = held | {"generation": 1}
        answer = said(await api("POST", "/v1/registry/renew", {"leases": [held, lost]}))
        assert answer == {"lost": [lost], "epoch": api.registry.epoch, "revision": 2}
        many = [held] * 5001
        assert problem(await api("POST", "/v1/registry/renew", {"leases": many})) == (413, "too_large")
        assert (await api("POST", "/v1/registry/renew", {"leases": many[1:]})).status == 200


async def test_a_long_poll_answers_when_its_service_changes_and_not_before() -> None:
    async with serving() as api:
        await api.put()
        poll = asyncio.ensure_future(api("GET", f"{SERVICES}/cart", since="2", wait="60"))
        await api.put(service="stock")
        await asyncio.sleep(0.05)
        assert not poll.done()
        await api.put(weight=1)
        answer = said(await poll)
        assert (answer["revision"], answer["entries"]) == (4, [VALUE | {"weight": 1}])


async def test_a_long_poll_with_news_answers_at_once() -> None:
    async with serving() as api:
        await api.put()
        async with asyncio.timeout(5):
            for query in (
                {"since": "0"},
                {"since": "1"},
                {"since": "99"},
                {"since": "2", "epoch": "another"},
            ):
                answer = await api("GET", SERVICES, wait="60", **query)
                assert said(answer)["entries"] == [VALUE]


async def test_a_long_poll_without_news_answers_after_its_wait() -> None:
    async with serving() as api:
        await api.put()
        start = time.monotonic()
        answer = await api("GET", SERVICES, since="2", wait="0.2", epoch=api.registry.epoch)
        assert time.monotonic() - start >= 0.19
        assert said(answer)["revision"] == 2


async def test_a_closing_registry_answers_its_long_polls() -> None:
    async with serving() as api:
        poll = asyncio.ensure_future(api("GET", SERVICES, since="1", wait="60"))
        await asyncio.sleep(0)
        api.registry.close()
        async with asyncio.timeout(5):
            assert problem(await poll) == (503, "closed")


async def test_all_who_wait_for_one_change_share_one_body() -> None:
    async with serving() as api:
        polls = [asyncio.ensure_future(api("GET", SERVICES, since="1", wait="60")) for _ in range(10)]
        await asyncio.sleep(0)
        await api.put()
        bodies = [(await poll).body for poll in polls]
        assert all(body is bodies[0] for body in bodies)
        await api.put(weight=9)
        assert said(await api("GET", SERVICES))["entries"] == [VALUE | {"weight": 9}]


async def test_unknown_paths_say_where_to_look() -> None:
    async with serving() as api:
        for path in (
            "/",
            "/v1/registry",
            "/v1/registryservices",
            f"{SERVICES}/",
            f"{SERVICES}/cart/",
            f"{SERVICES}//x",
        ):
            response = await api("GET", path)
            assert problem(response) == (404, "no_such_path")
            assert SERVICES in said(response)["detail"]
        assert problem(await api("GET", "/\udcff")) == (404, "no_such_path")


async def test_other_methods_say_which_are_allowed() -> None:
    async with serving() as api:
        for path, allowed in (
            (SERVICES, "GET"),
            (f"{SERVICES}/cart", "GET"),
            (PATH, "GET, PUT, PATCH, DELETE"),
            ("/v1/registry/renew", "POST"),
        ):
            response = await api("TRACE", path)
            assert problem(response) == (405, "bad_method")
            assert response.headers == (("Allow", allowed),)


async def test_wrong_requests_are_told_what_is_wrong() -> None:
    async with serving() as api:
        bodies: list[object] = [b"", b"{", b"[]", b"\xff", b"[" * 100_000, {"leases": {}}, {"leases": None}]
        for body in bodies:
            assert problem(await api("POST", "/v1/registry/renew", body)) == (400, "bad_request")
        assert problem(await api("POST", "/v1/registry/renew", {"leases": [{}]})) == (400, "bad_entry")
        for query in (
            {"since": "-1"},
            {"since": "x"},
            {"since": "1" * 20},
            {"wait": "x"},
            {"wait": "nan"},
            {"wait": "-1"},
        ):
            assert problem(await api("GET", SERVICES, **query)) == (400, "bad_request")
        assert problem(await api("DELETE", PATH)) == (400, "bad_request")
        assert problem(await api("DELETE", PATH, generation="x")) == (400, "bad_request")
        assert problem(await api("GET", f"{SERVICES}/%ff")) == (400, "bad_request")


async def test_a_wrong_entry_is_refused_with_its_key() -> None:
    async with serving() as api:
        response = await api("PUT", PATH, {"entry": VALUE | {"port": "9080"}, "ttl_seconds": 10})
        assert problem(response) == (400, "bad_entry")
        assert said(response)["key"] == "port"
        assert problem(await api("PUT", PATH, {"ttl_seconds": 10})) == (400, "bad_entry")
        assert problem(await api("PUT", PATH, {"entry": VALUE})) == (400, "bad_ttl")
        assert problem(await api("PUT", f"{SERVICES}/other/x", {"entry": VALUE})) == (400, "bad_request")
        assert said(await api("GET", SERVICES))["entries"] == []


async def test_a_body_beyond_the_limit_is_refused() -> None:
    async with serving() as api:
        assert problem(await api("PUT", PATH, b" " * (MAX_BODY_BYTES + 1))) == (413, "too_large")


async def test_a_full_registry_asks_to_come_back() -> None:
    api = Api()
    api.registry = EmbeddedRegistry(max_entries=0)
    api.api = RegistryApi(api.registry)
    response = await api.put()
    assert problem(response) == (503, "unavailable")
    assert response.headers == (("Retry-After", "1"),)


async def test_what_is_listed_is_an_entry_that_clients_can_read() -> None:
    async with serving() as api:
        await api.put(metadata={"a": "\u2028 ü"})
        assert Entry.from_json(said(await api("GET", SERVICES))["entries"][0]).metadata == {"a": "\u2028 ü"}
