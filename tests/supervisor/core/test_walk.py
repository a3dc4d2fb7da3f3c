"""No order of events breaks the promises: a small world answers actions in any order, late and more than once."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from supervisor.core.events import (
    Action,
    ArmTimer,
    CancelRequested,
    DependenciesReady,
    Drain,
    Drained,
    DrainRequested,
    Event,
    Exited,
    Gone,
    Kill,
    LivenessLost,
    Prewarm,
    Prewarmed,
    Publish,
    ReadinessLost,
    ReadinessRegained,
    Ready,
    RestartRequested,
    Resume,
    Spawn,
    Spawned,
    StartRequested,
    StopRequested,
    Terminate,
    TimerFired,
    TreeEmpty,
    Unconfirmed,
    UndrainRequested,
    Withdraw,
)
from supervisor.core.lifecycle import step
from supervisor.core.model import Autorestart, Phase, RestartPolicy, Unit, UnitSpec
from tests.supervisor.core.lives import (
    BAD,
    CLEAN,
    MISSING,
    PLAIN,
    PREWARMED,
    SERVICE,
    SETTLING,
    TOLD,
    TOLD_AND_BACK,
    WORKER,
)

REQUESTS: tuple[Event, ...] = (
    StartRequested(), StartRequested("db"), StopRequested(), StopRequested(force=True), RestartRequested(),
    RestartRequested(force=True), CancelRequested(), DependenciesReady(), DrainRequested(), DrainRequested(),
    UndrainRequested(), UndrainRequested(),
)  # fmt: skip
OUT = (Phase.EXPIRING, Phase.SETTLING, Phase.DRAINING)
ENDING = (StopRequested, RestartRequested, LivenessLost, Exited)
NOTHING_RUNS = (Phase.STOPPED, Phase.WAITING, Phase.BACKOFF, Phase.FATAL)


class Process:
    """What is true of one attempt, whatever the unit believes."""

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self.leader_lives = True
        self.served = False  # others could send to it, or it could have work of its own
        self.ready = self.dead = self.refuses = self.prewarmed = False
        self.healthy = True
        self.idle = False  # its work was waited for since it was last in traffic
        self.may_end = False  # somebody has asked for its end, or it has ended or failed itself


class World:
    """A process table, a registry and people, for one unit. Every action is checked against the promises."""

    def __init__(self, seed: int, spec: UnitSpec) -> None:
        self.rng, self.spec = random.Random(seed), spec
        self.unit = Unit()
        self.process: Process | None = None
        self.entry: int | None = None  # the attempt that has an entry
        self.beating = False
        self.forced = False
        self.maintained = False
        self.registry_answers = True
        self.truths: list[Event] = []  # what will come true
        self.past: list[Event] = []  # to be repeated late
        self.now = 0.0

    # The unit is told.

    def post(self, event: Event) -> None:
        before = self.unit
        self.note(event)
        self.unit, actions = step(before, event, self.spec)
        assert self.unit.attempt - before.attempt == [type(action) for action in actions].count(Spawn) <= 1
        if before.phase is not self.unit.phase:
            self.leave(before.phase)
        for action in actions:
            self.perform(action)
        self.check(before, event)
        self.past.append(event)

    def note(self, event: Event) -> None:
        """What people have asked for, and what that makes true of its process."""
        if isinstance(event, DrainRequested | UndrainRequested):
            self.maintained = isinstance(event, DrainRequested)
        if isinstance(event, StopRequested | RestartRequested):
            self.forced |= event.force
        ends = isinstance(event, ENDING) and not event.is_stale(self.unit)
        if self.process is not None and (ends or (self.unit.phase in (Phase.STARTING, Phase.PREWARMING))):
            self.process.may_end = True
        if self.process is not None and self.unit.phase is Phase.DRAINING and isinstance(event, Drained | TimerFired):
            self.process.idle |= not event.is_stale(self.unit)

    def leave(self, phase: Phase) -> None:
        """Agents that work for one phase alone are called off with it."""
        if phase is Phase.DRAINING and self.unit.phase is not Phase.DRAINING:
            self.drop(Drained)
        if phase is Phase.PREWARMING:
            self.drop(Prewarmed)

    def check(self, before: Unit, event: Event) -> None:
        unit, process = self.unit, self.process
        if isinstance(event, CancelRequested | Unconfirmed) and before.phase in OUT and not before.leaving:
            self.maintained = unit.drained  # a drain that was called off, or held
        serves = unit.phase is Phase.RUNNING and unit.healthy and not unit.drained
        assert self.beating == (serves and self.spec.service is not None)
        if self.beating:
            assert process is not None and process.healthy and not process.dead, "what cannot serve is published"
            assert not process.refuses, "what was told to refuse work is published"
            assert not self.maintained, "what people keep out of traffic is published"
        if self.entry is not None:
            assert unit.published, "an entry is forgotten"
            assert self.beating or self.under_way(), "an entry that nobody renews and nobody takes out"
        assert unit.drained == self.maintained, "a drain was lost"
        if unit.phase in NOTHING_RUNS:
            assert process is None
        if unit.phase is Phase.STOPPED:
            assert self.entry is None
        if unit.phase in (Phase.PREWARMING, Phase.RUNNING, *OUT) and process is not None and process.leader_lives:
            assert unit.healthy == process.healthy
        if unit.phase is Phase.RUNNING:
            assert not unit.leaving
            self.forced = False
            if process is not None:
                process.may_end = False

    def under_way(self) -> bool:
        return any(isinstance(truth, Gone | Unconfirmed) and not truth.is_stale(self.unit) for truth in self.truths)

    def drop(self, *kinds: type[Event]) -> None:
        self.truths = [truth for truth in self.truths if not isinstance(truth, kinds)]

    # It orders.

    def perform(self, action: Action) -> None:
        match action:
            case Spawn(attempt):
                self.spawn(attempt)
            case Prewarm(attempt):
                assert self.entry is None, "its first requests are not its first"
                self.truths.append(Prewarmed(attempt))
            case Publish(attempt):
                self.publish(attempt)
            case Withdraw(attempt, withdrawal):
                self.withdraw(attempt, withdrawal)
            case Drain(attempt, notify):
                self.drain(attempt, notify)
            case Resume(attempt):
                assert self.current(attempt).refuses
                self.current(attempt).refuses = self.spec.drain is None or self.spec.drain.resume is None
            case Terminate(attempt) | Kill(attempt):
                self.signal(attempt, certain=isinstance(action, Kill))
            case ArmTimer(timer):
                self.drop(TimerFired)
                self.truths.append(TimerFired(timer))

    def current(self, attempt: int) -> Process:
        assert self.process is not None and self.process.attempt == attempt
        return self.process

    def spawn(self, attempt: int) -> None:
        assert self.process is None, "two lives at once"
        assert self.entry is None, "started while its old entry was there"
        self.process, self.forced = Process(attempt), False
        if self.rng.random() < 0.05:
            self.truths.append(self.exit())
        else:
            self.truths += [Spawned(attempt, 4242), Ready(attempt, self.now)]

    def publish(self, attempt: int) -> None:
        process = self.current(attempt)
        assert process.ready
        assert process.prewarmed or not (self.spec.warmup and self.spec.warmup.requests), "others came first"
        self.entry, self.beating = attempt, True
        process.idle = False
        self.past += [truth for truth in self.truths if isinstance(truth, Gone | Unconfirmed)]
        self.drop(Gone, Unconfirmed)  # whoever looked for its end is called off

    def withdraw(self, attempt: int, withdrawal: int) -> None:
        assert not self.under_way(), "withdrawn twice"
        self.beating = False
        if self.registry_answers and self.rng.random() < 0.8:
            self.truths.append(Gone(attempt, withdrawal, settled=self.rng.random() < 0.3))
        else:
            self.truths.append(Unconfirmed(attempt, withdrawal, "no answer"))

    def drain(self, attempt: int, notify: bool) -> None:
        process = self.current(attempt)
        assert self.entry is None, "others may still send to it"
        assert not process.refuses or not notify, "told twice"
        process.refuses |= notify
        self.drop(Drained)  # an agent has one drain of a unit at a time
        self.truths.append(Drained(attempt, self.rng.choice((0, 3))))

    def signal(self, attempt: int, *, certain: bool) -> None:
        process = self.current(attempt)
        assert process.may_end, "nobody wanted its end"
        if process.leader_lives:
            assert self.entry is None, "signalled while it could be found"
            drains = self.spec.service is not None or self.spec.drain is not None
            cared_for = process.dead or not process.served
            assert process.idle or cared_for or not drains, "signalled at work"
            has_flag = self.spec.drain is not None and self.spec.drain.notify is not None
            assert process.refuses or cared_for or not has_flag, "signalled without having been told to finish"
        if certain or self.rng.random() < 0.8:
            self.end_tree()

    # Things happen.

    def exit(self, leftovers: bool = False) -> Exited:
        exit_ = self.rng.choice((BAD, BAD, BAD, CLEAN, MISSING))
        return Exited(self.unit.attempt, exit_, self.now, self.rng.random(), leftovers=leftovers)

    def end_tree(self) -> None:
        if self.process is not None and not any(isinstance(truth, Exited | TreeEmpty) for truth in self.truths):
            empty = TreeEmpty(self.unit.attempt, self.now, self.rng.random())
            self.truths.append(self.exit() if self.process.leader_lives else empty)

    def deliver(self, event: Event) -> None:
        """What was to come true does; the world changes before the unit is told."""
        self.truths.remove(event)
        process = self.process
        match event:
            case Exited(leftovers=leftovers) if process is not None:
                process.leader_lives = False
                self.process = process if leftovers else None
                self.drop(Spawned, Ready, Drained, Prewarmed)
            case TreeEmpty():
                self.process = None
            case Gone():
                self.entry = None
            case Unconfirmed() if self.forced or process is None or process.dead or not process.leader_lives:
                self.entry = None  # nobody can say more: the unit's end is not held up by it
            case Ready() if process is not None:
                process.ready = True
            case Prewarmed() if process is not None:
                process.prewarmed = True
            case TimerFired() if process is not None and self.unit.phase is Phase.PREWARMING:
                process.prewarmed = True
            case TimerFired() if process is not None and self.unit.phase is Phase.STARTING:
                process.dead = True
        self.post(event)
        if process is not None and self.unit.phase is Phase.RUNNING:
            process.served = True

    def trouble(self) -> None:
        """Its leader ends by itself, or its probes say something."""
        process, attempt = self.process, self.unit.attempt
        if process is None or not process.leader_lives or not self.unit.pid:
            return
        choice = self.rng.random()
        if choice < 0.3 and not any(isinstance(truth, Exited) for truth in self.truths):
            self.truths.append(self.exit(leftovers=self.rng.random() < 0.3))
        elif choice < 0.45 and not process.dead:
            process.dead = True
            self.post(LivenessLost(attempt, "deaf"))
        elif process.ready and self.unit.phase in (Phase.PREWARMING, Phase.RUNNING, *OUT):
            process.healthy = not process.healthy
            news = ReadinessRegained(attempt, self.now) if process.healthy else ReadinessLost(attempt, "full")
            self.post(news)

    def turn(self) -> None:
        self.now += self.rng.choice((0.01, 1.0, 20.0))
        choice = self.rng.random()
        if choice < 0.1 and self.past:
            self.post_again(self.rng.choice(self.past))
        elif choice < 0.25:
            self.trouble()
        elif self.truths and choice < (0.6 if self.unit.phase in OUT else 0.8):
            self.deliver(self.rng.choice(self.likely()))
        elif self.unit.phase in NOTHING_RUNS and self.unit.phase is not Phase.WAITING and choice < 0.95:
            self.post(StartRequested(self.rng.choice(("", "", "db"))))
        elif self.unit.phase is Phase.WAITING and choice < 0.9:
            self.post(DependenciesReady())
        else:
            self.post(self.rng.choice(REQUESTS))

    def likely(self) -> list[Event]:
        """Time is not over as often as other things happen."""
        others = [truth for truth in self.truths if not isinstance(truth, TimerFired)]
        return others if others and self.rng.random() < 0.9 else self.truths

    def post_again(self, event: Event) -> None:
        """Of facts, only what is past can be repeated: the present has its own truth."""
        taken_back = isinstance(event, Gone | Unconfirmed) and self.beating
        is_past = event.is_stale(self.unit) and event not in self.truths
        if isinstance(event, REQUEST_KINDS) or is_past or taken_back:
            self.post(event)

    def finish(self, *, force: bool) -> None:
        """Nobody asks for anything but a stop, which ends; what must come true does."""
        self.registry_answers = not force
        self.post(StopRequested(force))
        for _ in range(80):
            if self.unit.phase is Phase.STOPPED:
                return
            self.now += 1
            if self.unit.phase is Phase.RUNNING:  # held: by what the registry had said before
                assert not force
                self.post(StopRequested())
            ending = self.unit.phase in (Phase.STOPPING, Phase.KILLING)
            late = [truth for truth in self.truths if isinstance(truth, TimerFired) and ending]
            first = [truth for truth in self.truths if truth not in late]
            if first or late:
                self.deliver((first or late)[0])
        raise AssertionError(f"never stopped: {self.unit}, {self.truths}")


REQUEST_KINDS = tuple({type(request) for request in REQUESTS})
ALWAYS = RestartPolicy(Autorestart.ALWAYS, settle_seconds=0.0)
SPECS = {
    "plain": PLAIN, "worker": WORKER, "service": SERVICE, "settling": SETTLING,
    "always": replace(SERVICE, restart=ALWAYS), "told": TOLD, "told and back": replace(TOLD_AND_BACK, restart=ALWAYS),
    "prewarmed": replace(PREWARMED, drain=TOLD_AND_BACK.drain), "all": replace(
        TOLD_AND_BACK, restart=replace(ALWAYS, settle_seconds=2.0), warmup=PREWARMED.warmup
    ),
}  # fmt: skip


def walk(spec: UnitSpec, seed: int, turns: int = 100) -> World:
    world = World(seed, spec)
    for _ in range(turns):
        world.turn()
    return world


@pytest.mark.parametrize("spec", SPECS)
def test_no_order_of_events_breaks_the_promises_and_a_stop_always_ends(spec: str) -> None:
    for seed in range(40):
        walk(SPECS[spec], seed).finish(force=bool(seed % 2))
