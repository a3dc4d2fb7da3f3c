"""What gateways say in the registry: whom they send to, so that nobody is stopped whom one of them still sends to.

A gateway that follows the registry has an entry of its own for each service that it serves, with a lease of its own:
service `unit-gateway`, instance `<gateway>/<service>`. Its metadata hold the instances to which it may still send new
requests, each as a short token of its id and generation, and how many requests are open at those that it sends nothing
new. Pure: metadata in, values out, and back.

A token that is not there proves that the instance is not sent to; one that is there may, very rarely, be another's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from .model import Entry

GATEWAY_SERVICE = "unit-gateway"


def _find_sha256() -> Any:
    """Python's own, for hashlib maps OpenSSL into every daemon that reads or guards entries of gateways."""
    for module in ("_sha2", "_sha256", "hashlib"):  # since Python 3.12, before it, and where it was built without
        try:
            return import_module(module).sha256
        except (ImportError, AttributeError):
            continue
    raise ImportError("this Python has no SHA-256")


_SHA256 = _find_sha256()
_LINE = 500  # characters of one metadata value
_MOST_LINES = 55  # of the pairs that an entry may have


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What one gateway says of one service.

    `serving`: tokens of whom it may send new requests to. `busy`: token -> requests still open there, of those that
    get nothing new. `counts`: it counts them, so that nothing is open where it is neither busy nor sent to.
    """

    gateway: str
    service: str
    kind: str
    revision: int
    serving: frozenset[str]
    busy: Mapping[str, int] = field(default_factory=dict, hash=False)
    counts: bool = False

    def sends_to(self, instance: str, generation: int) -> bool:
        """Whether it may still send new requests there."""
        return token(instance, generation) in self.serving

    def in_flight(self, instance: str, generation: int) -> int | None:
        """The requests that it has open there; None: it cannot say, or sends more."""
        name = token(instance, generation)
        if not self.counts or name in self.serving:
            return None
        return self.busy.get(name, 0)


def token(instance: str, generation: int) -> str:
    """The short name of one life of an instance: eight hexadecimal digits."""
    return str(_SHA256(f"{instance}\n{generation}".encode()).hexdigest()[:8])


def to_metadata(acknowledgement: Acknowledgement) -> dict[str, str] | None:
    """The metadata of the gateway's entry; None: there are too many servers for one."""
    busy = (f"{name}={number}" for name, number in acknowledgement.busy.items() if number)
    serving, open_ = _lines("serving", acknowledgement.serving), _lines("busy", busy)
    if len(serving) + len(open_) > _MOST_LINES:
        return None
    about = {
        "service": acknowledgement.service,
        "kind": acknowledgement.kind,
        "revision": str(acknowledgement.revision),
    }
    if acknowledgement.counts:
        about["counts"] = "yes"
    return {**about, **serving, **open_}


def from_entry(entry: Entry) -> Acknowledgement | None:
    """What the gateway says; None: the entry is not of this form."""
    about = entry.metadata
    service = about.get("service", "")
    gateway = entry.instance.removesuffix(f"/{service}")
    if entry.service != GATEWAY_SERVICE or not service or gateway == entry.instance:
        return None
    try:
        busy = {name: int(number) for name, _, number in (word.partition("=") for word in _words(entry, "busy"))}
        revision = int(about.get("revision", ""))
    except ValueError:
        return None
    serving = frozenset(_words(entry, "serving"))
    return Acknowledgement(gateway, service, about.get("kind", ""), revision, serving, busy, "counts" in about)


def _lines(name: str, words: Iterable[str]) -> dict[str, str]:
    lines: list[str] = []
    for word in sorted(words):
        if lines and len(lines[-1]) + 1 + len(word) <= _LINE:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return {f"{name}.{number}": line for number, line in enumerate(lines)}


def _words(entry: Entry, name: str) -> list[str]:
    return [word for key, line in entry.metadata.items() if key.partition(".")[0] == name for word in line.split()]
