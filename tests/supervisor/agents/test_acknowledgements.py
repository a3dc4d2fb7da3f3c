"""Whom a withdrawal hears from when its readers were told: gateways in one or several registries."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from registry_client.backend import Capability
from registry_client.errors import RegistryRejected
from registry_client.testing import FakeBackend
from supervisor.agents import acknowledgements
from supervisor.core.events import Gone, Unconfirmed
from supervisor.core.model import UnitSpec
from supervisor.host.clock import monotonic
from tests.supervisor.agents.withdrawals import EXPIRING, KEY, SPEC, host, patient
from tests.supervisor.running import run, until


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acknowledgements, "LOOK_SECONDS", 0.02)


def test_where_no_gateway_is_known_one_look_is_all_that_it_costs() -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.publish()
            it.agents.take_out(SPEC, 1, 4)
            assert await it.answer() == Gone(1, 4)
            assert [method for method, _ in it.backends["main"].calls] == ["list", "deregister", "get"]
            assert it.steps == [("cart", "gone")]

    run(scenario())


def test_a_gateway_that_sends_to_it_is_waited_for_until_it_sends_no_more() -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.gateway("gw-1.edge", [KEY, ("n/other", 3)])
            await it.publish()
            it.agents.take_out(SPEC, 1, 4)
            await it.waits_for("gw-1.edge")
            assert it.agents.describe("cart").endswith("s of at most 60.0 s")
            held = it.held()
            assert it.steps == [("cart", "gateways")] and held is not None
            assert (held.status, held.weight) == ("draining", 0), "one that only vanishes looks like a lost heartbeat"
            await it.gateway("gw-1.edge", [("n/other", 3)])
            assert await it.answer() == Gone(1, 4, settled=True)
            assert it.steps == [("cart", "gateways"), ("cart", "gone")] and it.held() is None
            assert it.details == [], "nothing is to be complained about"
            assert it.measures.gateways.values.keys() == {("shop", "acknowledged")}
            assert [method for method, _ in it.backends["main"].calls if method != "list"][:2] == [
                "update",
                "deregister",
            ]

    run(scenario())


def test_where_a_registry_cannot_say_that_an_entry_leaves_gateways_are_waited_for_when_it_is_gone() -> None:
    class Mute(FakeBackend):
        capabilities = FakeBackend.capabilities - {Capability.STATUS}

    async def scenario() -> None:
        async with host() as it:
            it.backends["main"].__class__ = Mute
            await it.gateway("gw-1.edge", [KEY])
            await it.publish()
            it.agents.take_out(SPEC, 1, 4)
            await it.waits_for("gw-1.edge")
            assert it.held() is None
            await it.gateway("gw-1.edge")
            assert await it.answer() == Gone(1, 4, settled=True)

    run(scenario())


def test_an_entry_that_expires_is_gone_before_gateways_are_waited_for() -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.gateway("gw-1.edge", [KEY])
            await it.publish(ttl=0.5)
            it.agents.take_out(EXPIRING, 1, 4)
            await it.waits_for("gw-1.edge")
            assert it.steps == [("cart", "gone"), ("cart", "gateways")] and it.held() is None
            await it.gateway("gw-1.edge")
            assert await it.answer() == Gone(1, 4, settled=True)

    run(scenario())


def test_a_gateway_that_has_spoken_before_the_entry_is_gone_is_not_waited_for() -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.gateway("gw-1.edge", [KEY])
            await it.publish(ttl=0.5)
            it.agents.take_out(EXPIRING, 1, 4)
            await until(lambda: ("cart", "gone") in it.steps)
            await it.gateway("gw-1.edge")
            assert await it.answer() == Gone(1, 4, settled=True)
            assert ("cart", "gateways") not in it.steps

    run(scenario())


def test_the_first_look_comes_before_the_word_that_it_leaves() -> None:
    """Else a quick gateway would have acted on that word, and look like one that has never sent anything."""

    async def scenario() -> None:
        async with host() as it:
            await it.publish()
            it.agents.take_out(EXPIRING, 1, 4)
            await until(lambda: ("cart", "gone") in it.steps)
            assert [method for method, _ in it.backends["main"].calls][:2] == ["list", "update"]

    run(scenario())


def test_a_registry_that_is_slow_to_answer_the_first_look_does_not_hold_up_the_withdrawal() -> None:
    async def scenario() -> None:
        async with host() as it:
            backend = it.backends["main"]
            backend.timeout_seconds = 30.0
            await it.gateway("gw-1.edge", [KEY])
            await it.publish()
            backend.hang()
            began = monotonic()
            it.agents.take_out(SPEC, 1, 4)
            await until(lambda: any(method == "update" for method, _ in backend.calls), "readers are told")
            assert monotonic() - began < acknowledgements.FIRST_SECONDS + 1.0
            assert it.beats.leases("cart") and not it.beats.keeps("cart")
            backend.release()
            await it.waits_for("gw-1.edge")
            await it.gateway("gw-1.edge")
            assert await it.answer() == Gone(1, 4, settled=False), "nobody knows who else has sent to it"

    run(scenario())


def test_no_renewal_begins_while_gateways_are_looked_for() -> None:
    async def scenario() -> None:
        async with host() as it:
            backend = it.backends["main"]
            await it.publish()
            backend.hang()
            it.agents.take_out(SPEC, 1, 4)
            await until(it.lists)
            assert not it.beats.keeps("cart")
            backend.release()
            await it.answer()

    run(scenario())


def test_a_gateway_that_does_not_answer_is_given_up_and_named(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.gateway("gw-1.edge", [KEY])
            await it.gateway("gw-2.edge", [KEY])
            await it.gateway("gw-3.edge", [("n/other", 1)])
            await it.publish()
            it.agents.take_out(patient(0.3), 1, 4)
            await it.waits_for("gw-1.edge", "gw-2.edge")
            await it.gateway("gw-1.edge")
            await it.waits_for("gw-2.edge")
            assert await it.answer() == Gone(1, 4)
            assert it.details == ["cart gateways: gw-2.edge has not said within 0.3 s to send to it no more"]
            assert it.measures.gateways.values.keys() == {("shop", "unanswered")}

    run(scenario())
    assert "cart: gw-2.edge has not said within 0.3 s to send to it no more; it goes on" in caplog.text


@pytest.mark.parametrize("spec", [patient(0.0)], ids=["gateway_seconds = 0"])
def test_gateways_are_not_even_looked_for_where_that_is_not_wanted(spec: UnitSpec) -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.gateway("gw-1.edge", [KEY])
            await it.publish()
            it.agents.take_out(spec, 1, 4)
            assert await it.answer() == Gone(1, 4)
            assert it.lists() == 0

    run(scenario())


def test_a_gateway_whose_entry_vanishes_is_not_waited_for_and_has_not_acknowledged() -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.gateway("gw-1.edge", [KEY])
            await it.gateway("gw-2.edge", [KEY])
            await it.publish()
            it.agents.take_out(SPEC, 1, 4)
            await it.waits_for("gw-1.edge", "gw-2.edge")
            await it.vanish("gw-1.edge")
            await it.waits_for("gw-2.edge")
            await it.gateway("gw-2.edge")
            assert await it.answer() == Gone(1, 4, settled=False)
            assert it.measures.gateways.values.keys() == {("shop", "vanished")}

    run(scenario())


def test_a_gateway_that_was_started_again_meanwhile_may_still_acknowledge() -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.gateway("gw-1.edge", [KEY])
            await it.gateway("gw-2.edge", [KEY])
            await it.publish()
            it.agents.take_out(SPEC, 1, 4)
            await it.waits_for("gw-1.edge", "gw-2.edge")
            await it.vanish("gw-1.edge")
            await it.waits_for("gw-2.edge")
            await it.gateway("gw-1.edge", [KEY])
            await it.waits_for("gw-1.edge", "gw-2.edge")
            await it.gateway("gw-1.edge")
            await it.gateway("gw-2.edge")
            assert await it.answer() == Gone(1, 4, settled=True)

    run(scenario())


def test_a_gateway_that_never_listed_it_proves_nothing_and_delays_nothing() -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.gateway("gw-1.edge", [("n/cart", 2), ("n/other", 1)])
            await it.gateway("gw-2.edge", [KEY], service="another")
            await it.publish()
            it.agents.take_out(SPEC, 1, 4)
            assert await it.answer() == Gone(1, 4, settled=False)
            assert ("cart", "gateways") not in it.steps

    run(scenario())


def test_a_gateway_that_lists_it_only_after_the_first_look_is_waited_for() -> None:
    """It had begun to send a moment before, and had not said so yet."""

    async def scenario() -> None:
        async with host() as it:
            await it.gateway("gw-1.edge")
            await it.publish(ttl=0.5)
            it.agents.take_out(EXPIRING, 1, 4)
            await until(lambda: ("cart", "gone") in it.steps)
            await it.gateway("gw-1.edge", [KEY])
            await it.waits_for("gw-1.edge")
            await it.gateway("gw-1.edge")
            assert await it.answer() == Gone(1, 4, settled=False), "it was not among those that had to speak"

    run(scenario())


def test_gateways_of_all_registries_are_heard() -> None:
    async def scenario() -> None:
        async with host("main", "old") as it:
            await it.gateway("gw-1.edge", [KEY])
            await it.gateway("gw-2.edge", [KEY], registry="old")
            await it.publish()
            it.agents.take_out(SPEC, 1, 4)
            await it.waits_for("gw-1.edge", "gw-2.edge")
            await it.gateway("gw-1.edge")
            await it.waits_for("gw-2.edge")
            await it.gateway("gw-2.edge", registry="old")
            assert await it.answer() == Gone(1, 4, settled=True)

    run(scenario())


def test_a_registry_that_stays_away_does_not_answer_for_its_gateways(caplog: pytest.LogCaptureFixture) -> None:
    """Each has as long as it may have; what was heard of others is not lost."""

    class Deaf(FakeBackend):
        deaf = False

        async def list(self, service: str | None = None) -> object:  # type: ignore[override]
            if self.deaf:
                raise RegistryRejected("cannot list: you may not", code="denied")
            return await super().list(service)

    async def scenario() -> None:
        async with host("main", "old") as it:
            old = it.backends["old"]
            old.__class__ = Deaf
            await it.gateway("gw-1.edge", [KEY])
            await it.gateway("gw-2.edge", [KEY], registry="old")
            await it.publish()
            it.agents.take_out(patient(0.5), 1, 4)
            await it.waits_for("gw-1.edge", "gw-2.edge")
            old.deaf = True  # type: ignore[attr-defined]
            await it.gateway("gw-1.edge")
            await it.waits_for("gw-2.edge")
            assert await it.answer() == Gone(1, 4, settled=False)
            assert it.details == ["cart gateways: gw-2.edge has not said within 0.5 s to send to it no more"]

    run(scenario())
    assert caplog.text.count("registry old: cannot ask whom gateways send to: cannot list: you may not") == 1


def test_a_registry_that_may_not_be_asked_changes_nothing() -> None:
    async def scenario() -> None:
        async with host() as it:
            backend = it.backends["main"]
            await it.publish()
            backend.fail_next(error=ZeroDivisionError("a mistake in the backend"))  # type: ignore[arg-type]
            it.agents.take_out(SPEC, 1, 4)
            assert await it.answer() == Gone(1, 4)

    run(scenario())


def test_nobody_is_waited_for_when_the_process_has_ended() -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.gateway("gw-1.edge", [KEY])
            await it.publish()
            it.serves = False
            it.agents.take_out(SPEC, 1, 4)
            assert await it.answer() == Gone(1, 4)
            assert it.lists() == 0

    run(scenario())


def test_the_waiting_ends_when_the_process_ends() -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.gateway("gw-1.edge", [KEY])
            await it.publish()
            it.agents.take_out(SPEC, 1, 4)
            await it.waits_for("gw-1.edge")
            it.serves = False
            assert await it.answer() == Gone(1, 4)
            assert it.details == []
            assert it.measures.gateways.values.keys() == {("shop", "ended")}

    run(scenario())


def test_a_withdrawal_that_is_called_off_waits_for_nobody() -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.gateway("gw-1.edge", [KEY])
            await it.publish(ttl=0.5)
            it.agents.take_out(EXPIRING, 1, 4)
            await it.waits_for("gw-1.edge")
            it.agents.call_off("cart")
            assert it.agents.describe("cart") == ""
            assert it.measures.removals.values.keys() == {("gone",)}, "it was gone, and counted as that"
            calls = it.lists()
            await it.gateway("gw-1.edge")
            await asyncio.sleep(0.1)  # nothing must come
            assert it.posted == [] and it.lists() <= calls + 1

    run(scenario())


def test_what_cannot_be_confirmed_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr("supervisor.agents.restart.MARGIN_SECONDS", 0.1)
        monkeypatch.setattr("supervisor.agents.restart.UNREACHABLE_SECONDS", 0.1)
        async with host() as it:
            await it.gateway("gw-1.edge", [KEY])
            await it.publish(ttl=0.5)
            it.agents.take_out(EXPIRING, 1, 4)
            await until(lambda: ("cart", "gone") in it.steps)
            it.backends["main"].fail_next(1000)
            assert isinstance(await it.answer(), Unconfirmed)
            assert ("cart", "gateways") not in it.steps

    run(scenario())


def test_many_units_at_once_are_read_for_together() -> None:
    names = [f"cart:{number}" for number in range(40)]

    async def scenario() -> None:
        async with host() as it:
            keys = [(f"n/{name}", 1) for name in names]
            await it.gateway("gw-1.edge", keys)
            await it.publish(*names)
            for name in names:
                it.agents.take_out(replace(SPEC, name=name), 1, 4)
            await until(lambda: all(it.agents.describe(name).startswith("waiting for gateway") for name in names))
            before, began = it.lists(), monotonic()
            await until(lambda: it.lists() >= before + 10)
            assert it.posted == []
            looks = (monotonic() - began) / acknowledgements.LOOK_SECONDS
            assert it.lists() - before <= looks * 2 + 2, "one reader for all"
            await it.gateway("gw-1.edge")
            await until(lambda: len(it.posted) == len(names))
            assert {event for _, event in it.posted} == {Gone(1, 4, settled=True)}

    run(scenario())
