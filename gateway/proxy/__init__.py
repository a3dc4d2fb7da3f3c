"""The embedded gateway: a small weighted reverse proxy for HTTP/1.1."""

from __future__ import annotations

from .embedded import EmbeddedGateway, make

__all__ = ["EmbeddedGateway", "make"]
