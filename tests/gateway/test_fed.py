"""A gateway that is away, refuses or has a mistake gets what it should have in the end."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gateway.errors import GatewayRefused, GatewayUnreachable
from gateway.fed import Timing
from tests.gateway.fakes import FakeFeeder, pool, server, until
from tests.gateway.feeding_stage import FAST, SLOW, Stage, feeding, run


def test_a_call_that_never_ends_is_given_up_and_tried_again() -> None:
    async def scene() -> None:
        edge = FakeFeeder()
        edge.gates["cart"] = asyncio.Event()
        async with feeding(edge, timing=Timing(apply=0.05, retry_first=0.01)) as stage:
            stage.offer(pool(1))
            await until("another try", lambda: len(edge.told) > 2)
            assert stage.outcomes[0] == ("edge", "unreachable")
            assert ("unreachable", "edge") in stage.acknowledgements.said
            edge.gates["cart"].set()
            await until("it has it", lambda: stage.feeding.is_ready)

    run(scene)


def test_a_gateway_that_is_away_for_a_while_gets_the_newest_pool_in_full(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        edge = FakeFeeder()
        async with feeding(edge) as stage:
            stage.offer(pool(1))
            await stage.feeding.attempted()
            edge.look_failure = edge.always = GatewayUnreachable("cannot reach it: told so")
            stage.offer(pool(2))
            await until("it is seen", lambda: stage.feeding.states()[0].reachable is False)
            stage.offer(pool(3))
            await until("tries", lambda: ("cart", 3, True) in edge.told)
            assert stage.feeding.states()[0].error == "cannot reach it: told so"
            assert stage.feeding.states()[0].behind == 1 and stage.lost == ["edge"]
            edge.look_failure = edge.always = None
            await until("it is back", lambda: stage.feeding.states()[0].reachable)
            await until("the newest", lambda: edge.has["cart"].revision == 3)
            states = [each[0] for each in stage.acknowledgements.of("reachable", "unreachable")]
            assert states[-2:] == ["unreachable", "reachable"]

    with caplog.at_level(logging.INFO):
        run(scene)
    assert caplog.text.count("is away, and keeps what it has: cannot reach it: told so") == 1
    assert caplog.text.count("the gateway edge answers") == 1


def test_a_gateway_that_is_seen_again_is_not_waited_for_any_longer() -> None:
    async def scene() -> None:
        edge = FakeFeeder()
        edge.look_failure = edge.always = GatewayUnreachable("cannot reach it")
        async with feeding(edge, timing=SLOW) as stage:
            stage.offer(pool(1))
            await stage.feeding.attempted()
            edge.look_failure = edge.always = None
            await until("at once, not after half a minute", lambda: "cart" in edge.has)

    run(scene)


def test_a_gateway_that_may_have_been_started_anew_is_told_everything_again() -> None:
    async def scene() -> None:
        edge = FakeFeeder()
        async with feeding(edge) as stage:
            stage.offer(pool(1), pool(1, service="stock"))
            await stage.feeding.attempted()
            edge.told.clear()
            edge.look_failure = GatewayUnreachable("cannot look: it has begun anew")
            await until("it is away", lambda: stage.feeding.states()[0].reachable is False)
            edge.look_failure = None
            await until("everything, in full", lambda: len(edge.told) == 2)
            assert sorted(edge.told) == [("cart", 1, True), ("stock", 1, True)]

    run(scene)


def test_one_that_can_be_seen_but_not_told_is_away_until_it_can(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        edge = FakeFeeder()
        edge.always = GatewayUnreachable("cannot tell it")
        async with feeding(edge) as stage:
            stage.offer(pool(1))
            await until("many tries", lambda: len(edge.told) > 5)
            assert stage.feeding.states()[0].reachable is False
            edge.always = None
            await until("it has it", lambda: stage.feeding.states()[0].reachable)

    run(scene)
    assert caplog.text.count("is away") == 1, "looks that succeed meanwhile do not make it come and go"


def test_a_refusal_is_said_once_and_tried_again_slowly(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        edge = FakeFeeder()
        edge.always = GatewayRefused("cannot set it: no such backend")
        async with feeding(edge) as stage:
            stage.offer(pool(1))
            await until("some tries", lambda: len(edge.told) > 3)
            assert stage.feeding.states()[0].error == "cannot set it: no such backend"
            assert stage.feeding.states()[0].reachable, "it answers"
            assert not stage.feeding.is_ready and ("edge", "refused") in stage.outcomes

    run(scene)
    assert caplog.text.count("edge refuses cart: cannot set it: no such backend") == 1


def test_who_refuses_one_pool_is_asked_to_take_the_next_one_at_once() -> None:
    async def scene() -> None:
        edge = FakeFeeder()
        edge.failures = [GatewayRefused("cannot set it: that one not")]
        async with feeding(edge, timing=SLOW) as stage:
            stage.offer(pool(1))
            await stage.feeding.attempted()
            stage.offer(pool(2))
            await until("not after half a minute", lambda: "cart" in edge.has)
            assert edge.told == [("cart", 1, True), ("cart", 2, True)]

    run(scene)


def test_a_mistake_in_a_feeder_is_logged_once_and_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        bad, good = FakeFeeder("bad"), FakeFeeder("good")
        bad.always = bad.look_failure = KeyError("a bug")
        async with feeding(bad, good) as stage:
            stage.offer(pool(1), pool(1, service="stock"))
            await until("many tries", lambda: len(bad.told) > 6 and bad.looks > 3)
            assert set(good.has) == {"cart", "stock"} and ("bad", "failed") in stage.outcomes
            bad.always = bad.look_failure = None
            await until("it is mended", lambda: stage.feeding.is_ready)

    run(scene)
    assert caplog.text.count("cannot apply to bad: a mistake in its feeder") == 1
    assert caplog.text.count("cannot look at bad: a mistake in its feeder") == 1
    assert "Traceback" in caplog.text


def test_a_cancelled_call_inside_of_a_feeder_is_a_mistake_of_it_and_no_end() -> None:
    async def scene() -> None:
        edge = FakeFeeder()
        edge.always = edge.look_failure = asyncio.CancelledError()  # type: ignore[assignment]
        async with feeding(edge) as stage:
            stage.offer(pool(1))
            await until("it is tried again", lambda: len(edge.told) > 2 and edge.looks > 2)
            assert ("edge", "failed") in stage.outcomes
            edge.always = edge.look_failure = None
            await until("it has it", lambda: stage.feeding.is_ready)

    run(scene)


@pytest.mark.parametrize("failure", [GatewayUnreachable("cannot reach it"), RuntimeError("a bug")], ids=["away", "bug"])
def test_a_gateway_that_does_not_begin_well_is_fed_all_the_same(failure: Exception) -> None:
    async def scene() -> None:
        edge = FakeFeeder()
        edge.start_failure = failure
        async with feeding(edge) as stage:
            stage.offer(pool(1))
            await until("it has it", lambda: stage.feeding.is_ready)

    run(scene)


def test_a_gateway_that_refuses_to_begin_is_an_error_at_the_start() -> None:
    async def scene() -> None:
        shop = FakeFeeder()
        shop.start_failure = GatewayRefused("cannot listen on 127.0.0.1:80: Address already in use")
        with pytest.raises(GatewayRefused, match="Address already in use"):
            await Stage([shop], FAST).feeding.start()

    run(scene)


def test_now_and_then_everything_is_told_in_full() -> None:
    async def scene() -> None:
        edge = FakeFeeder()
        async with feeding(edge, timing=Timing(resync=0.05)) as stage:
            stage.offer(pool(1))
            await stage.feeding.attempted()
            await until("again and again", lambda: edge.told.count(("cart", 1, True)) > 3)
            assert ("cart", 1, False) not in edge.told

    run(scene)


def test_who_still_sends_to_others_is_asked_until_it_does_not() -> None:
    async def scene() -> None:
        edge = FakeFeeder()
        left = server("n/2")
        edge.serves = [frozenset((server().key, left.key))] * 3
        async with feeding(edge) as stage:
            stage.offer(pool(1, server()))
            await until("it does not any more", lambda: len(edge.told) == 4)
            assert [full for _, _, full in edge.told] == [True, False, False, False]
            said = stage.acknowledgements.of("applied")
            await until("the last one was told", lambda: len(stage.acknowledgements.of("applied")) == 4)
            assert said and stage.feeding.states()[0].behind == 0
            looks = edge.looks
            await until("looks", lambda: edge.looks > looks + 3)
            assert len(edge.told) == 4, "and then no more"

    run(scene)
