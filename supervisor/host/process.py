"""Processes: the only module that starts, signals and reaps them.

It owns every unit's process from spawn until its whole tree has ended, and says what happened as events of the core.
It knows nothing of policy, registries or operations.

How a tree is held together: each process leads its own session and process group; where there is a delegated cgroup
it has one to itself; and the daemon is a child subreaper (prctl(2)), so that what a daemonizing program leaves behind
becomes our child and is found. Exits come by pidfd; all pidfds hang on one epoll, which hangs on the loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
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
from .attempt import Process, group_exists, group_of, reap
from .cgroup import GroupWatch, Mover, UnitGroup
from .clock import chance, monotonic, wall
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
    ) -> None:
        """`before_spawn` is told units and attempts before their processes exist, to write them down."""
        self._post, self._output, self._base = post, output, base_cgroup
        self._environment, self._nofile, self._before_spawn = dict(environment), nofile, before_spawn
        self._loop = asyncio.get_running_loop()
        self._by_unit: dict[str, Process] = {}
        self._leaders: set[int] = set()  # pids of leaders that were not reaped yet
        self._strangers: set[int] = set()  # orphans of nobody's unit; only reaped
        self._queue: deque[Process] = deque()
        self._exits = select.epoll()
        self._by_pidfd: dict[int, Process] = {}
        self._groups: GroupWatch | None = None
        self._mover = Mover() if base_cgroup is not None else None
        self._ended_moving: dict[int, Process] = {}  # by pidfd: leaders that ended before they were in their cgroup
        self._sweep_planned = False
        self._swept = False  # in this turn of the loop
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
        for pidfd in self._by_pidfd:
            os.close(pidfd)
        self._by_pidfd.clear()
        os.close(self._devnull)

    # Orders.

    def spawn(self, spec: UnitSpec, attempt: int) -> None:
        """Start an attempt -> Spawned or Exited, in a later turn of the loop."""
        process = Process(spec, attempt)
        self._by_unit[spec.name] = process
        if not self._queue:
            self._loop.call_soon(self._spawn_some)
        self._queue.append(process)

    def terminate(self, unit: str, attempt: int) -> None:
        """Send the unit's stop signal to its whole tree."""
        process = self._of(unit, attempt)
        if process is None:
            return
        if not process.pid:
            self._drop(process)
            return
        if process.group is None or process.moving:
            self._sweep_before_orders()
            self._watch_outside(process)
        process.signal_tree(process.spec.stopsignal)
        if process.spec.stopsignal != signal.SIGCONT:
            process.signal_tree(signal.SIGCONT)  # a stopped process cannot answer its stop signal

    def kill(self, unit: str, attempt: int) -> None:
        """SIGKILL to the whole tree."""
        process = self._of(unit, attempt)
        if process is None or not process.pid:  # 0 would be the daemon's own group
            return
        process.killed = True
        if process.group is not None:
            process.group.kill()
        if process.leader_reaped:
            self._watch_all(process, tree.members(process.pid, process.unit))
        elif process.group is None or process.moving:
            self._watch_outside(process)
        process.signal_tree(signal.SIGKILL)

    def signal(self, unit: str, number: int) -> bool:
        """Send any signal to the leader; False: there is none."""
        process = self._by_unit.get(unit)
        if process is None or not process.pid or process.exit is not None:
            return False
        signal.pidfd_send_signal(process.pidfd, number)
        return True

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
            process.group = self._make_group(process)
            ends = [self._devnull if end is None else end for end in self._output.open(process.spec, process.attempt)]
            streams = spawn.Streams(self._devnull, *ends)
            process.pid = spawn.start(process.spec, process.attempt, streams, self._environment, self._nofile)
            process.started_at = monotonic()
            process.pidfd = os.pidfd_open(process.pid)
            self._exits.register(process.pidfd, select.EPOLLIN)
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
            self._by_pidfd[process.pidfd] = process
            self._leaders.add(process.pid)
            if process.group is not None and self._mover is not None:
                process.moving = True
                self._mover.move(process.group, process.pid, partial(self._moved, process))
            self._post(process.unit, Spawned(process.attempt, process.pid))
        finally:
            for end in set(ends) - {self._devnull}:
                os.close(end)

    def _make_group(self, process: Process) -> UnitGroup | None:
        limits = process.spec.limits
        if self._base is None:
            if limits.memory_max is not None or limits.pids_max is not None:
                log.warning("%s: memory_max and pids_max need a delegated cgroup v2; there is none", process.unit)
            return None
        group, unset = UnitGroup.make(self._base, process.unit, process.attempt, limits)
        for problem in unset:
            log.warning("%s: cannot set %s", process.unit, problem)
        return group

    def _moved(self, process: Process) -> None:
        process.moving = False
        if self._ended_moving.pop(process.pidfd, None) is not None:
            self._end({process.pidfd: process})
        else:
            self._plan_sweep()  # for what its children may have left outside

    def _failed(self, process: Process, error: SpawnError) -> None:
        can_heal = error.errno in spawn.CAN_HEAL or error.stage in ("journal", "descriptors")
        exit_ = Exit(str(error), stage=error.stage, errno=error.errno, wall=wall(), can_heal=can_heal)
        self._forget(process)
        self._post(process.unit, Exited(process.attempt, exit_, monotonic(), chance()))

    def _drop(self, process: Process) -> None:
        """It was to be stopped before it was even started."""
        if process in self._queue:
            self._queue.remove(process)
        exit_ = Exit("stopped before it was started", code=0, wall=wall())
        self._forget(process)
        self._post(process.unit, Exited(process.attempt, exit_, monotonic(), chance()))

    # Exits.

    def _on_exits(self) -> None:
        ended: dict[int, Process] = {}
        for pidfd, _ in self._exits.poll(0):
            process = self._by_pidfd.pop(pidfd)
            self._exits.unregister(pidfd)
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
                reap(process.escaped.pop(pidfd))
            os.close(pidfd)
        self._settle_all(dict.fromkeys(ended.values()))

    def _settle_all(self, processes: Iterable[Process]) -> None:
        """Some part of each has ended. What cannot be seen now (no descriptors are left) is looked at again."""
        waiting = deque(processes)
        if self._exits.closed:
            return
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
        if not group_exists(process.pid):
            return False
        self._watch_all(process, tree.members(process.pid, process.unit))
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
        self._swept = False

    def _sweep_now(self) -> None:
        self._sweep_planned = False
        self._settle_all(())

    def _sweep(self) -> None:
        """Reap what has ended, and watch what became our child because its parent ended."""
        orphans = [pid for pid in tree.children(os.getpid()) if pid not in self._leaders]
        if not orphans:
            return
        watched = {pid for process in self._by_pidfd.values() for pid in process.escaped.values()}
        for pid in orphans:
            if reap(pid):
                self._strangers.discard(pid)
            elif pid not in watched and pid not in self._strangers:
                self._adopt(pid)

    def _adopt(self, pid: int) -> None:
        unit = tree.unit_of(pid)
        process = self._by_unit.get(unit) if unit is not None else self._by_group(pid)
        if process is not None and process.pid:
            self._watch_all(process, [pid])
            return
        log.warning("process %d was left to unitd by a parent that ended; it belongs to no unit", pid)
        self._strangers.add(pid)

    def _by_group(self, pid: int) -> Process | None:
        """For a process that cleared its environment: it may have stayed in its unit's group or session."""
        place = tree.stat(pid)
        if place is None:
            return None
        return next((item for item in self._by_unit.values() if item.pid in (place.pgrp, place.session)), None)

    def _watch_outside(self, process: Process) -> None:
        """Watch what is below the leader and left its group: that does not get what the group gets."""
        if not process.leader_reaped:
            outside = [pid for pid in tree.descendants(process.pid) if group_of(pid) != process.pid]
            self._watch_all(process, outside)

    def _watch_all(self, process: Process, pids: Sequence[int]) -> None:
        watched = set(process.escaped.values())
        for pid in pids:
            if pid in watched or pid == process.pid:
                continue
            try:
                pidfd = os.pidfd_open(pid)
            except OSError as error:
                if not isinstance(error, ProcessLookupError):
                    log.warning("%s: cannot watch process %d: %s", process.unit, pid, error)
                continue
            process.escaped[pidfd] = pid
            self._by_pidfd[pidfd] = process
            self._exits.register(pidfd, select.EPOLLIN)
            if process.killed:
                process.send(pidfd, signal.SIGKILL)
