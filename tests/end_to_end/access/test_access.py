"""Who may command, on a real socket with real users."""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.host import ROOT, UNITD, Host

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be other users")

SLEEP = "/bin/sleep 1000"
NOBODY = pwd.getpwnam("nobody").pw_uid
CLIENT = """
import encodings.idna, json, os, sys
from http.client import HTTPConnection
from tests.end_to_end.host import UnixConnection
uid, gid, groups, where, requests = json.loads(sys.argv[1])
connections = lambda: UnixConnection(where, 10) if isinstance(where, str) else HTTPConnection(*where, timeout=10)
os.setgroups(groups)
os.setresgid(gid, gid, gid)
os.setresuid(uid, uid, uid)
answers = []
for method, path, headers in requests:
    connection = connections()
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        answers.append([response.status, response.read().decode()])
    except PermissionError:
        answers.append([0, "EACCES"])
    connection.close()
print(json.dumps(answers))
"""


def _as(
    uid: int, where: object, *requests: tuple[str, str], gid: int = 65534, groups: tuple[int, ...] = (),
    headers: dict[str, str] | None = None,
) -> list[tuple[int, str]]:  # fmt: skip
    """Send requests as another user."""
    plan = json.dumps([uid, gid, groups, where, [(*request, headers or {}) for request in requests]])
    ended = subprocess.run(
        [sys.executable, "-c", CLIENT, plan],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return [(status, body) for status, body in json.loads(ended.stdout)]


def test_a_stranger_cannot_use_the_socket(host: Host) -> None:
    host.configure(f'unit.web = {{ command = "{SLEEP}", startsecs = 0.1 }}')
    host.run()
    host.until_state("web", "RUNNING")

    assert stat.S_IMODE(os.stat(host.socket).st_mode) == 0o660
    refused = _as(NOBODY, host.socket, ("GET", "/v1/units"), ("POST", "/v1/units/web/stop"), ("GET", "/healthz"))

    assert [status for status, _ in refused] == [0, 0, 0], "connect(2) itself is refused"
    assert host.unit("web")["state"] == "RUNNING"


def test_a_stranger_who_gets_to_the_socket_is_still_refused(host: Host) -> None:
    host.configure(f'unit.web = {{ command = "{SLEEP}", startsecs = 0.1 }}')
    host.run()
    host.until_state("web", "RUNNING")
    os.chmod(host.socket, 0o666)

    refused = _as(NOBODY, host.socket, ("GET", "/v1/units"), ("POST", "/v1/units/web/stop"), ("POST", "/v1/shutdown"))

    assert [status for status, _ in refused] == [403, 403, 403]
    assert f"uid {NOBODY} may not use unitd" in json.loads(refused[0][1])["detail"]
    assert host.unit("web")["state"] == "RUNNING"


@pytest.mark.parametrize("how", ["its group", "a supplementary group"])
def test_a_member_of_the_sockets_group_may_command(host: Host, how: str) -> None:
    group = grp.getgrnam("daemon")
    host.configure(f'unit.web = {{ command = "{SLEEP}", startsecs = 0.1 }}', socket_group="daemon")
    host.run()
    host.until_state("web", "RUNNING")
    assert os.stat(host.socket).st_gid == group.gr_gid

    gid, groups = (group.gr_gid, ()) if how == "its group" else (65534, (group.gr_gid,))
    answers = _as(NOBODY, host.socket, ("GET", "/v1/units"), ("POST", "/v1/units/web/stop"), gid=gid, groups=groups)

    assert [status for status, _ in answers] == [200, 202]
    host.until_state("web", "STOPPED")


def test_over_tcp_everybody_on_the_host_may_read_and_only_root_may_command(host: Host) -> None:
    port = host.port()
    where = ("127.0.0.1", port)
    host.configure(f'unit.web = {{ command = "{SLEEP}", startsecs = 0.1 }}', http=f"127.0.0.1:{port}")
    host.run()
    host.until_state("web", "RUNNING")

    posts = (("POST", "/v1/units/web/stop"), ("POST", "/v1/shutdown"), ("POST", "/v1/config/apply"))
    read, *refused = _as(NOBODY, where, ("GET", "/v1/units"), *posts)
    deleted = _as(NOBODY, where, ("DELETE", "/v1/registry/services/unitd/here?generation=1"))

    assert read[0] == 200 and json.loads(read[1])["units"][0]["unit"] == "web"
    assert [status for status, _ in (*refused, *deleted)] == [403, 403, 403, 403]
    assert "only root" in json.loads(refused[0][1])["detail"]
    assert host.unit("web")["state"] == "RUNNING"
    [(status, _)] = _as(0, where, ("POST", "/v1/units/web/stop"), gid=0)
    assert status == 202
    host.until_state("web", "STOPPED")


def test_web_pages_and_other_names_of_this_machine_are_refused_over_tcp(host: Host) -> None:
    port = host.port()
    where = ("127.0.0.1", port)
    host.configure(f'unit.web = {{ command = "{SLEEP}", startsecs = 0.1 }}', http=f"127.0.0.1:{port}")
    host.run()
    host.until_state("web", "RUNNING")
    stop = ("POST", "/v1/units/web/stop")

    answers = [
        *_as(0, where, stop, gid=0, headers={"Origin": "http://evil.example"}),
        *_as(0, where, stop, ("GET", "/v1/units"), gid=0, headers={"Host": f"evil.example:{port}"}),
    ]

    assert [status for status, _ in answers] == [403, 403, 403]
    assert host.unit("web")["state"] == "RUNNING"


@pytest.mark.parametrize("listen", ["0.0.0.0:9301", "[::]:9301", "192.0.2.1:9301"])
def test_listening_where_others_could_connect_is_refused_with_the_reason(host: Host, listen: str) -> None:
    host.configure("", http=listen)
    ended = subprocess.run(
        [*UNITD, "-c", str(host.config)], cwd=ROOT, capture_output=True, text=True, timeout=10, check=False
    )

    assert ended.returncode == 2
    assert "http.listen" in ended.stderr and "TLS" in ended.stderr and "127.0.0.1" in ended.stderr
    assert not Path(host.socket).exists()
