"""Heads of requests and answers on their way through: what is refused, what is left out, what is added. Pure.

Care against request smuggling: whatever two parties might read differently is refused here with 400 rather than
repaired (RFC 9112 sections 2.2, 5.2, 6.3 and 11.2). h11 refuses much of it already; the rest is looked for in the
bytes, before h11 joins folded lines and merges equal lengths. What goes on is written anew by h11, never copied, so no
field can hold a line's end.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import h11

from .answers import Refusal, Refused, bad_request, too_large

Fields = list[tuple[bytes, bytes]]

IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))  # RFC 9110 section 9.2.2
MAX_HOPS = 20
END_OF_HEAD = b"\r\n\r\n"

_HOP_BY_HOP = frozenset((
    b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    b"http2-settings", b"proxy",
))  # fmt: skip
_FRAMING = frozenset((b"host", b"content-length", b"transfer-encoding"))  # Connection cannot take these away
_FORWARDED = frozenset((
    b"forwarded", b"x-real-ip", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port",
    b"x-forwarded-server", b"x-forwarded-prefix",
))  # fmt: skip
_MIMICKED = _FRAMING | _FORWARDED | _HOP_BY_HOP  # CGI and WSGI read `x_forwarded_for` as `x-forwarded-for`
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)|\0")
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)


def early_fault(part: bytes, max_bytes: int) -> Refusal | None:
    """What is wrong with a head that is not complete."""
    if len(part) > max_bytes:
        return too_large(f"the head is longer than {max_bytes} bytes")
    if _BARE.search(part.removesuffix(b"\r")):  # which may still get its LF
        return bad_request("a line does not end with CR LF")
    return None


def fault(head: bytes, max_bytes: int, max_headers: int) -> Refusal | None:
    """What is wrong with a whole head, its empty line included."""
    if len(head) > max_bytes:
        return too_large(f"the head is longer than {max_bytes} bytes")
    if head.count(b"\r\n") - 2 > max_headers:
        return too_large(f"there are more than {max_headers} header fields")
    if _BARE.search(head):
        return bad_request("a line does not end with CR LF")
    if b"\r\n " in head or b"\r\n\t" in head:
        return bad_request("a header field is folded")
    lower = head.lower()
    lengths, codings = lower.count(b"\r\ncontent-length:"), lower.count(b"\r\ntransfer-encoding:")
    if lengths + codings > 1:
        return bad_request("the length of the body is given more than once")
    if codings and b" http/1.0\r\n" in lower:
        return bad_request("HTTP/1.0 has no Transfer-Encoding")
    return None


@dataclass(slots=True)
class Head:
    """A request as a unit gets it, and what the gateway has to know of it. `host` is in lower case, without a port."""

    method: bytes
    target: bytes
    host: bytes
    path: bytes
    fields: Fields
    upgrade: bool  # the client offers another protocol
    expects: bool  # 100-continue

    @property
    def is_idempotent(self) -> bool:
        """It may be sent twice."""
        return self.method in IDEMPOTENT


@dataclass(frozen=True, slots=True)
class Hop:
    """What this gateway adds: its name for Via, who the client is, and whether the client's word on that counts."""

    name: bytes
    client: bytes
    trust: bool


def read_request(event: h11.Request, hop: Hop) -> Head:
    """The request that goes on. Raises Refused."""
    fields = list(event.headers)
    if not event.http_version.startswith(b"1."):
        raise Refused(Refusal(505, "version", "only HTTP/1.1 and HTTP/1.0 are spoken here"))
    if event.method == b"CONNECT":
        raise Refused(Refusal(501, "not_implemented", "this is no proxy for CONNECT"))
    host_field, target = _authority(event, fields)
    host = host_of(host_field)
    path = target.partition(b"?")[0]
    is_new = event.http_version >= b"1.1"
    options = connection_options(fields)
    body = any(
        (name == b"content-length" and value.strip(b"0")) or name == b"transfer-encoding" for name, value in fields
    )
    upgrade = next((value for name, value in fields if name == b"upgrade"), b"")
    switches = is_new and b"upgrade" in options and bool(upgrade) and not body and b"h2c" not in upgrade.lower()
    expects = is_new and body and any(name == b"expect" and value.lower() == b"100-continue" for name, value in fields)
    passed = _passed_on(fields, options, hop, host_field)
    if switches:
        passed += [(b"connection", b"upgrade"), (b"upgrade", upgrade)]
    if expects:
        passed.append((b"expect", b"100-continue"))
    passed += ((name, value) for name, value in fields if name == b"transfer-encoding")
    return Head(event.method, target, host, path, passed, switches, expects)


