"""The heartbeat agents against a registry that answers, fails, hangs and forgets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from registry_client import lease as leases
from registry_client.backend import Capability
from registry_client.errors import RegistryRejected, RegistryUnavailable
from registry_client.lease import LeaseState
from registry_client.model import Entry, Grant, LeaseKey
from registry_client.testing import FakeBackend
from supervisor.agents import heartbeat
from supervisor.agents.heartbeat import Heartbeats
from supervisor.agents.herd import REGISTRATIONS_PER_SECOND, Herd
from supervisor.host.clock import monotonic
from tests.supervisor.running import run, until

TTL = 0.6
PROLONGING = ("register", "renew")


def entry(unit: str = "cart", generation: int = 1, weight: int = 100) -> Entry:
    return Entry(
        service="shop", instance=f"n/{unit}", node="n", unit=unit, address="127.0.0.1", port=9080,
        generation=generation, weight=weight, full_weight=weight, started_at="2026-11-24T03:41:46.123Z",
    )  # fmt: skip


class Fleet:
    """Agents on a registry with faults."""

    def __init__(self, backend: FakeBackend) -> None:
        self.backend, self.confirmed = backend, list[str]()
        self.beats = Heartbeats(backend, self.confirmed.append)

    def publish(self, *units: str, generation: int = 1) -> None:
        for unit in units:
            self.beats.publish(unit, entry(unit, generation), TTL)

    async def published(self, *units: str, generation: int = 1) -> None:
        self.publish(*units, generation=generation)
        await until(lambda: set(units) <= set(self.confirmed), "registered")

    def calls(self, *methods: str) -> list[object]:
        return [argument for method, argument in self.backend.calls if method in methods]

    def state(self, unit: str = "cart") -> LeaseState:
        lease = self.beats.lease(unit)
        assert lease is not None
        return leases.state_at(lease, monotonic())

    async def held(self, unit: str = "cart", generation: int = 1) -> Entry | None:
        """What the registry has, without leaving a trace among the calls."""
        found = self.backend._store.get("shop", f"n/{unit}")
        return found if found is not None and found.generation == generation else None


@asynccontextmanager
async def fleet(*, timeout_seconds: float = 0.2) -> AsyncIterator[Fleet]:
    made = Fleet(FakeBackend(timeout_seconds=timeout_seconds))
    try:
        yield made
    finally:
        await made.beats.close()
        await made.backend.close()


def test_a_published_entry_is_registered_confirmed_and_outlives_its_ttl() -> None:
    async def scenario() -> None:
        async with fleet() as it:
            await it.published("cart")
            started = monotonic()
            await until(lambda: monotonic() - started > 2 * TTL)
            assert await it.held() == entry()
            assert it.state() is LeaseState.HELD
            assert it.confirmed == ["cart"], "confirmed once, not by every renewal"
            assert 3 <= len(it.calls("renew")) <= 9

    run(scenario())


def test_renewals_of_many_units_travel_in_one_call() -> None:
    async def scenario() -> None:
        async with fleet() as it:
            units = [f"cart:{number}" for number in range(50)]
            await it.published(*units)
            started = monotonic()
            await until(lambda: monotonic() - started > 2 * TTL)
            calls = [argument for argument in it.calls("renew") if isinstance(argument, tuple)]
            assert len(it.calls("register")) == 50
            # The jitter of a tenth of the interval spreads 50 beats over 1/15 of the ttl; 1/20 of it is gathered.
            assert len(calls) <= 30, f"{len(calls)} calls for 50 units in two ttls"
            assert {key.instance for keys in calls for key in keys} == {f"n/{unit}" for unit in units}

    run(scenario())


# The fence.


class SlowRenewals(FakeBackend):
    """Its renewals take effect only when they are let go."""

    def __init__(self) -> None:
        super().__init__(timeout_seconds=5.0)
        self.under_way, self.go_on = 0, asyncio.Event()
        self.applied = list[str]()

    async def renew(self, keys: Sequence[LeaseKey]) -> frozenset[LeaseKey]:
        self.under_way += 1
        await self.go_on.wait()
        self.applied.append("renew")
        self.under_way -= 1
        return await super().renew(keys)

    async def update(self, entry: Entry) -> None:
        self.applied.append(f"update {entry.status}")
        await super().update(entry)


def test_withdrawing_waits_for_a_renewal_in_flight_before_anything_else_is_said() -> None:
    async def scenario() -> None:
        backend = SlowRenewals()
        it = Fleet(backend)
        it.beats.publish("cart", entry(), 1.5)
        await until(lambda: backend.under_way == 1, "a renewal under way")

        withdrawal = asyncio.ensure_future(it.beats.withdraw("cart", deregister=False))
        await asyncio.sleep(0.5)  # as long as from one beat to the next
        assert not withdrawal.done()
        assert backend.under_way == 1 and backend.applied == []

        released = monotonic()
        backend.go_on.set()
        lease = await withdrawal
        assert backend.applied == ["renew", "update draining"]
        assert lease.last_possible_at is not None and lease.last_possible_at >= released
        await it.beats.close()
        await backend.close()

    run(scenario())


def test_a_fence_stops_the_beats_and_says_nothing() -> None:
    async def scenario() -> None:
        async with fleet() as it:
            await it.published("cart", "other")
            assert it.beats.keeps("cart") and not it.beats.keeps("nobody")
            it.beats.fence("cart")
            assert not it.beats.keeps("cart") and it.beats.keeps("other")
            before = len(it.backend.calls)
            await until(lambda: len(it.backend.calls) > before + 1, "the other unit goes on")
            assert all(method == "renew" and "cart" not in str(key) for method, key in it.backend.calls[before:])

    run(scenario())


def test_an_entry_may_be_announced_to_leave_before_it_is_deleted() -> None:
    async def scenario() -> None:
        async with fleet() as it:
            await it.published("cart")
            await it.beats.announce("cart")
            held = await it.held()
            assert held is not None and (held.status, held.weight) == ("draining", 0)
            lease = await it.beats.withdraw("cart", deregister=True)
            assert await it.held() is None and lease.last_possible_at is None
            assert [method for method, _ in it.backend.calls if method != "renew"][-2:] == ["update", "deregister"]

    run(scenario())


def test_a_withdrawal_that_was_only_announced_can_be_taken_back() -> None:
    async def scenario() -> None:
        async with fleet() as it:
            await it.published("cart")
            await it.beats.announce("cart")
            it.confirmed.clear()
            await it.published("cart")
            held = await it.held()
            assert held is not None and held.status == "up"

    run(scenario())


@pytest.mark.parametrize("deregister", [False, True])
def test_nothing_prolongs_the_entry_once_it_is_withdrawn(deregister: bool) -> None:
    async def scenario() -> None:
        async with fleet() as it:
            await it.published("cart", "other")
            await until(lambda: it.calls("renew"))
            await it.beats.withdraw("cart", deregister=deregister)
            before, now = len(it.backend.calls), monotonic()
            await until(lambda: monotonic() - now > 2.5 * TTL)
            later = it.backend.calls[before:]
            assert any(method == "renew" for method, _ in later), "the other unit goes on"
            for method, argument in later:
                assert method == "renew"
                assert isinstance(argument, tuple)
                assert "n/cart" not in {key.instance for key in argument}
            assert await it.held() is None

    run(scenario())


def test_withdrawing_at_any_moment_of_a_beat_leaves_no_call_behind() -> None:
    """Withdrawals are spread over a whole interval, so that some hit a call that has just begun or just ended."""

    async def scenario() -> None:
        async with fleet() as it:
            units = [f"cart:{number}" for number in range(60)]
            await it.published(*units)
            for unit in units:
                await it.beats.withdraw(unit, deregister=True)
                mark = len(it.backend.calls)
                await asyncio.sleep(TTL / 150)
                for method, argument in it.backend.calls[mark:]:
                    assert method not in PROLONGING or unit not in repr(argument)
            assert it.backend._store.list("shop").entries == ()

    run(scenario())


def test_withdrawing_while_the_first_registration_hangs_waits_for_its_end() -> None:
    async def scenario() -> None:
        async with fleet(timeout_seconds=0.3) as it:
            it.backend.hang()
            it.publish("cart")
            await until(lambda: it.calls("register"))
            withdrawal = asyncio.ensure_future(it.beats.withdraw("cart", deregister=True))
            await asyncio.sleep(0.05)
            assert it.calls("deregister") == []
            it.backend.release()
            await withdrawal
            assert [method for method, _ in it.backend.calls] == ["register", "deregister"]
            assert await it.held() is None

    run(scenario())


def test_a_withdrawn_lease_tells_until_when_the_entry_can_live() -> None:
    async def scenario() -> None:
        async with fleet() as it:
            await it.published("cart")
            lease = await it.beats.withdraw("cart", deregister=False)
            assert it.state() is LeaseState.ABSENT
            expires_at = leases.expires_at(lease)
            assert expires_at is not None and monotonic() < expires_at <= monotonic() + TTL

    run(scenario())


# Leaving.


def test_leaving_is_announced_with_no_weight_and_does_not_prolong() -> None:
    async def scenario() -> None:
        async with fleet() as it:
            await it.published("cart")
            withdrawn_at = monotonic()
            await it.beats.withdraw("cart", deregister=False)
            leaving = await it.held()
            assert leaving is not None
            assert (leaving.status, leaving.weight, leaving.full_weight) == ("draining", 0, 100)
            while await it.held() is not None:
                await asyncio.sleep(0.01)
            assert monotonic() - withdrawn_at < TTL + 0.3
            assert it.calls("deregister") == []

    run(scenario())


@pytest.mark.parametrize("missing", [Capability.STATUS, Capability.UPDATE_WITHOUT_RENEWAL])
def test_nothing_is_announced_where_that_would_prolong_or_is_not_seen(missing: Capability) -> None:
    async def scenario() -> None:
        async with fleet() as it:
            it.backend.capabilities = frozenset(Capability) - {missing}
            await it.published("cart")
            await it.beats.withdraw("cart", deregister=False)
            assert it.calls("update") == []

    run(scenario())


def test_deregistering_removes_the_entry_at_once() -> None:
    async def scenario() -> None:
        async with fleet() as it:
            await it.published("cart")
            lease = await it.beats.withdraw("cart", deregister=True)
            assert await it.held() is None
            assert leases.expires_at(lease) is None
            assert it.calls("update") == []

    run(scenario())


def test_where_deleting_is_not_possible_the_entry_is_left_to_expire() -> None:
    async def scenario() -> None:
        async with fleet() as it:
            it.backend.capabilities = frozenset(Capability) - {Capability.DEREGISTER}
            await it.published("cart")
            lease = await it.beats.withdraw("cart", deregister=True)
            assert it.calls("deregister") == []
            assert leases.expires_at(lease) is not None

    run(scenario())


@pytest.mark.parametrize("deregister", [False, True])
def test_withdrawing_from_a_registry_that_is_away_does_not_fail(
    deregister: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with fleet() as it:
            await it.published("cart")
            it.backend.fail_next(1000)
            lease = await it.beats.withdraw("cart", deregister=deregister)
            assert leases.expires_at(lease) is not None, "it may still be seen"
            assert it.state() is LeaseState.ABSENT

    run(scenario())
    assert "cart: cannot announce that it leaves: cannot reach the registry" in caplog.text


def test_withdrawing_an_entry_that_is_not_there_has_nothing_to_wait_for() -> None:
    async def scenario() -> None:
        async with fleet() as it:
            await it.published("cart")
            it.backend.forget()
            lease = await it.beats.withdraw("cart", deregister=False)
            assert leases.expires_at(lease) is None

    run(scenario())


def test_a_backend_that_breaks_its_promise_cannot_make_a_withdrawal_fail(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(FakeBackend):
        async def deregister(self, key: LeaseKey) -> bool:
            raise KeyError("a mistake in a plugin")

    async def scenario() -> None:
        backend = Broken()
        it = Fleet(backend)
        await it.published("cart")
        lease = await it.beats.withdraw("cart", deregister=True)
        assert leases.expires_at(lease) is not None
        await it.beats.close()
        await backend.close()

    run(scenario())
    assert "a mistake in a plugin" in caplog.text


# Coming back.


def test_a_withdrawal_that_was_called_off_registers_the_same_generation_again() -> None:
    async def scenario() -> None:
        async with fleet() as it:
            await it.published("cart")
            await it.beats.withdraw("cart", deregister=False)
            it.confirmed.clear()
            await it.published("cart")
            again = await it.held()
            assert again == entry()
            assert it.state() is LeaseState.HELD
            mark = len(it.calls("renew"))
            await until(lambda: len(it.calls("renew")) > mark, "it beats again")

    run(scenario())


def test_a_new_generation_takes_over_from_a_withdrawn_one() -> None:
    async def scenario() -> None:
        async with fleet() as it:
            await it.published("cart")
            await it.beats.withdraw("cart", deregister=False)
            it.confirmed.clear()
            await it.published("cart", generation=2)
            assert await it.held(generation=2) is not None
            await until(lambda: it.calls("renew") and "generation=2" in repr(it.calls("renew")[-1]))

    run(scenario())


def test_a_newer_generation_in_the_registry_is_never_overwritten(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with fleet() as it:
            await it.backend.register(entry(generation=7), 60.0)
            mark = len(it.calls("register"))
            it.publish("cart", generation=3)
            await until(lambda: len(it.calls("register")) >= mark + 3, "tried again")
            assert await it.held(generation=7) is not None
            assert it.confirmed == []
            assert it.state() is not LeaseState.HELD
            assert "not registered" in it.beats.trouble("cart")
            await it.beats.withdraw("cart", deregister=True)
            assert await it.held(generation=7) is not None, "and not deregistered either"

    run(scenario())
    assert caplog.text.count("not registered") == 1, "said once, not at every try"


# Trouble.


def test_a_lost_entry_is_registered_again_at_the_next_beat(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with fleet() as it:
            await it.published("cart")
            it.confirmed.clear()
            it.backend.forget()
            await until(lambda: it.confirmed == ["cart"], "registered again", seconds=TTL)
            assert await it.held() == entry()
            assert it.state() is LeaseState.HELD

    run(scenario())
    assert "cart: the registry has lost its entry; registering again" in caplog.text


def test_a_registry_that_is_away_suspends_and_is_tried_until_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        async with fleet() as it:
            await it.published("cart")
            it.backend.fail_next(10_000)
            await until(lambda: it.beats.trouble("cart").startswith("unconfirmed: cannot reach the registry"))
            assert it.state() is LeaseState.SUSPENDED
            await until(lambda: it.state() is LeaseState.LOST, "its ttl is over")
            mark = len(it.backend.calls)
            await until(lambda: len(it.backend.calls) > mark + 5, "never gives up")
            assert await it.held() is None, "it has expired meanwhile"
            it.backend._failures.clear()
            await until(lambda: it.state() is LeaseState.HELD, "registered again")
            assert it.beats.trouble("cart") == ""
            assert await it.held() == entry()

    run(scenario())
    assert caplog.text.count("unconfirmed") == 1


def test_many_units_of_a_registry_that_is_away_and_forgets_are_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "unitd.heartbeat")

    async def scenario() -> None:
        async with fleet() as it:
            units = [f"cart:{number:02}" for number in range(40)]
            await it.published(*units)
            it.backend.forget()
            await until(lambda: all(it.confirmed.count(unit) == 2 for unit in units), "registered again")
            it.backend.fail_next(10_000)
            await until(lambda: all(it.beats.trouble(unit) for unit in units))
            it.backend._failures.clear()
            await until(lambda: all(it.state(unit) is LeaseState.HELD for unit in units), "held again")

    run(scenario())
    lines = caplog.messages
    assert 1 <= sum("the registry has lost" in line for line in lines) <= 20, "a line for each call, not for each unit"
    assert 1 <= sum("; tried again" in line for line in lines) <= 3
    assert lines[-1].startswith("40 units (cart:00, cart:01, cart:02, ...): confirmed again, after ")


def test_entries_that_are_refused_for_their_own_sake_are_named_each(caplog: pytest.LogCaptureFixture) -> None:
    class Refusing(FakeBackend):
        tries = 0

        async def register(self, entry: Entry, ttl_seconds: float) -> Grant:
            self.tries += 1
            code = "bad_entry" if entry.unit.startswith("bad") else "permission_denied"
            raise RegistryRejected(f"cannot register {entry.unit}: {code}", code=code)

    async def scenario() -> None:
        backend = Refusing()
        it = Fleet(backend)
        it.publish("bad:0", "bad:1", "denied:0", "denied:1")
        await until(lambda: backend.tries > 12, "tried again")
        await it.beats.close()
        await it.backend.close()

    run(scenario())
    assert [line.partition(": not registered")[0] for line in caplog.messages] == ["bad:0", "bad:1", "denied:0"]


def test_retries_pause_instead_of_hammering() -> None:
    async def scenario() -> None:
        async with fleet() as it:
            await it.published("cart")
            it.backend.fail_next(10_000)
            mark, started = len(it.backend.calls), monotonic()
            await until(lambda: monotonic() - started > 2 * TTL)
            # A pause is a tenth of the ttl, give or take half of it.
            assert 5 <= len(it.backend.calls) - mark <= 2 / (heartbeat.RETRY * 0.5)

    run(scenario())


def test_a_first_registration_that_fails_is_tried_again() -> None:
    async def scenario() -> None:
        async with fleet() as it:
            it.backend.fail_next(3)
            it.publish("cart")
            await until(lambda: it.beats.trouble("cart").startswith("not registered: cannot reach"))
            await until(lambda: it.confirmed == ["cart"])
            assert it.beats.trouble("cart") == ""
            assert len(it.calls("register")) == 4

    run(scenario())


def test_a_beat_that_was_never_sent_does_not_lengthen_the_wait() -> None:
    async def scenario() -> None:
        async with fleet() as it:
            await it.published("cart")
            before = it.beats.lease("cart")
            it.backend.fail_next(10_000, RegistryUnavailable("cannot connect", may_have_counted=False))
            await until(lambda: it.beats.trouble("cart"))
            after = it.beats.lease("cart")
            assert before is not None and after is not None
            assert after.last_possible_at == before.last_possible_at

    run(scenario())


@pytest.mark.parametrize(
    "error", [RegistryRejected("cannot renew: forbidden", code="http_403"), KeyError("a mistake in a plugin")]
)
def test_a_renewal_that_fails_in_any_other_way_is_trouble_and_tried_again_in_time(error: Exception) -> None:
    class Refusing(FakeBackend):
        refusals = 0

        async def renew(self, keys: Sequence[LeaseKey]) -> frozenset[LeaseKey]:
            self.refusals += 1
            if self.refusals < 4:
                raise error
            return await super().renew(keys)

    async def scenario() -> None:
        backend = Refusing()
        it = Fleet(backend)
        await it.published("cart")
        await until(lambda: backend.refusals == 1)
        refused_at = monotonic()
        await until(lambda: it.beats.trouble("cart"))
        assert it.state() is LeaseState.SUSPENDED
        await until(lambda: backend.refusals >= 4)
        assert monotonic() - refused_at > 3 * TTL * heartbeat.RETRY * 0.4, "it paused"
        await until(lambda: not it.beats.trouble("cart"))
        await it.beats.close()
        await backend.close()

    run(scenario())


def test_a_registration_that_fails_in_an_unforeseen_way_is_tried_again_in_time() -> None:
    class Breaking(FakeBackend):
        tries = 0

        async def register(self, entry: Entry, ttl_seconds: float) -> Grant:
            self.tries += 1
            if self.tries < 3:
                raise ZeroDivisionError("a mistake in a plugin")
            return await super().register(entry, ttl_seconds)

    async def scenario() -> None:
        backend = Breaking()
        it = Fleet(backend)
        started = monotonic()
        await it.published("cart")
        assert backend.tries == 3
        assert monotonic() - started > 2 * TTL * heartbeat.RETRY * 0.4
        await it.beats.close()
        await backend.close()

    run(scenario())


def test_a_registry_that_hangs_delays_nobody_longer_than_its_time_limit() -> None:
    async def scenario() -> None:
        async with fleet(timeout_seconds=0.1) as it:
            await it.published("cart", "other")
            it.backend.hang()
            await until(lambda: it.beats.trouble("cart") and it.beats.trouble("other"))
            hung = monotonic()
            await it.beats.withdraw("cart", deregister=True)
            assert monotonic() - hung < 1.0
            it.backend.release()
            await until(lambda: it.state("other") is LeaseState.HELD)

    run(scenario())


# Changing.


def test_changed_values_reach_the_registry_without_a_gap() -> None:
    async def scenario() -> None:
        async with fleet() as it:
            await it.published("cart")
            it.beats.change("cart", entry(weight=40), 2 * TTL)
            await until(lambda: len(it.confirmed) == 2)
            changed, lease = await it.held(), it.beats.lease("cart")
            assert changed is not None and changed.weight == 40
            assert lease is not None and lease.ttl_seconds == 2 * TTL
            assert it.beats.entry("cart") == entry(weight=40)

    run(scenario())


def test_changed_values_whose_registration_had_no_answer_are_sent_again() -> None:
    async def scenario() -> None:
        async with fleet() as it:
            await it.published("cart")
            mark = len(it.calls("register"))
            it.backend.fail_next(1)
            it.beats.change("cart", entry(weight=40), TTL)
            await until(lambda: it.beats.trouble("cart"))
            await until(lambda: not it.beats.trouble("cart"), "answered")
            changed = await it.held()
            assert changed is not None and changed.weight == 40
            assert len(it.calls("register")) == mark + 2
            await until(lambda: it.calls("renew"), "and then it is only renewed")
            assert len(it.calls("register")) == mark + 2

    run(scenario())


def test_values_that_change_while_others_are_on_their_way_come_after_them() -> None:
    class Slow(FakeBackend):
        """The registration of one weight takes longer than those that come after it."""

        on_its_way = asyncio.Event()

        async def register(self, entry: Entry, ttl_seconds: float) -> Grant:
            if entry.weight == 40:
                self.on_its_way.set()
                await asyncio.sleep(0.05)
            return await super().register(entry, ttl_seconds)

    async def scenario() -> None:
        backend = Slow(timeout_seconds=1.0)
        it = Fleet(backend)
        await it.published("cart")
        it.beats.change("cart", entry(weight=40), TTL)
        await backend.on_its_way.wait()
        for weight in (41, 42, 43):
            it.beats.change("cart", entry(weight=weight), TTL)
        await until(lambda: len(it.confirmed) == 3)
        changed = await it.held()
        assert changed is not None and changed.weight == 43
        registered = [argument.weight for argument in it.calls("register") if isinstance(argument, Entry)]
        assert registered == [100, 40, 43], "those between nobody needs any more"
        await it.beats.close()
        await it.backend.close()

    run(scenario())


def test_publishing_again_with_another_ttl_asks_for_that_ttl() -> None:
    async def scenario() -> None:
        async with fleet() as it:
            await it.published("cart")
            it.beats.publish("cart", entry(), 3 * TTL)
            await until(lambda: len(it.confirmed) == 2)
            lease = it.beats.lease("cart")
            assert lease is not None and lease.ttl_seconds == 3 * TTL

    run(scenario())


def test_a_withdrawn_entry_cannot_be_changed() -> None:
    async def scenario() -> None:
        async with fleet() as it:
            await it.published("cart")
            await it.beats.withdraw("cart", deregister=False)
            mark = len(it.backend.calls)
            it.beats.change("cart", entry(weight=40), TTL)
            it.beats.change("unknown", entry(weight=40), TTL)
            await asyncio.sleep(0.05)
            assert it.backend.calls[mark:] == []

    run(scenario())


# Ending.


def test_a_forgotten_agent_is_not_known_any_more() -> None:
    async def scenario() -> None:
        async with fleet() as it:
            await it.published("cart")
            await it.beats.withdraw("cart", deregister=True)
            it.beats.forget("cart")
            it.beats.forget("cart")
            assert it.beats.lease("cart") is None
            assert it.beats.entry("cart") is None
            assert it.beats.trouble("cart") == ""

    run(scenario())


def test_after_close_nothing_beats_even_with_a_call_under_way() -> None:
    async def scenario() -> None:
        backend = FakeBackend(timeout_seconds=5.0)
        it = Fleet(backend)
        await it.published("cart", "other")
        backend.hang()
        mark = len(backend.calls)
        await until(lambda: len(backend.calls) > mark, "a renewal under way")
        await it.beats.close()
        backend.release()
        mark, closed = len(backend.calls), monotonic()
        await until(lambda: monotonic() - closed > 2 * TTL)
        assert backend.calls[mark:] == []
        await backend.close()

    run(scenario())


def test_an_expired_entry_of_a_closed_daemon_is_gone_after_its_ttl() -> None:
    async def scenario() -> None:
        backend = FakeBackend()
        it = Fleet(backend)
        await it.published("cart")
        await it.beats.close()
        closed = monotonic()
        while await it.held() is not None:
            await asyncio.sleep(0.01)
        assert monotonic() - closed < TTL + 0.3
        await backend.close()

    run(scenario())


def test_an_entry_can_be_replaced_only_by_values() -> None:
    """The agent's own entry is what goes out: replacing a caller's copy changes nothing."""

    async def scenario() -> None:
        async with fleet() as it:
            mine = entry()
            it.beats.publish("cart", mine, TTL)
            await until(lambda: it.confirmed)
            replace(mine, weight=1)
            assert it.beats.entry("cart") == entry()

    run(scenario())


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "unitd")


# Many at once, and what prolongs.


def test_a_registry_that_lost_everything_gets_the_entries_back_one_after_the_other() -> None:
    units = [f"u{number}" for number in range(12)]

    async def scenario() -> None:
        async with fleet() as it:
            await it.published(*units)
            it.backend.calls.clear()
            it.backend.forget()
            times: dict[str, float] = {}

            def all_back() -> bool:
                for unit in units:
                    if unit not in times and it.backend._store.get("shop", f"n/{unit}") is not None:
                        times[unit] = monotonic()
                return len(times) == len(units)

            await until(all_back, "all registered again")
            assert len(it.calls("register")) == len(units)
            assert max(times.values()) - min(times.values()) >= (len(units) - 2) / REGISTRATIONS_PER_SECOND

    run(scenario())


def test_slots_are_never_closer_than_the_rate_allows() -> None:
    herd = Herd(50.0)
    slots = [herd.slot(now) for now in (10.0, 10.0, 10.0, 9.0, 10.5, 10.5)]
    gaps = [after - before for before, after in zip(slots, slots[1:], strict=False)]
    assert slots[0] > 10.0 and min(gaps) >= 1 / 50.0
    assert herd.slot(100.0) >= 100.0


def test_other_values_of_a_unit_that_cannot_be_vouched_for_wait() -> None:
    doubts: dict[str, str] = {}

    async def scenario() -> None:
        backend = FakeBackend()
        beats = Heartbeats(backend, lambda unit: None, vouch=lambda unit: doubts.get(unit, ""))
        beats.publish("cart", entry("cart"), TTL)
        await until(lambda: backend._store.get("shop", "n/cart"))
        doubts["cart"] = "its port belongs to somebody else"
        backend.calls.clear()
        beats.change("cart", entry("cart", weight=7), TTL)
        await until(lambda: not backend._store.get("shop", "n/cart"), "nothing prolongs it")
        assert not [method for method, _ in backend.calls if method in PROLONGING]
        doubts.clear()
        await until(lambda: backend._store.get("shop", "n/cart"))
        found = backend._store.get("shop", "n/cart")
        assert found is not None and found.weight == 7
        await beats.close()

    run(scenario())


def test_a_ttl_that_the_registry_does_not_grant_is_said_once_and_the_granted_one_counts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Coarse(FakeBackend):
        async def register(self, entry: Entry, ttl_seconds: float) -> Grant:
            return await super().register(entry, max(2.0, ttl_seconds))

    async def scenario() -> None:
        it = Fleet(Coarse())
        await it.published("a", "b")
        it.beats.change("a", entry("a", weight=3), TTL)
        await until(lambda: len(it.calls("register")) == 3)
        lease = it.beats.lease("a")
        assert lease is not None and lease.ttl_seconds == 2.0
        await it.beats.close()

    run(scenario())
    assert caplog.text.count("grants a ttl of 2 s where 0.6 s were asked for") == 1


def test_of_a_crowd_only_some_are_registered_at_once_and_who_leaves_meanwhile_never_is() -> None:
    class Slow(FakeBackend):
        at_once = most = 0

        async def register(self, entry: Entry, ttl_seconds: float) -> Grant:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            await asyncio.sleep(0.01)
            self.at_once -= 1
            return await super().register(entry, ttl_seconds)

    units = [f"u{number}" for number in range(4 * heartbeat.REGISTRATIONS_AT_ONCE)]

    async def scenario() -> None:
        backend = Slow()
        it = Fleet(backend)
        it.publish(*units)
        await it.beats.withdraw(units[-1], deregister=False)
        await until(lambda: len(it.confirmed) == len(units) - 1, "all others registered")
        assert backend.most == heartbeat.REGISTRATIONS_AT_ONCE
        assert await it.held(units[-1]) is None
        await it.beats.close()

    run(scenario())


def test_who_waits_to_be_registered_with_other_values_is_renewed_meanwhile() -> None:
    class Stuck(FakeBackend):
        stuck = False

        async def register(self, entry: Entry, ttl_seconds: float) -> Grant:
            while self.stuck:
                await asyncio.sleep(0.01)
            return await super().register(entry, ttl_seconds)

    units = [f"u{number}" for number in range(heartbeat.REGISTRATIONS_AT_ONCE + 3)]

    async def scenario() -> None:
        backend = Stuck()
        it = Fleet(backend)
        await it.published(*units)
        backend.stuck = True
        for unit in units:
            it.beats.change(unit, entry(unit, weight=7), TTL)
        last = units[-1]
        backend.calls.clear()

        def renewals() -> int:
            calls = (keys for keys in it.calls("renew") if isinstance(keys, tuple))
            return sum(LeaseKey("shop", f"n/{last}", 1) in keys for keys in calls)

        began = monotonic()
        await until(lambda: renewals() >= 3, "it is renewed")
        assert monotonic() - began > TTL / 2, "at its usual times"
        backend.stuck = False
        await until(lambda: (found := backend._store.get("shop", f"n/{last}")) is not None and found.weight == 7)
        await it.beats.close()

    run(scenario())


@pytest.mark.parametrize("code", ["permission_denied", "other_agent", "http_400"])
def test_a_registry_that_refuses_a_removal_has_not_removed_anything(
    code: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Forbidding(FakeBackend):
        async def deregister(self, key: LeaseKey) -> bool:
            raise RegistryRejected("cannot deregister: no", code=code)

    async def scenario() -> None:
        it = Fleet(Forbidding())
        await it.published("cart")
        lease = await it.beats.withdraw("cart", deregister=True)
        assert lease.last_possible_at is not None, "it may be seen until its ttl is over"
        await it.beats.close()

    run(scenario())
    assert "cart: cannot announce that it leaves: cannot deregister: no" in caplog.text


def test_units_that_leave_while_the_registry_is_away_are_no_news(caplog: pytest.LogCaptureFixture) -> None:
    units = [f"u{number}" for number in range(5)]

    async def scenario() -> None:
        async with fleet() as it:
            await it.published(*units)
            it.backend.fail_next(10_000)
            await until(lambda: all(it.beats.trouble(unit) for unit in units))
            for unit in units[:-1]:
                await it.beats.withdraw(unit, deregister=True)

    with caplog.at_level(logging.INFO):
        run(scenario())
    assert "cannot announce" not in caplog.text
