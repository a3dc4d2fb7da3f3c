"""Gateways get the newest pool, whatever the others do."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import GatewayRefused
from gateway.fed import Timing
from tests.gateway.fakes import FakeFeeder, pool, server, until
from tests.gateway.feeding_stage import FAST, SLOW, Stage, feeding, run


def test_every_gateway_gets_each_service_that_it_wants() -> None:
    async def scene() -> None:
        edge, shop = FakeFeeder("edge"), FakeFeeder("shop", services=("stock",))
        async with feeding(edge, shop) as stage:
            assert not stage.feeding.is_ready, "nothing was offered"
            cart, stock = pool(1, server()), pool(2, service="stock")
            stage.offer(cart, stock)
            await stage.feeding.attempted()
            assert edge.has == {"cart": cart, "stock": stock} and shop.has == {"stock": stock}
            assert stage.feeding.is_ready
            assert [(each.name, each.services, each.behind) for each in stage.feeding.states()] == [
                ("edge", 2, 0), ("shop", 1, 0),
            ]  # fmt: skip
            assert stage.acknowledgements.of("applied")[-1][0] == "applied"
            assert {each[1:] for each in stage.acknowledgements.of("applied")} == {
                ("edge", "cart", 1), ("edge", "stock", 2), ("shop", "stock", 2),
            }  # fmt: skip

    run(scene)


def test_the_first_call_is_a_full_one_and_those_after_it_are_not() -> None:
    async def scene() -> None:
        edge = FakeFeeder()
        async with feeding(edge) as stage:
            stage.offer(pool(1))
            await stage.feeding.attempted()
            stage.offer(pool(2))
            await until("the second pool", lambda: edge.has["cart"].revision == 2)
            assert edge.told == [("cart", 1, True), ("cart", 2, False)]

    run(scene)


def test_what_is_offered_before_the_gateways_have_begun_is_not_lost() -> None:
    async def scene() -> None:
        edge = FakeFeeder()
        stage = Stage([edge], FAST)
        stage.offer(pool(7))
        assert edge.told == []
        await stage.feeding.start()
        task = asyncio.create_task(stage.feeding.run())
        await stage.feeding.attempted()
        assert edge.told == [("cart", 7, True)]
        task.cancel()
        await asyncio.wait([task])
        await stage.feeding.close()

    run(scene)


def test_the_same_pool_again_is_not_told_again() -> None:
    async def scene() -> None:
        edge = FakeFeeder()
        async with feeding(edge) as stage:
            same = pool(1)
            stage.offer(same)
            await stage.feeding.attempted()
            stage.offer(same, pool(2, service="stock"))
            await until("the other service", lambda: "stock" in edge.has)
            assert [service for service, _, _ in edge.told] == ["cart", "stock"]

    run(scene)


def test_while_a_gateway_is_being_told_only_the_newest_pool_waits() -> None:
    async def scene() -> None:
        edge = FakeFeeder()
        edge.gates["cart"] = asyncio.Event()
        async with feeding(edge) as stage:
            stage.offer(pool(1))
            await until("the first call", lambda: edge.told)
            for revision in range(2, 50):
                stage.offer(pool(revision))
            assert edge.told == [("cart", 1, True)] and edge.at_once == 1, "one call at a time for a service"
            edge.gates["cart"].set()
            await until("the newest", lambda: edge.has.get("cart") and edge.has["cart"].revision == 49)
            assert [revision for _, revision, _ in edge.told] == [1, 49]

    run(scene)


def test_a_service_that_hangs_holds_up_neither_the_others_nor_the_looks() -> None:
    async def scene() -> None:
        edge, other = FakeFeeder("edge"), FakeFeeder("other")
        edge.gates["cart"] = asyncio.Event()
        async with feeding(edge, other) as stage:
            stage.offer(pool(1), pool(1, service="stock"))
            await until("everything else", lambda: "stock" in edge.has and len(other.has) == 2)
            looks = edge.looks
            await until("looks go on", lambda: edge.looks > looks + 3)
            assert "cart" not in edge.has and not stage.feeding.is_ready
            edge.gates["cart"].set()
            await until("the last one", lambda: stage.feeding.is_ready)

    run(scene)


def test_a_gateway_that_does_not_let_go_does_not_hold_up_the_end(caplog: pytest.LogCaptureFixture) -> None:
    class Clinging(FakeFeeder):
        async def close(self) -> None:
            await super().close()
            await asyncio.Event().wait()

    async def scene() -> None:
        edge, other = Clinging("edge"), FakeFeeder("other")
        async with feeding(edge, other) as stage:
            stage.offer(pool(1))
            await stage.feeding.attempted()
            await stage.feeding.close()
            assert edge.closed == other.closed == 1

    run(scene)
    assert "cannot let go of edge: TimeoutError" in caplog.text


def test_what_is_about_to_be_told_is_said_before_it_is_told() -> None:
    async def scene() -> None:
        edge = FakeFeeder()
        edge.gates["cart"] = asyncio.Event()
        async with feeding(edge) as stage:
            stage.offer(pool(1, server()))
            await until("the call", lambda: edge.told)
            assert stage.acknowledgements.of("applying", "applied") == [("applying", "edge", "cart", 1)]
            edge.gates["cart"].set()
            await until("the end", lambda: stage.acknowledgements.of("applied"))

    run(scene)


def test_at_the_end_what_is_being_applied_may_end_and_nothing_new_begins() -> None:
    async def scene() -> None:
        edge = FakeFeeder()
        edge.gates["cart"] = asyncio.Event()
        async with feeding(edge) as stage:
            stage.offer(pool(1))
            await until("the call", lambda: edge.told)
            stage.offer(pool(2))
            closing = asyncio.create_task(stage.feeding.close())
            await asyncio.sleep(0)
            assert not edge.closed
            edge.gates["cart"].set()
            await closing
            assert edge.closed and edge.has["cart"].revision == 1 and len(edge.told) == 1
            assert stage.acknowledgements.of("applied") == [("applied", "edge", "cart", 1)]

    run(scene)


def test_a_call_that_hangs_does_not_hold_up_the_end() -> None:
    async def scene() -> None:
        edge = FakeFeeder()
        edge.gates["cart"] = asyncio.Event()
        async with feeding(edge, timing=SLOW) as stage:
            stage.offer(pool(1))
            await until("the call", lambda: edge.told)
            await stage.feeding.close()
            assert edge.closed and edge.at_once == 0

    run(scene)


def test_who_waits_for_another_try_ends_at_once() -> None:
    async def scene() -> None:
        edge = FakeFeeder()
        edge.always = GatewayRefused("cannot set it")
        async with feeding(edge, timing=Timing(refused_first=60.0, last=60.0)) as stage:
            stage.offer(pool(1))
            await stage.feeding.attempted()
            async with asyncio.timeout(5):
                await stage.feeding.close()

    run(scene)


def test_two_thousand_services_cost_no_task_each() -> None:
    async def scene() -> None:
        edge = FakeFeeder()
        async with feeding(edge) as stage:
            stage.offer(*(pool(1, server(service=f"s{number}"), service=f"s{number}") for number in range(2000)))
            await stage.feeding.attempted()
            await until("all of it", lambda: len(edge.has) == 2000)
            await until("tasks have ended", lambda: len(asyncio.all_tasks()) < 20)

    run(scene)