def _authority(event: h11.Request, fields: Fields) -> tuple[bytes, bytes]:
    """Host and target in origin form (RFC 9112 section 3.2)."""
    host = next((value for name, value in fields if name == b"host"), b"")
    target = event.target
    if match := _ABSOLUTE.fullmatch(target):
        host, rest = match[1], match[2]
        return host, rest if rest.startswith(b"/") else b"/" + rest
    if not target.startswith(b"/") and not (target == b"*" and event.method == b"OPTIONS"):
        raise Refused(bad_request("the target is no path"))
    if b"#" in target:
        raise Refused(bad_request("the target has a fragment"))
    return host, target


def host_of(field: bytes) -> bytes:
    """The name in a Host field, in lower case, without its port and a last dot. Raises Refused."""
    match = _HOST.fullmatch(field)
    if match is None:
        raise Refused(bad_request("the Host is none"))
    return match[1].lower().removesuffix(b".")


def connection_options(fields: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """What the Connection fields name, in lower case."""
    values = [value for name, value in fields if name == b"connection"]
    if not values:
        return frozenset()
    return frozenset(word.strip() for value in values for word in value.lower().split(b","))


def _passed_on(fields: Fields, options: Collection[bytes], hop: Hop, host: bytes) -> Fields:
    left_out = _HOP_BY_HOP | (options - _FRAMING) | {b"host", b"via", b"expect"}  # type: ignore[operator]
    if not hop.trust:
        left_out |= _FORWARDED
    else:
        left_out |= {b"x-forwarded-for"}
    passed: Fields = [(b"host", host)]
    passed += (
        (name, value)
        for name, value in fields
        if name not in left_out and not (b"_" in name and name.replace(b"_", b"-") in _MIMICKED)
    )
    names = {name for name, _ in passed}
    passed.append((b"x-forwarded-for", _chain(fields, hop)))
    if b"x-forwarded-proto" not in names:
        passed.append((b"x-forwarded-proto", b"http"))
    if b"x-forwarded-host" not in names and host:
        passed.append((b"x-forwarded-host", host))
    passed.append((b"via", via(fields, hop.name)))
    return passed


def _chain(fields: Fields, hop: Hop) -> bytes:
    before = [value for name, value in fields if name == b"x-forwarded-for" and value] if hop.trust else []
    return b", ".join([*before, hop.client])


def via(fields: Fields, name: bytes) -> bytes:
    """The Via field with this gateway in it. Raises Refused when the message goes in circles."""
    before = [value for field, value in fields if field == b"via" and value]
    if not before:
        return b"1.1 " + name
    if sum(value.count(b",") + 1 for value in before) >= MAX_HOPS:
        raise Refused(Refusal(508, "loop", f"it has come through {MAX_HOPS} proxies: they send it in circles"))
    return b", ".join([*before, b"1.1 " + name])


def answer_fault(event: h11.Response | h11.InformationalResponse) -> str:
    """Why a unit's answer must not be passed on; "": it may be."""
    names = [name for name, _ in event.headers]
    if b"transfer-encoding" in names and b"content-length" in names:
        return "it gives its length twice"
    return ""


def answer_fields(event: h11.Response | h11.InformationalResponse, name: bytes) -> Fields:
    """The fields of an answer as the client gets them; h11 adds how its length is told."""
    fields = list(event.headers)
    left_out = _HOP_BY_HOP | (connection_options(fields) - _FRAMING) | {b"via"}
    passed = [field for field in fields if field[0] not in left_out]
    before = [value for field, value in fields if field == b"via"]
    passed.append((b"via", b", ".join([*before, b"1.1 " + name])))
    return passed
