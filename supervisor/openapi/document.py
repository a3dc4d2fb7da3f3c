"""The whole document."""

from __future__ import annotations

from typing import Any

from .paths import paths
from .schemas import SCHEMAS
from .words import reference

_ABOUT = """\
The same on the unix socket, where the kernel says who calls, and on TCP, where a caller shows a bearer token or a
client certificate once the configuration has any. `x-right` is the right that a caller's role must give: read, operate,
node or admin. Absent is null, never a missing member. Times are ISO 8601 in UTC.
"""


def document(version: str) -> dict[str, Any]:
    """It, for that version of unitd; made anew each time."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "unitd", "version": version, "description": _ABOUT, "license": {"name": "Apache-2.0"}},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"certificate": []}, {}],
        "paths": paths(),
        "components": {
            "schemas": SCHEMAS,
            "responses": {
                "Problem": {
                    "description": "Refused; `detail` says what to do.",
                    "content": {"application/problem+json": {"schema": reference("Problem")}},
                }
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "certificate": {"type": "mutualTLS"},
            },
        },
    }
