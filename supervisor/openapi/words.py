"""Short words for JSON schemas (draft 2020-12, as OpenAPI 3.1 has them). Pure."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def text(description: str, **more: Any) -> Schema:
    """A string."""
    return {"type": "string", "description": description, **more}


def whole(description: str, **more: Any) -> Schema:
    """An integer, from 0 on unless `minimum` says something else."""
    return {"type": "integer", "description": description, "minimum": 0, **more}


def number(description: str, **more: Any) -> Schema:
    """A number."""
    return {"type": "number", "description": description, **more}


def flag(description: str) -> Schema:
    """A boolean."""
    return {"type": "boolean", "description": description}


def word(description: str, *words: str) -> Schema:
    """One of these strings."""
    return {"type": "string", "description": description, "enum": list(words)}


def moment(description: str) -> Schema:
    """ISO 8601 in UTC."""
    return text(description, format="date-time")


def items(description: str, of: Schema, **more: Any) -> Schema:
    """A list."""
    return {"type": "array", "description": description, "items": of, **more}


def reference(name: str) -> Schema:
    """A schema of this document."""
    return {"$ref": f"#/components/schemas/{name}"}


def or_null(schema: Schema) -> Schema:
    """The same, or null."""
    if "$ref" in schema:
        return {"oneOf": [schema, {"type": "null"}]}
    values = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, "type": [schema["type"], "null"], **values}


def record(description: str, /, **properties: Schema) -> Schema:
    """An object with exactly these members: none is ever missing."""
    return {
        "type": "object", "description": description, "properties": properties, "required": list(properties),
        "additionalProperties": False,
    }  # fmt: skip


def options(description: str, /, **properties: Schema) -> Schema:
    """An object that is sent: each member may be left out, others are refused."""
    return {"type": "object", "description": description, "properties": properties, "additionalProperties": False}
