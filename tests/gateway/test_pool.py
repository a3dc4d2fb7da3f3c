"""pool.py: what gateways should know, whatever the registry says, forgets, or keeps to itself."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import NODE_SERVICE, Pool, Server, Standing
from gateway.pool import (
    ASK_AGAIN_SECONDS,
    LAST,
    MASS,
    REMEMBER_SECONDS,
    YOUNG,
    PoolPolicy,
    Pools,
    decide,
    restored,
)
from registry_client.gateways import GATEWAY_SERVICE
from registry_client.model import Entry, Snapshot

POLICY = PoolPolicy(confirm_seconds=10, hold_percent=50, young_seconds=15)


def entry(instance: str, generation: int = 1, *, service: str = "cart", port: int | None = None, **more: Any) -> Entry:
    """An instance whose port is its own."""
    values: dict[str, Any] = {"address": "10.0.0.1", "port": port or 1 + sum(instance.encode())} | more
    return Entry(
        service=service, instance=instance, node="n", unit="u", generation=generation,
        started_at="2026-11-23T06:29:10Z", **values,
    )  # fmt: skip


def draining(instance: str, generation: int = 1, **more: Any) -> Entry:
    return entry(instance, generation, status="draining", **more)


def snapshot(entries: Iterable[Entry], revision: int, epoch: str = "one") -> Snapshot:
    return Snapshot(revision, epoch, None, tuple(sorted(entries, key=lambda each: (each.service, each.instance))))


class Story:
    """What the registry says, one thing after the other; revisions grow by themselves."""

    def __init__(self, *entries: Entry, policy: PoolPolicy = POLICY) -> None:
        self.pools, self.policy, self.revision, self.epoch = Pools(), policy, 0, "one"
        self.now = 1000.0
        if entries:
            self.says(*entries)

    def says(self, *entries: Entry, after: float = 0.0, epoch: str = "") -> Story:
        """Its next snapshot."""
        self.now, self.revision = self.now + after, self.revision + 1
        if epoch:
            self.epoch, self.revision = epoch, 1
        self.pools = decide(self.pools, snapshot(entries, self.revision, self.epoch), self.now, self.policy)
        return self

    def repeats(self, *entries: Entry, after: float = 0.0) -> Story:
        """It is asked again, and nothing has changed."""
        self.revision -= 1
        return self.says(*entries, after=after)

    def is_silent(self, after: float) -> Story:
        self.now += after
        self.pools = decide(self.pools, None, self.now, self.policy)
        return self

    def pool(self, service: str = "cart") -> Pool:
        return self.pools.by_service[service]

    def servers(self) -> list[str]:
        """Instances of the pool; those that drain with a tilde, those that are held with a question mark."""
        return [
            server.instance + "~" * (server.standing is Standing.DRAINING) + "?" * bool(server.held)
            for server in self.pool().servers
        ]


# What is listed.


def test_what_is_listed_is_in_the_pool_as_its_entry_says() -> None:
    """Sorted by instance, with weight, zone and place."""
    story = Story(
        entry("b", 7, weight=40, full_weight=200, zone="z1", address="10.0.0.9", port=9080),
        entry("a", status="warming"),
    )
    assert story.pool() == Pool("cart", 1, "one", story.pool().servers)
    assert story.servers() == ["a", "b"]
    assert story.pool().servers[1] == Server(
        service="cart", instance="b", generation=7, address="10.0.0.9", port=9080, weight=40, full_weight=200, zone="z1"
    )


@pytest.mark.parametrize("leaving", [draining("a", weight=70), entry("a", weight=0, full_weight=0)])
def test_who_drains_or_weighs_nothing_gets_nothing_new(leaving: Entry) -> None:
    """Either way of saying it."""
    server = Story(leaving).pool().servers[0]
    assert (server.standing, server.weight) == (Standing.DRAINING, 0)
    assert server.full_weight >= 1


def test_who_is_no_longer_draining_serves_again() -> None:
    """The registry's word."""
    story = Story(entry("a"), draining("b"))
    assert story.servers() == ["a", "b~"]
    assert story.says(entry("a"), entry("b")).servers() == ["a", "b"]


def test_daemons_and_gateways_are_no_pools() -> None:
    """Nobody sends requests there."""
    story = Story(entry("n", service=NODE_SERVICE), entry("g/cart", service=GATEWAY_SERVICE), entry("a"))
    assert list(story.pools.by_service) == ["cart"]


