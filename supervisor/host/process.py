"""Processes: the only module that starts, signals and reaps them.

It owns every unit's process from spawn until its whole tree has ended, and says what happened as events of the core.
It knows nothing of policy, registries or operations.

How a tree is held together: each process leads its own session and process group; where there is a delegated cgroup
it has one to itself; and the daemon is a child subreaper (prctl(2)), so that what a daemonizing program leaves behind
becomes our child and is found. Exits come by pidfd. What an earlier daemon started is not our child, nor is what that
leaves behind: it is found by the marks in its environment.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from ..core.events import Event, Exited, Spawned, TreeEmpty
from ..core.model import Exit, UnitSpec
from ..errors import SpawnError
from . import spawn, tree
from .attempt import Process, group_exists, make_group, reap
from .cgroup import GroupWatch, Mover, UnitGroup, group_left
from .clock import chance, monotonic, wall
from .exits import Exits
from .setup import child_signals

log = logging.getLogger("unitd.process")

SPAWNS_PER_TURN = 8  # of the loop: about 5 ms, so that starting 1000 units leaves room for heartbeats
LOOK_AGAIN_SECONDS = 1.0

Post = Callable[[str, Event], None]  # unit name, what happened


class Output(Protocol):
    """Who takes the reading ends of a unit's pipes."""

    def open(self, spec: UnitSpec, attempt: int) -> tuple[int | None, int | None]:
        """The writing ends for stdout and stderr, to be closed by the caller; None: /dev/null. Raises OSError."""


