"""`unitctl fleet` against a real control center, which hosts the registry, and a real unitd with two instances of cart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.end_to_end.host import ROOT, SERVE, UNITCTL, Host
from tests.end_to_end.machine import DEADLINE_SECONDS, free_ports, until

CENTER = (sys.executable, "-W", "error", "-c", "import sys; from control_center.boot import main; sys.exit(main())")


class Center:
    """A unit-center as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "center.toml").write_text(
            f'name = "c1"\n[center]\nstate_dir = "{folder}/state"\n[http]\nlisten = "127.0.0.1:{self.port}"\n'
            '[registry]\nbackend = "embedded"\nttl_seconds = 1\n[nodes]\nheartbeat_seconds = 0.5\n'
        )

    def start(self) -> None:
        with (self.folder / "center.err").open("ab") as stderr:
            self.process = subprocess.Popen(
                [*CENTER, "-c", str(self.folder / "center.toml")], cwd=ROOT, stdin=subprocess.DEVNULL, stderr=stderr
            )
        until("the control center is ready", self._is_ready)

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "center.err").read_text()
        try:
            with urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(DEADLINE_SECONDS)

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """`unitctl fleet` as a process."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*UNITCTL, "fleet", *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True,
            env={**os.environ, "UNITCTL_CENTER": self.url},
        )  # fmt: skip

    def unitctl(self, *arguments: str, code: int = 0) -> str:
        """What `unitctl fleet` prints, if it ends so."""
        process = self.begin(*arguments)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, f"{arguments}: {process.returncode}: {out}{err}"
        return out + err


@pytest.fixture
def center(tmp_path: Path) -> Iterator[Center]:
    made = Center(tmp_path)
    made.start()
    yield made
    made.kill()


@pytest.fixture
def cart(center: Center, host: Host) -> Host:
    """A unitd with two instances of cart, known to the control center."""
    port = host.port(2)
    host.configure(
        f'[unit.cart]\ncommand = "{SERVE} {{port}}"\nnumprocs = 2\nstartsecs = 0.05\nservice = {{ port = {port}, ttl_seconds = 1 }}\n'
        'restart = { settle_seconds = 0.05, removal = "deregister" }\ndrain = { timeout = 0.5, quiet = 0.05 }\n',
        registry=f'backend = "http", url = "{center.url}"',
        http=f"127.0.0.1:{host.port()}",
    )
    host.run()
    until("both are in the registry", lambda: len(entries(center)) == 2)
    until("the node is up", lambda: '"state":"up"' in center.unitctl("nodes", "here", "-o", "json"))
    return host


def entries(center: Center) -> dict[str, int]:
    """Instance of cart -> its generation."""
    process = center.begin("status", "cart", "-o", "json")
    out, _ = process.communicate(timeout=60)
    found = json.loads(out)["services"] if process.returncode == 0 else []
    return {entry["instance"]: entry["generation"] for service in found for entry in service["entries"]}


@pytest.mark.timeout(120)
def test_a_fleet_is_looked_at_restarted_drained_and_followed(cart: Host, center: Center) -> None:
    before = entries(center)
    assert before.keys() == {"here/cart:0", "here/cart:1"}
    assert "2 up" in center.unitctl("services") and "cart" in center.unitctl("status")
    one_by_one = ("--batch", "1", "--bake", "0", "--floor", "50")
    plan = center.unitctl("restart", "cart", *one_by_one, "--dry-run")
    assert (
        plan.startswith("restart of cart: 2 targets on 1 node, 2 batches:\n") and "1 of 2 may be out at a time" in plan
    )
    assert entries(center) == before

    told = center.unitctl("restart", "cart", *one_by_one, "--reason", "new build", "--command-id", "deploy-1")
    assert "restart of cart succeeded: 2 of 2 done" in told and "here/cart:1: " in told
    after = entries(center)
    assert all(after[name] > before[name] for name in before)
    assert "succeeded: 2 of 2 done" in center.unitctl(
        "restart", "cart", *one_by_one, "--reason", "new build", "--command-id", "deploy-1"
    )
    assert entries(center) == after, "a command that comes again under its id does nothing"
    assert center.unitctl("ops").count("succeeded") == 1

    center.unitctl("drain", "--instance", "here/cart:0", "--reason", "new disk")
    assert entries(center).keys() == {"here/cart:1"} and cart.unit("cart:0")["state"] == "DRAINED"
    center.unitctl("undrain", "--node", "here", "--unit", "cart:0")
    until("it is back", lambda: len(entries(center)) == 2)
    center.unitctl("weight", "40", "--instance", "here/cart:1")
    assert cart.unit("cart:1")["weight"] == 40

    events = center.unitctl("events")
    assert "restart of cart: succeeded" in events
    assert center.unitctl("logs", "here", "cart:0", "-n", "0") == ""
    assert "there is no" in center.unitctl("ops", "fo-none", code=4)
    assert "nobody" in center.unitctl("restart", "nobody", code=4)
    assert "busy" not in center.unitctl("mode", "observe") and center.unitctl("mode") == "observe\n"


@pytest.mark.timeout(120)
def test_the_waiting_goes_on_when_the_control_center_was_killed(cart: Host, center: Center) -> None:
    before = entries(center)
    process = center.begin("restart", "cart", "--batch", "1", "--bake", "0", "--floor", "0", "--canary", "0")
    assert process.stderr is not None
    process.stderr.readline()  # it has begun
    center.kill()
    center.start()
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, out + err
    assert "restart of cart succeeded: 2 of 2 done" in out
    after = entries(center)
    assert {name: after[name] - before[name] for name in before} == dict.fromkeys(before, 1), "each is restarted once"