def test_a_service_that_is_empty_stays_as_an_empty_pool() -> None:
    """Else gateways would keep what they have."""
    story = Story(draining("a")).says()
    assert story.pools.by_service == {"cart": Pool("cart", 2, "one")}


def test_a_snapshot_of_one_service_is_refused() -> None:
    """It would empty all others."""
    with pytest.raises(ValueError, match="other services"):
        decide(Pools(), Snapshot(1, "e", "cart", ()), 0.0, POLICY)


# Generations.


def test_a_new_generation_replaces_the_old_one_at_once() -> None:
    """Where it listens may have changed, too."""
    story = Story(entry("a", 1), entry("b")).says(entry("a", 2, port=4000), entry("b"))
    assert next((server.key, server.port) for server in story.pool().servers) == (("a", 2), 4000)


@pytest.mark.parametrize("gone", [True, False], ids=["after the newer one has left", "while the newer one is there"])
def test_an_older_generation_does_not_come_back(gone: bool) -> None:
    """A write that was late on its way."""
    story = Story(entry("a", 2), entry("b"), entry("c"))
    if gone:
        story.says(draining("a", 2), entry("b"), entry("c")).says(entry("b"), entry("c"))
    story.says(entry("a", 1), entry("b"), entry("c"))
    assert story.servers() == ["b", "c"]
    assert story.says(entry("a", 2), entry("b"), entry("c")).servers() == ["a", "b", "c"]


def test_who_left_long_ago_is_forgotten() -> None:
    """Instances with names of their own would otherwise add up for ever."""
    story = Story(entry("a", 2), entry("b"), entry("c")).says(entry("b"), entry("c"))
    story.says(entry("b"), entry("c"), entry("d"), after=REMEMBER_SECONDS)
    assert story.says(entry("a", 1), entry("b"), entry("c"), entry("d")).servers() == ["a", "b", "c", "d"]


def test_after_an_epoch_the_registry_s_word_counts_for_generations_too() -> None:
    """What it had known is nothing to it."""
    story = Story(entry("a", 5), entry("b")).says(entry("a", 3), entry("b"), epoch="two")
    assert story.pool().servers[0].key == ("a", 3)


def test_what_another_epoch_has_never_listed_says_nothing_of_generations() -> None:
    """While it is held, and after it has gone."""
    for pause in (1, 15):
        story = Story(entry("a", 5), entry("b")).says(entry("b"), epoch="two").repeats(entry("b"), after=pause)
        assert story.says(entry("a", 3), entry("b")).pool().servers[0].key == ("a", 3)
    story = Story(draining("a", 5), entry("b")).says(entry("b")).says(entry("b"), epoch="two")
    assert story.says(entry("a", 3), entry("b")).pool().servers[0].key == ("a", 3)


# Who is not listed any more.


def test_who_drained_first_is_gone_at_once_even_the_last_one() -> None:
    """That is an order."""
    story = Story(entry("a"), draining("b"))
    assert story.says(entry("a")).servers() == ["a"]
    assert story.says(draining("a")).servers() == ["a~"]
    assert story.says().servers() == []
    assert story.pools.next_at is None


def test_one_of_many_is_gone_at_once() -> None:
    """It has crashed, or its lease has ended."""
    assert Story(*map(entry, "abc")).says(entry("a"), entry("b")).servers() == ["a", "b"]
    assert Story(*map(entry, "ab")).says(entry("a")).servers() == ["a"]  # half of them is not more than half


def test_the_last_one_is_held_until_the_registry_insists() -> None:
    """An answer too early, and time alone, change nothing."""
    story = Story(entry("a"), draining("b")).says(draining("b"))
    assert story.servers() == ["a?", "b~"]
    assert story.pool().servers[0].held == LAST
    assert story.pools.next_at == story.now + 10
    assert story.repeats(draining("b"), after=9.9).servers() == ["a?", "b~"]
    held = story.pool()
    assert story.is_silent(after=3600).pool() is held
    assert story.pools.next_at == story.now + ASK_AGAIN_SECONDS
    assert story.repeats(draining("b")).servers() == ["b~"]
    assert story.pools.next_at is None


def test_many_at_once_are_held_and_who_is_listed_again_is_simply_back() -> None:
    """More than half of them."""
    story = Story(*map(entry, "abcd")).says(entry("d"))
    assert story.servers() == ["a?", "b?", "c?", "d"]
    assert story.pool().servers[0].held == MASS
    assert story.pool().servers[0].weight == 100
    assert story.says(entry("a"), entry("d"), after=5).servers() == ["a", "b?", "c?", "d"]
    assert story.repeats(entry("a"), entry("d"), after=5).servers() == ["a", "d"]


