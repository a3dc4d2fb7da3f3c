"""From pools to the file that nginx includes. Pure: text in, text out.

The file begins with what it was made of, a comment a server, so that unit-gateway knows after a restart of its own
what nginx knows, also of services whose pool has not been decided anew yet. Then comes what a template makes of the
pools; the template is ours or the user's:

    {{each service}}        once for each service, to the {{end}} of it; these two on lines of their own
    {{each server}}         within it, once for each server that gets requests, to its {{end}}
    {{upstream}}, {{service}}, {{zone_size}}                              of a service
    {{place}}, {{weight}}, {{state}}, {{instance}}, {{generation}}, {{zone}}      of a server

nginx refuses an upstream without servers: a service that has none gets one at a closed port whose state is `down`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import gcd

from ..errors import GatewayRefused
from ..model import Key, Pool, Server
from ..settings.nginx import SERVICE, NginxSpec

NOWHERE = ("127.0.0.1", 1)  # nobody listens there, and being down, nobody asks
_HEAD = "# Written by unit-gateway for nginx: what you change here is lost. What it was made of:"
_MARK = "#= "
_LINE_BYTES = 4000  # nginx reads no line with a longer word, not even a comment (its NGX_CONF_BUFFER is 4096)


@dataclass(frozen=True, slots=True)
class Line:
    """One server that gets requests, with the weight that nginx is told."""

    instance: str
    generation: int
    address: str
    port: int
    weight: int
    zone: str = ""

    @property
    def key(self) -> Key:
        """Which life of which instance."""
        return self.instance, self.generation

    @property
    def place(self) -> str:
        """As nginx writes it, in its configuration and in its logs."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


Lines = tuple[Line, ...]


def lines_of(pool: Pool, steps: Sequence[int]) -> Lines:
    """The servers that get requests, with the weight of the step that they have reached.

    Weights are as small as their ratios allow: with larger ones, some of nginx's ways to choose need much memory.
    """
    weights = {server.key: server.full_weight * _step(server, steps) for server in pool.serving}
    divisor = gcd(*weights.values()) or 1
    return tuple(
        Line(*server.key, server.address, server.port, weights[server.key] // divisor, server.zone or "")
        for server in pool.serving
    )


def _step(server: Server, steps: Sequence[int]) -> int:
    """The highest step that is reached; below the first one it is the first one, for 0 would be none at all."""
    share = 100 * server.weight / server.full_weight
    return max((step for step in steps if step <= share), default=steps[0])


def render(services: Mapping[str, Lines], template: str, upstream: str) -> str:
    """The whole file. Raises GatewayRefused when the template is wrong."""
    facts = [_MARK + fact for service in sorted(services) for fact in _facts(service, services[service])]
    return "\n".join([_HEAD, *facts, *_Template(template).fill(services, upstream)]) + "\n"


def _facts(service: str, lines: Lines) -> Iterator[str]:
    yield json.dumps([service])
    for line in lines:
        fact = [service, line.instance, line.generation, line.address, line.port, line.weight, line.zone]
        yield json.dumps(fact)


def unfit(service: str, lines: Lines) -> str:
    """Why this cannot stand in nginx's configuration; "": it can."""
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,128}", service):
        return f"{service!r} is no name for an upstream"
    for line in lines:
        if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,253}", line.address) or not 0 < line.port < 65536:
            return f"{line.address!r}, port {line.port}, of {line.instance} is no address of a server"
    if any(len(fact) > _LINE_BYTES for fact in _facts(service, lines)):
        return "the name of an instance, or of its zone, is too long"
    return ""


def parse(text: str) -> dict[str, Lines]:
    """What a file was made of; lines that say nothing of it are passed over."""
    found: dict[str, list[Line]] = {}
    for row in text.splitlines():
        if not row.startswith(_MARK):
            continue
        try:
            service, *rest = json.loads(row[len(_MARK) :])
            lines = found.setdefault(service, [])
            if rest:
                instance, generation, address, port, weight, zone = rest
                lines.append(Line(str(instance), int(generation), str(address), int(port), int(weight), str(zone)))
        except (ValueError, TypeError):
            continue
    return {service: tuple(lines) for service, lines in found.items()}


