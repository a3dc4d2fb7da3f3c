"""The closed loop: takes gateways' reports, judges them, and orders the restarts that the guard allows.

Any center keeps reports and people's wishes in the store; the leading one acts on them. A decision is written down
before anything is ordered, and what it spends before that: a center that dies on the way has rather spent too much.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from registry_client.model import Entry

from .channels import Channels
from .errors import BadRequest, CenterError, ServiceBusy, Superseded
from .fleet import Fleet
from .guard import ASK, Case, GuardPolicy, decide
from .guard_evidence import weigh
from .guard_memory import CLEAR, FROZEN, GATEWAY_SECONDS, HISTORY, GuardMemory
from .guard_round import Key, Round, unavailable
from .model import Decision, Mode, Report, Verdict, to_json
from .moments import iso_of, wall_of
from .node_words import NodeWords
from .store import REPORTS, Store

log = logging.getLogger("unit-center.guard")

GATHER_SECONDS = 0.1  # reports that come together are judged together
LOOK_SECONDS = 5.0  # at the latest, open cases and people's wishes are looked at
RETRY_SECONDS = 1.0
OPERATION_SECONDS = 1.0  # an open operation may have ended after that
FINISH_SECONDS = 60.0  # an order that a center left undone is younger than that, or it is left
ORDER_AGAIN_SECONDS = 30.0  # after an order that was refused
LEFT_UNDONE = 50  # decisions, the newest: there it would be
ASKED_AT_ONCE = 200  # nodes' words on so many instances in one round
STAMP_SECONDS = 0.002  # two stamps in whole milliseconds may differ by so much
MANY = 10_000

Order = Callable[[Entry, Decision], Awaitable[str]]  # the id of the operation; raises CenterError


class ClosedLoop:
    """Reports in, restarts out, as few as the guard allows."""

    def __init__(
        self,
        store: Store,
        channels: Channels,
        fleet: Callable[[], Fleet | None],
        policy: GuardPolicy,
        order: Order,
        wall: Callable[[], float] = time.time,
        on_decision: Callable[[Decision], None] = lambda decision: None,
    ) -> None:
        """`fleet` is what may be decided on; None while the registry is in doubt, and then nothing is decided."""
        self._on_decision = on_decision
        self._store, self._fleet, self._policy, self._order, self._wall = store, fleet, policy, order, wall
        self._words = NodeWords(channels, wall)
        self._memory: GuardMemory | None = None
        self._told: dict[Key, tuple[int, Verdict, str]] = {}  # what was decided last, as long as there are reports
        self._not_before: dict[str, float] = {}  # instance whose restart could not be ordered -> when to try again
        self._doubted: dict[str, str] = {}  # gateway -> why
        self._complaints: frozenset[str] = frozenset()
        self._instances_of: dict[str, frozenset[str]] = {}  # open operation -> what it is for
        self._awake = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    # What any center does.

    async def take(self, reports: Sequence[Report]) -> list[Decision]:
        """Keep reports as evidence, and forget those that are taken back. Nothing is decided before it returns."""
        newest = {(each.gateway, each.service, each.instance): each for each in reports}
        await self._store.put_reports([each for each in newest.values() if each.state == "dead"], self._wall())
        for each in newest.values():
            if each.state != "dead":
                await self._store.clear_reports(each.service, each.instance, each.gateway)
        return []

    async def clear(self, kind: str, name: str, who: str) -> None:
        """Forget why a "service" is frozen, or the restarts of an "instance" and that it is fatal.

        Raises BadRequest if there is nothing such. The leading center does it, if not at once then within seconds.
        """
        held = {"service": FROZEN, "instance": HISTORY}.get(kind)
        if held is None or name not in {fact.removeprefix(held) for fact in await self._store.facts(held + name)}:
            detail = f"cannot clear {name}: the guard holds nothing against this {kind}"
            raise BadRequest(detail, code="nothing_held", status=409)
        await self._store.put_fact(f"{CLEAR}{kind}/{name}", {"by": who}, epoch=None)
        self.wake()

    async def frozen(self) -> dict[str, str]:
        """Service -> why nothing of it is restarted automatically."""
        facts = await self._store.facts(FROZEN)
        return {name.removeprefix(FROZEN): str(value["reason"]) for name, value in facts.items()}

    def complaints(self) -> frozenset[str]:
        """Instances that gateways complain of now, if this center leads."""
        return self._complaints

    def budgets(self) -> dict[str, float]:
        """Scope -> restarts left, of the budgets that anything was taken from, if this center leads."""
        if self._memory is None or self._running is None:
            return {}
        budgets, now = self._memory.budgets, self._wall()
        return {scope: budgets.tokens(self._policy.limit(scope), now) for scope in budgets.scopes}

    def wake(self) -> None:
        """Something has changed that may matter: an operation has ended, the mode is another."""
        self._awake.set()

    # What the leading one does.

    def lead(self, epoch: int) -> None:
        """Judge what is there, and what comes."""
        self.give_way()
        self._running = asyncio.get_running_loop().create_task(self._run(epoch))

    def give_way(self) -> None:
        """Another leads, or nobody."""
        if self._running is not None:
            self._running.cancel()
            self._running = None
        self._complaints = frozenset()

    async def close(self) -> None:
        """Stop, and wait until nothing more is written."""
        running = self._running
        self.give_way()
        if running is not None:
            await asyncio.wait([running])

    async def _run(self, epoch: int) -> None:
        self._memory, self._told, self._doubted, self._not_before = None, {}, {}, {}
        while True:
            try:
                seen = self._store.seen(REPORTS)
                self._awake.clear()
                await self._pause(await self._turn(epoch), seen)
            except Superseded as error:
                log.warning("%s; reports are left to it", error)
                return
            except CenterError as error:
                await self._recover(f"cannot judge reports: {error}")
            except Exception:  # a guard that has died in silence would be missed too late
                log.exception("cannot judge reports")
                await self._recover("the control center is at fault")

    async def _recover(self, reason: str) -> None:
        log.error("%s; trying again in %g s", reason, RETRY_SECONDS)
        self._memory = None  # it may differ from what is written
        await asyncio.sleep(RETRY_SECONDS)

    async def _pause(self, seconds: float, seen: int) -> None:
        """Until there are reports, somebody wakes us, or the time is over; then a moment more, for others to come."""
        waits = [
            asyncio.ensure_future(self._store.wait_changed(seen, seconds, REPORTS)),
            asyncio.ensure_future(self._awake.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        await asyncio.sleep(GATHER_SECONDS)

    async def _turn(self, epoch: int) -> float:
        """Judge everything once; the seconds until it is to be done again."""
        fleet, now = self._fleet(), self._wall()
        if fleet is None:
            return RETRY_SECONDS
        if self._memory is None:
            self._memory = await self._remember(epoch, fleet, now)
        self._memory.see(fleet, now)
        await self._heed_people(self._memory)
        round_ = await self._look(epoch, fleet, now, self._memory)
        await self._tell_gateways(round_)
        await self._tell_services(round_, self._memory)
        await self._judge(round_, self._memory)
        return min([LOOK_SECONDS, *round_.again])

    async def _remember(self, epoch: int, fleet: Fleet, now: float) -> GuardMemory:
        memory = await GuardMemory.load(self._store, epoch, now)
        for report, _, last in await self._store.reports(now - GATEWAY_SECONDS):
            memory.hear(report.service, report.gateway, last)
        await self._finish_orders(epoch, fleet, now)
        return memory

    async def _finish_orders(self, epoch: int, fleet: Fleet, now: float) -> None:
        """Order what a center had decided when it died; the operation's command id is the decision's, so only once."""
        if await self._store.mode() is Mode.OBSERVE:
            return
        newest: dict[str, Decision] = {}
        for decision in await self._store.decisions(limit=LEFT_UNDONE):
            newest.setdefault(decision.instance, decision)
        for decision in newest.values():
            entry = fleet.entry(decision.instance, decision.service)
            if decision.verdict is not Verdict.RESTART or decision.operation is not None or entry is None:
                continue
            if entry.generation == decision.generation and now - wall_of(decision.at) < FINISH_SECONDS:
                try:
                    await self._ordered(epoch, decision, await self._order(entry, decision))
                except (ServiceBusy, BadRequest) as error:
                    log.warning("the restart of %s is left: %s", decision.instance, error)

    async def _heed_people(self, memory: GuardMemory) -> None:
        for name, value in (await self._store.facts(CLEAR)).items():
            kind, _, cleared = name.removeprefix(CLEAR).partition("/")
            if kind == "instance":
                await memory.forget_instance(cleared)
            elif cleared in memory.frozen:
                await memory.thaw(cleared, str(value["by"]))
            self._told = {key: told for key, told in self._told.items() if cleared not in key}
            await memory.forget_clear(name)

    async def _look(self, epoch: int, fleet: Fleet, now: float, memory: GuardMemory) -> Round:
        reports = await self._store.reports(now - self._policy.window_seconds)
        for report, _, last in reports:
            memory.hear(report.service, report.gateway, last)
            memory.blame(report.instance, now)
        services = {report.service for report, _, _ in reports}
        for service in services:
            for gateway in fleet.gateways_of(service):
                memory.hear(service, gateway, now)
        entries = {(name, entry.instance): entry for name in services for entry in fleet.entries(name)}
        gateways = memory.gateways(now)
        evidence = weigh(reports, entries, gateways, self._policy, now)
        self._told = {key: told for key, told in self._told.items() if key in evidence.voices}
        by_instance, by_service = await self._operations() if evidence.voices else ({}, {})
        gone = {service: memory.gone(service, now) for service in services}
        away = {service: unavailable(fleet, service, by_instance) | gone[service] for service in services}
        return Round(
            now, epoch, await self._store.mode(), fleet, evidence, gateways, entries, by_instance, by_service,
            away, {service: len(instances) for service, instances in gone.items()},
        )  # fmt: skip

    async def _operations(self) -> tuple[dict[str, str], dict[str, str]]:
        """What is under way: instance -> operation, service -> operation that holds it."""
        by_instance, by_service, instances_of = {}, {}, {}
        for header in await self._store.operations(open_only=True, limit=MANY):
            known = self._instances_of.get(header.id)
            if known is None:  # its targets never change
                operation = await self._store.operation(header.id)
                known = frozenset(target.instance for target in operation.targets) if operation else frozenset()
            instances_of[header.id] = known
            by_instance.update(dict.fromkeys(known, header.id))
            by_service.update(dict.fromkeys(header.services, header.id))
        self._instances_of = instances_of
        return by_instance, by_service

    async def _tell_gateways(self, round_: Round) -> None:
        """An alarm when a gateway begins to accuse too many, and when that is over."""
        before, self._doubted = self._doubted, dict(round_.evidence.doubts)
        for gateway in sorted(before.keys() ^ self._doubted.keys()):
            doubt = self._doubted.get(gateway)
            log.warning("%s %s", gateway, f"{doubt}: its voice counts half" if doubt else "is believed again")
            await self._store.add_event("gateway", {"gateway": gateway, "doubted": doubt})

    async def _tell_services(self, round_: Round, memory: GuardMemory) -> None:
        """Freeze what is mostly dead, and let go of what is not any more or what a person has let go of."""
        preserved = round_.evidence.preserved
        for service in memory.thawed - preserved.keys():
            await memory.forget_thaw(service)
        for service in sorted(memory.frozen):
            if service not in preserved or service in memory.thawed:
                await memory.unfreeze(service)
                await self._tell_frozen(service, None)
        for service, reason in preserved.items():
            if service not in memory.frozen and service not in memory.thawed:
                await memory.freeze(service, reason, iso_of(round_.now))
                await self._tell_frozen(service, reason)

    async def _tell_frozen(self, service: str, reason: str | None) -> None:
        log.warning("%s: %s", service, reason or "automatic restarts are possible again")
        await self._store.add_event("service", {"service": service, "frozen": reason})

    # One case after the other.

    async def _judge(self, round_: Round, memory: GuardMemory) -> None:
        """The strongest evidence first: who comes first gets what the budgets have left."""
        cases = {key: self._case(round_, memory, key) for key in round_.evidence.voices}
        self._complaints = frozenset(case.instance for case in cases.values() if _is_plain(case))
        ordered = sorted(cases, key=lambda key: (-cases[key].heard, key))
        asked = [key for key in ordered if decide(cases[key], self._policy).rule == ASK]
        known = (cases[key].entry for key in asked[:ASKED_AT_ONCE])
        await self._words.ask([entry for entry in known if entry is not None])
        for key in ordered:
            case = self._case(round_, memory, key)  # the one before may have spent what this one needs
            decision = decide(case, self._policy)
            again = decision.evidence["again_seconds"]
            if again is not None:
                round_.again.append(again)
            if decision.rule == "under_way":
                round_.again.append(OPERATION_SECONDS)
            await self._settle(round_, memory, case, decision)

    def _case(self, round_: Round, memory: GuardMemory, key: Key) -> Case:
        entry = round_.entries.get(key) or memory.left(*key)
        return round_.case(memory, key, self._words.latest(entry) if entry is not None else None)

    async def _settle(self, round_: Round, memory: GuardMemory, case: Case, decision: Decision) -> None:
        """Write a decision down, unless it is the one of before; then act on it."""
        if decision.rule == ASK:  # could not be asked in this round
            return
        if decision.verdict is Verdict.RESTART:
            if round_.now >= self._not_before.get(case.instance, 0.0):
                await self._restart(round_, memory, case, decision)
            return
        key = decision.service, decision.instance
        told = decision.generation, decision.verdict, decision.rule
        if key not in self._told:
            await self._recall(case)
        if self._told.get(key) == told or (decision.verdict is Verdict.REFUSE and self._restarts(case)):
            return
        if decision.verdict is Verdict.FATAL and case.history.fatal_since is None:
            log.warning("%s: %s", decision.instance, decision.reason)
            await memory.put_history(decision.instance, replace(case.history, fatal_since=round_.now))
        await self._tell(await self._store.add_decision(decision, epoch=round_.epoch))
        self._told[key] = told

    def _restarts(self, case: Case) -> bool:
        """What these reports complain of is being restarted, or has been: they need no other answer."""
        generation, verdict, _ = self._told.get((case.service, case.instance), (0, None, ""))
        return verdict is Verdict.RESTART and all(voice.generation <= generation for voice in case.voices)

    async def _recall(self, case: Case) -> None:
        """What another center has answered to the same reports."""
        since = case.now - max(voice.since_seconds for voice in case.voices)
        for last in await self._store.decisions(limit=1, service=case.service, instance=case.instance):
            if wall_of(last.at) >= since - STAMP_SECONDS:
                self._told[case.service, case.instance] = last.generation, last.verdict, last.rule

    async def _restart(self, round_: Round, memory: GuardMemory, case: Case, decision: Decision) -> None:
        assert case.entry is not None
        limits = self._policy.limits(case.service, case.entry.node).values()
        await memory.take(limits, round_.now)
        await memory.put_history(case.instance, case.history.restarted(round_.now))
        kept = await self._store.add_decision(decision, epoch=round_.epoch)
        self._told[case.service, case.instance] = decision.generation, decision.verdict, decision.rule
        log.warning("restarting %s: %s", case.instance, decision.reason)
        try:
            operation = await self._order(case.entry, kept)
        except (ServiceBusy, BadRequest) as error:
            self._not_before[case.instance] = round_.now + ORDER_AGAIN_SECONDS
            await memory.give_back(limits, round_.now)
            await memory.put_history(case.instance, case.history)
            busy = replace(kept, id=0, verdict=Verdict.REFUSE, rule="order", reason=f"not ordered: {error}")
            await self._tell(await self._store.add_decision(busy, epoch=round_.epoch))
            self._told[case.service, case.instance] = busy.generation, busy.verdict, busy.rule
        else:
            self._not_before.pop(case.instance, None)
            round_.by_instance[case.instance] = operation
            round_.away[case.service].add(case.instance)
            await self._ordered(round_.epoch, kept, operation)

    async def _ordered(self, epoch: int, decision: Decision, operation: str) -> None:
        await self._store.put_ordered(decision.id, operation, epoch=epoch)
        await self._tell(replace(decision, operation=operation))

    async def _tell(self, decision: Decision) -> None:
        self._on_decision(decision)
        await self._store.add_event("decision", to_json(decision))


def _is_plain(case: Case) -> bool:
    """A gateway that is believed complains of what others are sent to now."""
    is_up = case.entry is not None and not case.has_left and case.entry.status != "draining"
    return is_up and any(not voice.doubt for voice in case.current)