def test_many_one_after_the_other_are_a_mass_too() -> None:
    """Those that went before it became one do not come back: they were said to get nothing."""
    story = Story(*map(entry, "abcd")).says(*map(entry, "bcd")).says(*map(entry, "cd"), after=2)
    assert story.servers() == ["c", "d"]
    assert story.says(entry("d"), after=2).servers() == ["c?", "d"]


def test_slow_losses_are_no_mass() -> None:
    """As long as somebody is left."""
    story = Story(*map(entry, "abcd"))
    for left in ("bcd", "cd", "d"):
        assert story.says(*map(entry, left), after=10).servers() == list(left)
    assert story.says(after=10).servers() == ["d?"]


def test_who_came_back_is_no_loss() -> None:
    """A rolling restart that does not drain."""
    story = Story(*map(entry, "abc"))
    for name in "abc":
        others = [entry(each, 2 if each < name else 1) for each in "abc" if each != name]
        assert story.says(*others, after=1).servers() == [each for each in "abc" if each != name]
        assert story.says(*others, entry(name, 2), after=1).servers() == ["a", "b", "c"]


def test_who_comes_back_while_another_one_leaves_is_no_loss() -> None:
    """What counts is who is missing at the same time."""
    story = Story(*map(entry, "abc")).says(entry("b"), entry("c"))
    assert story.says(entry("a", 2), entry("c"), after=1).servers() == ["a", "c"]


def test_a_mass_that_was_believed_counts_no_more() -> None:
    """The next loss is one of those that are left."""
    story = Story(*map(entry, "abcdef")).says(*map(entry, "ab")).says(*map(entry, "ab"), after=10)
    assert story.servers() == ["a", "b"]
    assert story.says(entry("a")).servers() == ["a"]


def test_who_listens_where_a_missing_one_did_has_its_place() -> None:
    """The missing one cannot be there as well."""
    story = Story(entry("a", port=4000), entry("b")).says(entry("new", port=4000))
    assert story.servers() == ["b?", "new"]


def test_services_do_not_count_for_each_other() -> None:
    """The last one of one service is not held because another one is well."""
    story = Story(entry("a"), *(entry(f"o{number}", service="other") for number in range(9)))
    story.says(*(entry(f"o{number}", service="other") for number in range(9)))
    assert story.servers() == ["a?"]
    assert len(story.pool("other").servers) == 9


def test_an_overtaken_snapshot_is_no_answer() -> None:
    """Neither does it bring back what has left."""
    story = Story(entry("a"), entry("b")).says(entry("a"), entry("b"), entry("c")).says(entry("a"), entry("c"))
    old = story.pools
    assert decide(old, snapshot([entry("b")], 1), story.now + 100, POLICY) is old


# A registry that has begun anew.


def test_what_another_epoch_does_not_list_yet_is_held_while_it_is_young() -> None:
    """Whoever drained does so on; one that is listed is back."""
    story = Story(*map(entry, "ab"), draining("c")).says(entry("x"), epoch="two")
    assert story.servers() == ["a?", "b?", "c~?", "x"]
    assert story.pool().servers[0].held == YOUNG
    assert story.pools.next_at == story.now + 15
    assert story.says(entry("a"), entry("x"), after=14).servers() == ["a", "b?", "c~?", "x"]
    assert story.repeats(entry("a"), entry("x"), after=1).servers() == ["a", "x"]


def test_who_registered_with_the_young_registry_and_leaves_it_is_judged_as_ever() -> None:
    """It knew that one."""
    story = Story(*map(entry, "abc")).says(*map(entry, "abc"), epoch="two")
    assert story.says(*map(entry, "ab"), after=1).servers() == ["a", "b"]
    assert story.says(after=1).servers() == ["a?", "b?"]


def test_a_registry_that_stays_empty_is_believed_only_when_it_insists() -> None:
    """However short it counts as young."""
    story = Story(entry("a"), policy=PoolPolicy(young_seconds=1)).says(epoch="two")
    assert story.repeats(after=9).servers() == ["a?"]
    assert story.repeats(after=1).servers() == []


def test_every_pool_says_of_which_epoch_it_is() -> None:
    """So that its revision can be understood."""
    story = Story(entry("a")).says(entry("a"), epoch="two")
    assert (story.pool().revision, story.pool().epoch) == (1, "two")


