"""What gateways show is passed on: what is open at servers that were left, views and findings."""

from __future__ import annotations

import asyncio

from gateway.errors import GatewayUnreachable
from gateway.model import Failure, Look, ServerView, Standing, Symptom
from tests.gateway.fakes import FakeFeeder, pool, server, until
from tests.gateway.feeding_stage import feeding, run


def test_a_look_that_hangs_is_given_up_and_applying_goes_on() -> None:
    class Staring(FakeFeeder):
        stares = True

        async def look(self) -> Look:
            if self.stares:
                await asyncio.Event().wait()
            return await super().look()

    async def scene() -> None:
        edge = Staring()
        async with feeding(edge) as stage:
            stage.offer(pool(1))
            await until("it has it", lambda: stage.feeding.is_ready)
            await until("it counts as away", lambda: stage.feeding.states()[0].reachable is False)
            assert "TimeoutError" in stage.feeding.states()[0].error
            stage.offer(pool(2))
            await until("it has the next one", lambda: edge.has["cart"].revision == 2)
            edge.stares = False
            await until("it is seen", lambda: stage.feeding.states()[0].reachable)

    run(scene)


def test_what_is_open_at_a_server_that_was_left_is_said_after_a_look_that_began_later() -> None:
    async def scene() -> None:
        edge = FakeFeeder(look_seconds=30.0)
        edge.views = (
            ServerView("cart", "n/1", 1, in_flight=5),
            ServerView("cart", "n/2", 1, in_flight=3),
        )
        async with feeding(edge) as stage:
            first, second = server("n/1"), server("n/2")
            stage.offer(pool(1, first, second))
            await stage.feeding.attempted()
            drained = server("n/2", standing=Standing.DRAINING)
            stage.offer(pool(2, first, drained))
            open_there = ("busy", "edge", "cart", {("n/2", 1): 3})
            await until("without waiting for the next look", lambda: open_there in stage.acknowledgements.said)
            order = [(each[0], each[3]) for each in stage.acknowledgements.of("applied", "busy")]
            assert order[-2:] == [("applied", 2), ("busy", {("n/2", 1): 3})]

    run(scene)


def test_changes_that_take_nobody_out_cause_no_looks() -> None:
    async def scene() -> None:
        edge = FakeFeeder(look_seconds=60.0)
        edge.views = (ServerView("cart", "n/1", 1, in_flight=5),)
        async with feeding(edge) as stage:
            for weight in range(1, 30):
                stage.offer(pool(weight, server("n/1", weight=weight)))
                await stage.has("cart", weight, edge)
            assert edge.looks == 1

    run(scene)


def test_that_nothing_is_open_any_more_is_said_once() -> None:
    async def scene() -> None:
        edge = FakeFeeder()
        edge.views = (ServerView("cart", "n/2", 1, in_flight=1),)
        async with feeding(edge) as stage:
            stage.offer(pool(1, server("n/1")))
            await until("it is busy", lambda: ("busy", "edge", "cart", {("n/2", 1): 1}) in stage.acknowledgements.said)
            edge.views = (ServerView("cart", "n/2", 1, in_flight=0),)
            await until("it is not", lambda: stage.acknowledgements.said[-1] == ("busy", "edge", "cart", {}))
            looks = edge.looks
            await until("looks", lambda: edge.looks > looks + 3)
            assert stage.acknowledgements.said.count(("busy", "edge", "cart", {})) == 1

    run(scene)


def test_of_a_gateway_that_cannot_count_nothing_is_said_to_be_open() -> None:
    async def scene() -> None:
        edge = FakeFeeder()
        edge.views = (ServerView("cart", "n/1", 1),)
        async with feeding(edge) as stage:
            stage.offer(pool(1, server("n/1")))
            await until("looks", lambda: edge.looks > 5)
            assert stage.acknowledgements.of("busy") == []

    run(scene)


def test_views_and_findings_go_to_those_who_want_them() -> None:
    async def scene() -> None:
        edge, other = FakeFeeder("edge"), FakeFeeder("other", services=("stock",))
        view = ServerView("cart", "n/1", 1, weight=7)
        failure = Failure("cart", "n/1", 1, Symptom.CONNECT_REFUSED)
        edge.views, edge.findings = (view,), [failure]
        async with feeding(edge, other) as stage:
            await until("it was seen", lambda: stage.findings)
            assert stage.findings == [("edge", failure)]
            assert stage.feeding.views("cart") == {"edge": {("n/1", 1): view}}, "only those that have to do with it"
            edge.look_failure = GatewayUnreachable("cannot reach it")
            await until("it is away", lambda: stage.feeding.views("cart") == {"edge": {}})

    run(scene)
