"""What the configuration says of one HAProxy: the table [haproxy.NAME]."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from supervisor.config import network, values
from supervisor.config.document import Document
from supervisor.config.fill import absolute
from supervisor.config.schema import Key
from supervisor.config.table import Problems, read_table
from supervisor.config.values import Invalid, describe

SERVICE = "{service}"
MASK = "0"  # what stands for a service's name where only the form of the whole is looked at


class DrainBy(StrEnum):
    """The state that a server gets which is to be sent nothing new (HAProxy's management guide, "set server")."""

    DRAIN = "drain"  # it is still sent to where a cookie or a stick table points to it
    MAINT = "maint"  # it is sent nothing at all


@dataclass(frozen=True, slots=True, kw_only=True)
class HaproxySpec:
    """One HAProxy. Paths are absolute; `backend`, `slots` and `state_file` hold {service} where its name belongs."""

    name: str
    socket: str | tuple[str, int] = ""  # a path, or (address, port)
    services: tuple[str, ...] = ("*",)
    backend: str = SERVICE
    slots: str = SERVICE + "-"  # how the names of servers begin that are ours; a number follows
    add_servers: bool = True  # where no slot is free
    server_options: str = "check inter 1s fall 2 rise 1 pool-purge-delay 2s"  # of those that are added
    state_file: str | None = None
    drain_by: DrainBy = DrainBy.DRAIN
    error_percent: float = 50.0  # of answers with 5xx that count as failures
    look_seconds: float = 1.0
    timeout_seconds: float = 2.0


def _socket(value: Any) -> str | tuple[str, int]:
    """The path of a unix socket, or address and port."""
    text = values.text(value)
    if not text.startswith(("/", ".")) and re.search(r":[0-9]+\Z", text):
        return network.listen(text)
    return text


def _name(value: Any) -> str:
    """A name of HAProxy's, or its beginning, with {service} in it or not."""
    text = values.text(value)
    if not re.fullmatch(r"[A-Za-z0-9_.:-]+", text.replace(SERVICE, MASK), re.ASCII):
        raise Invalid(f'must be letters, digits, "_", ".", ":", "-" and {SERVICE}, not {describe(value)}')
    return text


def _options(value: Any) -> str:
    """Words of a server line; HAProxy judges them."""
    text = values.any_text(value)
    if not text.isprintable() or ";" in text:
        raise Invalid(f'must be one line without ";", such as "check inter 1s", not {describe(value)}')
    return text


def _with_service(convert: values.Converter) -> values.Converter:
    """What several services would share must tell them apart."""

    def one_each(value: Any) -> str:
        text = str(convert(value))
        if "{" in text.replace(SERVICE, "") or "}" in text.replace(SERVICE, ""):
            raise Invalid(f"may hold {SERVICE}, and no other braces, not {describe(value)}")
        return text

    return one_each


KEYS = {
    "socket": Key("path or address:port", "required", _socket, "socket"),
    "services": Key("list of patterns", '["*"]', values.list_of(values.text, '["cart*"]'), "services"),
    "backend": Key("name", '"{service}"', _name, "backend"),
    "slots": Key("beginning of names", '"{service}-"', _name, "slots"),
    "add_servers": Key("boolean", "true", values.boolean, "add_servers"),
    "server_options": Key("string", f'"{HaproxySpec(name="").server_options}"', _options, "server_options"),
    "state_file": Key("path", "(none)", _with_service(values.text), "state_file"),
    "drain_by": Key(
        " or ".join(f'"{word}"' for word in DrainBy),
        '"drain"',
        values.choice({word.value: word for word in DrainBy}),
        "drain_by",
    ),
    "error_percent": Key("number", "50", values.number(0, 100), "error_percent"),
    "look_seconds": Key("duration", "1", values.duration(0.05, 60.0), "look_seconds"),
    "timeout_seconds": Key("duration", "2", values.duration(0.05, 60.0), "timeout_seconds"),
}
HINTS = {
    "url": "write socket: the path after `stats socket` in haproxy.cfg",
    "service": "it is called services",
    "template": "write slots: how the names begin that server-template makes",
    "weight": "weights come from the registry",
}


def read(document: Document, name: str, problems: Problems) -> HaproxySpec:
    """The table [haproxy.NAME]; what is wrong with it is added to `problems`."""
    keys = ("haproxy", name)
    given = read_table(document, keys, KEYS, problems, hints=HINTS)
    if "socket" not in given and not any(error.key.endswith(".socket") for error in problems.errors):
        problems.add(document.error((*keys, "socket"), "missing: the path after `stats socket` in haproxy.cfg"))
    if isinstance(given.get("socket"), str):
        given["socket"] = _unix(document, (*keys, "socket"), given["socket"], problems)
    if "state_file" in given:
        given["state_file"] = absolute(document, given["state_file"])
    _tell_apart(document, keys, given, problems)
    return HaproxySpec(name=name, **given)


def _unix(document: Document, keys: tuple[str, ...], path: str, problems: Problems) -> str:
    try:
        return values.socket_path(absolute(document, path))
    except Invalid as error:
        problems.add(document.error(keys, str(error)))
        return os.devnull


def _tell_apart(document: Document, keys: tuple[str, ...], given: dict[str, Any], problems: Problems) -> None:
    """Several services in one backend need slots that can be told apart."""
    several = len(given.get("services", ("*",))) != 1 or set("*?[").intersection(given.get("services", ("*",))[0])
    if several and SERVICE not in given.get("backend", SERVICE) + given.get("slots", SERVICE):
        problems.add(document.error((*keys, "backend"), f"must hold {SERVICE} (or slots must): there are several"))