def test_one_that_is_held_stays_so_when_the_registry_begins_anew() -> None:
    """The young one gets its time."""
    story = Story(entry("a")).says().says(epoch="two", after=9)
    assert story.repeats(after=14).servers() == ["a?"]
    assert story.repeats(after=1).servers() == []


# A restart of ours.


def test_the_last_good_set_is_kept_until_the_registry_answers() -> None:
    """And is judged as ever when it is the same registry."""
    pools = restored(Story(*map(entry, "abc"), draining("d")).pools.by_service.values())
    assert decide(pools, None, 5.0, POLICY) is pools
    after = decide(pools, snapshot(map(entry, "ab"), 9), 6.0, POLICY).by_service["cart"]
    assert [server.instance for server in after.servers] == ["a", "b"]
    assert decide(pools, snapshot([], 9), 6.0, POLICY).by_service["cart"].servers[0].held == LAST


def test_another_registry_is_young_to_the_last_good_set() -> None:
    """Also when the set is of several."""
    old = Story(*map(entry, "ab")).pool()
    more = Story(entry("x", service="other")).says(entry("x", service="other"), epoch="two").pool("other")
    for pools in (restored([old]), restored([old, more])):
        after = decide(pools, snapshot([entry("a")], 1, "three"), 6.0, POLICY)
        assert [bool(server.held) for server in after.by_service["cart"].servers] == [False, True]


def test_a_service_that_is_gone_after_a_restart_is_not_kept_for_ever() -> None:
    """Though nothing of it is ever listed again."""
    pools = restored(Story(entry("a")).pools.by_service.values())
    pools = decide(decide(pools, snapshot([], 5), 0.0, POLICY), snapshot([], 5), 10.0, POLICY)
    assert pools.by_service["cart"].servers == ()
    assert restored([]) == Pools()


# What stays the same.


def test_what_has_not_changed_is_the_same_object() -> None:
    """So that nobody is told again."""
    story = Story(entry("a"), entry("x", service="other"))
    before = story.pools
    story.says(entry("a"), entry("x", service="other", metadata={"new": "word"}))
    assert story.pools.by_service is before.by_service
    story.says(entry("a", weight=50), entry("x", service="other"))
    assert story.pool("other") is before.by_service["other"]
    assert (story.pool().revision, story.pool("other").revision) == (3, 1)


def test_a_change_in_a_large_registry_is_decided_quickly() -> None:
    """Two thousand services, and one of five thousand instances: far less than what the next snapshot takes to read."""
    for entries in (
        [entry(f"n{number}/u", service=f"s{number // 3}", port=1 + number) for number in range(6000)],
        [entry(f"n{number:04}/u", port=1 + number) for number in range(5000)],
    ):
        pools = decide(Pools(), snapshot(entries, 1), 0.0, POLICY)
        changed = snapshot([entry("n0/u", 2, service=entries[0].service), *entries[1:]], 2)
        began = time.process_time()
        pools = decide(pools, changed, 1.0, POLICY)
        assert time.process_time() - began < 1.0
        assert pools.by_service[entries[0].service].servers[0].generation == 2


# Whatever the registry says.

NAMES = "abcdef"
WORDS = ["absent", "absent", "serving", "serving", "serving", "draining", "older", "newer"]
STEPS = st.tuples(
    st.sampled_from(["says", "says", "says", "is_asked_again", "is_silent", "begins_anew", "is_late"]),
    st.sampled_from([0.0, 0.5, 4.0, 11.0]),
    st.tuples(*[st.sampled_from(WORDS)] * len(NAMES)),
)


