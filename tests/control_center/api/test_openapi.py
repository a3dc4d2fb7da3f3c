"""The description of the API says what the routes and the model are."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from control_center.api.openapi import document
from control_center.api.paths import PATHS
from control_center.api.routes import ROUTES
from control_center.model import Batch, Decision, Event, NodeStatus, Operation, Report, Selection, Strategy, Target
from registry_client.model import Entry

MODELS: list[tuple[str, type, set[str]]] = [
    ("Operation", Operation, {"counts"}),
    ("Target", Target, set()),
    ("Batch", Batch, set()),
    ("Decision", Decision, set()),
    ("Report", Report, set()),
    ("Event", Event, set()),
    ("Node", NodeStatus, set()),
    ("Selection", Selection, set()),
    ("Strategy", Strategy, set()),
    ("Entry", Entry, {"schema"}),
]
DOCS = Path(__file__).parents[3] / "docs"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
KINDS = {
    "str": "string", "int": "integer", "float": "number", "bool": "boolean", "Any": "object",
    "dict": "object", "Mapping": "object", "tuple": "array", "list": "array",
}  # fmt: skip


def schemas() -> Mapping[str, Any]:
    return document()["components"]["schemas"]


def test_every_route_is_described_and_nothing_else_is() -> None:
    served = {(route.method, re.sub(r":[^}]*}", "}", route.path)): (route.right, route.also) for route in ROUTES}
    assert {key: (described.right, described.also) for key, described in PATHS.items()} == served
    assert len(served) == len(ROUTES)


@pytest.mark.parametrize(("name", "model", "more"), MODELS, ids=[name for name, _, _ in MODELS])
def test_schemas_have_the_members_of_the_model(name: str, model: type, more: set[str]) -> None:
    schema = schemas()[name]
    assert set(schema["properties"]) == {each.name for each in fields(model)} | more
    assert set(schema["required"]) == set(schema["properties"]) and schema["additionalProperties"] is False


@pytest.mark.parametrize(("name", "model", "more"), MODELS, ids=[name for name, _, _ in MODELS])
def test_schemas_have_the_types_of_the_model(name: str, model: type, more: set[str]) -> None:
    for each in fields(model):
        schema, annotation = schemas()[name]["properties"][each.name], str(each.type)
        may_be_null = annotation.endswith(" | None")
        kind = KINDS.get(annotation.removesuffix(" | None").partition("[")[0])
        types = types_of(schema)
        assert ("null" in types) == may_be_null, each.name
        if kind is not None:  # others are enums or records of their own
            assert types - {"null"} == {kind}, each.name
        else:
            assert types - {"null"} <= {"string", "object"}, each.name


def types_of(schema: Mapping[str, Any]) -> set[str]:
    if "$ref" in schema:
        return types_of(schemas()[schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return set().union(*(types_of(each) for each in schema["anyOf"]))
    kinds = schema["type"]
    return set(kinds) if isinstance(kinds, list) else {kinds}


def test_every_schema_is_one_and_every_reference_leads_to_one() -> None:
    for name, schema in schemas().items():
        assert jsonschema_rs.meta.is_valid({"$schema": DIALECT, **schema}), name
    names = {each.rpartition("/")[2] for each in references(document())}
    assert names <= set(schemas())
    unused = set(schemas()) - names - {"Report", "Event"}  # these are inside of evidence and of a stream
    assert unused == set()


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(each) for each in value.values()))
    return set().union(*(references(each) for each in value)) if isinstance(value, list) else set()


def test_every_route_and_member_is_explained() -> None:
    ids = [operation["operationId"] for path in document()["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
    assert all(described.summary for described in PATHS.values())


def test_guarded_routes_say_what_they_need() -> None:
    for (method, path), described in PATHS.items():
        operation = document()["paths"][path][method.lower()]
        if described.right is None:
            assert operation["security"] == [] and "401" not in operation["responses"]
        else:
            assert operation["x-right"].startswith(described.right.value) and {"401", "403"} <= set(
                operation["responses"]
            )


def test_the_reference_page_is_what_the_description_says():
    spec = importlib.util.spec_from_file_location("center_http_api", DOCS / "center_http_api.py")
    assert spec is not None and spec.loader is not None
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    page = (DOCS / "reference" / "center-http-api.md").read_text()
    assert page == writer.render(), "stale: run `python docs/center_http_api.py`"


def test_the_reference_page_explains_every_code_of_a_problem() -> None:
    sources = [path.read_text() for path in (DOCS.parent / "control_center").rglob("*.py")]
    pattern = re.compile(r'Refusal\(\s*[0-9]+,\s*"([a-z_]+)"|code="([a-z_]+)"')
    codes = {first or second for text in sources for first, second in pattern.findall(text)}
    page = (DOCS / "reference" / "center-http-api.md").read_text()
    assert len(codes) > 10 and {code for code in codes if f"`{code}`" not in page} == set()
