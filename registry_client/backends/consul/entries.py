"""How an entry lies in Consul: names, what is sent to the agent, what is read from checks. Pure.

One registration is one Consul service with an id of its own, `<prefix>/<service>/<instance>@<generation>`, so no
generation can overwrite another. It has these checks:

- the lease, `service:<id>`, a TTL check: the entry is there as long as it is passing. Its notes hold the entry.
- `entry:<id>`, only after an update: its notes hold the newer entry. Registering it does not touch the lease, and
  the agent takes no check for a service that it does not know, so an update never brings anything back.
- Consul's maintenance check while the entry is draining or has no weight: other consumers do not see it then.

Everything stands in checks, so one query (and one index) shows all services. Consul's own fields (address, port,
weights, tags, meta) are filled for other consumers and never read.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from ...backend import stale_generation
from ...errors import RegistryRejected
from ...model import Entry, LeaseKey

MIN_TTL_SECONDS = 0.1  # a smaller one is over before its first renewal arrives
MIN_REAPING_SECONDS = 60.0  # Consul raises anything shorter to this

_LASTING = "87600h"  # of checks that only carry something
_REASON = "unitd: "  # how our maintenance differs from an operator's
_MAX_META, _MAX_META_VALUE = 64, 512
_META_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
_UNSAFE = re.compile(r"[^a-z0-9_.:/-]")
_MAX_UNREADABLE = 1000

_log = logging.getLogger("registry_client")


def safe(name: str) -> str:
    """The name in characters that mean nothing to urls and filters; different names stay different.

    Without capitals: the servers take ids that differ in nothing else for the same.
    """
    return _UNSAFE.sub(lambda match: "".join(f"~{byte:02x}" for byte in _bytes(match[0])), name)


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def service_id(prefix: str, key: LeaseKey) -> str:
    """The id of the Consul service that holds this generation."""
    return f"{prefix}/{safe(key.service)}/{safe(key.instance)}@{key.generation}"


def id_pattern(prefix: str, service: str, instance: str) -> str:
    """A regular expression, without quotes or backslashes, for the ids of all generations of an instance."""
    name = f"{prefix}/{safe(service)}/{safe(instance)}"
    return f"^{name.replace('.', '[.]')}@[0-9]+$"


def lease_id(identifier: str) -> str:
    """The id of the TTL check of a service id."""
    return f"service:{identifier}"


def is_out(entry: Entry) -> bool:
    """Whether it is to get no traffic. Consul has no weight 0, so maintenance says so."""
    return entry.status == "draining" or not entry.weight


def maintenance_path(identifier: str, entry: Entry | None) -> str:
    """Where to ask the agent to put a service into maintenance because of that entry; None: to end it."""
    path = f"/v1/agent/service/maintenance/{identifier}?"
    if entry is None:
        return path + "enable=false"
    reason = entry.status if entry.status == "draining" else "weight 0"
    return path + urlencode({"enable": "true", "reason": _REASON + reason})


def lease_check(identifier: str, entry: Entry, ttl_seconds: float, reaping_seconds: float) -> dict[str, object]:
    """The TTL check. `Status` counts only for a new one: an expired check stays so until it is passed."""
    return {
        "CheckID": lease_id(identifier),
        "Name": "unitd lease",
        "Notes": encode(entry),
        "TTL": f"{ttl_seconds:.6f}s",
        "Status": "passing",
        "DeregisterCriticalServiceAfter": f"{reaping_seconds:.3f}s",
    }


def entry_check(identifier: str, entry: Entry) -> dict[str, object]:
    """The check that carries an update.

    Without a `Status` an existing one keeps its own, and a new one is critical: sent along with a service that has
    vanished in between, it keeps that out of sight until Consul throws it away.
    """
    return {
        "CheckID": f"entry:{identifier}",
        "Name": "unitd entry",
        "Notes": encode(entry),
        "TTL": _LASTING,
        "DeregisterCriticalServiceAfter": f"{MIN_REAPING_SECONDS:.0f}s",
    }


def attached(check: Mapping[str, object], identifier: str) -> dict[str, object]:
    """A check that goes to a service which is registered already (and is called `ID` there)."""
    value = {key: item for key, item in check.items() if key != "CheckID"}
    return {**value, "ID": check["CheckID"], "ServiceID": identifier, "Status": "passing"}


def consul_service(prefix: str, identifier: str, entry: Entry, check: Mapping[str, object]) -> dict[str, object]:
    """What is registered at the agent."""
    return {
        "ID": identifier,
        "Name": entry.service,
        "Address": entry.address,
        "Port": entry.port,
        "Tags": [prefix],
        "Meta": _meta(entry),
        "Weights": {"Passing": max(entry.weight, 1), "Warning": 1},
        "Checks": [check],
    }


def _meta(entry: Entry) -> dict[str, str]:
    """Pairs for people and other consumers, as far as Consul takes them."""
    own = {"node": entry.node, "unit": entry.unit, "generation": str(entry.generation), "status": entry.status}
    own |= {"version": entry.version or "", "zone": entry.zone or "", "instance": entry.instance}
    pairs = {**entry.metadata, **{key: value for key, value in own.items() if value}}
    fitting = {
        key: value
        for key, value in pairs.items()
        if _META_KEY.fullmatch(key) and not key.startswith("consul-") and len(value.encode()) <= _MAX_META_VALUE
    }
    return dict(sorted(fitting.items(), key=lambda pair: pair[0] not in own)[:_MAX_META])


def encode(entry: Entry) -> str:
    """The entry as one line of JSON."""
    return json.dumps(entry.to_json(), ensure_ascii=False, separators=(",", ":"))


# -- reading ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Record:
    """One registration as its checks show it."""

    node: str
    identifier: str
    generation: int
    lease: Mapping[str, Any] | None = None
    update: Mapping[str, Any] | None = None
    is_out: bool = False  # in our maintenance
    is_banned: bool = False  # somebody else's check says that it must get no traffic

    @property
    def is_there(self) -> bool:
        """Whether its lease holds."""
        return self.lease is not None and self.lease["Status"] == "passing"

    def entry(self) -> Entry:
        """Its entry. Raises RegistryRejected or ValueError when it cannot be read."""
        notes = (self.update or self.lease or {}).get("Notes")
        if not isinstance(notes, str):
            raise ValueError("it has no notes")
        return Entry.from_json(json.loads(notes))


def find(held: Sequence[Record], identifier: str) -> Record | None:
    """The record with that id."""
    return next((record for record in held if record.identifier == identifier), None)


def refuse_older(verb: str, key: LeaseKey, held: Sequence[Record]) -> None:
    """Raise RegistryRejected (`stale_generation`) if a newer generation is there."""
    newest = max((record.generation for record in held if record.is_there), default=-1)
    if newest > key.generation:
        raise stale_generation(verb, key, newest)


class Reader:
    """Makes entries of checks. What it cannot read is logged once and left out."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._unreadable: set[str] = set()

    def records(self, checks: Iterable[Mapping[str, Any]]) -> list[Record]:
        """The registrations that these checks belong to, of nodes that are not failing.

        Raises TypeError, KeyError and the like when these are no checks.
        """
        records: dict[tuple[str, str], Record] = {}
        failing: set[str] = set()
        for check in checks:
            node, identifier, status = check["Node"], check["ServiceID"], check["Status"]
            if not identifier:
                if status == "critical":
                    failing.add(node)
            elif (generation := self._generation(identifier)) is not None:
                record = records.setdefault((node, identifier), Record(node, identifier, generation))
                _add(record, check)
        return [record for record in records.values() if record.node not in failing]

    def _generation(self, identifier: str) -> int | None:
        """None: it is not one of ours."""
        name, _, generation = identifier.rpartition("@")
        ours = name.startswith(f"{self._prefix}/") and generation.isascii() and generation.isdigit()
        return int(generation) if ours and len(generation) < 20 else None

    def entries(self, checks: Iterable[Mapping[str, Any]], service: str | None) -> tuple[Entry, ...]:
        """The entries that are there, sorted: of each instance the highest generation."""
        found: dict[tuple[str, str], tuple[int, int, Entry]] = {}
        for record in self.records(checks):
            if record.is_there and (entry := self._read(record)) is not None and service in (None, entry.service):
                name = (entry.service, entry.instance)
                rank = (entry.generation, _index(record))
                if name not in found or rank > found[name][:2]:
                    found[name] = (*rank, entry)
        return tuple(found[name][2] for name in sorted(found))

    def _read(self, record: Record) -> Entry | None:
        try:
            entry = record.entry()
            if service_id(self._prefix, entry.key) != record.identifier:
                raise ValueError("it is the entry of something else")
        except (RegistryRejected, ValueError, RecursionError) as error:
            if record.identifier not in self._unreadable and len(self._unreadable) < _MAX_UNREADABLE:
                self._unreadable.add(record.identifier)
                _log.warning("cannot read the Consul service %s: %s; leaving it out", record.identifier, error)
            return None
        return replace(entry, status="draining") if record.is_banned else entry


def _index(record: Record) -> int:
    index = (record.lease or {}).get("ModifyIndex")
    return index if isinstance(index, int) else 0


def _add(record: Record, check: Mapping[str, Any]) -> None:
    kind, _, identifier = check["CheckID"].partition(":")
    if identifier == record.identifier and kind == "service":
        record.lease = check
    elif identifier == record.identifier and kind == "entry":
        record.update = check
    elif check["Status"] == "critical":
        ours = kind == "_service_maintenance" and str(check.get("Notes")).startswith(_REASON)
        record.is_out, record.is_banned = record.is_out or ours, record.is_banned or not ours


def checks_of(answer: Any) -> Iterator[Mapping[str, Any]]:
    """All checks in an answer about the health of a service."""
    for item in answer:
        yield from item["Checks"]
