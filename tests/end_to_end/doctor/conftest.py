"""The hosts with a real registry are those of the scenarios with registries."""

from __future__ import annotations

from tests.end_to_end.registries.conftest import namespace, open_proxy, share_server, site, start_server

__all__ = ["namespace", "open_proxy", "share_server", "site", "start_server"]