class Processes:
    """All processes of the host's units."""

    def __init__(
        self,
        post: Post,
        output: Output,
        *,
        base_cgroup: Path | None,
        environment: Mapping[str, str],
        nofile: int | None,
        before_spawn: Callable[[Sequence[tuple[str, int]]], None],
        notify: Callable[[UnitSpec, int], str | None] | None = None,
        state_id: str = "",
    ) -> None:
        """`before_spawn` is told units and attempts before their processes exist, to write them down.

        `notify` opens an attempt's notify socket and answers its path, or None; raises OSError. `state_id` names the
        daemon's state folder: a later daemon finds by it what this one has started.
        """
        self._post, self._output, self._base = post, output, base_cgroup
        self._environment, self._nofile, self._before_spawn = dict(environment), nofile, before_spawn
        self._notify, self._state_id = notify, state_id
        self.left_alone: set[int] = set()  # pids of children of ours that somebody else watches and reaps
        self._loop = asyncio.get_running_loop()
        self._by_unit: dict[str, Process] = {}
        self._leaders: set[int] = set()  # pids of leaders that were not reaped yet
        self._strangers: set[int] = set()  # orphans of nobody's unit; only reaped
        self._queue: deque[Process] = deque()
        self._exits = Exits()
        self._groups: GroupWatch | None = None
        self._mover = Mover() if base_cgroup is not None else None
        self._ended_moving: dict[int, Process] = {}  # by pidfd: leaders that ended before they were in their cgroup
        self._sweep_planned = False
        self._swept = False  # in this turn of the loop
        self._survey: tree.Survey | None = None  # of this turn
        self._devnull = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._loop.add_reader(self._exits.fileno(), self._on_exits)
        # Orphans that we were given end without a pidfd of ours: the signal makes us look.
        self._signals = child_signals()
        self._loop.add_reader(self._signals, self._on_child_signal)

    def close(self) -> None:
        """Let go of everything; processes live on."""
        self._loop.remove_reader(self._signals)
        os.close(self._signals)
        self._loop.remove_reader(self._exits.fileno())
        self._exits.close()
        if self._mover is not None:
            self._mover.close()
        if self._groups is not None:
            self._loop.remove_reader(self._groups.fileno())
            self._groups.close()
        os.close(self._devnull)

    # Orders.

    def spawn(self, spec: UnitSpec, attempt: int) -> None:
        """Start an attempt -> Spawned or Exited, in a later turn of the loop."""
        process = Process(spec, attempt)
        self._by_unit[spec.name] = process
        if not self._queue:
            self._loop.call_soon(self._spawn_some)
        self._queue.append(process)

    def adopt(
        self,
        spec: UnitSpec,
        attempt: int,
        leader: int | None,
        others: Sequence[int],
        known: Exit | None = None,
        ticks: int | None = None,
    ) -> None:
        """Take over the tree of an attempt that an earlier daemon started, as if it had been started here.

        One Exited follows when the leader ends, at once if it has gone, with a status only where it is a child of ours.
        `others` are what is known of the rest, `known` how the leader ended, `ticks` when it began (tree.start_ticks).
        Raises OSError: nothing has changed.
        """
        process = Process(spec, attempt)
        self._exits.take_over(process, leader, known, ticks)
        if not process.leader_reaped:
            self._leaders.add(process.pid)
        if self._base is not None:
            process.group = group_left(self._base, spec.name, attempt, {process.pid, *others})
        self._by_unit[spec.name] = process
        self._exits.watch_outside(process, others)
        if process.leader_reaped:
            self._loop.call_soon(self._settle_all, (process,))

    def terminate(self, unit: str, attempt: int) -> None:
        """Send the unit's stop signal to its whole tree."""
        process = self._of(unit, attempt)
        if process is None:
            return
        if not process.started:
            self._drop(process)
            return
        if process.group is None or process.moving:
            self._sweep_before_orders()
            self._exits.watch_outside(process, self._members(process) if process.adopted else process.below())
        process.ask_to_stop()

    def kill(self, unit: str, attempt: int) -> None:
        """SIGKILL to the whole tree."""
        process = self._of(unit, attempt)
        if process is None or not process.started:
            return
        process.killed = True
        if process.group is not None:
            process.group.kill()
        if process.leader_reaped or process.adopted:
            self._exits.watch_outside(process, self._members(process))
        elif process.group is None or process.moving:
            self._exits.watch_outside(process, process.below())
        process.signal_tree(signal.SIGKILL)

    def signal(self, unit: str, number: int) -> bool:
        """Send any signal to the leader; False: there is none."""
        process = self._by_unit.get(unit)
        if process is None or not process.pid or process.exit is not None:
            return False
        return process.send(process.pidfd, number)

    def living(self, unit: str) -> int | None:
        """The pid of the unit's leading process, if that lives at this moment."""
        process = self._by_unit.get(unit)
        return process.pid if process is not None and process.lives() else None

    def _of(self, unit: str, attempt: int) -> Process | None:
        process = self._by_unit.get(unit)
        return process if process is not None and process.attempt == attempt else None

    # Spawning.

    def _spawn_some(self) -> None:
        batch = [self._queue.popleft() for _ in range(min(SPAWNS_PER_TURN, len(self._queue)))]
        if not batch:
            return  # all were dropped
        try:
            self._before_spawn([(process.unit, process.attempt) for process in batch])
        except OSError as error:
            for process in batch:
                self._failed(process, SpawnError("journal", error.errno or 0, f"cannot write the journal: {error}"))
        else:
            for process in batch:
                if self._by_unit.get(process.unit) is process:  # else an earlier one's event has dropped it
                    self._spawn_one(process)
        if self._queue:
            self._loop.call_soon(self._spawn_some)
        self._plan_sweep()  # the signal was not blocked while processes were made, and so may have been missed

    def _spawn_one(self, process: Process) -> None:
        ends: list[int] = []
        try:
            process.group = make_group(self._base, process)
            ends = [self._devnull if end is None else end for end in self._output.open(process.spec, process.attempt)]
            streams = spawn.Streams(self._devnull, *ends)
            path = self._notify and self._notify(process.spec, process.attempt)
            extra = spawn.daemons_variables(process.spec, path, self._state_id)
            process.pid = spawn.start(process.spec, process.attempt, streams, self._environment, self._nofile, extra)
            process.started_at = monotonic()
            process.pidfd = os.pidfd_open(process.pid)
            self._exits.add(process.pidfd, process)
        except SpawnError as error:
            self._failed(process, error)
        except OSError as error:  # mostly EMFILE; a child that cannot be watched must not live
            if process.pid:
                os.killpg(process.pid, signal.SIGKILL)
                os.waitpid(process.pid, 0)
            if process.pidfd >= 0:
                os.close(process.pidfd)
            self._failed(process, SpawnError("descriptors", error.errno or 0, f"cannot start it: {error.strerror}"))
        else:
            self._leaders.add(process.pid)
            if process.group is not None and self._mover is not None:
                process.moving = True
                self._mover.move(process.group, process.pid, partial(self._moved, process))
            self._post(process.unit, Spawned(process.attempt, process.pid))
        finally:
            for end in set(ends) - {self._devnull}:
                os.close(end)

    def _moved(self, process: Process) -> None:
        process.moving = False
        if self._ended_moving.pop(process.pidfd, None) is not None:
            self._end({process.pidfd: process})
        else:
            self._plan_sweep()  # for what its children may have left outside

    def _failed(self, process: Process, error: SpawnError) -> None:
        can_heal = error.errno in spawn.CAN_HEAL or error.stage in ("journal", "descriptors")
        process.exit = Exit(str(error), stage=error.stage, errno=error.errno, wall=wall(), can_heal=can_heal)
        self._post_end(process, empty=True)

    def _drop(self, process: Process) -> None:
        """It was to be stopped before it was even started."""
        if process in self._queue:
            self._queue.remove(process)
        process.exit = Exit("stopped before it was started", code=0, wall=wall())
        self._post_end(process, empty=True)

    # Exits.

    def _on_exits(self) -> None:
        ended: dict[int, Process] = {}
        for pidfd, process in self._exits.ended().items():
            if process.moving and pidfd == process.pidfd:
                self._ended_moving[pidfd] = process
            else:
                ended[pidfd] = process
        self._end(ended)

    def _end(self, ended: Mapping[int, Process]) -> None:
        """These have ended: reap them, then see what is left of their units."""
        for pidfd, process in ended.items():
            if pidfd == process.pidfd:
                process.reap_leader()
                self._leaders.discard(process.pid)
            else:
                process.reap_escaped(pidfd)
            os.close(pidfd)
        self._settle_all(dict.fromkeys(ended.values()))

    def _settle_all(self, processes: Iterable[Process]) -> None:
        """Some part of each has ended. What cannot be seen now (no descriptors are left) is looked at again."""
        waiting = deque(processes)
        if self._exits.closed:
            return
        self._survey = None  # one of before their ends does not count
        try:
            self._sweep()
            while waiting:
                self._settle(waiting[0])
                waiting.popleft()
        except OSError as error:
            log.warning("cannot see what processes have left behind: %s; tried again", error.strerror)
            self._loop.call_later(LOOK_AGAIN_SECONDS, self._settle_all, waiting)

    def _settle(self, process: Process) -> None:
        """Say what is known of a process some part of which has ended."""
        if process.exit is None:
            return  # the leader lives; a child that had escaped from its group has ended
        empty = not self._remains(process)
        if not process.told:
            process.told = True
            self._post_end(process, empty)
        elif empty:
            self._forget(process)
            self._post(process.unit, TreeEmpty(process.attempt, monotonic(), chance()))

    def _post_end(self, process: Process, empty: bool) -> None:
        assert process.exit is not None
        if empty:
            self._forget(process)
        self._post(process.unit, Exited(process.attempt, process.exit, monotonic(), chance(), leftovers=not empty))

    def _remains(self, process: Process) -> bool:
        """Something of the tree lives, and is watched. The leader has been reaped."""
        if process.group is not None and self._remains_in_group(process.group):
            return True
        if process.escaped:
            return True
        if not process.adopted and not group_exists(process.pid):
            return False
        trouble = self._exits.watch(process, self._members(process))
        if trouble is not None and not process.escaped:
            raise trouble
        return bool(process.escaped)

    def _remains_in_group(self, group: UnitGroup) -> bool:
        if not group.populated():
            return False
        if self._groups is None:
            self._groups = GroupWatch()
            self._loop.add_reader(self._groups.fileno(), self._on_empty_groups)
        self._groups.add(group)
        return group.populated()

    def _on_empty_groups(self) -> None:
        assert self._groups is not None
        emptied = {id(group) for group in self._groups.emptied()}
        self._settle_all([item for item in self._by_unit.values() if id(item.group) in emptied])

    def _forget(self, process: Process) -> None:
        if self._by_unit.get(process.unit) is process:
            del self._by_unit[process.unit]
        if process.group is not None:
            if self._groups is not None:
                self._groups.discard(process.group)
            process.group.remove()

    # Orphans: children of ours that are no unit's leader.

    def _on_child_signal(self) -> None:
        try:
            os.read(self._signals, 1024)
        except BlockingIOError:  # it was not blocked while a process was made, see _spawn_some
            return
        self._plan_sweep()

    def _plan_sweep(self) -> None:
        if not self._sweep_planned:
            self._sweep_planned = True
            self._loop.call_soon(self._sweep_now)

    def _sweep_before_orders(self) -> None:
        """What daemonizing children have left is ours without a word: find it, once for all orders of this turn."""
        if not self._swept:
            self._swept = True
            self._loop.call_soon(self._end_of_turn)
            self._sweep()

    def _end_of_turn(self) -> None:
        self._swept, self._survey = False, None

    def _sweep_now(self) -> None:
        self._sweep_planned = False
        self._settle_all(())

    def _sweep(self) -> None:
        """Reap what has ended, and watch what became our child because its parent ended."""
        known = self._leaders | self.left_alone
        orphans = [pid for pid in tree.children(os.getpid()) if pid not in known]
        if not orphans:
            return
        watched = self._exits.escaped()
        for pid in orphans:
            if reap(pid):
                self._strangers.discard(pid)
            elif pid not in watched and pid not in self._strangers:
                self._place_orphan(pid)

    def _place_orphan(self, pid: int) -> None:
        marks = tree.marks_of(pid)
        unit = "" if marks.command else marks.unit
        process = self._by_unit.get(unit) if unit else self._by_group(pid)
        if process is not None and process.started:
            self._exits.watch(process, [pid])
            return
        self._strangers.add(pid)
        if marks.command:  # what it has left in its group is about to be killed, and not worth a word
            whose = f"a command that was run for {marks.unit}"
            self._loop.call_later(LOOK_AGAIN_SECONDS, self._tell_of_stranger, pid, whose)
        else:
            self._tell_of_stranger(pid, "a parent that ended")

    def _tell_of_stranger(self, pid: int, whose: str) -> None:
        if pid in self._strangers:
            log.warning("process %d was left to unitd by %s; it belongs to no unit", pid, whose)

    def _by_group(self, pid: int) -> Process | None:
        """For a process that cleared its environment: it may have stayed in its unit's group or session."""
        groups = tree.groups_of(pid)
        return next((item for item in self._by_unit.values() if item.pid in groups), None)

    def _members(self, process: Process) -> list[int]:
        if self._survey is None:
            self._survey = tree.Survey(self._state_id)
            self._loop.call_soon(self._end_of_turn)
        return process.members(self._survey)