def own_template(spec: NginxSpec) -> str:
    """The template for who has none."""
    seconds = f"{spec.fail_timeout_seconds:g}"
    limits = f"max_fails={spec.max_fails} fail_timeout={_time(float(seconds))}"
    inside = ["zone {{upstream}} {{zone_size}};"]
    inside += [f"{spec.balance};"] if spec.balance else []
    inside += ["{{each server}}", f"server {{{{place}}}} weight={{{{weight}}}} {limits} {{{{state}}}};", "{{end}}"]
    if spec.keepalive:
        inside += [f"keepalive {spec.keepalive};", f"keepalive_timeout {_time(spec.keepalive_seconds)};"]
    body = [row if row.startswith("{{e") else f"    {row}" for row in inside]
    return "\n".join(["{{each service}}", "upstream {{upstream}} {", *body, "}", "{{end}}"])


def _time(seconds: float) -> str:
    return f"{max(1, round(seconds))}s"  # some of nginx's times know nothing smaller


def upstream_name(pattern: str, service: str) -> str:
    """A colon would begin a port in `proxy_pass`."""
    return pattern.replace(SERVICE, service).replace(":", "_")


class _Template:
    """A user's text with blocks; whatever is wrong with it is said with its line."""

    def __init__(self, text: str) -> None:
        self._rows = list(enumerate(text.splitlines(), 1))

    def fill(self, services: Mapping[str, Lines], pattern: str) -> Iterator[str]:
        """The rows that it makes of the pools."""
        rows = iter(self._rows)
        for number, row in rows:
            if _block(row) == "each service":
                block = _to_end(rows, number)
                for service in sorted(services):
                    yield from _service(block, service, services[service], pattern)
            else:
                yield _filled(number, row, {}, "outside of {{each service}}")


def _service(block: list[tuple[int, str]], service: str, lines: Lines, pattern: str) -> Iterator[str]:
    words = {"service": service, "upstream": upstream_name(pattern, service), "zone_size": _zone_size(len(lines))}
    rows = iter(block)
    for number, row in rows:
        if _block(row) == "each server":
            inner = _to_end(rows, number)
            for of_server in _servers(lines):
                for inner_number, inner_row in inner:
                    yield _filled(inner_number, inner_row, {**words, **of_server}, "for a server").replace(" ;", ";")
        else:
            yield _filled(number, row, words, "for a service")


def _servers(lines: Lines) -> Iterable[dict[str, str]]:
    if not lines:
        nobody = Line("none", 0, *NOWHERE, 1)
        return [{**_words(nobody), "state": "down"}]
    return [{**_words(line), "state": ""} for line in lines]


def _words(line: Line) -> dict[str, str]:
    return {
        "place": line.place,
        "weight": str(line.weight),
        "instance": _harmless(line.instance),
        "generation": str(line.generation),
        "zone": _harmless(line.zone),
    }


def _harmless(text: str) -> str:
    """What a registry says must not become a directive."""
    return re.sub(r"[^A-Za-z0-9_./:@-]", "_", text)


def _zone_size(servers: int) -> str:
    """Ample: nginx needs less than a kilobyte of shared memory for a server."""
    return f"{64 + 64 * (servers // 32)}k"


def _block(row: str) -> str:
    match = re.fullmatch(r"\s*\{\{\s*(each service|each server|end)\s*\}\}\s*", row)
    return match[1] if match else ""


def _to_end(rows: Iterator[tuple[int, str]], begun: int) -> list[tuple[int, str]]:
    """The rows up to the end of the block that has begun, which are taken from `rows`."""
    block: list[tuple[int, str]] = []
    depth = 1
    for number, row in rows:
        word = _block(row)
        depth += {"": 0, "end": -1}.get(word, 1)
        if depth == 0:
            return block
        block.append((number, row))
    raise GatewayRefused(f"cannot use the template: line {begun} begins a block that no {{{{end}}}} ends")


def _filled(number: int, row: str, words: Mapping[str, str], where: str) -> str:
    def word(match: re.Match[str]) -> str:
        name = match[1].strip()
        if name not in words:
            raise GatewayRefused(f"cannot use the template: line {number}: {{{{{name}}}}} is not known {where}")
        return words[name]

    return re.sub(r"\{\{(.*?)\}\}", word, row)
