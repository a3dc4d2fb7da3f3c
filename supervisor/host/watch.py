"""Tells when files have changed (watchdog, so inotify(7)), once things have calmed down.

watchdog brings a thread and 3 MB, so this module is imported only when something is to be watched.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

CALM_SECONDS = 0.5  # an editor writes, renames and touches; a deployment writes several files

_READS = ("opened", "closed_no_write")


class Folder(FileSystemEventHandler):
    """Calls back in the loop after something in a folder has changed, once it has been calm for a moment."""

    def __init__(self, folder: str, suffix: str, changed: Callable[[], None]) -> None:
        """Only names that end in `suffix` count. Raises OSError (no such folder, no inotify watch left)."""
        self._loop, self._suffix, self._changed = asyncio.get_running_loop(), suffix, changed
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        os.stat(folder)  # watchdog says so too, but leaves a thread behind
        self._observer = Observer()
        self._observer.daemon = True
        self._observer.schedule(self, folder)
        self._observer.start()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """In watchdog's thread: something in the folder was read or changed."""
        names = (os.fsdecode(event.src_path), os.fsdecode(event.dest_path))
        if event.event_type in _READS or not any(name.endswith(self._suffix) for name in names):
            return
        try:
            self._loop.call_soon_threadsafe(self._settle)
        except RuntimeError:
            return  # the loop has ended

    def _settle(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._closed:
            self._timer = self._loop.call_later(CALM_SECONDS, self._changed)

    def close(self) -> None:
        """Stop watching."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._observer.stop()


class Folders:
    """The folders that configuration files are in."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._watched: dict[str, Folder] = {}

    def watch(self, files: Iterable[str]) -> None:
        """Watch these files' folders from now on, and no others. Raises OSError."""
        wanted = {os.path.dirname(os.path.abspath(file)) for file in files}
        for folder in set(self._watched) - wanted:
            self._watched.pop(folder).close()
        for folder in wanted - set(self._watched):
            self._watched[folder] = Folder(folder, ".toml", self._changed)

    def close(self) -> None:
        """Stop watching."""
        for folder in self._watched.values():
            folder.close()
        self._watched.clear()
