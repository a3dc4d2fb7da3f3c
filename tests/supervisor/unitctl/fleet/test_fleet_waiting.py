"""Waiting for a fleet operation: progress, the end of patience, Ctrl-C, and a center that is restarted meanwhile."""

from __future__ import annotations

import os
import pty
import re
import time
from typing import Any

import pytest


@pytest.fixture
def restarting(cart: Any, fleet: Any) -> Any:
    """`unitctl fleet restart` that waits for fo-1."""
    cart.hold()
    process = fleet.begin("fleet", "restart", "cart")
    cart.wait_for("GET", "/v1/operations/fo-1")
    return process


def test_each_change_is_told_when_it_comes(cart: Any, restarting: Any) -> None:
    lines = []
    for change in (
        {"state": "running", "batches": {0: {"state": "running"}}},
        {"targets": {"web-1/cart:0": {"state": "sent"}}},
        {
            "targets": {
                "web-1/cart:0": {"state": "running", "steps": "waiting for the registry entry to go: 1.0 s of 9.4 s"}
            }
        },
        {"targets": {"web-1/cart:0": {"state": "succeeded", "detail": "2 requests were cut"}}},
        {"batches": {0: {"state": "baking"}}},
        {"waiting_for": "cart is at its floor"},
    ):
        cart.change("fo-1", **change)
        lines.append(restarting.stderr.readline())
    cart.finish("fo-1")
    out, err = restarting.communicate(timeout=15)
    assert err.splitlines()[-1] == "web-1/cart:0: warning: 2 requests were cut"
    assert lines == [
        "canary begins: 1 target\n",
        "web-1/cart:0: the command is on its way\n",
        "web-1/cart:0: waiting for the registry entry to go: 1.0 s of 9.4 s\n",
        "web-1/cart:0: done\n",
        "canary is well so far, and watched\n",
        "waits: cart is at its floor\n",
    ]
    assert (restarting.returncode, out) == (0, "fo-1: restart of cart succeeded: 4 of 4 done in 0:04:12\n")


def test_a_time_that_runs_on_is_told_only_once(cart: Any, restarting: Any) -> None:
    for seconds in ("1.0", "2.0", "3.0"):
        asked = len(cart.asked("GET", "/v1/operations/fo-1"))
        cart.change(
            "fo-1", state="running", targets={"web-1/cart:0": {"state": "running", "steps": f"waits {seconds} s"}}
        )
        cart.wait_for("GET", "/v1/operations/fo-1", asked + 1)
    cart.finish("fo-1", targets={"web-1/cart:0": {"state": "succeeded"}})
    _, err = restarting.communicate(timeout=15)
    assert err.count("web-1/cart:0: waits") == 1


def test_a_failure_is_1_and_told_unit_by_unit(cart: Any, restarting: Any) -> None:
    failed = {"state": "failed", "detail": "given up: no such file: /srv/serve"}
    cart.finish("fo-1", "failed", error="1 of 4 failed, none may", targets={"web-1/cart:0": failed})
    out, err = restarting.communicate(timeout=15)
    assert (restarting.returncode, out) == (1, "")
    assert err.splitlines()[-2:] == [
        "web-1/cart:0: failed: given up: no such file: /srv/serve",
        "fo-1: restart of cart failed: 4 of 4 done, 1 failed, 3 skipped in 0:04:12: 1 of 4 failed, none may",
    ]


def test_failures_that_were_allowed_are_told_and_it_is_done(cart: Any, restarting: Any) -> None:
    cart.finish("fo-1", targets={"web-1/cart:0": {"state": "failed", "detail": "timed out"}})
    out, err = restarting.communicate(timeout=15)
    assert restarting.returncode == 0 and "1 failed" in out
    assert err.splitlines()[-1] == "web-1/cart:0: failed: timed out"


