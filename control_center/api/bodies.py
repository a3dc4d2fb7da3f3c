"""Bodies of requests as the center's values, read strictly."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ..asking import NewOperation, Permit
from ..model import VERBS, Mode, Report, Selection, Strategy
from ..moments import iso
from .decoding import MAX_NAME, Members, bad, moment_of, read_each, shown

SYMPTOMS = ("connect_refused", "connect_timeout", "response_timeout", "error_answers", "check_failed")
MAX_REASON = 1000
MAX_SELECTED = 1000
MAX_LABELS = 64
MAX_REPORTS = 1000
MAX_RESULTS = 1000
DEADLINE_SECONDS = 3600.0
MAX_DEADLINE_SECONDS = 30 * 86400.0
_YEAR_SECONDS = 366 * 86400.0
_BATCH = re.compile(r"[1-9][0-9]{0,5}|(100|[1-9][0-9]?)%", re.ASCII)


def reason_of(members: Members) -> str:
    """Why somebody wants something; may be left out."""
    return members.text("reason", "", maximum=MAX_REASON)


def read_reason(body: Mapping[str, Any]) -> str:
    """A body that says why, and no more."""
    members = Members(body)
    reason = reason_of(members)
    members.finish()
    return reason


def read_mode(body: Mapping[str, Any]) -> tuple[Mode, str]:
    """What the center may do by itself from now on, and why."""
    members = Members(body)
    mode = Mode(members.word("mode", [each.value for each in Mode]))
    reason = reason_of(members)
    members.finish()
    return mode, reason


# Operations.


def read_operation(
    body: Mapping[str, Any], defaults: Strategy, issuer: str, permit: Permit, now: datetime
) -> tuple[NewOperation, bool]:
    """What is asked for, and whether only the plan is wanted."""
    members = Members(body)
    verb = members.word("verb", VERBS)
    asked = NewOperation(
        verb=verb,
        selection=_selection(members.object("selection")),
        deadline=_deadline(members, now),
        reason=reason_of(members),
        issued_by=_issuer(members.maybe_text("issued_by"), issuer),
        strategy=_strategy(members, defaults),
        use_defaults="strategy" not in body,
        parameters=_parameters(verb, members.object("parameters")),
        command_id=members.maybe_text("command_id", maximum=128),
        expected_generation=members.maybe_integer("expected_generation"),
        permit=permit,
    )
    dry_run = members.boolean("dry_run", False)
    members.finish()
    return asked, dry_run


def _issuer(given: str | None, caller: str) -> str:
    """Who is shown: whom the caller names, but never without the caller."""
    return caller if given is None or given == caller else f"{given} (as {caller})"


def _selection(members: Members) -> Selection:
    selection = Selection(
        services=members.texts("services", most=MAX_SELECTED),
        nodes=members.texts("nodes", most=MAX_SELECTED),
        units=members.texts("units", most=MAX_SELECTED),
        instances=members.texts("instances", most=MAX_SELECTED, maximum=2 * MAX_NAME),
        labels=members.pairs("labels", most=MAX_LABELS),
    )
    members.finish()
    if selection.is_empty:
        raise bad("selection", "it says nothing; name services, nodes, units, instances or labels (globs; * for all)")
    return selection


def _deadline(members: Members, now: datetime) -> str:
    moment = members.moment("deadline")
    if moment is not None and members.has("deadline_seconds"):
        raise bad("deadline_seconds", "give it or deadline, not both")
    seconds = members.number("deadline_seconds", DEADLINE_SECONDS, 0.001, MAX_DEADLINE_SECONDS)
    latest = iso(now + timedelta(seconds=MAX_DEADLINE_SECONDS))
    if moment is None:
        return iso(now + timedelta(seconds=seconds))
    if moment > latest:
        raise bad("deadline", f"at most {MAX_DEADLINE_SECONDS / 86400:g} days from now, not {moment}")
    return moment


def _strategy(members: Members, defaults: Strategy) -> Strategy | None:
    """What is left out is the center's default; null is all at once."""
    if not members.has("strategy"):
        members.raw("strategy")
        return None
    given = members.object("strategy")
    strategy = replace(
        defaults,
        batch=_batch(given, defaults.batch),
        canary=given.integer("canary", defaults.canary, 0, 1_000_000),
        bake_seconds=given.number("bake_seconds", defaults.bake_seconds, 0, 7 * 86400),
        floor_percent=given.number("floor_percent", defaults.floor_percent, 0, 100),
        max_failures=given.integer("max_failures", defaults.max_failures, 0, 1_000_000),
        by_zone=given.boolean("by_zone", defaults.by_zone),
        target_seconds=given.number("target_seconds", defaults.target_seconds, 1, 7 * 86400),
    )
    given.finish()
    return strategy


def _batch(members: Members, default: str) -> str:
    value = members.raw("batch")
    if value is None:
        return default
    text = str(value) if type(value) is int else value
    if not isinstance(text, str) or not _BATCH.fullmatch(text):
        raise bad(members.at("batch"), f'must be a number such as "2" or a share such as "25%", not {shown(value)}')
    return text


# What a verb may be given besides. The node has the last word; what cannot be right is not sent to a thousand of them.

