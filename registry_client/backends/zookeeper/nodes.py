"""How entries are laid out in ZooKeeper: paths, values, access rights. Nothing here connects.

`/<prefix>/<service>/<instance>`, the last two percent-encoded; the instance's node is ephemeral and holds the entry's
JSON and, in it, `ttl_seconds`. Services are container nodes, so the server removes one that has been empty for a while.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from kazoo.protocol.serialization import Create2, Delete, SetData, Transaction  # type: ignore[import-untyped]
from kazoo.security import CREATOR_ALL_ACL, OPEN_ACL_UNSAFE, READ_ACL_UNSAFE  # type: ignore[import-untyped]

from ...errors import RegistryRejected
from ...model import Entry
from .client import CreateContainer

EPHEMERAL, CONTAINER = 1, 4  # create modes of ZooKeeper
_MANY_VERSIONS = 20
_MAX_WARNED = 1000

_log = logging.getLogger("registry_client")


@dataclass(frozen=True, slots=True)
class Held:
    """What a node holds: an entry with its ttl, or something that is none (`entry` None)."""

    data: bytes
    version: int
    owner: int  # session id; 0: not ephemeral
    entry: Entry | None
    ttl_seconds: float | None

    @property
    def generation(self) -> int:
        """Older than any that an entry can have, if it is none."""
        return -1 if self.entry is None else self.entry.generation


class Layout:
    """Paths below one prefix, and what nodes are made with."""

    def __init__(self, prefix: str, *, owned: bool) -> None:
        """`owned`: only the user that made a node may change it, everybody may read it. Else everybody may do all."""
        self.root = "/" + prefix
        self.rights = [*CREATOR_ALL_ACL, *READ_ACL_UNSAFE] if owned else OPEN_ACL_UNSAFE
        self._warned: set[str] = set()

    def service(self, service: str) -> str:
        """The path of a service's node. Raises UnicodeEncodeError for what no entry can be called."""
        return f"{self.root}/{escape(service)}"

    def entry(self, service: str, instance: str) -> str:
        """The path of an entry's node; see `service`."""
        return f"{self.root}/{escape(service)}/{escape(instance)}"

    def parents(self, service: str) -> list[Any]:
        """What makes the nodes above an entry, in order; those that are there answer that they exist."""
        steps = self.root.split("/")[1:]
        above = ["/" + "/".join(steps[: length + 1]) for length in range(len(steps))]
        roots = [Create2(path, b"", self.rights, 0) for path in above]
        return [*roots, CreateContainer(self.service(service), b"", self.rights, CONTAINER)]

    def root_nodes(self) -> list[Any]:
        """What makes the root alone."""
        return self.parents("-")[:-1]

    def creation(self, path: str, data: bytes) -> Any:
        """The request that registers."""
        return Create2(path, data, self.rights, EPHEMERAL)

    def replacement(self, path: str, data: bytes, version: int) -> Any:
        """The request that makes another session's node ours, all at once or not at all.

        The new node gets another version than the old one has, or will have soon: whoever means to delete the old
        one by its version does not hit the new one.
        """
        further = version + 1 if version < _MANY_VERSIONS else 0
        sets = [SetData(path, data, number) for number in range(further)]
        creation = Create2(path, data, self.rights, EPHEMERAL)
        return Transaction([Delete(path, version), _InTransaction(*creation), *sets])

    def read(self, path: str, data: bytes | None, stat: Any) -> Held:
        """What a node holds; rubbish is logged once."""
        entry, ttl_seconds = None, None
        try:
            value = json.loads(data or b"")
            entry = Entry.from_json(value)
            ttl_seconds = _positive(value.get("ttl_seconds"))
            if self.entry(entry.service, entry.instance) != path:
                raise ValueError(f"it is the entry of {entry.instance} of {entry.service}")
        except (RegistryRejected, ValueError, RecursionError) as error:
            entry = None
            self.skip(path, str(error))
        return Held(data or b"", stat.version, stat.ephemeralOwner, entry, ttl_seconds)

    def skip(self, path: str, reason: str) -> None:
        """Log, once, that a node is left out."""
        if path not in self._warned and len(self._warned) < _MAX_WARNED:
            self._warned.add(path)
            _log.warning("skipping %s in ZooKeeper: it is no entry (%s)", path, reason)


class _InTransaction(Create2):  # type: ignore[misc]
    """The older of the two ways to create: the one whose answer kazoo can read inside of a transaction."""

    type = 1


def value(entry: Entry, ttl_seconds: float) -> bytes:
    """What is stored for an entry."""
    known = {**entry.to_json(), "ttl_seconds": ttl_seconds}
    return json.dumps(known, ensure_ascii=False, separators=(",", ":")).encode()


def escape(name: str) -> str:
    """A name as one step of a path. Raises UnicodeEncodeError."""
    step = quote(name, safe=":@+,=")
    return step.replace(".", "%2E") if step in (".", "..") else step


def _positive(number: object) -> float | None:
    return float(number) if isinstance(number, int | float) and 0 < number < 1e9 else None
