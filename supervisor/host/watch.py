"""Tells when configuration files have changed (watchdog, so inotify), once things have calmed down."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

CALM_SECONDS = 0.5  # an editor writes, renames and touches; a deployment writes several files


class FileWatcher(FileSystemEventHandler):
    """Calls back in the loop after any of the folders of these files has changed."""

    def __init__(self, files: Iterable[str], changed: Callable[[], None]) -> None:
        self._loop, self._changed = asyncio.get_running_loop(), changed
        self._timer: asyncio.TimerHandle | None = None
        self._folders: set[str] = set()
        self._observer = Observer()
        self._observer.daemon = True
        self.watch(files)
        self._observer.start()

    def watch(self, files: Iterable[str]) -> None:
        """Watch the folders of these files from now on, besides those watched already."""
        for folder in {os.path.dirname(os.path.abspath(file)) for file in files} - self._folders:
            self._folders.add(folder)
            self._observer.schedule(self, folder)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """In watchdog's thread: something in a folder was read or changed."""
        names = (os.fsdecode(event.src_path), os.fsdecode(event.dest_path))
        if event.event_type in ("opened", "closed_no_write") or not any(name.endswith(".toml") for name in names):
            return
        self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(CALM_SECONDS, self._changed)

    def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
        self._observer.stop()
        self._observer.join(2)
