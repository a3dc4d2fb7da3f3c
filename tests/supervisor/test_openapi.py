"""The description of the API says what the daemon does: its routes, its messages, its problems, its rights."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest

from registry_client.model import Entry, LeaseKey, Snapshot
from supervisor import wire
from supervisor.agents.history import HistoryEvent
from supervisor.control.api import ROUTES
from supervisor.core.access import Right
from supervisor.core.doctor import Finding
from supervisor.core.lifecycle import state_word
from supervisor.core.model import Phase, Unit
from supervisor.core.plan import Effect
from supervisor.openapi import document
from supervisor.openapi.paths import snapshot
from supervisor.openapi.schemas import EFFECTS, PHASES, SCHEMAS, STATES
from supervisor.routes import REGISTRY, templates_of

DOCUMENT = document("1.2.3")
MESSAGES = {
    "UnitStatus": wire.UnitStatus, "LeaseStatus": wire.LeaseStatus, "ExitStatus": wire.ExitStatus,
    "ProbeStatus": wire.ProbeStatus, "MaintenanceStatus": wire.MaintenanceStatus, "Operation": wire.Operation,
    "Step": wire.Step, "PlanItem": wire.PlanItem, "NodeInfo": wire.NodeInfo, "Event": HistoryEvent, "Finding": Finding,
    "LeaseKey": LeaseKey, "Entry": Entry,
}  # fmt: skip
JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def _documented() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_it_is_the_version_that_runs() -> None:
    assert DOCUMENT["info"]["version"] == "1.2.3"
    assert DOCUMENT["openapi"].startswith("3.1.")


def test_every_route_is_described_and_nothing_else() -> None:
    """The registry's routes are told apart by the registry itself; they have a test of their own."""
    served = {(route.method, path) for route in ROUTES for path in templates_of(route.pattern.pattern)}
    described = {(method, path) for method, path, _ in _documented() if not path.startswith(REGISTRY)}
    assert described == served


def test_every_route_names_the_right_that_it_takes() -> None:
    rights = {(route.method, path): route.right for route in ROUTES for path in templates_of(route.pattern.pattern)}
    for method, path, operation in _documented():
        right = rights.get((method, path), Right.READ if method == "GET" else Right.NODE)
        assert operation.get("x-right") == (None if right is None else right.value), path
        assert ("security" in operation) == (right is None), path
        assert ("401" in operation["responses"]) == (right is not None), path


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_has_the_members_that_it_is_described_with(name: str) -> None:
    """Names, types and what may be null."""
    message, schema = MESSAGES[name], SCHEMAS[name]
    hints = get_type_hints(message)
    names = [field.name for field in fields(message)]
    described = {key: value for key, value in schema["properties"].items() if key != "schema" or name != "Entry"}
    assert list(described) == names if name != "Entry" else set(described) == set(names)
    for key in names:
        assert _kinds_of(described[key]) == _kinds_in(hints[key]), f"{name}.{key}"
    if name not in ("Entry", "LeaseKey"):
        assert schema["required"] == names and schema["additionalProperties"] is False


def _kinds_of(schema: dict[str, Any]) -> set[str]:
    """The JSON types that a schema lets through; messages by name."""
    if "$ref" in schema:
        return {schema["$ref"].rpartition("/")[2]}
    if "oneOf" in schema:
        return set().union(*map(_kinds_of, schema["oneOf"]))
    if schema["type"] == "array":
        return {f"list of {kind}" for kind in _kinds_of(schema["items"])}
    return {schema["type"]} if isinstance(schema["type"], str) else set(schema["type"])


def _kinds_in(hint: Any) -> set[str]:
    """The same of a type."""
    if get_origin(hint) in (Union, types.UnionType):
        return set().union(*map(_kinds_in, get_args(hint)))
    if get_origin(hint) in (list, tuple):
        return {f"list of {kind}" for kind in _kinds_in(get_args(hint)[0])}
    if hint is type(None):
        return {"null"}
    if hint in JSON_TYPES:
        return {JSON_TYPES[hint]}
    named = {message: name for name, message in MESSAGES.items()}
    return {named.get(hint, "object")}


def test_an_entry_of_the_registry_fits_its_description() -> None:
    entry = Entry(service="s", instance="n/u", node="n", unit="u", address="127.0.0.1", port=1, generation=1,
                  started_at="2026-11-24T00:00:00.000Z")  # fmt: skip
    assert set(entry.to_json()) == set(SCHEMAS["Entry"]["properties"])
    assert set(Snapshot(1, "e", None, ()).to_json()) == set(snapshot()["properties"])


def test_words_are_those_of_the_product() -> None:
    """States, phases, verbs, effects."""
    assert set(PHASES) == {phase.value for phase in Phase}
    assert set(EFFECTS) == {effect.value for effect in Effect}
    said = {
        state_word(Unit(phase=phase, crashed=crashed, drained=drained, healthy=healthy), warming=warming)
        for phase in Phase
        for crashed in (False, True)
        for drained in (False, True)
        for healthy in (False, True)
        for warming in (False, True)
    }
    assert set(STATES) == said
    verbs = {path.rpartition("/")[2] for method, path, _ in _documented() if method == "POST" and "{unit}" in path}
    assert verbs == {*wire.VERBS, "enable", "disable"}


def test_a_command_has_the_members_that_it_is_described_with() -> None:
    body = DOCUMENT["paths"]["/v1/units/{unit}/stop"]["post"]["requestBody"]
    schema = body["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == {field.name for field in fields(wire.Command)}
    for name in schema["properties"]:
        assert wire.decode_command(json.dumps({name: None}).encode()) == wire.Command()


def test_every_problem_has_a_status_that_some_route_is_described_with() -> None:
    described = {status for _, _, operation in _documented() for status in operation["responses"]}
    for code, (status, _) in wire.PROBLEMS.items():
        if status not in (405, 500):  # of requests that are at no route, and of mistakes of ours
            assert str(status) in described, code
        assert code in SCHEMAS["Problem"]["properties"]["code"]["description"]


def test_all_references_lead_somewhere_and_names_are_unique() -> None:
    text = json.dumps(DOCUMENT)
    for name in {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in SCHEMAS
    names = [operation["operationId"] for _, _, operation in _documented()]
    assert len(names) == len(set(names))


def test_every_parameter_of_a_path_is_described() -> None:
    for _, path, operation in _documented():
        named = {part.partition("}")[0] for part in path.split("{")[1:]}
        described = {item["name"] for item in operation.get("parameters", ()) if item["in"] == "path"}
        assert named == described, path
