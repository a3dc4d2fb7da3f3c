"""Writes the tables of docs/reference/center-http-api.md from the API's own description.

Run `python docs/center_http_api.py` in the project's folder; a test fails when the page is stale.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from control_center.api.asked import ASKED
from control_center.api.openapi import document

PAGE = Path(__file__).parent / "reference" / "center-http-api.md"
TITLES = {
    "center": "The center", "fleet": "Nodes and services", "operations": "Operations", "guard": "Reports and decisions",
    "events": "Events", "nodes": "For nodes that fetch their commands", "registry": "The hosted registry",
    "itself": "Open to all, and metrics",
}  # fmt: skip


def render() -> str:
    """The page, with what is generated in the places that are marked for it; the rest stays as it is."""
    found, page = document(), PAGE.read_text()
    page = _put(page, "routes", "\n".join(_section(tag, title, found) for tag, title in TITLES.items()))
    return _put(page, "forms", _forms(found))


def _put(page: str, name: str, text: str) -> str:
    before, begin, rest = page.partition(f"<!-- begin {name}: written by docs/center_http_api.py -->\n")
    _, end, after = rest.partition(f"<!-- end {name} -->\n")
    assert begin and end, f"{PAGE} has no place for its {name}"
    return f"{before}{begin}\n{text.strip()}\n\n{end}{after}"


def _section(tag: str, title: str, found: dict[str, Any]) -> str:
    lines = [f"## {title}", "", "| request | right | answer |", "|---|---|---|"]
    details: list[str] = []
    for path, methods in found["paths"].items():
        for method, route in methods.items():
            if tag in route["tags"]:
                lines.append(_row(method, path, route))
                details += _details(method, path, route)
    return "\n".join([*lines, "", *details])


def _row(method: str, path: str, route: dict[str, Any]) -> str:
    answers = "; ".join(_answers(route))
    words = route["summary"] + (f": {answers}" if answers else "")
    return f"| `{method.upper()} {path}` | {route.get('x-right', 'none')} | {words} |"


def _answers(route: dict[str, Any]) -> Iterator[str]:
    for status, answer in route["responses"].items():
        schema = answer.get("content", {}).get("application/json", {}).get("schema")
        if status.startswith("2") and schema is not None:
            yield f"{status} {_kind(schema)}"


def _details(method: str, path: str, route: dict[str, Any]) -> list[str]:
    parameters = [each for each in route["parameters"] if each["in"] != "path"]
    body = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if not (parameters or body or route.get("description")):
        return []
    lines = [f"**`{method.upper()} {path}`** {route.get('description', '')}".rstrip(), ""]
    if body is not None:
        lines += [f"Body: {_kind(body)}.", ""]
    for each in parameters:
        where = "" if each["in"] == "query" else " (header)"
        lines.append(f"- `{each['name']}`{where}: {_typed(each['schema'])}{_more(each)}")
    return [*lines, *([""] if parameters else [])]


def _forms(found: dict[str, Any]) -> str:
    lines = ["## Forms", ""]
    for name, schema in found["components"]["schemas"].items():
        lines += [f"### {name}", ""]
        if words := schema.get("description"):
            lines += [f"{words[:1].upper()}{words[1:]}.", ""]
        lines += ["| member | type | meaning |", "|---|---|---|", *_table(schema, "", name in ASKED), ""]
    return "\n".join(lines)


def _table(schema: dict[str, Any], prefix: str, is_asked: bool) -> Iterator[str]:
    required = set(schema.get("required", ())) if is_asked else set()
    for name, member in schema["properties"].items():
        needed = ", required" if name in required else ""
        inner = member.get("items", member)
        kind = _typed(member)
        if "properties" in inner:
            kind = "object" if inner is member else "list of objects"
        yield f"| `{prefix}{name}` | {kind}{needed} | {_escaped(member.get('description', ''))} |"
        if "properties" in inner:
            yield from _table(inner, f"{prefix}{name}{'' if inner is member else '[]'}.", is_asked)


def _typed(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        words = " ".join(f"`{word}`" for word in schema["enum"] if word is not None)
        return words + (" or null" if None in schema["enum"] else "")
    kind = _kind(schema)
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None and high < 2**53 - 1:
        kind += f", {low} to {high}"
    return kind


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join("null" if each == {"type": "null"} else _kind(each) for each in schema["anyOf"])
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    if "array" in kinds and "items" in schema:
        return f"list of {_kind(schema['items'])}" + (" or null" if "null" in kinds else "")
    if schema.get("additionalProperties") and isinstance(schema["additionalProperties"], dict):
        inner = schema["additionalProperties"]
        return f"object of {_kind(inner)}" if "type" in inner else "object"
    if kinds == ["object"] and schema.get("properties") and "description" not in schema:
        members = ", ".join(f"`{name}` {_kind(each)}" for name, each in schema["properties"].items())
        return f"{{{members}}}"
    return " or ".join(kinds)


def _more(parameter: dict[str, Any]) -> str:
    return f"; {parameter['description']}" if parameter.get("description") else ""


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(render())
