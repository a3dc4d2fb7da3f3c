"""A daemon that fetches its commands from a control center, which is small here, and dies when it suits the test."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.end_to_end.center.small_center import Json, SmallCenter
from tests.end_to_end.host import SERVE, Host
from tests.end_to_end.machine import until
from tests.servers.certificates import write_certificates
from tests.servers.proxy import Proxy


@pytest.fixture
def center() -> Iterator[SmallCenter]:
    with SmallCenter() as made:
        yield made


def _unit(port: int, ends_in: float = 0.0) -> str:
    return (
        f'[unit.web]\ncommand = "{SERVE} {port} /dev/null 0 {ends_in}"\nstartsecs = 0.05\n'
        f"service = {{ port = {port}, ttl_seconds = 1 }}\n"
        'restart = { settle_seconds = 0.05, removal = "deregister" }\ndrain = { timeout = 0.1, quiet = 0.05 }\n'
    )


def _run(host: Host, *urls: str, center: str = "", http: str = "", ends_in: float = 0.0) -> None:
    """A daemon with one unit and that control center."""
    table = f"[center]\nurl = {json.dumps(list(urls))}\n{center}\n"
    host.configure(table + _unit(host.port(), ends_in), http=http)
    host.run()
    host.until_registered("web")


def _restarts(host: Host, command_id: str) -> list[Json]:
    """The operations that the host has of a command."""
    answer = host.ask("GET", f"/v1/operations?command_id={command_id}")
    return list(answer.json["operations"]) if answer.status == 200 else []


def test_a_command_is_fetched_carried_out_and_told_of(host: Host, center: SmallCenter) -> None:
    _run(host, center.url)
    before = host.unit("web")
    center.give("c-1", "/v1/units/web/restart", reason="a test", issued_by="somebody")
    (operation,) = until("the restart has ended", lambda: center.ended("c-1"))
    assert (operation["state"], operation["reason"], operation["issued_by"]) == ("succeeded", "a test", "somebody")
    assert host.unit("web")["generation"] == before["generation"] + 1
    states = [body["operations"][0]["state"] for _, body in center.results["c-1"]]
    assert states[-1] == "succeeded" and set(states[:-1]) <= {"pending", "running"}


def test_the_next_command_is_fetched_after_the_last_one(host: Host, center: SmallCenter) -> None:
    _run(host, center.url)
    for number in range(3):
        center.give(f"c-{number}", "/v1/units/web/weight", parameters={"weight": 50 + number})
        until("it was carried out", lambda number=number: center.ended(f"c-{number}"))
    until("it asks for what comes after them", lambda: center.fetches[-1] == 3)


def test_heartbeats_say_how_the_node_and_its_units_are(host: Host, center: SmallCenter) -> None:
    _run(host, center.url)
    told = len(center.heartbeats)
    until("two more heartbeats", lambda: len(center.heartbeats) > told + 1)
    last = center.heartbeats[-1]
    assert (last["node"], last["units"], last["services"]) == ("here", 1, ["web"])
    assert [(each["unit"], each["state"]) for each in last["statuses"]] == [("web", "RUNNING")]


def test_a_refusal_is_told_as_the_answer(host: Host, center: SmallCenter) -> None:
    _run(host, center.url)
    center.give("c-1", "/v1/units/nobody/restart")
    center.give("c-2", "/v1/units/web/restart", expected_generation=99)
    center.give("c-3", "/v1/units/web/restart", deadline="2020-01-01T00:00:00Z")
    until("all are answered", lambda: len(center.results) == 3)
    codes = {name: (center.results[name][-1][0], center.results[name][-1][1]["code"]) for name in center.results}
    assert codes == {"c-1": (404, "unknown_unit"), "c-2": (412, "generation_moved"), "c-3": (410, "deadline_passed")}
    assert host.unit("web")["generation"] == 1


def test_what_is_no_command_is_not_done_whoever_sends_it(host: Host, center: SmallCenter) -> None:
    _run(host, center.url)
    center.give("c-1", "/v1/shutdown")
    center.give("c-2", "/v1/units/web", method="GET")
    until("both are answered", lambda: len(center.results) == 2)
    assert {status for (status, _), *_ in center.results.values()} == {404}
    assert host.unit("web")["state"] == "RUNNING"


def test_the_same_id_with_another_content_is_refused(host: Host, center: SmallCenter) -> None:
    _run(host, center.url)
    center.give("c-1", "/v1/units/web/weight", parameters={"weight": 50})
    until("it was carried out", lambda: center.ended("c-1"))
    center.give("c-1", "/v1/units/web/weight", parameters={"weight": 60})
    until("it was refused", lambda: center.last("c-1") is not None and center.last("c-1")[0] == 422)  # type: ignore[index]
    assert host.unit("web")["weight"] == 50


@pytest.mark.parametrize("moment", ["when the commands are on their way", "when the answer is on its way"])
def test_a_daemon_that_is_killed_between_fetching_and_answering_does_it_once(
    host: Host, center: SmallCenter, moment: str
) -> None:
    _run(host, center.url, ends_in=0.2)
    killed = []

    def kill() -> None:
        if not killed and center.commands:
            killed.append(host.pid)
            host.signal(signal.SIGKILL)

    if "commands" in moment:
        center.after_commands = kill
    else:
        center.before_results = kill
    center.give("c-1", "/v1/units/web/restart")
    host.wait()
    center.results.clear()
    host.run()
    (operation,) = until("the restart has ended", lambda: center.ended("c-1"))
    assert operation["state"] == "succeeded"
    assert len(_restarts(host, "c-1")) == 1
    assert host.unit("web")["generation"] == 2
    assert 0 in center.fetches[1:], "the new daemon asks for all open commands"


def test_a_center_that_is_killed_hears_the_end_when_it_is_back(host: Host, center: SmallCenter) -> None:
    _run(host, center.url, ends_in=0.3)
    center.give("c-1", "/v1/units/web/restart")
    until("it was begun", lambda: center.last("c-1"))
    center.stop()
    center.results.clear()
    until("the restart is over", lambda: _restarts(host, "c-1")[0]["finished"])
    center.start()
    (operation,) = until("the end is told", lambda: center.ended("c-1"))
    assert operation["state"] == "succeeded"
    assert host.unit("web")["generation"] == 2
    assert len(_restarts(host, "c-1")) == 1


def test_a_center_that_has_forgotten_where_it_was_is_served_from_the_beginning(host: Host, center: SmallCenter) -> None:
    _run(host, center.url)
    for number in range(3):
        center.give(f"old-{number}", "/v1/units/web/weight", parameters={"weight": 50})
    until("all are carried out", lambda: center.ended("old-2"))
    center.stop()
    center.commands.clear()
    center.start()
    center.give("new-1", "/v1/units/web/weight", parameters={"weight": 70})
    until("a lower number is fetched all the same", lambda: center.ended("new-1"))


def test_of_several_centers_another_one_is_asked(host: Host, center: SmallCenter) -> None:
    with SmallCenter() as other:
        _run(host, other.url, center.url)
        until("the first one is served", lambda: other.heartbeats)
        other.stop()
        center.give("c-1", "/v1/units/web/restart")
        until("the second one is served", lambda: center.ended("c-1"))
        until("and it hears heartbeats", lambda: center.heartbeats)


def test_a_command_that_comes_both_ways_at_once_runs_once(host: Host, center: SmallCenter) -> None:
    port = host.port()
    _run(host, center.url, http=f"127.0.0.1:{port}", ends_in=0.2)
    body = {"command_id": "c-1", "parameters": {}, "reason": "both"}
    center.give("c-1", "/v1/units/web/restart", parameters={}, reason="both")
    answer = host.ask("POST", "/v1/units/web/restart", body)
    assert answer.status == 202
    (fetched,) = until("the fetched one has ended", lambda: center.ended("c-1"))
    assert fetched["id"] == answer.json["operations"][0]["id"]
    assert len(_restarts(host, "c-1")) == 1
    assert host.unit("web")["generation"] == 2


def test_it_is_found_in_the_registry_as_one_that_fetches(host: Host, center: SmallCenter) -> None:
    _run(host, center.url)
    entry = host.entry("unitd", "unitd")
    assert (entry["port"], entry["metadata"]) == (1, {"scheme": "http", "via": "pull"})


def test_with_pull_switched_off_nobody_is_asked(host: Host, center: SmallCenter) -> None:
    _run(host, center.url, center="pull = false")
    assert host.entries("unitd") == []
    assert not center.heartbeats and not center.fetches


def test_a_token_is_shown_and_read_again_when_it_has_changed(host: Host) -> None:
    token = host.file("token", "wrong\n", 0o600)
    with SmallCenter(token="right") as center:
        _run(host, center.url, center='token_file = "token"')
        until("the wrong one is refused", lambda: center.refused)
        assert "401: no token, or a wrong one" in host.said()
        token.write_text("right\n")
        center.give("c-1", "/v1/units/web/restart")
        until("the right one is taken", lambda: center.ended("c-1"), 18)
    assert "right" not in host.said() and sha256(b"wrong").hexdigest() not in host.said()


def test_tls_goes_both_ways_and_openssl_is_loaded_only_then(host: Host, tmp_path: Path) -> None:
    made = write_certificates(tmp_path / "tls")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(made.ca))
    context.load_cert_chain(made.server_certificate, made.server_key)
    context.verify_mode = ssl.CERT_REQUIRED
    with SmallCenter(tls=context) as center:
        files = f'ca = "{made.ca}", cert = "{made.client_certificate}", key = "{made.client_key}"'
        _run(host, center.url, center=f"tls = {{ {files} }}")
        center.give("c-1", "/v1/units/web/restart")
        until("the restart has ended", lambda: center.ended("c-1"))
        assert _maps(host, "libssl")


def test_without_tls_openssl_is_not_loaded(host: Host, center: SmallCenter) -> None:
    _run(host, center.url)
    until("it has told of itself", lambda: center.heartbeats)
    assert not _maps(host, "libssl")


def test_a_center_with_a_certificate_of_somebody_else_is_told_nothing(host: Host, tmp_path: Path) -> None:
    made, others = write_certificates(tmp_path / "tls"), write_certificates(tmp_path / "others")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.server_certificate, made.server_key)
    with SmallCenter(tls=context) as center:
        _run(host, center.url, center=f'tls.ca = "{others.ca}"')
        until("it complains", lambda: "its certificate is not accepted" in host.said())
        assert not center.heartbeats and not center.fetches


@pytest.mark.parametrize("fault", ["stall", "rubbish", "cut"])
def test_faults_on_the_way_pass_and_a_command_is_done_once(host: Host, center: SmallCenter, fault: str) -> None:
    with Proxy(center.port) as proxy:
        _run(host, f"http://{proxy.url}")
        until("it has told of itself", lambda: center.heartbeats)
        if fault == "rubbish":
            proxy.answer_with(b"SSH-2.0-dropbear\r\n")
            proxy.reset_connections()
        elif fault == "cut":
            proxy.cut()
        else:
            proxy.stall()
        center.give("c-1", "/v1/units/web/restart")
        told = len(center.heartbeats)
        proxy.reset_connections() if fault == "stall" else None
        proxy.mend()
        (operation,) = until("the restart has ended", lambda: center.ended("c-1"))
        until("heartbeats come again", lambda: len(center.heartbeats) > told)
    assert len(_restarts(host, "c-1")) == 1


def test_an_answer_that_is_lost_is_given_again(host: Host, center: SmallCenter) -> None:
    with Proxy(center.port) as proxy:
        _run(host, f"http://{proxy.url}")
        until("it has told of itself", lambda: center.heartbeats)
        proxy.cut_after_request(b"/results")
        center.give("c-1", "/v1/units/web/restart")
        (operation,) = until("the restart has ended", lambda: center.ended("c-1"))
        assert proxy.calls_cut == 1
    assert host.unit("web")["generation"] == 2


def test_a_shutdown_ends_soon_though_the_center_is_away(host: Host) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        _run(host, f"http://127.0.0.1:{silent.getsockname()[1]}")
        host.stop(10)


def _maps(host: Host, library: str) -> bool:
    return library in Path(f"/proc/{host.pid}/maps").read_text()


def test_the_audit_log_says_whose_commands_were_fetched(host: Host, center: SmallCenter) -> None:
    _run(host, center.url)
    center.give("c-1", "/v1/units/web/restart", issued_by="somebody")
    until("the restart has ended", lambda: center.ended("c-1"))
    lines = [json.loads(line) for line in (host.folder / "state" / "audit.jsonl").read_text().splitlines()]
    assert any(line["who"] == "center" and line["command_id"] == "c-1" for line in lines), os.linesep.join(
        map(str, lines)
    )
