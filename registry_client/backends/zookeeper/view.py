"""The entries of a service, or of all, as ZooKeeper's watches keep them up to date. Owns no connection.

A watch of ZooKeeper fires once, and one event may stand for several changes. So an event only marks what has to be read
again, and reading arms the watch anew. Events come before any answer that was given after the change: when everything
that was marked has been read and nothing was marked meanwhile, what we hold is what the registry held at that moment.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from kazoo.exceptions import KazooException, NoAuthError, NoNodeError  # type: ignore[import-untyped]
from kazoo.protocol.serialization import Exists, GetChildren2, GetData, Sync  # type: ignore[import-untyped]

from ...model import Entry, Snapshot
from .client import Batch
from .nodes import Layout
from .session import Call

NO_EPOCH = "0"  # nothing was ever registered
CHUNK = 500  # nodes that are read within one time limit

NewCall = Callable[[], AbstractAsyncContextManager[Call]]


class _Alarm:
    """The watcher of one node. kazoo calls it in its own thread; also when the connection was lost."""

    __slots__ = ("_path", "_view")

    def __init__(self, view: View, path: str) -> None:
        self._view, self._path = view, path

    def __call__(self, event: object) -> None:
        self._view.mark(self._path)


class View:
    """What was read of one service, or of all. `refresh` brings it up to date."""

    def __init__(self, layout: Layout, service: str | None, on_mark: Callable[[], None] | None = None) -> None:
        """`on_mark` is called, in any thread, when something has to be read again; None: watch nothing."""
        self._layout, self._service, self._on_mark = layout, service, on_mark
        self._root = layout.root
        self._only = None if service is None else layout.service(service)
        self._marked: set[str] = {self._root, *(() if self._only is None else (self._only,))}
        self._children: dict[str, set[str]] = {}  # service's path -> paths of its entries
        self._zxids: dict[str, int] = {}  # path -> the last change of the node, or of its set of children
        self._entries: dict[str, Entry] = {}
        self._epoch = NO_EPOCH
        self._first_zxid = 0

    def mark(self, path: str) -> None:
        """This has to be read again. Safe in any thread."""
        self._marked.add(path)
        if self._on_mark is not None:
            self._on_mark()

    async def refresh(self, new_call: NewCall) -> Snapshot:
        """Read what is marked, until nothing is."""
        self._first_zxid = 0
        while self._marked:
            marked = self._take()
            try:
                await self._read(new_call, marked)
            except BaseException:
                self._marked |= marked
                raise
        return self._snapshot()

    def _take(self) -> set[str]:
        marked: set[str] = set()
        while self._marked:  # never a copy: another thread may add at any moment
            marked.add(self._marked.pop())
        return marked

    async def _read(self, new_call: NewCall, marked: set[str]) -> None:
        """Top down, for what is gone above need not be read below."""
        if self._root in marked:
            async with new_call() as call:
                marked |= self._take_root(call, await call.ask(*self._root_requests()))
        services = [path for path in marked if self._is_service(path)]
        for start in range(0, len(services), CHUNK):
            async with new_call() as call:
                marked |= await self._read_services(call, services[start : start + CHUNK])
        entries = [path for path in marked if path in self._children.get(path.rpartition("/")[0], ())]
        for start in range(0, len(entries), CHUNK):
            async with new_call() as call:
                await self._read_entries(call, entries[start : start + CHUNK])

    def _alarm(self, path: str) -> _Alarm | None:
        return None if self._on_mark is None else _Alarm(self, path)

    # -- the root ------------------------------------------------------------------------------------------------

    def _root_requests(self) -> list[Any]:
        requests = [Sync(self._root), Exists(self._root, self._alarm(self._root))]
        if self._service is None:
            requests.append(GetChildren2(self._root, self._alarm(self._root)))
        return requests

    def _take_root(self, call: Call, batch: Batch) -> set[str]:
        """Answers the services that have to be read now."""
        self._first_zxid = self._first_zxid or batch.first_zxid
        stat = _good(call, batch.results[1])
        self._epoch = NO_EPOCH if stat is None else f"{stat.czxid:x}-{stat.ctime:x}"
        self._zxids[self._root] = 0 if stat is None else stat.pzxid
        if self._only is not None:
            return set()
        answer = _good(call, batch.results[2])
        found = {f"{self._root}/{name}" for name in answer[0]} if answer else set()
        for path in set(self._children) - found:
            self._drop_service(path)
        new = found - set(self._children)
        self._children.update((path, set()) for path in new)
        return new

    def _drop_service(self, path: str) -> None:
        for entry in self._children.pop(path, ()):
            self._drop_entry(entry)
        self._zxids.pop(path, None)

    def _is_service(self, path: str) -> bool:
        return path == self._only or path in self._children

    # -- services ------------------------------------------------------------------------------------------------

    async def _read_services(self, call: Call, paths: list[str]) -> set[str]:
        """Answers the entries that have to be read now."""
        requests: list[Any] = [Exists(self._root, None)]
        for path in paths:
            requests += [Exists(path, self._alarm(path)), GetChildren2(path, self._alarm(path))]
        batch = await call.ask(*requests)
        self._first_zxid = self._first_zxid or batch.first_zxid
        root, unread = _good(call, batch.results[0]), set()
        self._zxids[self._root] = 0 if root is None else root.pzxid
        for path, answer in zip(paths, batch.results[2::2], strict=True):
            unread |= self._take_service(path, _good(call, answer))
        return unread

    def _take_service(self, path: str, answer: Any) -> set[str]:
        if answer is None:
            self._drop_service(path)
            return set()
        names, stat = answer
        found, known = {f"{path}/{name}" for name in names}, self._children.get(path, set())
        for gone in known - found:
            self._drop_entry(gone)
        self._children[path], self._zxids[path] = found, stat.pzxid
        return found - known

    # -- entries -------------------------------------------------------------------------------------------------

    async def _read_entries(self, call: Call, paths: list[str]) -> None:
        batch = await call.ask(*(GetData(path, self._alarm(path)) for path in paths))
        for path, answer in zip(paths, batch.results, strict=True):
            denied = isinstance(answer, NoAuthError)  # somebody else's: no reason to show nothing of the others
            found = None if denied else _good(call, answer)
            if denied:
                self._layout.skip(path, "its owner does not let us read it")
            if found is None:
                self._drop_entry(path)  # its service's watch tells, too
                continue
            data, stat = found
            self._zxids[path] = stat.mzxid
            held = self._layout.read(path, data, stat)
            if held.entry is None:
                self._entries.pop(path, None)
            else:
                self._entries[path] = held.entry

    def _drop_entry(self, path: str) -> None:
        self._entries.pop(path, None)
        self._zxids.pop(path, None)

    # -- the result ----------------------------------------------------------------------------------------------

    def _snapshot(self) -> Snapshot:
        entries = tuple(sorted(self._entries.values(), key=lambda entry: (entry.service, entry.instance)))
        return Snapshot(self._revision(), self._epoch, self._service, entries)

    def _revision(self) -> int:
        """The last change of what is shown. Without watches, not later than what was certainly seen of everything."""
        zxids = dict(self._zxids)
        if self._only is not None and self._only in zxids:
            del zxids[self._root]  # other services come and go there
        last = max(zxids.values())
        return last if self._on_mark is not None or not self._first_zxid else min(last, self._first_zxid)


def _good(call: Call, answer: Any) -> Any:
    """The answer; None for a node that is not there."""
    if isinstance(answer, NoNodeError):
        return None
    if isinstance(answer, KazooException):
        raise call.failure(answer)
    if isinstance(answer, Exception):
        raise call.unavailable(f"its answer makes no sense: {answer}") from answer
    return answer
