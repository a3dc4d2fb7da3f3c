"""The unit file for systemd, as systemd reads it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT_FILE = Path(__file__).parents[2] / "systemd" / "unitd.service"


@pytest.mark.real
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        message = "systemd-analyze is not installed"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    text = UNIT_FILE.read_text()
    program = text.partition("ExecStart=")[2].split()[0]
    copy = tmp_path / "unitd.service"
    copy.write_text(text.replace(program, "/bin/true"))  # systemd wants one that is there
    command = ["systemd-analyze", "verify", str(copy)]
    verified = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
