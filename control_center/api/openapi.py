"""The description of the API in OpenAPI 3.1: what `paths` says of each route, and what all routes share."""

from __future__ import annotations

from functools import cache
from typing import Any

from supervisor.installation import version

from .answers import ANSWERS
from .asked import ASKED
from .paths import PATHS, Described
from .schema import ref

PROBLEM = "application/problem+json"
_STATUS_WORDS = {
    400: "It cannot be understood, or makes no sense: `detail` names the member. Nothing was done.",
    401: "No credential, or one that nobody has (`unauthenticated`).",
    403: "The caller may not (`forbidden`).",
    404: "There is none such (`not_found`); `nearest` is the name that was perhaps meant.",
    405: "The path does not take this method; `Allow` has those that it takes.",
    408: "The body came too slowly.",
    409: "It contradicts what is under way or has ended (`busy`, `done`).",
    410: "The deadline has passed (`deadline_passed`).",
    413: "The body is too large (`too_large`).",
    422: "It is well-formed, but cannot be (`nothing_selected`, `floor`, `replayed`).",
    502: "The node does not answer (`node_unreachable`) or does not let the center in (`node_refused`).",
    503: "Not now (`store_away`, `superseded`, `busy`, `timeout`): ask again.",
}


@cache
def document() -> dict[str, Any]:
    """The whole document, as plain values."""
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), described in PATHS.items():
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, described)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Control center of unitd",
            "version": version(),
            "description": "Sees a fleet through its registry, commands its nodes, guards how much goes at once.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {**ASKED, **ANSWERS},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "certificate": {"type": "mutualTLS", "description": "a client certificate that an access entry names"},
            },
        },
    }


def _operation(method: str, path: str, described: Described) -> dict[str, Any]:
    value: dict[str, Any] = {
        "operationId": _identifier(method, path),
        "summary": described.summary,
        "tags": [described.tag],
        "parameters": [*_path_parameters(path), *described.parameters],
        "responses": _responses(described),
    }
    if described.details:
        value["description"] = described.details
    value["security"] = [{"token": []}, {"certificate": []}] if described.right is not None else []
    if described.right is not None:
        value["x-right"] = " or ".join([described.right.value, *sorted(described.also)])
    if described.body is not None:
        value["requestBody"] = {
            "required": described.body_required,
            "content": {"application/json": {"schema": ref(described.body)}},
        }
    return value


def _identifier(method: str, path: str) -> str:
    parts = [part.strip("{}") for part in path.replace(".", "/").split("/") if part and part != "v1"]
    return "_".join((method.lower(), *parts)) if parts else f"{method.lower()}_page"


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1, "maxLength": 512}}
        for name in names
    ]


def _responses(described: Described) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, (words, content) in described.answers.items():
        found[str(status)] = {"description": words, **({"content": content} if content else {})}
    for status in _problems(described):
        content = {PROBLEM: {"schema": ref("Problem")}}
        found[str(status)] = {"description": _STATUS_WORDS[status], "content": content}
    return found


def _problems(described: Described) -> list[int]:
    """What any route of this kind may answer instead."""
    found = {400, 503, *described.problems}
    if described.right is not None:
        found |= {401, 403}
    if described.body is not None:
        found |= {408, 413}
    return sorted(found)
