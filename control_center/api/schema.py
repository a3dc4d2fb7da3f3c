"""Small words for JSON Schema (2020-12), in which the API is described."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Schema = dict[str, Any]


def text(description: str = "", **more: Any) -> Schema:
    """A string."""
    return _typed("string", description, more)


def moment(description: str = "") -> Schema:
    """A point in time in UTC."""
    return _typed("string", description, {"format": "date-time"})


def integer(description: str = "", minimum: int | None = 0, **more: Any) -> Schema:
    """A whole number."""
    return _typed("integer", description, ({} if minimum is None else {"minimum": minimum}) | more)


def number(description: str = "", **more: Any) -> Schema:
    """A number."""
    return _typed("number", description, more)


def boolean(description: str = "") -> Schema:
    """true or false."""
    return _typed("boolean", description, {})


def words(choices: Sequence[str], description: str = "") -> Schema:
    """One of some words."""
    return _typed("string", description, {"enum": list(choices)})


def listing(items: Schema, description: str = "", **more: Any) -> Schema:
    """A list."""
    return _typed("array", description, {"items": items, **more})


def mapping(values: Schema, description: str = "", **more: Any) -> Schema:
    """An object whose members have names of their own."""
    return _typed("object", description, {"additionalProperties": values, **more})


def anything(description: str = "") -> Schema:
    """An object of any members."""
    return _typed("object", description, {})


def ref(name: str) -> Schema:
    """One of the named schemas."""
    return {"$ref": f"#/components/schemas/{name}"}


def maybe(schema: Schema) -> Schema:
    """The same, or null."""
    if "$ref" in schema or "anyOf" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    changed = {**schema, "type": [schema["type"], "null"]}
    if "enum" in changed:
        changed["enum"] = [*changed["enum"], None]
    return changed


def answer(properties: Mapping[str, Schema], description: str = "") -> Schema:
    """An object that is sent: all members are always there, and no others."""
    return {**body(properties, tuple(properties)), **({"description": description} if description else {})}


def body(properties: Mapping[str, Schema], required: Sequence[str] = (), description: str = "") -> Schema:
    """An object that is taken: what is not required may be left out or be null; others are refused."""
    shown = {name: schema if name in required else maybe(schema) for name, schema in properties.items()}
    more: Schema = {"required": list(required)} if required else {}
    more |= {"description": description} if description else {}
    return {"type": "object", "properties": shown, "additionalProperties": False, **more}


def _typed(kind: str, description: str, more: Mapping[str, Any]) -> Schema:
    return {"type": kind, **({"description": description} if description else {}), **more}