_PARAMETERS: dict[str, tuple[str, ...]] = {
    "start": (), "stop": ("force",), "restart": ("force",), "drain": ("owner", "for_seconds", "until"), "undrain": (),
    "warm": ("initial", "step", "period", "pause", "resume", "jump"), "weight": ("weight",), "signal": ("signal",),
    "apply": (),
}  # fmt: skip


def _parameters(verb: str, members: Members) -> dict[str, Any]:
    values = {name: _READERS[name](members, name) for name in _PARAMETERS[verb] if members.has(name)}
    for name in _PARAMETERS[verb]:
        members.raw(name)
    members.finish()
    if verb in ("weight", "signal") and verb not in values:
        raise bad(members.at(verb), "is missing")
    if "for_seconds" in values and "until" in values:
        raise bad(members.at("until"), "give it or for_seconds, not both")
    alone = [name for name in ("pause", "resume", "jump") if name in values]
    if alone and len(values) > 1:
        raise bad(members.at(alone[0]), "stands alone: a ramp is paused, resumed, jumped on or set anew")
    return values


def _weight(members: Members, name: str) -> int | str:
    value = members.raw(name)
    if value == "auto" or (type(value) is int and 1 <= value <= 65535):
        return value  # type: ignore[no-any-return]
    raise bad(members.at(name), f'must be a whole number from 1 to 65535 or "auto", not {shown(value)}')


def _signal(members: Members, name: str) -> int | str:
    value = members.raw(name)
    if type(value) is int and 1 <= value <= 64:
        return value
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9+-]{1,16}", value, re.ASCII):
        return value
    raise bad(members.at(name), f'must be a name such as "HUP" or a number from 1 to 64, not {shown(value)}')


def _true(members: Members, name: str) -> bool:
    if not members.boolean(name, False):
        raise bad(members.at(name), "can only be true; leave it out otherwise")
    return True


def _until(members: Members, name: str) -> str:
    return members.moment(name) or ""


def _percent(members: Members, name: str) -> int:
    return members.integer(name, None, 1, 100)


_READERS: dict[str, Callable[[Members, str], Any]] = {
    "force": lambda members, name: members.boolean(name, False),
    "owner": lambda members, name: members.text(name, maximum=MAX_NAME),
    "for_seconds": lambda members, name: members.number(name, None, 0.001, _YEAR_SECONDS),
    "until": _until,
    "initial": _percent,
    "step": _percent,
    "period": lambda members, name: members.number(name, None, 0.001, 7 * 86400),
    "pause": _true,
    "resume": _true,
    "jump": _percent,
    "weight": _weight,
    "signal": _signal,
}


# Reports of gateways, answers of nodes.


def read_reports(body: Mapping[str, Any]) -> tuple[str, list[Report]]:
    """What a gateway says, and which."""
    members = Members(body)
    gateway = members.text("gateway", maximum=MAX_NAME)
    items = members.items("reports", most=MAX_REPORTS, needed=True)
    members.finish()
    reports: list[Report] = read_each(items, "reports", lambda item: _report(item, gateway))
    return gateway, reports


def _report(item: Members, gateway: str) -> Report:
    return Report(
        gateway=gateway,
        service=item.text("service", maximum=MAX_NAME),
        instance=item.text("instance", maximum=2 * MAX_NAME),
        generation=item.integer("generation", None, 0),
        symptom=item.word("symptom", SYMPTOMS),
        count=item.integer("count", 1, 1),
        first_seen=moment_of(item.at("first_seen"), item.text("first_seen", maximum=MAX_NAME)),
        state=item.word("state", ("dead", "cleared"), "dead"),
        detail=item.text("detail", "", maximum=MAX_REASON),
        backends=item.integer("backends", 0, 0),
        service_backends=item.integer("service_backends", 0, 0),
    )


def read_results(body: Mapping[str, Any]) -> list[tuple[str, int, dict[str, Any]]]:
    """What a node answered to commands that it fetched: (command id, status, body)."""
    members = Members(body)
    items = members.items("results", most=MAX_RESULTS, needed=True)
    members.finish()
    results: list[tuple[str, int, dict[str, Any]]] = read_each(items, "results", _result)
    return results


def _result(item: Members) -> tuple[str, int, dict[str, Any]]:
    command_id = item.text("command_id", maximum=128)
    status = item.integer("status", None, 100, 599)
    body = item.raw("body")
    if not isinstance(body, dict):
        raise bad(item.at("body"), f"must be an object, not {shown(body)}")
    return command_id, status, body


def read_heartbeat(body: Mapping[str, Any], node: str) -> dict[str, Any]:
    """A node's word of itself. What else a newer node says is kept as it is."""
    members = Members(body)
    if (said := members.text("node", maximum=MAX_NAME)) != node:
        raise bad("node", f"it is {shown(said)}, but this path is of {shown(node)}")
    for name in ("version", "state_id"):
        members.maybe_text(name)
    for name in ("started_at", "time"):
        members.moment(name)
    for name in ("life", "units", "open_operations"):
        members.integer(name, 0, 0)
    members.number("uptime_seconds", 0, 0, 1e12)
    members.texts("services", most=100_000)
    for index, status in enumerate(members.items("statuses", most=100_000)):
        Members(status, f"statuses[{index}]").text("unit", maximum=MAX_NAME)
    return dict(body)


def utc_now() -> datetime:
    """The time of day."""
    return datetime.now(UTC)