class AnyRegistry:
    """A registry that says anything of six instances; what gateways are told must hold the promises."""

    def __init__(self) -> None:
        self.pools, self.now, self.epoch, self.revision = Pools(), 0.0, 0, 0
        self.newest: dict[str, int] = {}  # generations that were ever listed in this epoch
        self.drained: set[tuple[str, int]] = set()  # who was last said to drain
        self.listed: dict[str, Entry] = {}
        self.absent_since: dict[str, float] = {}

    def entries(self, words: tuple[str, ...]) -> list[Entry]:
        return [each for each in map(self.spoken, NAMES, words) if each is not None]

    def says(self, words: tuple[str, ...]) -> None:
        """The next snapshot of the epoch."""
        self.revision += 1
        self.take(self.entries(words))

    def is_asked_again(self, _: tuple[str, ...]) -> None:
        """And says the same."""
        self.take(list(self.listed.values()))

    def begins_anew(self, words: tuple[str, ...]) -> None:
        """With whatever it then has."""
        self.epoch, self.revision, self.newest = self.epoch + 1, 1, {}
        self.absent_since, self.drained = {}, set()
        self.take(self.entries(words))

    def is_silent(self, _: tuple[str, ...]) -> None:
        """P3: nothing changes."""
        before, self.pools = self.pools, decide(self.pools, None, self.now, POLICY)
        assert self.pools.by_service is before.by_service

    def is_late(self, words: tuple[str, ...]) -> None:
        """What it said before is overtaken: nothing changes."""
        before, late = self.pools, snapshot(self.entries(words), self.revision - 1, str(self.epoch))
        if self.revision > 1:
            self.pools = decide(before, late, self.now, POLICY)
            assert self.pools.by_service is before.by_service

    def spoken(self, name: str, word: str) -> Entry | None:
        newest = self.newest.get(name, 5)
        if word == "absent":
            return None
        generation = newest + {"older": -1, "newer": 1}.get(word, 0)
        return draining(name, generation) if word == "draining" else entry(name, generation)

    def take(self, entries: list[Entry]) -> None:
        """Decide, and look whether what comes out may come out."""
        said = snapshot(entries, self.revision, str(self.epoch))
        before, self.pools = self.pools, decide(self.pools, said, self.now, POLICY)
        assert decide(before, said, self.now, POLICY) == self.pools  # P6
        is_same_epoch = before.epoch == self.pools.epoch
        self.listed = {each.instance: each for each in entries}
        believed = {name: each for name, each in self.listed.items() if each.generation >= self.newest.get(name, 0)}
        self.follow(believed)
        if is_same_epoch:
            self.check_against(before)
        self.check(believed)

    def follow(self, believed: dict[str, Entry]) -> None:
        for name, each in believed.items():
            self.newest[name] = each.generation
            (self.drained.add if each.status == "draining" else self.drained.discard)((name, each.generation))
            self.absent_since.pop(name, None)
        for name in NAMES:
            if name not in believed:
                self.absent_since.setdefault(name, self.now)

    def check(self, believed: dict[str, Entry]) -> None:
        servers = {server.instance: server for server in self.servers(self.pools)}
        for name, each in believed.items():
            server = servers[name]  # P1
            assert (server.generation, server.held) == (each.generation, "")
            assert (server.standing is Standing.SERVING) is (each.status == "up")
        for name, server in servers.items():
            if server.key in self.drained:  # P2
                assert server.standing is Standing.DRAINING
            if name in self.newest:  # P5
                assert server.generation >= self.newest[name]

    def check_against(self, before: Pools) -> None:
        """P4: a pool that served goes on serving, but for an order, or when the registry has insisted."""
        served = [server for server in self.servers(before) if server.standing is Standing.SERVING]
        still = [server for server in self.servers(self.pools) if server.standing is Standing.SERVING]
        if served and not still:
            for server in served:
                was_told = any(key[0] == server.instance for key in self.drained)
                assert was_told or self.now - self.absent_since[server.instance] >= POLICY.confirm_seconds
        for pool in before.by_service.values():  # P6
            if self.pools.by_service[pool.service] == pool:
                assert self.pools.by_service[pool.service] is pool

    @staticmethod
    def servers(pools: Pools) -> tuple[Server, ...]:
        return pools.by_service["cart"].servers if "cart" in pools.by_service else ()

    def weights_and_order_are_right(self) -> None:
        servers = self.servers(self.pools)
        assert [server.instance for server in servers] == sorted({server.instance for server in servers})
        assert all((server.weight == 0) is (server.standing is Standing.DRAINING) for server in servers)
        held = any(server.held for server in servers)
        assert held is (self.pools.next_at is not None)


@settings(max_examples=150)
@given(st.lists(STEPS, max_size=15))
def test_whatever_the_registry_says_the_promises_hold(steps: list[tuple[str, float, tuple[str, ...]]]) -> None:
    """In any order, with any pauses."""
    registry = AnyRegistry()
    for what, pause, words in steps:
        registry.now += pause
        getattr(registry, what)(words)
        registry.weights_and_order_are_right()


@given(st.lists(st.sets(st.sampled_from(NAMES)), min_size=1, max_size=6), st.lists(st.floats(0, 30), max_size=6))
def test_equal_stories_end_equally(lists: list[set[str]], pauses: list[float]) -> None:
    """There is no clock and no chance in it."""

    def told() -> Pools:
        story = Story()
        for names, pause in zip(lists, (*pauses, *[0.0] * 6)):
            story.says(*map(entry, names), after=pause)
        return story.pools

    assert told() == told()
