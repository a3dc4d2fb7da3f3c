"""The description of the control API (OpenAPI 3.1), as `GET /openapi.json` serves it.

It is data, imported when somebody asks. A test holds it together with the routes and with the messages of `wire.py`.
"""

from __future__ import annotations

from .document import document

__all__ = ["document"]
