"""What a registry holds: entries under service + instance, in one form for every backend.

Pure values. Checked when they are made, so an `Entry` that exists is one that every backend can store.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from .errors import RegistryRejected

SCHEMA = 1
STATUSES = ("up", "warming", "draining")

_MAX_TEXT_BYTES = 255
_MAX_METADATA = 64  # pairs; this and the two sizes are what the narrowest registry (Consul) can store
_MAX_METADATA_KEY, _MAX_METADATA_VALUE = 128, 512
_MAX_WARMUP_SECONDS = 7 * 86400
_TEXTS = ("service", "instance", "node", "unit", "address")
_OPTIONAL_TEXTS = ("version", "zone")
_INTEGERS = {
    "port": (1, 65535),
    "generation": (0, 2**53 - 1),
    "weight": (0, 65535),
    "full_weight": (0, 65535),
}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")


@dataclass(frozen=True, slots=True)
class LeaseKey:
    """Names one registration: the entry of `service` and `instance` in exactly this generation.

    Unchecked: a key that no entry can have is simply not found.
    """

    service: str
    instance: str
    generation: int

    def __str__(self) -> str:
        return f"{self.instance} of {self.service} (generation {self.generation})"

    def to_json(self) -> dict[str, object]:
        """The key as plain values."""
        return {"service": self.service, "instance": self.instance, "generation": self.generation}

    @classmethod
    def from_json(cls, value: object) -> LeaseKey:
        """The key in a JSON object; other members are ignored. Raises RegistryRejected (`bad_entry`)."""
        if not isinstance(value, Mapping):
            raise _bad("", "a lease must be a JSON object")
        for name in ("service", "instance"):
            _check_text(name, value.get(name))
        _check_integer("generation", value.get("generation"))
        return cls(value["service"], value["instance"], value["generation"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One instance of a service, as the registry knows it. Raises RegistryRejected (`bad_entry`) when made wrong.

    `service` has no slash; `instance` may have some (`<node>/<unit>`), with no empty, `.` or `..` part between them.
    `weight` is the share of traffic now, `full_weight` the one after warm-up. `started_at` is ISO 8601 in UTC,
    such as `2026-11-23T06:29:10.123Z`. `metadata` is dict[str, str].
    """

    service: str
    instance: str
    node: str
    unit: str
    address: str
    port: int
    generation: int  # grows with each life of the instance; an older one never overwrites a newer one
    status: str = "up"
    weight: int = 100
    full_weight: int = 100
    started_at: str
    warmup_seconds: float = 0  # how long the way to full weight takes
    version: str | None = None
    zone: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in _TEXTS:
            _check_text(name, getattr(self, name))
        for name in _OPTIONAL_TEXTS:
            if getattr(self, name) is not None:
                _check_text(name, getattr(self, name))
        for name in _INTEGERS:
            _check_integer(name, getattr(self, name))
        _check_status_and_times(self)
        _check_metadata(self.metadata)
        object.__setattr__(self, "metadata", dict(self.metadata))  # the caller's own may change later

    @property
    def key(self) -> LeaseKey:
        """The name of this registration."""
        return LeaseKey(self.service, self.instance, self.generation)

    def to_json(self) -> dict[str, object]:
        """The value that every backend stores, as plain values; absent is null."""
        value: dict[str, object] = {"schema": SCHEMA}
        value.update((name, getattr(self, name)) for name in _FIELDS)
        value["metadata"] = dict(self.metadata)
        return value

    @classmethod
    def from_json(cls, value: object) -> Entry:
        """The entry in a JSON object; unknown members are ignored. Raises RegistryRejected (`bad_entry`)."""
        if not isinstance(value, Mapping):
            raise _bad("", "it must be a JSON object")
        schema = value.get("schema")
        if type(schema) is not int or schema != SCHEMA:
            raise _bad("schema", f"must be {SCHEMA}, not {_shown(schema)}")
        known = {name: value[name] for name in _FIELDS if value.get(name) is not None}
        for name in _REQUIRED:
            if name not in known:
                raise _bad(name, "is missing")
        return cls(**known)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All entries of one service (None: of all services) at one revision, sorted by service and instance.

    Revisions grow within one `epoch`, which is one life of the registry; across epochs they cannot be compared.
    """

    revision: int
    epoch: str
    service: str | None
    entries: tuple[Entry, ...]

    def to_json(self) -> dict[str, object]:
        """The snapshot as plain values."""
        entries = [entry.to_json() for entry in self.entries]
        return {"epoch": self.epoch, "revision": self.revision, "service": self.service, "entries": entries}

    @classmethod
    def from_json(cls, value: object) -> Snapshot:
        """The snapshot in a JSON object. Raises RegistryRejected (`bad_entry`)."""
        if not isinstance(value, Mapping):
            raise _bad("", "a snapshot must be a JSON object")
        entries, service = value.get("entries"), value.get("service")
        _check_integer("revision", value.get("revision"), 0, 2**63)
        _check_text("epoch", value.get("epoch"))
        if service is not None:
            _check_text("service", service)
        if not isinstance(entries, list):
            raise _bad("entries", "must be a list")
        return cls(value["revision"], value["epoch"], service, tuple(map(Entry.from_json, entries)))


@dataclass(frozen=True, slots=True)
class Grant:
    """What a registry answers to a registration: the ttl it really keeps, and the revision after it."""

    ttl_seconds: float
    revision: int


_FIELDS = tuple(item.name for item in fields(Entry))
_REQUIRED = (*_TEXTS, *_INTEGERS, "status", "started_at")


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise _bad(name, f"must be a string, not {_shown(value)}")
    if not value or not value.isprintable():  # not printable: control characters and lone surrogates too
        raise _bad(name, f"must be printable and not empty, not {_shown(value)}")
    if len(value.encode()) > _MAX_TEXT_BYTES:
        raise _bad(name, f"is longer than {_MAX_TEXT_BYTES} bytes")
    if name == "service" and ("/" in value or value in (".", "..")):
        raise _bad(name, f"must have no slash and be no path, not {_shown(value)}")
    if name == "instance" and not {"", ".", ".."}.isdisjoint(value.split("/")):
        raise _bad(name, f"must have no empty, '.' or '..' part between slashes, not {_shown(value)}")


def _check_integer(name: str, value: object, low: int | None = None, high: int | None = None) -> None:
    if low is None or high is None:
        low, high = _INTEGERS[name]
    if type(value) is not int or not low <= value <= high:  # bool is an int, but not here
        raise _bad(name, f"must be an integer from {low} to {high}, not {_shown(value)}")


def _check_status_and_times(entry: Entry) -> None:
    if entry.status not in STATUSES:
        raise _bad("status", f"must be one of {', '.join(STATUSES)}, not {_shown(entry.status)}")
    if not isinstance(entry.started_at, str) or not _TIME.fullmatch(entry.started_at):
        raise _bad("started_at", f"must be like 2026-11-23T06:29:10.123Z, not {_shown(entry.started_at)}")
    seconds = entry.warmup_seconds
    if type(seconds) not in (int, float) or not 0 <= seconds <= _MAX_WARMUP_SECONDS or not math.isfinite(seconds):
        raise _bad("warmup_seconds", f"must be a number from 0 to {_MAX_WARMUP_SECONDS}, not {_shown(seconds)}")


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, Mapping):
        raise _bad("metadata", f"must be a JSON object, not {_shown(metadata)}")
    if len(metadata) > _MAX_METADATA:
        raise _bad("metadata", f"has more than {_MAX_METADATA} pairs")
    for key, value in metadata.items():
        if not isinstance(key, str) or not key.isprintable() or not 0 < len(key) <= _MAX_METADATA_KEY:
            raise _bad("metadata", f"must have printable keys of 1 to {_MAX_METADATA_KEY} characters")
        if not isinstance(value, str) or len(value) > _MAX_METADATA_VALUE or not _encodes(value):
            raise _bad(f"metadata.{key}", f"must be a string of at most {_MAX_METADATA_VALUE} characters")


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can spell
        return False
    return True


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "..."


def _bad(key: str, reason: str) -> RegistryRejected:
    blamed = f"{key!r} {reason}" if key else reason
    return RegistryRejected(f"cannot use the entry: {blamed}", code="bad_entry", key=key)