def test_quiet_says_nothing(cart: Any, fleet: Any) -> None:
    done = fleet("fleet", "restart", "cart", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_waiting_the_id_is_printed_and_can_be_followed(cart: Any, fleet: Any) -> None:
    cart.hold()
    assert fleet("fleet", "restart", "cart", "--no-wait").stdout == "fo-1\n"
    process = fleet.begin("fleet", "ops", "-f", "fo-1")
    cart.wait_for("GET", "/v1/operations/fo-1", 2)
    cart.finish("fo-1", "aborted", error="aborted by bob")
    out, err = process.communicate(timeout=15)
    assert (process.returncode, out) == (1, "") and "aborted by bob" in err


def test_ctrl_c_ends_the_waiting_and_says_how_to_follow_or_abort(cart: Any, fleet: Any, restarting: Any) -> None:
    code, out, err = fleet.interrupt(restarting)
    assert (code, out) == (130, "")
    assert err.splitlines() == [
        "unitctl: no longer waiting: operation fo-1 goes on",
        "    follow: unitctl fleet ops -f fo-1",
        "    abort:  unitctl fleet abort fo-1",
    ]


def test_the_hints_reach_the_same_center(cart: Any, fleet: Any) -> None:
    cart.hold()
    fleet.environment.pop("UNITCTL_CENTER")
    done = fleet("fleet", "--center", cart.url, "restart", "cart", "--timeout", "500ms")
    assert done.returncode == 75
    assert "not done within 0.5 s: operation fo-1 goes on\n" in done.stderr
    line = re.search(r"abort:  unitctl (.*)", done.stderr)
    assert line is not None and fleet(*line[1].split()).returncode == 0
    assert cart.operations["fo-1"]["state"] == "aborted"


def test_a_restart_of_the_center_is_survived_and_said_once(cart: Any, restarting: Any) -> None:
    cart.stop()
    assert "the control center does not answer" in restarting.stderr.readline()
    cart.start()
    assert restarting.stderr.readline() == "the control center answers again\n"
    cart.change("fo-1", targets={"web-1/cart:0": {"state": "running", "steps": "at it"}})
    assert restarting.stderr.readline() == "web-1/cart:0: at it\n"
    cart.finish("fo-1")
    out, err = restarting.communicate(timeout=15)
    assert restarting.returncode == 0 and "succeeded" in out
    assert "does not answer" not in err


def test_a_center_that_stays_away_is_waited_for_no_longer_than_asked(cart: Any, fleet: Any) -> None:
    cart.hold()
    process = fleet.begin("fleet", "restart", "cart", "--timeout", "2")
    cart.wait_for("GET", "/v1/operations/fo-1")
    cart.stop()
    _, err = process.communicate(timeout=15)
    assert process.returncode == 75
    assert err.count("trying again") == 1
    assert "and the control center does not answer: operation fo-1 goes on" in err


def test_an_operation_that_the_center_has_forgotten_is_4(cart: Any, restarting: Any) -> None:
    cart.problem("GET", "/v1/operations/fo-1", 404, "not_found", "there is no operation fo-1")
    cart.change("fo-1")
    _, err = restarting.communicate(timeout=15)
    assert restarting.returncode == 4 and "there is no operation fo-1" in err


def test_an_order_whose_answer_was_lost_is_repeated_under_its_id_and_done_once(cart: Any, fleet: Any) -> None:
    def take_and_hang_up(request: Any) -> Any:
        del cart.routes["POST", "/v1/operations"]
        cart.begin(request)

    cart.routes["POST", "/v1/operations"] = take_and_hang_up
    done = fleet("fleet", "restart", "cart")
    assert done.returncode == 0
    assert list(cart.operations) == ["fo-1"]
    first, second = cart.asked("POST", "/v1/operations")
    assert first.json == second.json


def test_an_order_that_is_never_answered_can_be_repeated_by_hand(cart: Any, fleet: Any) -> None:
    cart.routes["POST", "/v1/operations"] = lambda _: None
    done = fleet("fleet", "restart", "cart", "--timeout", "1", "--command-id", "deploy 1")
    assert done.returncode == 69
    assert "it may have been taken" in done.stderr and "--command-id 'deploy 1'" in done.stderr


# On a terminal.


class Screen:
    """A terminal that `unitctl` has as standard input and error; standard output too if asked for."""

    def __init__(self, fleet: Any, *arguments: str, rows: int = 24, columns: int = 80, **environment: str) -> None:
        import fcntl
        import struct
        import subprocess
        import termios

        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        from_conftest = fleet.begin.__globals__["UNITCTL"]
        self.process = subprocess.Popen(
            [*from_conftest, *arguments], stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, text=True,
            env={**fleet.environment, "TERM": "xterm", **environment},
        )  # fmt: skip
        fleet.processes.append(self.process)
        os.close(theirs)
        self.text = ""

    def read_until(self, words: str) -> str:
        """What it has shown, once it has shown these words."""
        deadline = time.monotonic() + 15
        while words not in self.text:
            assert time.monotonic() < deadline, self.text
            if not self._read():
                break
        assert words in self.text, self.text
        return self.text

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def end(self) -> tuple[int, str]:
        """Exit code and standard output, when it has ended."""
        while self._read():
            pass
        os.close(self._ours)
        out, _ = self.process.communicate(timeout=15)
        return self.process.returncode, out

    def _read(self) -> bool:
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # EIO: the other side is closed
            return False
        self.text += data.decode().replace("\r\n", "\n")
        return bool(data)


def test_a_terminal_sees_one_picture_that_is_redrawn_and_goes_away(cart: Any, fleet: Any) -> None:
    cart.hold()
    screen = Screen(fleet, "fleet", "restart", "cart", "--yes")
    screen.read_until("restart of cart: pending")
    cart.change("fo-1", state="running", batches={0: {"state": "running"}},
                targets={"web-1/cart:0": {"state": "running", "steps": "waiting for the work in flight"}})  # fmt: skip
    text = screen.read_until("waiting for the work in flight")
    assert re.search(r"\x1b\[4A\rrestart of cart: running [^\n]*, 0 of 4 done\x1b\[K\n"
                     r"  canary      running    0/1\x1b\[K\n    web-1/cart:0  waiting for the work in flight\x1b\[K\n", text)  # fmt: skip
    cart.finish("fo-1")
    assert screen.end() == (0, "fo-1: restart of cart succeeded: 4 of 4 done in 0:04:12\n")
    assert screen.text.endswith("A\r\x1b[J")


def test_a_small_terminal_is_not_overrun(cart: Any, fleet: Any) -> None:
    cart.hold()
    screen = Screen(fleet, "fleet", "restart", "cart", "--yes", rows=4, columns=30)
    screen.read_until("restart of cart: pending")
    busy = {
        f"web-{n}/cart:0": {"state": "running", "steps": "waiting for the registry entry to go"} for n in range(1, 5)
    }
    cart.change("fo-1", state="running", batches={n: {"state": "running"} for n in range(3)}, targets=busy)
    screen.read_until("more")
    cart.finish("fo-1")
    assert screen.end()[0] == 0
    pictures = re.split(r"\x1b\[\dA\r|\x1b\[J", screen.text)
    assert max(picture.count("\n") for picture in pictures) <= 3
    assert max(len(line) for line in re.sub(r"\x1b\[\w+", "", screen.text).split("\n")) <= 30


def test_a_person_is_shown_the_plan_and_asked_before_many_units_go_at_once(cart: Any, fleet: Any) -> None:
    screen = Screen(fleet, "fleet", "stop", "cart")
    shown = screen.read_until("Do it? [y/N]")
    assert "stop of cart: 4 targets on 4 nodes, all at once:" in shown
    screen.type("n\n")
    assert screen.end() == (130, "")
    assert "nothing was ordered" in screen.text and cart.operations == {}
    screen = Screen(fleet, "fleet", "stop", "cart")
    screen.read_until("Do it? [y/N]")
    screen.type("y\n")
    assert screen.end()[0] == 0 and list(cart.operations) == ["fo-1"]


@pytest.mark.parametrize("units", [1, 2])
def test_nobody_is_asked_about_one_unit_at_a_time(center: Any, fleet: Any, units: int) -> None:
    for number in range(units):
        center.add(f"web-{number}/cart:0")
    screen = Screen(fleet, "fleet", "restart", "cart")
    assert screen.end()[0] == 0 and "Do it?" not in screen.text


def test_scripts_are_never_asked(cart: Any, fleet: Any) -> None:
    assert fleet("fleet", "stop", "cart").returncode == 0
    assert [request.json.get("dry_run") for request in cart.asked("POST", "/v1/operations")] == [None]


# Events.


def test_events_are_shown_and_resumed_after_an_id(cart: Any, fleet: Any) -> None:
    cart.happen("operation", id="fo-1", verb="restart", state="running", services=["cart"], counts={"running": 1})
    cart.happen("node", node="web-1", state="suspect")
    assert fleet("fleet", "events").stdout == (
        "2026-11-24T08:00:00.000Z  operation  fo-1: restart of cart: running (1 running)\n"
        "2026-11-24T08:00:00.000Z  node  node web-1, state suspect\n"
    )
    assert fleet("fleet", "events", "-v", "--since", "1").stdout.startswith("2  2026")
    assert fleet("fleet", "events", "-n", "1").stdout.count("\n") == 1


def test_events_are_followed_over_a_restart_of_the_center_without_a_gap(cart: Any, fleet: Any) -> None:
    cart.happen("mode", mode="full", by="bob")
    process = fleet.begin("fleet", "events", "-f")
    assert process.stdout.readline().endswith("full, by bob\n")
    cart.wait_for("GET", "/v1/events", 2)
    cart.happen("mode", mode="assist", by="bob")
    assert process.stdout.readline().endswith("assist, by bob\n")
    cart.stop()
    assert "trying again" in process.stderr.readline()
    cart.happen("mode", mode="observe", by="eve")
    cart.start()
    assert process.stdout.readline().endswith("observe, by eve\n")
    cart.happen("mode", mode="full", by="eve")
    assert process.stdout.readline().endswith("full, by eve\n")
    assert fleet.interrupt(process)[0] == 130
