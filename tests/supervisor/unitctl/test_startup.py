"""`unitctl` starts fast: it loads what the command needs and no more. It refuses a broken installation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from supervisor import installation
from supervisor.unitctl.fleet import FLEET_COMMANDS
from supervisor.unitctl.main import COMMANDS, main

HEAVY = {"asyncio", "requests", "http.client", "ssl", "email", "logging", "subprocess", "importlib.metadata"}
FAMILIES = {f"supervisor.unitctl.{module}" for module in (*COMMANDS.values(), *FLEET_COMMANDS.values())}


def loaded_by(unitctl: Any, *arguments: str) -> set[str]:
    """The modules that a process has loaded when a command line is done."""
    code = (
        "import sys\nfrom supervisor.unitctl.main import main\n"
        "try: main()\nfinally: print('loaded', *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=unitctl.environment, capture_output=True, text=True, check=False, timeout=15,
    )  # fmt: skip
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("loaded ")]
    return set(line.split()[1:])


@pytest.mark.parametrize(
    ("arguments", "families"),
    [
        (("status",), {"status"}),
        (("is-active", "a"), {"status"}),
        (("restart", "a"), {"orders"}),
        (("ops",), {"operations"}),
        (("events",), {"logs"}),
        (("--version",), set()),
    ],
)
def test_a_command_loads_its_own_family_and_nothing_heavy(
    daemon: Any, unitctl: Any, arguments: tuple[str, ...], families: set[str]
) -> None:
    daemon.add("a")
    daemon.routes["GET", "/v1/events"] = lambda _: (200, iter([]))
    loaded = loaded_by(unitctl, *arguments)
    assert "supervisor.unitctl.main" in loaded
    assert loaded & HEAVY == set()
    assert loaded & FAMILIES == {f"supervisor.unitctl.{name}" for name in families}
    assert {name for name in loaded if name.startswith("supervisor.") and "unitctl" not in name} <= {
        "supervisor.wire", "supervisor.errors", "supervisor.installation",
    }  # fmt: skip


def test_what_the_control_center_takes_is_loaded_by_its_own_commands_only(unitctl: Any) -> None:
    assert loaded_by(unitctl, "-h") & {"requests", "ssl", "asyncio"} == set()
    assert "requests" in loaded_by(unitctl, "fleet", "--center", "http://127.0.0.1:1", "nodes")


def test_a_folder_shared_with_a_namesake_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "supervisor-4.3.0.dist-info").mkdir()
    monkeypatch.setattr(installation, "__file__", str(tmp_path / "supervisor" / "installation.py"))
    with pytest.raises(SystemExit, match=r"unitctl: cannot run: .*supervisor-4\.3\.0"):
        main()
