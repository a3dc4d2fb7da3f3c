"""`unitd` as people start it, up to the point where there is a daemon."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from supervisor import __version__

UNITD = (sys.executable, "-c", "import sys; from supervisor.boot import main; sys.exit(main())")


def unitd(*arguments: str) -> tuple[int, str, str]:
    result = subprocess.run([*UNITD, *arguments], capture_output=True, text=True, timeout=15, check=False)
    return result.returncode, result.stdout, result.stderr


def test_the_version_is_told() -> None:
    assert unitd("--version") == (0, f"unitd {__version__}\n", "")


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_every_option_and_signal(option: str) -> None:
    code, out, err = unitd(option)
    assert (code, err) == (0, "")
    assert out.startswith("Usage: unitd [-c FILE]\n")
    for word in ("--config", "--version", "--help", "TERM", "INT", "HUP", "USR1", "USR2", "QUIT"):
        assert word in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--colour",), "unitd: option --colour not recognized; see unitd --help\n"),
        (("-c",), "unitd: option -c requires argument; see unitd --help\n"),
        (("start",), "unitd: cannot use 'start': unitd takes no arguments; see unitd --help\n"),
    ],
)
def test_wrong_usage_is_one_sentence_and_code_2(arguments: tuple[str, ...], words: str) -> None:
    assert unitd(*arguments) == (2, "", words)


def test_a_configuration_that_is_not_there_is_one_sentence_and_code_2(tmp_path: Path) -> None:
    code, out, err = unitd("-c", str(tmp_path / "missing.toml"))
    assert (code, out) == (2, "")
    assert err.startswith(f"unitd: {tmp_path}/missing.toml") and err.count("\n") == 1


def test_every_mistake_of_a_configuration_has_a_line(tmp_path: Path) -> None:
    file = tmp_path / "unitd.toml"
    file.write_text('[unit.web]\ncomand = "sleep 1"\n[unit.job]\ncommand = "true"\nstartsecs = "x"\n')
    code, out, err = unitd("--config", str(file))
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert len(lines) >= 2 and all(line.startswith(f"unitd: {file}:") for line in lines)
    assert "comand" in err and "startsecs" in err


def test_a_socket_that_cannot_be_made_is_told_by_its_key(tmp_path: Path) -> None:
    file = tmp_path / "unitd.toml"
    file.write_text(
        f'[daemon]\nsocket = "{tmp_path}/no/folder/unitd.sock"\nstate_dir = "{tmp_path}/state"\n'
        f'log_dir = "{tmp_path}/log"\ncgroup = "off"\n'
    )
    code, _, err = unitd("-c", str(file))
    assert code == 2
    assert err.splitlines()[-1].startswith("unitd: daemon.socket: cannot listen on ")
    assert "Traceback" not in err


def test_nothing_is_imported_that_the_daemon_does_not_need() -> None:
    """Each of these costs every host memory for months."""
    code = (
        "import sys\nsys.modules['ssl'] = None\nimport supervisor.boot, supervisor.daemon\n"
        "print([name for name in ('ssl', 'requests', 'http.client', 'click', 'psutil', 'watchdog', 'logging.handlers',"
        " 'email', 'unittest', 'multiprocessing') if sys.modules.get(name)])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=15, check=True)
    assert result.stdout == "[]\n"
