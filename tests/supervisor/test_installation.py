"""The check that keeps this package from running beside PyPI's Supervisor, with real wheels of both."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from supervisor import __version__, installation
from supervisor.installation import refuse_shared_folder

ROOT = Path(__file__).parents[2]
SUPERVISOR = "supervisor==4.3.0"


def folder_with(path: Path, *names: str) -> str:
    """A folder that Python would find packages in."""
    folder = path / "site-packages"
    for name in names:
        (folder / name).mkdir(parents=True)
    return str(folder)


def test_this_installation_is_whole() -> None:
    refuse_shared_folder()
    assert installation.version() == __version__


@pytest.mark.parametrize(
    "name", ["supervisor-4.3.0.dist-info", "supervisor-3.4.0-py3.11.egg-info", "Supervisor-4.2.5.dist-info"]
)
def test_the_other_distribution_in_a_folder_of_packages_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = folder_with(tmp_path, "click-8.0.dist-info", name)
    monkeypatch.setattr(sys, "path", [folder, *sys.path])
    with pytest.raises(RuntimeError) as caught:
        refuse_shared_folder()
    shown = name.removesuffix(".dist-info").removesuffix(".egg-info")
    assert str(caught.value) == (
        f"cannot run: {folder} also holds PyPI's {shown}, which overwrites files of the same names; "
        "install unitd into a virtual environment of its own"
    )


def test_others_of_a_similar_name_and_folders_that_are_not_there_are_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("supervisor", "supervisor_checks-0.8.dist-info", "supervisor-notes", "unitd-0.1.0.dist-info")
    monkeypatch.setattr(sys, "path", [folder_with(tmp_path, *names), "/no/such/site-packages", *sys.path])
    refuse_shared_folder()


# With wheels.


def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pip",
        *arguments,
        "--no-deps",
        "--disable-pip-version-check",
        "--no-input",
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def installed(*arguments: str) -> None:
    """Run pip, which needs PyPI: without it the test cannot be made, and must not be left out unseen in CI."""
    result = pip(*arguments)
    if result.returncode and not os.environ.get("CI"):
        pytest.skip(f"pip could not do its part: {result.stderr.strip().splitlines()[-1]}")
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ours, made once, also where several processes run the tests: each has its folder in one of the whole run."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "wheel"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not any(folder.glob("*.whl")):
            installed("wheel", "--wheel-dir", str(folder), str(ROOT))
    (made,) = folder.glob("*.whl")
    return made


class Environment:
    """A virtual environment that also sees what we depend on."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
        self.bin = folder / "bin"
        (packages,) = folder.glob("lib/python*/site-packages")
        (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
        self.packages = packages

    def install(self, what: str) -> None:
        installed("--python", str(self.bin / "python"), "install", what)

    def run(self, program: str, *arguments: str) -> tuple[int, str, str]:
        command = [str(self.bin / program), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, cwd="/", env={})
        return result.returncode, result.stdout, result.stderr


@pytest.mark.timeout(120)
def test_the_wheel_alone_runs(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "venv")
    environment.install(str(wheel))
    assert environment.run("unitd", "--version") == (0, f"unitd {__version__}\n", "")
    assert environment.run("unitctl", "--version") == (0, f"unitctl {__version__}\n", "")
    code, _, err = environment.run("unitd", "-c", "/no/such/file.toml")
    assert code == 2 and err.startswith("unitd: /no/such/file.toml")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("last", ["ours", "theirs"])
def test_beside_the_other_distribution_both_programs_refuse_with_one_sentence(
    wheel: Path, tmp_path: Path, last: str
) -> None:
    environment = Environment(tmp_path / "venv")
    for what in (SUPERVISOR, str(wheel)) if last == "ours" else (str(wheel), SUPERVISOR):
        environment.install(what)
    reason = (
        f"cannot run: {environment.packages} also holds PyPI's supervisor-4.3.0, which overwrites files of the same "
        "names; install unitd into a virtual environment of its own\n"
    )
    for arguments in (("--version",), ("-c", "/no/such/file.toml"), ("--help",)):
        assert environment.run("unitd", *arguments) == (1, "", f"unitd: {reason}")
    assert environment.run("unitctl", "status") == (1, "", f"unitctl: {reason}")
