"""The unit files, as systemd reads them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

FOLDER = Path(__file__).parents[2] / "systemd"
SERVICES = sorted(FOLDER.glob("*.service"))
REFERENCE = Path(__file__).parents[2] / "docs/reference/systemd-units.md"


def _analyze(*words: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        message = "systemd-analyze is not installed (Debian package systemd)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=15, check=False)


def _settings(text: str) -> set[str]:
    return {line.partition("=")[0] for line in text.splitlines() if re.match(r"#?[A-Z]\w+=", line)}


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    copies = [tmp_path / service.name for service in SERVICES]
    for service, copy in zip(SERVICES, copies, strict=True):
        # systemd wants programs that are there
        copy.write_text(re.sub(r"/opt/unitd/bin/[a-z-]+", "/bin/true", service.read_text()))
    for drop_in in FOLDER.glob("*.service.d/*.conf"):
        copy = tmp_path / drop_in.relative_to(FOLDER)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(drop_in.read_text())
    verified = _analyze("verify", "--man=no", *map(str, copies))
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.stem)
def test_the_reference_tells_the_score_that_systemd_gives(service: Path) -> None:
    scored = _analyze("security", "--offline=yes", "--no-pager", str(service))
    found = re.search(r"exposure level for (\S+): ([0-9.]+)", scored.stdout)
    assert found is not None, scored.stderr
    told = re.search(rf"^\| `{re.escape(service.name)}` \| ([0-9.]+) ", REFERENCE.read_text(), re.MULTILINE)
    assert told is not None
    assert abs(float(told[1]) - float(found[2])) <= 0.5  # versions of systemd weigh differently


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.stem)
def test_the_reference_explains_every_setting_of_a_service(service: Path) -> None:
    _, _, chapter = REFERENCE.read_text().partition(f"## {service.name}\n")
    chapter = chapter.partition("\n## ")[0]
    missing = {name for name in _settings(service.read_text()) if f"{name}" not in chapter}
    assert not missing
