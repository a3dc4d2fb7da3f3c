"""An admin interface that says what a test wants, for what a real Envoy cannot be brought to say."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web


class FakeAdmin:
    """`host` is the only one of the cluster `web`; `totals` are what its requests are counted to, look by look."""

    def __init__(self, eds_file: Path) -> None:
        self.eds_file = eds_file
        self.answer: web.Response | None = None  # instead of all others
        self.reads_files = True
        self.hosts: list[dict[str, Any]] | None = None  # None: those of the file
        self.grows = 0  # requests more, each time it is asked
        self.total = 0
        self.padding = ""
        self.common_lb_config: Any = {"healthy_panic_threshold": {}, "update_merge_window": "0s"}
        self.asked: list[str] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answer any path."""
        self.asked.append(request.path_qs)
        if self.answer is not None:
            return web.Response(status=self.answer.status, text=self.answer.text)
        answers = {"/clusters": self._clusters, "/stats": self._stats, "/config_dump": self._config_dump}
        found = answers[request.path]()
        return web.json_response(found)

    def _clusters(self) -> dict[str, Any]:
        self.total += self.grows
        hosts = self._hosts() if self.hosts is None else self.hosts
        return {"cluster_statuses": [{"name": "a:b", "host_statuses": hosts}], "padding": self.padding}

    def _hosts(self) -> list[dict[str, Any]]:
        if not self.eds_file.exists():
            return []
        localities = json.loads(self.eds_file.read_text())["resources"][0]["endpoints"]
        return [
            {
                "address": line["endpoint"]["address"],
                "weight": line["load_balancing_weight"],
                "health_status": {"eds_health_status": line["health_status"]},
                "stats": [{"name": "rq_total", "value": str(self.total)}],
            }
            for locality in localities
            for line in locality["lb_endpoints"]
        ]

    def _config_dump(self) -> dict[str, Any]:
        return {"configs": [{"cluster": {"name": "a:b", "common_lb_config": self.common_lb_config}}]}

    def _stats(self) -> dict[str, Any]:
        stats: list[dict[str, Any]] = [{"name": "cluster.a_b.update_rejected", "value": 0}]
        if self.reads_files:
            version = json.loads(self.eds_file.read_text())["version_info"] if self.eds_file.exists() else ""
            stats.append({"name": "cluster.a_b.version_text", "value": version})
        return {"stats": stats}


@contextlib.asynccontextmanager
async def serve(fake: FakeAdmin, socket: Path) -> AsyncIterator[str]:
    """Let it listen on a unix socket; gives its path."""
    server = web.ServerRunner(web.Server(fake))
    await server.setup()
    await web.UnixSite(server, str(socket)).start()
    try:
        yield str(socket)
    finally:
        await server.cleanup()
