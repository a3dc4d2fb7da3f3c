"""Commands over TLS to a real daemon: repeated, late, stale, moved; over crashes; and what the audit log keeps."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from supervisor.core.audit import verify
from tests.end_to_end.host import ROOT, UNITCTL, Host
from tests.end_to_end.machine import until
from tests.end_to_end.secure.scene import SLEEP, TOKENS, Secure

LATE, EARLY = "2001-01-01T00:00:00Z", "2999-01-01T00:00:00Z"


@pytest.fixture
def own(host: Host) -> Secure:
    made = Secure(host, f'unit.web = {{ command = "{SLEEP}", startsecs = 0.05 }}')
    host.run()
    host.until_state("web", "RUNNING")
    return made


def again(secure: Secure) -> None:
    """The daemon is killed and comes back."""
    secure.host.signal(signal.SIGKILL)
    secure.host.wait()
    secure.host.run()


def test_what_was_accepted_counts_over_a_crash_and_is_done_once(own: Secure) -> None:
    client = own.client("admin")
    said = {"command_id": "c1", "center": "store", "epoch": 4, "expected_generation": 1, "deadline": EARLY}
    first = client.ask("POST", "/v1/units/web/restart", said)
    assert first.status == 202, first
    again(own)
    repeated = client.ask("POST", "/v1/units/web/restart", {**said, "deadline": LATE, "epoch": 5})
    assert (repeated.status, repeated.json["id"]) == (202, first.json["id"])
    own.host.finish([first.json])
    generation = own.host.until_state("web", "RUNNING")["generation"]
    assert generation in (2, 3), "one more if it was killed between the number and the process"
    assert len(own.host.ask("GET", "/v1/operations?command_id=c1").json["operations"]) == 1

    def code(body: dict[str, object], path: str = "/v1/units/web/restart") -> tuple[int, str]:
        answer = client.ask("POST", path, body)
        return answer.status, answer.json["code"]

    assert code({**said, "reason": "other"}) == (422, "replayed")
    assert code({"center": "store", "epoch": 4}) == (409, "stale_epoch")
    assert code({"deadline": LATE}) == (410, "deadline_passed")
    assert code({"expected_generation": 1}) == (412, "generation_moved")
    assert code({}, "/v1/units/wob/restart") == (404, "unknown_unit")
    assert own.host.unit("web")["generation"] == generation


def test_an_apply_that_comes_again_after_a_crash_does_nothing_more(own: Secure) -> None:
    client, config = own.client("admin"), own.host.config
    config.write_text(config.read_text().replace(SLEEP, f"{SLEEP}0"))
    first = client.ask("POST", "/v1/config/apply", {"command_id": "a1"})
    assert first.status == 202 and first.json["items"][0]["effect"] == "restart"
    again(own)
    second = client.ask("POST", "/v1/config/apply", {"command_id": "a1"})
    assert second.json["items"] == first.json["items"]
    assert [item["id"] for item in second.json["operations"]] == [item["id"] for item in first.json["operations"]]
    own.host.finish(first.json["operations"])
    assert own.host.until_state("web", "RUNNING")["generation"] in (2, 3), "see above"


def test_a_daemon_that_shuts_down_says_so_to_new_commands(host: Host) -> None:
    stubborn = "sh -c 'trap : TERM; while :; do sleep 0.05; done'"
    own = Secure(host, f'unit.web = {{ command = "{stubborn}", startsecs = 0.3, stopwaitsecs = 2 }}')
    host.run()
    host.until_state("web", "RUNNING")
    client = own.client("admin")
    assert client.ask("POST", "/v1/shutdown", {"reason": "moving"}).status == 202
    answer = client.ask("POST", "/v1/units/web/start", {})
    assert (answer.status, answer.json["code"]) == (503, "shutting_down")
    assert host.wait() == 0


def test_the_same_command_from_many_sides_at_once_is_carried_out_once(own: Secure) -> None:
    ids: list[str] = []

    def send() -> None:
        ids.append(own.client("admin").ask("POST", "/v1/units/web/restart", {"command_id": "both"}).json["id"])

    threads = [threading.Thread(target=send) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert len(ids) == 12 and len(set(ids)) == 1
    own.host.finish(own.host.ask("GET", "/v1/operations?command_id=both").json["operations"])
    assert own.host.until_state("web", "RUNNING")["generation"] == 2


# The audit log.


def test_the_audit_log_holds_every_command_from_wherever_it_came_and_no_credential(own: Secure) -> None:
    own.host.do("restart", "web")
    own.client("admin").ask("POST", "/v1/units/web/signal", {"parameters": {"signal": "CONT"}, "reason": "wake up"})
    own.client("reader").ask("POST", "/v1/units/web/stop", {"command_id": "c1", "issued_by": "somebody"})
    own.client().ask("POST", "/v1/units/web/stop", {}, Authorization="Bearer wrong-token")
    shown = own.authority.write("center", "center.example")
    own.client(context=own.context(shown)).ask("POST", "/v1/units/web/disable", {})
    own.client("admin").ask("GET", "/v1/units")
    lines = own.audit()
    assert [(line["who"], line["action"], line["verdict"], line["code"]) for line in lines] == [
        ("uid 0", "restart", "accepted", None), ("admin", "signal", "accepted", None),
        ("reader", "stop", "refused", "forbidden"), ("unknown", "stop", "refused", "unauthenticated"),
        ("center", "disable", "accepted", None),
    ]  # fmt: skip
    assert lines[0]["peer"] == "unix" and lines[1]["peer"].startswith("127.0.0.1:")
    assert (lines[2]["command_id"], lines[2]["issued_by"], lines[1]["reason"]) == ("c1", "somebody", "wake up")
    text = (own.host.folder / "state" / "audit.jsonl").read_text()
    assert not any(token in text for token in (*TOKENS.values(), "wrong-token", "Bearer"))


def test_the_chain_holds_over_crashes_and_rotation(own: Secure) -> None:
    path = own.host.folder / "state" / "audit.jsonl"
    own.host.do("restart", "web")
    again(own)
    own.host.do("restart", "web")
    old = path.rename(path.with_suffix(".1"))
    own.host.signal(signal.SIGUSR2)
    until("there is a new file", path.exists)
    own.host.do("restart", "web")
    found = verify((old.read_bytes() + path.read_bytes()).splitlines())
    assert (found.lines, found.faults) == (3, [])
    assert "not as it was left" not in own.host.said()


def test_a_cut_off_end_is_noticed_at_the_next_start_and_by_the_doctor(own: Secure) -> None:
    path = own.host.folder / "state" / "audit.jsonl"
    own.host.do("restart", "web")
    own.host.do("restart", "web")
    own.host.signal(signal.SIGKILL)
    own.host.wait()
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    own.host.run()
    assert "is not as it was left" in own.host.said()
    findings = own.host.ask("GET", "/v1/doctor").json["findings"]
    assert [finding["outcome"] for finding in findings if finding["check"] == "audit"] == ["problem"]


def test_without_an_audit_log_commands_are_taken_all_the_same(host: Host) -> None:
    Secure(host, f'unit.web = {{ command = "{SLEEP}", startsecs = 0.05 }}', audit_log="")
    host.run()
    host.do("restart", "web")
    assert not (host.folder / "state" / "audit.jsonl").exists()


def unitctl(host: Host, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*UNITCTL, "-c", str(host.config), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )


def test_unitctl_shows_and_verifies_it(own: Secure) -> None:
    own.client("admin").ask("POST", "/v1/units/web/restart", {"reason": "new version\n\x1b[31m", "issued_by": "ann"})
    own.client("reader").ask("POST", "/v1/units/web/stop", {})
    shown = unitctl(own.host, "audit", "-n", "1")
    assert shown.returncode == 0 and shown.stdout.count("\n") == 1
    assert (
        "reader (127.0.0.1:" in shown.stdout
        and "stop web: refused (forbidden: reader has the role read" in shown.stdout
    )
    assert "\x1b" not in unitctl(own.host, "audit").stdout
    found = unitctl(own.host, "audit", "--verify")
    assert found.returncode == 0 and found.stdout.startswith("2 lines, numbers 1 to 2: each follows")
    path = own.host.folder / "state" / "audit.jsonl"
    path.write_text(path.read_text().replace('"ann"', '"bob"'))
    found = unitctl(own.host, "audit", "--verify", "-o", "json")
    assert found.returncode == 1 and len(json.loads(found.stdout)["faults"]) == 1
    assert unitctl(own.host, "audit", "--file", "/nonexistent/a").returncode == 2


def test_a_token_that_unitctl_has_made_gets_in(host: Host) -> None:
    path = host.folder / "new.token"
    made = unitctl(host, "new-token", "--file", str(path))
    assert made.returncode == 0, made.stderr
    hashed = made.stdout.splitlines()[1]
    own = Secure(host, f'http.access.new = {{ role = "read", {hashed} }}')
    host.run()
    client = own.client()
    client.token = Path(path).read_text().strip()
    assert client.ask("GET", "/v1/units").status == 200
    assert path.stat().st_mode & 0o777 == 0o600 and len(client.token) == 43
    assert client.token not in made.stdout
