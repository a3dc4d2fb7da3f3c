"""The agent for gateways on a host with systemd: it keeps nginx and HAProxy in step from within its sandbox."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.systemd.booted import SYSTEM, Booted
from tests.systemd.conftest import Boot
from tests.systemd.container import PACKAGES, SOURCE, wait_for

pytestmark = [pytest.mark.real, pytest.mark.timeout(90), pytest.mark.usefixtures("system_python")]

NGINX_PORT, HAPROXY_PORT = 8080, 8081
_SCRIPT = f"""#!/usr/bin/python3 -P
import sys
sys.path[:0] = ["{SOURCE}", "{PACKAGES}"]
from gateway.boot import main
sys.exit(main())
"""
_NGINX = f"""
user www-data;
pid /run/nginx.pid;
error_log /var/log/nginx/error.log warn;
events {{}}
http {{
    log_format unitd '$msec $status $request_time | $upstream_addr | $upstream_status | $upstream_response_time';
    access_log /var/log/nginx/unitd.log unitd;
    include /etc/nginx/unit-upstreams.conf;
    server {{
        listen 127.0.0.1:{NGINX_PORT};
        location / {{ proxy_pass http://web; }}
    }}
}}
"""
_HAPROXY = f"""
global
    stats socket /run/haproxy/admin.sock mode 660 level admin
    user haproxy
    group haproxy
defaults
    mode http
    timeout connect 1s
    timeout client 10s
    timeout server 10s
frontend edge
    bind 127.0.0.1:{HAPROXY_PORT}
    default_backend web
backend web
    balance roundrobin
"""
_SETTINGS = """
name = "gw"
[registry]
backend = "http"
url = "http://127.0.0.1:9301"
[nginx.front]
services = ["web"]
conf = "/etc/nginx/nginx.conf"
file = "/etc/nginx/unit-upstreams.conf"
[haproxy.edge]
services = ["web"]
socket = "/run/haproxy/admin.sock"
"""
_ASK = """
import urllib.request
print(sorted({urllib.request.urlopen("http://127.0.0.1:%d/").read().decode() for _ in range(6)}))
"""


def _wanted(name: str) -> str:
    return f"{SYSTEM}/multi-user.target.wants/{name}.service"


def _files() -> dict[str, str]:
    return {
        "/opt/unitd/bin/unit-gateway": _SCRIPT,
        "/etc/unitd/unit-gateway.toml": _SETTINGS,
        "/etc/nginx/nginx.conf": _NGINX,
        "/etc/nginx/unit-upstreams.conf": "upstream web { server 127.0.0.1:1; }\n",
        "/etc/haproxy/haproxy.cfg": _HAPROXY,
        "/etc/tmpfiles.d/haproxy-here.conf": "d /run/haproxy 0755 haproxy haproxy\n",
        _wanted("nginx"): "-> /lib/systemd/system/nginx.service",
        _wanted("haproxy"): "-> /lib/systemd/system/haproxy.service",
        _wanted("unit-gateway"): f"-> {SYSTEM}/unit-gateway.service",
    }


def _sends_to(host: Booted, port: int, expected: str) -> bool:
    return host.container.run("python3", "-c", _ASK % port, check=False).strip() == expected


def test_nginx_and_haproxy_send_to_the_units_that_are_registered(boot: Boot) -> None:
    for name in ("nginx", "haproxy"):
        if not Path(f"/lib/systemd/system/{name}.service").exists():
            pytest.skip(f"{name} is not installed (Debian package {name})")
    host = boot(**_files())
    expected = str(sorted(str(pid) for pid in host.wait_serving().values()))
    log = ("journalctl", "--no-pager", "-u", "unit-gateway", "-o", "cat")
    for port in (NGINX_PORT, HAPROXY_PORT):
        wait_for(partial(_sends_to, host, port, expected), f"{port}: {host.container.run(*log)}")
    host.container.run("systemctl", "stop", "unit-gateway")
    assert host.container.show("unit-gateway", "Result") == "success"
    for port in (NGINX_PORT, HAPROXY_PORT):
        assert _sends_to(host, port, expected)
