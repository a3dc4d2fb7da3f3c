"""Units that were given up because a file is missing or may not be executed are started again when that has changed.

Nothing is retried blindly and nothing is polled: the folder where the file should be is watched. A program that is
named without a path could appear anywhere; such a unit waits for somebody to start it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Protocol

from ..core.events import Event, StartRequested
from ..core.model import Phase, Unit, UnitSpec
from ..host.process import Post
from ..host.runner import Runner, Runners

log = logging.getLogger("unitd.heal")


class Watch(Protocol):
    """A folder that is being watched."""

    def close(self) -> None:
        """Stop watching it."""


class Healer:
    """Watches for all units that cannot heal by themselves."""

    def __init__(self, runners: Runners, post: Post, watch: Callable[[str, Callable[[], None]], Watch]) -> None:
        """`watch` calls back after something in a folder has changed."""
        self._runners, self._post, self._watch = runners, post, watch
        self._watches: dict[str, Watch] = {}  # by unit
        runners.observe(self._on_change)

    def close(self) -> None:
        """Stop watching."""
        for watch in self._watches.values():
            watch.close()
        self._watches.clear()

    def _on_change(self, runner: Runner, before: Unit, event: Event) -> None:
        if runner.unit.phase is before.phase:
            return
        self._forget(runner.spec.name)
        if runner.unit.phase is Phase.FATAL:
            self._watch_for(runner)

    def _forget(self, name: str) -> None:
        watch = self._watches.pop(name, None)
        if watch is not None:
            watch.close()

    def _watch_for(self, runner: Runner) -> None:
        """Watch the place where what the unit lacks should come, or the nearest folder above that exists."""
        name, path = runner.spec.name, _missing(runner.spec, runner.unit)
        if path is None:
            return
        folder = _nearest(os.path.dirname(path))
        try:
            self._watches[name] = self._watch(folder, lambda: self._look(name))
        except OSError as error:
            log.warning("%s: cannot watch %s: %s; start it by hand", name, folder, error.strerror)

    def _look(self, name: str) -> None:
        """Something has changed there: start the unit if it can be started now."""
        self._forget(name)
        runner = self._runners.by_name.get(name)
        if runner is None or runner.unit.phase is not Phase.FATAL:
            return
        if _is_usable(runner.spec):
            log.info("%s: what it lacked has changed; starting it again", name)
            self._post(name, StartRequested())
        else:
            self._watch_for(runner)


def _missing(spec: UnitSpec, unit: Unit) -> str | None:
    """The path that the unit lacks; None: it lacks something that is not a file, or that nobody can name."""
    exit_ = unit.last_exit
    if exit_ is None or exit_.can_heal:
        return None
    if exit_.stage == "directory":
        return spec.directory
    if exit_.stage == "exec" and "/" in spec.argv[0]:
        return os.path.join(spec.directory or "/", spec.argv[0])
    return None


def _is_usable(spec: UnitSpec) -> bool:
    if spec.directory is not None and not os.path.isdir(spec.directory):
        return False
    program = os.path.join(spec.directory or "/", spec.argv[0])
    return "/" not in spec.argv[0] or os.access(program, os.X_OK)


def _nearest(path: str) -> str:
    """The path itself if it exists, else the nearest folder above it that does."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path
