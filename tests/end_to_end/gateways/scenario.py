"""What is done to the units of a stage while clients send requests through its gateway, and what became of these."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from bench.gateway_load import GatewayLoad
from bench.load import Mix, Request
from bench.load_account import Spell, doing
from tests.end_to_end.gateways.stage import ADDRESS, COUNT, MOST, SERVICE, Stage
from tests.end_to_end.machine import DEADLINE_SECONDS, POLL_SECONDS, until

ACT_SECONDS = 90.0
SEEN_SECONDS = 0.01  # so much later than it happened the client may see a failure


@dataclass(slots=True)
class Played:
    """What came of it. `acts` tell what was done from when to when; `pids` all processes that had requests to answer."""

    requests: list[Request]
    retried: list[Request]
    acts: list[Spell] = field(default_factory=list)
    pids: set[int] = field(default_factory=set)

    @property
    def failures(self) -> list[Request]:
        """The requests that failed."""
        return [request for request in self.requests if request.failure]

    def during(self, request: Request) -> str:
        """What was done when the request failed, or ended."""
        return doing(self.acts, SERVICE, request.ended - SEEN_SECONDS, request.ended)

    def explained(self, excused: Callable[[Request], bool] = lambda request: False) -> list[str]:
        """How many requests failed, by kind, connection, symptom, and what was done then; those that are not excused."""
        words = Counter(
            f"{request.kind} on a {'kept' if request.kept else 'new'} connection: {request.failure} "
            f"during {self.during(request)}"
            for request in self.failures
            if not excused(request)
        )
        return [f"{count} times {what}" for what, count in sorted(words.items())]


class Play:
    """A stage under load. Every act is done in a thread, while the load runs in the event loop."""

    def __init__(self, stage: Stage, rate: float, mix: Mix) -> None:
        self.stage = stage
        self.load = GatewayLoad(rate, mix, ADDRESS, stage.port)
        self.played = Played(self.load.requests, self.load.retried)
        self.note_pids()

    def note_pids(self) -> None:
        """Remember which processes there are."""
        self.played.pids |= {pid for pid in self.stage.host.pids().values() if pid is not None}

    def act(self, what: str, do: Callable[[], object]) -> None:
        """Do it, and remember when that was."""
        begun = time.time()
        do()
        self.played.acts.append(Spell(SERVICE, what, begun, time.time()))
        self.note_pids()

    def run(self, work: Callable[[Play], None]) -> Played:
        """The work, from when the load is steady until all processes of the end have answered."""

        async def all_of_it() -> None:
            enough = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(self.load.run(enough))
                try:
                    await self.load.steady.wait()
                    await asyncio.to_thread(work, self)
                    await asyncio.to_thread(self._until_all_answer)
                finally:
                    enough.set()

        asyncio.run(all_of_it())
        return self.played

    def _until_all_answer(self) -> None:
        """Whatever has happened: in the end, each process is sent to."""
        self.stage.until_right()
        begun, pids = len(self.load.requests), set(self.stage.host.pids().values())

        def answered() -> bool:
            return pids <= {request.pid for request in self.load.requests[begun:]}

        until("every process answers requests", answered)

    # What is done.

    def unitctl(self, *words: str) -> None:
        """A command that must succeed."""
        done = self.stage.host.unitctl(*words, seconds=ACT_SECONDS)
        assert done.returncode == 0, f"unitctl {' '.join(words)}: {done.stdout}{done.stderr}\n{self.stage.explain()}"

    def rolling_restart(self) -> None:
        """Restart all, one after another."""
        self.act("rolling restart", lambda: self.unitctl("restart", SERVICE))

    def drain_and_undrain(self) -> None:
        """Take one out, and let it in again."""

        def do() -> None:
            self.unitctl("drain", f"{SERVICE}:1")
            self.unitctl("undrain", f"{SERVICE}:1")
            self.stage.until_right()

        self.act("drain, undrain", do)

    def warm(self) -> None:
        """Let the weight of one grow from the start."""

        def do() -> None:
            self.unitctl("warm", f"{SERVICE}:2")
            self.stage.until_right()

        self.act("warm", do)

    def scale(self, count: int) -> None:
        """More processes, or fewer."""

        def do() -> None:
            self.stage.configure(count=count)
            self.unitctl("apply")
            self.stage.until_right()

        self.act(f"scale to {count}", do)

    def change(self) -> None:
        """Another command for all."""

        def do() -> None:
            self.stage.configure(changed=True)
            self.unitctl("apply")
            self.stage.until_right()

        self.act("apply another command", do)


def everything(play: Play) -> None:
    """All that a service goes through, once."""
    play.rolling_restart()
    play.drain_and_undrain()
    play.warm()
    play.scale(MOST)
    play.scale(COUNT)
    play.change()


def briefly(play: Play) -> None:
    """Each way to leave and to come back once, what can be at the same time; the rolling restart is for another command."""
    with ThreadPoolExecutor() as pool:
        acts = [pool.submit(play.drain_and_undrain), pool.submit(play.warm), pool.submit(play.scale, MOST)]
    for act in acts:
        act.result()
    play.scale(COUNT)
    play.change()


def wait_for_requests(load: GatewayLoad, more: int) -> None:
    """So many more have been begun."""
    wanted = len(load.requests) + more
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(load.requests) < wanted:
        assert time.monotonic() < deadline, "the load does not run"
        time.sleep(POLL_SECONDS)
