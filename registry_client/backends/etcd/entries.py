"""How entries lie in etcd, and requests about them as values. Pure.

    /<prefix>/epoch                            the name of this life of the registry, made by who misses it first
    /<prefix>/entries/<service>/<instance>     the entry as JSON, with a lease of its own

An entry never changes its lease while its generation stays, unless another ttl is asked for; a lease is never of two
generations. So who finds the lease that it knows at a key knows the generation, too, without reading the value.
"""

from __future__ import annotations

import json
import logging
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import RegistryRejected
from ...model import Entry

# The gateway reads the objects of a keepalive until it begins to answer; what it has not read then is dropped (Go's
# HTTP/1 server closes the body of a request with the first byte of the answer). It reads into a buffer that grows as
# the first object does: 512, 1536, 3584, ... bytes. White space in that object so makes room for all others.
_FIRST_READ_BYTES, _ROOM_BYTES = 512, 16 * 1024

_MAX_COMPLAINTS = 100

_log = logging.getLogger("registry_client")
_complained: set[str] = set()  # keys whose values were reported as unreadable


@dataclass(frozen=True, slots=True)
class Held:
    """What is at a key. `entry` is None when that is no entry; `lease` 0 when it would stay there for ever."""

    entry: Entry | None
    lease: int
    revision: int  # of its last change

    @property
    def generation(self) -> int:
        """Any generation is newer than what is no entry."""
        return -1 if self.entry is None else self.entry.generation


class Layout:
    """The keys below a prefix."""

    def __init__(self, prefix: str) -> None:
        root = f"/{prefix.strip('/')}/"
        self.epoch = base64(f"{root}epoch".encode())
        self._entries = f"{root}entries/"

    def key(self, service: str, instance: str) -> str:
        """The key of an entry, in base64."""
        return base64(_utf8(f"{self._entries}{_part(service)}/{instance}"))

    def span(self, service: str | None) -> dict[str, object]:
        """`key` and `range_end` of all entries of a service, or of all services."""
        first = _utf8(self._entries if service is None else f"{self._entries}{_part(service)}/")
        return {"key": base64(first), "range_end": base64(first[:-1] + bytes([first[-1] + 1]))}

    def held(self, pair: Mapping[str, Any]) -> Held:
        """What a key-value pair of an answer holds; one that is no entry is reported once."""
        lease, revision = int(pair.get("lease", 0)), int(pair["mod_revision"])
        try:
            entry = Entry.from_json(json.loads(b64decode(pair.get("value", ""))))
            if self.key(entry.service, entry.instance) != pair["key"]:
                raise ValueError("it is of another key")
        except (RegistryRejected, ValueError, RecursionError, TypeError) as error:
            _complain(b64decode(pair["key"]).decode(errors="replace"), error)
            entry = None
        return Held(entry, lease, revision)


def base64(raw: bytes) -> str:
    """As the gateway wants bytes."""
    return b64encode(raw).decode()


def value_of(entry: Entry) -> str:
    """What is stored of an entry, in base64."""
    return base64(json.dumps(entry.to_json(), ensure_ascii=False, separators=(",", ":")).encode())


def unchanged(key: str, held: Held | None) -> dict[str, object]:
    """The comparison that a transaction begins with: nobody has changed the key since it was read."""
    if held is None:
        return {"key": key, "target": "VERSION", "result": "EQUAL", "version": "0"}
    return {"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": str(held.revision)}


def pairs_in(response: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The key-value pairs of a range, alone or in a transaction."""
    pairs = response.get("response_range", response).get("kvs", [])
    if not isinstance(pairs, list):
        raise TypeError("kvs is no list")
    return pairs


def revision_in(answer: Mapping[str, Any]) -> int:
    """The revision of the whole store that an answer shows."""
    return int(answer["header"]["revision"])


def keepalives(leases: Iterable[int]) -> bytes:
    """The body that asks to renew many leases."""
    first, *others = (f'{{"ID":{lease}}}' for lease in leases)
    rest, room = "".join(others), _FIRST_READ_BYTES
    if len(first) + len(rest) > room:
        room = _ROOM_BYTES
        while room < 2 * len(first) + len(rest):
            room *= 2
    return f"{first[:-1]}{' ' * (room - _FIRST_READ_BYTES)}}}{rest}".encode()


def _part(service: str) -> str:
    """No service has a slash; one that is asked for must not name another's instances."""
    return service.replace("/", "\0")


def _utf8(text: str) -> bytes:
    return text.encode(errors="surrogatepass")  # which no entry has, but a question may


def _complain(key: str, error: Exception) -> None:
    if key not in _complained and len(_complained) < _MAX_COMPLAINTS:
        _complained.add(key)
        _log.warning("ignoring the key %s in etcd, which is no entry: %s", key, error)
