"""A stage for each kind of gateway."""

from __future__ import annotations

from typing import Any

from tests.end_to_end.gateways.stage import ADDRESS, MOST, SERVICE, ServerStage, Settings, Stage
from tests.end_to_end.machine import free_ports
from tests.servers.envoy import Envoy
from tests.servers.haproxy import SLOTS, Haproxy
from tests.servers.nginx import Nginx

LOOK_SECONDS = 0.1
ONCE = "    retries 0\n    retry-on none\n    no option redispatch\n"
ASKING = "    option httpchk GET /healthz\n    timeout check 500ms\n"
CHECKED = """\
    option httpchk GET /check
    http-check send-state
    http-check disable-on-404
    default-server inter 250ms fastinter 100ms downinter 250ms fall 2 rise 1 weight 100 pool-purge-delay 2s
"""
PREVIOUS_HOSTS = "envoy.retry_host_predicates.previous_hosts"
PREVIOUS_TYPE = "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
IDEMPOTENT = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD|OPTIONS"}}}


class HaproxyStage(ServerStage):
    """HAProxy, kept in step over its admin socket."""

    kind = "haproxy"
    server: Haproxy

    def make_server(self) -> Haproxy:
        ahead = ASKING if self.settings.as_documented else ONCE
        return Haproxy(SERVICE, slots=MOST + 2, backend=ahead + SLOTS)

    def feeder(self) -> str:
        return (
            f'[haproxy.edge]\nsocket = "{self.server.socket}"\nstate_file = "{self.server.state_file}"\n'
            f"look_seconds = {LOOK_SECONDS}\n"
        )


class HaproxyChecksStage(ServerStage):
    """HAProxy that asks the daemon's checks port; there is no unit-gateway."""

    kind = "haproxy-checks"
    server: Haproxy

    def __init__(self, settings: Settings | None = None, registry_url: str | None = None) -> None:
        super().__init__(settings, registry_url)
        self.unit_gateway = None
        self.more_main = f'checks = {{ listen = "{ADDRESS}:{self.checks_port}" }}'

    def make_server(self) -> Haproxy:
        ahead = "" if self.settings.as_documented else ONCE
        return Haproxy(SERVICE, backend=ahead + CHECKED + "".join(map(self._line, range(MOST))))

    def _line(self, number: int) -> str:
        agent = f'agent-check agent-addr {ADDRESS} agent-port {self.checks_port} agent-inter 250ms agent-send "{SERVICE}:{number}\\n"'
        place = f"{ADDRESS}:{self.first_port + number}"
        return f"    server {SERVICE}:{number} {place} check port {self.checks_port} {agent}\n"

    def feeder(self) -> str:
        return ""

    def is_right(self) -> bool:
        """HAProxy sends to these processes at full weight, and to no others."""
        rows = [row.split(",") for row in self.server.ask("show stat").splitlines()]
        up = {row[1] for row in rows if row[0] == SERVICE and row[17].startswith("UP") and row[18] == "100"}
        return up - {"BACKEND"} == {f"{SERVICE}:{number}" for number in range(self.count)}

    def explain(self) -> str:
        """What everybody knows now."""
        return f"{super().explain()}\n{self.server.ask('show stat')}"


class StrictNginx(Nginx):
    """It sends nothing to a second server."""

    def command(self) -> list[str]:
        words = super().command()
        text = self.conf.read_text()
        self.conf.write_text(text.replace("proxy_next_upstream error timeout;", "proxy_next_upstream off;"))
        return words


class NginxStage(ServerStage):
    """nginx, kept in step by a file and reloads."""

    kind = "nginx"
    server: Nginx

    def make_server(self) -> Nginx:
        return Nginx(SERVICE) if self.settings.as_documented else StrictNginx(SERVICE)

    def feeder(self) -> str:
        return self.server.settings(services=(SERVICE,), extra=f"coalesce_seconds = 0.1\nlook_seconds = {LOOK_SECONDS}")


class StrictEnvoy(Envoy):
    """It sends nothing to a second server."""

    def bootstrap(self) -> dict[str, Any]:
        made = super().bootstrap()
        for chain in made["static_resources"]["listeners"][0]["filter_chains"]:
            for host in chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]:
                for route in host["routes"]:
                    del route["route"]["retry_policy"]
        return made


class RepeatingEnvoy(Envoy):
    """Sends what is idempotent to another server when the first one has broken off, as its page says."""

    def bootstrap(self) -> dict[str, Any]:
        made = super().bootstrap()
        for chain in made["static_resources"]["listeners"][0]["filter_chains"]:
            for host in chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]:
                host["routes"] = [self._route("reset", IDEMPOTENT), self._route("reset-before-request")]
        for cluster in made["static_resources"]["clusters"]:
            cluster["circuit_breakers"] = {"thresholds": [{"max_retries": 1000}]}
        return made

    def _route(self, reset: str, *headers: dict[str, Any]) -> dict[str, Any]:
        retries = {
            "retry_on": f"connect-failure,refused-stream,{reset}",
            "num_retries": 2,
            "host_selection_retry_max_attempts": 3,
            "retry_host_predicate": [{"name": PREVIOUS_HOSTS, "typed_config": {"@type": PREVIOUS_TYPE}}],
        }
        route = {"cluster": self.service, "timeout": "15s", "retry_policy": retries}
        return {"match": {"prefix": "/", "headers": list(headers)}, "route": route}


class EnvoyStage(ServerStage):
    """Envoy, kept in step by files."""

    kind = "envoy"
    server: Envoy

    def make_server(self) -> Envoy:
        return RepeatingEnvoy(SERVICE, checks="/healthz") if self.settings.as_documented else StrictEnvoy(SERVICE)

    def feeder(self) -> str:
        return f"[envoy.mesh]\n{self.server.settings()}look_seconds = {LOOK_SECONDS}\n"


class EmbeddedStage(Stage):
    """The gateway that is part of unit-gateway."""

    kind = "embedded"

    def __init__(self, settings: Settings | None = None, registry_url: str | None = None) -> None:
        super().__init__(settings, registry_url)
        self._port = free_ports(1)

    @property
    def port(self) -> int:
        return self._port

    def open(self) -> None:
        """It comes with unit-gateway."""

    def feeder(self) -> str:
        patience = "response_seconds = 2" if self.settings.as_documented else "retries = 0"
        return (
            f'[proxy.shop]\nlisten = "{ADDRESS}:{self._port}"\n{patience}\n'
            f'[[proxy.shop.routes]]\nservice = "{SERVICE}"\n'
        )

    def end(self) -> None:
        """It goes with unit-gateway."""


KINDS: dict[str, type[Stage]] = {
    stage.kind: stage for stage in (HaproxyStage, HaproxyChecksStage, NginxStage, EnvoyStage, EmbeddedStage)
}
