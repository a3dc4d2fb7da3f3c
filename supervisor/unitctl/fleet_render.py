"""Services, instances, nodes, decisions and events of a fleet as people read them: pure functions from JSON to text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from .fleet_table import Column, Look, bar, paint, table
from .words import clean, counted, span, uptime

Raw = Mapping[str, Any]

_GREEN, _YELLOW, _RED, _CYAN, _MAGENTA = "32", "33", "31", "36", "35"
_STATUS_COLOURS = {"up": _GREEN, "warming": _CYAN, "draining": _YELLOW}
_NODE_COLOURS = {"up": _GREEN, "suspect": _YELLOW, "dead": _RED, "refused": _RED, "gone": _MAGENTA}
_VERDICT_COLOURS = {
    "restart": _GREEN, "would_restart": _CYAN, "wait": _YELLOW, "refuse": _MAGENTA, "fatal": _RED,
}  # fmt: skip


# The center.


def center_line(center: Raw) -> str:
    """Who answers, who leads, and what it may do by itself."""
    leads = "leads" if center.get("leader") else f"follows {clean(str(center.get('leader_name') or 'nobody'))}"
    registry = center.get("registry") or {}
    state = clean(str(registry.get("state")))
    if state != "ok":
        ago = registry.get("seconds_ago")
        state = f"{state}, last heard of {span(float(ago))} ago" if ago is not None else f"{state}, not heard of yet"
    return (
        f"{clean(str(center.get('name')))} {leads}, mode {clean(str(center.get('mode')))}, "
        f"registry {clean(str(registry.get('backend')))} {state}"
    )


# Services and instances.


def services_text(services: Sequence[Raw], look: Look) -> str:
    """One line a service, with its capacity as a bar."""
    return table(
        (
            Column("SERVICE", _texts(services, "service")),
            Column("CAPACITY", [_capacity(each, look) for each in services]),
            Column("WEIGHT", [_share(each) for each in services], 2),
            Column("INSTANCES", list(map(_instances, services)), 1),
            Column("NODES", _texts(services, "nodes"), 5),
            Column("ZONES", list(map(_zones, services)), 4),
            Column("NOTE", list(map(_service_note, services)), 3),
        ),
        look,
    )


def _capacity(service: Raw, look: Look) -> str:
    weight, full = _number(service.get("weight")), _number(service.get("full_weight"))
    percent = 100 * weight / full if full else 0.0
    return f"{bar(weight, full, look)} {percent:3.0f}%"


def _share(item: Raw) -> str:
    return f"{_number(item.get('weight')):g}/{_number(item.get('full_weight')):g}"


def _instances(service: Raw) -> str:
    words = [f"{service.get(state)} {state}" for state in ("up", "warming", "draining") if service.get(state)]
    return ", ".join(words) or "none"


def _zones(service: Raw) -> str:
    zones = service.get("zones") or {}
    return ", ".join(f"{zone or '-'} {count}" for zone, count in sorted(zones.items())) if set(zones) - {""} else ""


def _service_note(service: Raw) -> str:
    frozen, operation = service.get("frozen"), service.get("operation")
    parts = [f"operation {operation}" if operation else "", f"no automatic restarts: {frozen}" if frozen else ""]
    return "; ".join(filter(None, parts))


def service_text(service: Raw, now: datetime, look: Look) -> str:
    """A service and each of its instances."""
    heading = (
        f"{clean(str(service.get('service')))}: {_capacity(service, look)} ({_share(service)}), {_instances(service)}"
    )
    note = _service_note(service)
    lines = [heading + (f"; {clean(note)}" if note else "")]
    return f"{lines[0]}\n" + _indented(instances_text(list(service.get("entries") or ()), now, _narrower(look)))


def instances_text(entries: Sequence[Raw], now: datetime, look: Look) -> str:
    """One line an instance."""
    entries = sorted(entries, key=lambda entry: _natural(str(entry.get("instance"))))
    return table(
        (
            Column("INSTANCE", _texts(entries, "instance")),
            Column("STATUS", _texts(entries, "status"), 0, _STATUS_COLOURS),
            Column("WEIGHT", [_share(each) for each in entries]),
            Column("", [bar(_number(e.get("weight")), _number(e.get("full_weight")), look) for e in entries], 6),
            Column("GENERATION", _texts(entries, "generation"), 4),
            Column("UPTIME", [_uptime(entry.get("started_at"), now) for entry in entries], 2),
            Column("NODE", _texts(entries, "node"), 9),
            Column("ZONE", _texts(entries, "zone"), 3),
            Column("VERSION", _texts(entries, "version"), 5),
            Column("ADDRESS", [_address(entry) for entry in entries], 8),
            Column("NOTE", list(map(_instance_note, entries)), 7),
        ),
        look,
    )


def _uptime(started_at: Any, now: datetime) -> str:
    started = moment(started_at)
    return uptime(max((now - started).total_seconds(), 0.0)) if started is not None else ""


def _address(entry: Raw) -> str:
    host = str(entry.get("address") or "")
    return f"[{host}]:{entry.get('port')}" if ":" in host else f"{host}:{entry.get('port')}" if host else ""


def _instance_note(entry: Raw) -> str:
    operation, reports = entry.get("operation"), entry.get("reports")
    said = f"reported dead by {counted(int(reports), 'gateway')}" if reports else ""
    return "; ".join(filter(None, (f"operation {operation}" if operation else "", said)))


# Nodes.


def nodes_text(nodes: Sequence[Raw], look: Look) -> str:
    """One line a node."""
    nodes = sorted(nodes, key=lambda node: _natural(str(node.get("node"))))
    return table(
        (
            Column("NODE", _texts(nodes, "node")),
            Column("STATE", _texts(nodes, "state"), 0, _NODE_COLOURS),
            Column("PHI", [_phi(node.get("phi")) for node in nodes], 2),
            Column("LAST SEEN", [_ago(node.get("seen_seconds_ago")) for node in nodes], 1),
            Column("UNITS", _texts(nodes, "units"), 4),
            Column("OPEN", _texts(nodes, "open_operations"), 6),
            Column("VERSION", _texts(nodes, "version"), 5),
            Column("VIA", _texts(nodes, "via"), 7),
            Column("ADDRESS", [_address(node) for node in nodes], 8),
            Column("NOTE", _texts(nodes, "detail"), 3),
        ),
        look,
    )


def gateways_text(gateways: Sequence[Raw], look: Look) -> str:
    """One line for each service of a gateway."""
    gateways = sorted(gateways, key=lambda each: (_natural(str(each.get("gateway"))), str(each.get("service"))))
    return table(
        (
            Column("GATEWAY", _texts(gateways, "gateway")),
            Column("KIND", _texts(gateways, "kind"), 2),
            Column("SERVICE", _texts(gateways, "service")),
            Column("SENDS TO", [f"{each.get('serving')} of {each.get('listed')}" for each in gateways]),
            Column("FINISHING", [str(each.get("finishing") or "") for each in gateways], 3),
            Column("NOTE", [_gateway_note(each) for each in gateways], 1),
        ),
        look,
    )


def _gateway_note(gateway: Raw) -> str:
    lacks, stale = [str(each) for each in gateway.get("lacks") or ()], gateway.get("stale")
    return "; ".join(
        filter(
            None,
            (
                f"does not send to {', '.join(lacks[:3])}{', ...' if len(lacks) > 3 else ''}" if lacks else "",
                f"still sends to {stale} that the registry does not list" if stale else "",
            ),
        )
    )


def node_text(node: Raw, now: datetime, look: Look) -> str:
    """A node, and its instances."""
    state = str(node.get("state"))
    parts = [
        paint(clean(state), _NODE_COLOURS.get(state), look),
        f"phi {_phi(node.get('phi'))}" if node.get("phi") is not None else "",
        f"last seen {_ago(node.get('seen_seconds_ago'))}" if node.get("seen_seconds_ago") is not None else "",
        f"unitd {clean(str(node.get('version')))}" if node.get("version") else "",
        f"{_address(node)} ({node.get('via')})",
        clean(str(node.get("detail") or "")),
    ]
    heading = f"{clean(str(node.get('node')))}: {', '.join(filter(None, parts))}\n"
    return heading + _indented(instances_text(list(node.get("instances") or ()), now, _narrower(look)))


def _phi(value: Any) -> str:
    return "" if value is None else f"{_number(value):.1f}"


def _ago(seconds: Any) -> str:
    return "" if seconds is None else f"{span(_number(seconds))} ago"


# Decisions.


def decisions_text(decisions: Sequence[Raw], look: Look) -> str:
    """One line a decision."""
    return table(
        (
            Column("ID", _texts(decisions, "id"), 3),
            Column("AT", _texts(decisions, "at"), 1),
            Column("VERDICT", _texts(decisions, "verdict"), 0, _VERDICT_COLOURS),
            Column("INSTANCE", _texts(decisions, "instance")),
            Column("RULE", _texts(decisions, "rule"), 2),
            Column("REASON", list(map(_reason, decisions))),
        ),
        look,
    )


def _reason(decision: Raw) -> str:
    operation = decision.get("operation")
    return str(decision.get("reason") or "") + (f" (operation {operation})" if operation else "")


def decision_text(decision: Raw, look: Look) -> str:
    """A decision with all that it was made from."""
    verdict = str(decision.get("verdict"))
    lines = [
        f"{decision.get('id')}: {paint(clean(verdict), _VERDICT_COLOURS.get(verdict), look)} "
        f"{clean(str(decision.get('instance')))} (generation {decision.get('generation')}) at {decision.get('at')}",
        f"  rule {clean(str(decision.get('rule')))}: {clean(_reason(decision))}",
        *(f"  {clean(name)}: {clean(_compact(value))}" for name, value in (decision.get("evidence") or {}).items()),
    ]
    return "".join(f"{line}\n" for line in lines)


# Events.


def event_line(event: Raw, *, with_id: bool = False) -> str:
    """What has happened, in one line. `event` has `seq`, `type`, `body`, and `at` if it is known."""
    body = event.get("body")
    words = _event_words(str(event.get("type")), body) if isinstance(body, Mapping) else _compact(body)
    parts = [str(event.get("seq")) if with_id else "", str(event.get("at") or ""), str(event.get("type")), words]
    return "  ".join(clean(part) for part in parts if part)


def _event_words(type_: str, body: Raw) -> str:
    if type_ == "operation" and "id" in body:
        return _operation_event(body)
    if type_ == "decision" and "verdict" in body:
        return f"{body.get('instance')}: {body['verdict']} ({body.get('rule')}): {body.get('reason')}"
    if type_ == "mode" and "mode" in body:
        reason = f": {body['reason']}" if body.get("reason") else ""
        return f"{body['mode']}, by {body.get('by')}{reason}"
    return ", ".join(f"{name} {_compact(value)}" for name, value in body.items() if value not in (None, "", [], {}))


def _operation_event(body: Raw) -> str:
    services = body.get("services")
    what = f" of {', '.join(map(str, services))}" if isinstance(services, list) and services else ""
    counts = body.get("counts")
    done = f" ({', '.join(f'{n} {state}' for state, n in counts.items())})" if isinstance(counts, Mapping) else ""
    why = body.get("error") or body.get("waiting_for") or ""
    return f"{body['id']}: {body.get('verb')}{what}: {body.get('state')}{done}" + (f": {why}" if why else "")


def _compact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(", ", ": "), ensure_ascii=False)


# Parts.


def moment(text: Any) -> datetime | None:
    """A time of the control center's; None where there is none, or it cannot be read."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _texts(items: Sequence[Raw], key: str) -> list[str]:
    return ["" if item.get(key) is None else str(item[key]) for item in items]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _natural(name: str) -> list[tuple[int, str]]:
    """For an order in which web-9 comes before web-10."""
    parts: list[str] = []
    for char in name:
        if parts and parts[-1][-1].isdecimal() == char.isdecimal():
            parts[-1] += char
        else:
            parts.append(char)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


def _narrower(look: Look) -> Look:
    return Look(max(look.columns - 2, 1) if look.columns else 0, look.color, look.unicode)
