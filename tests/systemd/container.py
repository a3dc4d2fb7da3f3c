"""A host that boots: systemd in a container whose files are a copy on write of this machine's, so nothing is downloaded.

The network namespace is the test's, and stays over reboots: what the test starts in it (a registry, a client) is
outside of the host, and sees it go and come.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from tests.servers.processes import Process

PROJECT = Path(__file__).parents[2]
SHARED = "/shared"  # the same folder inside and outside
SOURCE = "/opt/unitd-source"
PACKAGES = "/opt/unitd-packages"  # what the tests' environment has installed
BOOT_SECONDS = 40.0
DEADLINE_SECONDS = 20.0
PROGRAMS = {"systemd-nspawn": "systemd-container", "/lib/systemd/systemd": "systemd", "unshare": "util-linux"}

Found = TypeVar("Found")

_START = """
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs "$BASE"
mkdir "$BASE/upper" "$BASE/work" "$BASE/root"
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$BASE/upper,workdir=$BASE/work" "$BASE/root"
cd "$BASE/root"
rm -rf etc/systemd/system/*.wants etc/systemd/system/*.requires etc/rc?.d/* etc/machine-id var/log/journal etc/unitd opt/unitd
rm -rf var/lib/unitd var/log/unitd
: > etc/machine-id
: > etc/fstab
mkdir -p opt/unitd-source opt/unitd-packages var/log/journal
cp -a "$SEED/." .
for folder in $GROUPS_OF_V1; do mkdir -p "$folder/$NAME"; echo $$ > "$folder/$NAME/cgroup.procs"; done
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_TMPFS_TMP=0
touch /run/network
mount --bind "$NETWORK" /run/network
exec unshare --pid --fork --kill-child --mount-proc sh -c "$BOOT"  # whatever ends this ends all of it
"""

_BOOT = """
ended=133
while [ $ended = 133 ]; do  # it wants to be started again: a reboot
    ended=0
    systemd-nspawn -q -D "$BASE/root" --machine="$NAME" --register=no --keep-unit --boot --console=passive \\
        --link-journal=no --network-namespace-path=/run/network --bind="$SHARED_FOLDER:/shared" \\
        --bind-ro="$PROJECT:/opt/unitd-source" --bind-ro="$PACKAGES:/opt/unitd-packages" || ended=$?
done
"""


def missing() -> str:
    """Why no container can be booted here; "" if it can."""
    if os.geteuid() != 0:
        return "only root can boot a container"
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian package {package})"
    if _unified() is None:
        return "there is no cgroup v2 here"
    return ""


def _unified() -> Path | None:
    """Where cgroup v2 is mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[fields.index("-") + 1] == "cgroup2":
            return Path(fields[4])
    return None


def _groups() -> list[Path]:
    """The cgroups that this process is in, of the hierarchies that systemd in a container makes its own in."""
    unified = _unified()
    assert unified is not None
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, name, path = line.split(":", 2)
        if not name:
            found.append(unified / path.lstrip("/"))
        elif name == "name=systemd":
            found.append(Path("/sys/fs/cgroup/systemd") / path.lstrip("/"))
    return [folder for folder in found if folder.is_dir()]


def wait_for(look: Callable[[], Found], what: str, seconds: float = DEADLINE_SECONDS) -> Found:
    """What `look` answers when it is true at last."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
    return found


class Container:
    """One booted host. `files`: what is added to its files, path -> text; scripts by their `#!`."""

    def __init__(self, folder: Path, files: dict[str, str]) -> None:
        self.folder = folder
        self.shared = folder / "shared"
        self._name = f"unitd-test-{os.getpid()}"
        self._parts = _groups()
        for name in ("base", "shared", "seed"):
            (folder / name).mkdir()
        for path, text in files.items():
            self._add(path, text)
        log = folder / "network.txt"
        self._network = Process([_program("unshare"), "--net", "sleep", "infinity"], log, dict(os.environ))
        wait_for(lambda: _link(self._network.pid, "ns/net") != _link(os.getpid(), "ns/net"), "a network namespace")
        self.outside("ip link set lo up" if shutil.which("ip") else ":")
        environment = {
            **os.environ,
            "BASE": str(folder / "base"), "SEED": str(folder / "seed"), "LOWER": "/", "PROJECT": str(PROJECT),
            "SHARED_FOLDER": str(self.shared), "NETWORK": f"/proc/{self._network.pid}/ns/net", "NAME": self._name, "BOOT": _BOOT,
            "PACKAGES": sysconfig.get_path("platlib"),
            "GROUPS_OF_V1": " ".join(map(str, self._parts)),
        }  # fmt: skip
        command = [_program("unshare"), "--mount", "--propagation", "private", "sh", "-c", _START]
        self._nspawn = Process(command, folder / "console.txt", environment)
        self.wait_booted()

    def _add(self, path: str, text: str) -> None:
        file = self.folder / "seed" / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            file.symlink_to(text[3:])
        else:
            file.write_text(text)
            file.chmod(0o755 if text.startswith("#!") else 0o644)

    # Its life.

    @property
    def init(self) -> int | None:
        """The pid of its systemd, as seen from outside."""
        below = [self._nspawn.pid]
        while below:
            below = [child for pid in below for child in _children(pid)]
            if found := [pid for pid in below if _link(pid, "exe").endswith("/systemd")]:
                return found[0]
        return None

    def wait_booted(self, other_than: int | None = None) -> int:
        """Its systemd has started all that it was to; answers its pid from outside."""

        def look() -> int | None:
            assert self._nspawn.lives(), f"cannot boot: {self.console()}"
            init = self.init
            if init is None or init == other_than:
                return None
            state = self.run("systemctl", "is-system-running", check=False).strip()
            return init if state in ("running", "degraded") else None

        return int(wait_for(look, "the end of booting", BOOT_SECONDS) or 0)

    def wait_off(self) -> None:
        """It has powered off."""
        wait_for(lambda: not self._nspawn.lives(), "the container's end", BOOT_SECONDS)

    def console(self) -> str:
        """What it has said on its console."""
        return (self.folder / "console.txt").read_text(errors="replace")[-3000:]

    def close(self) -> None:
        """Power off in a hurry."""
        self._nspawn.end()
        self._network.end()
        wait_for(lambda: all(_removed(folder / self._name) for folder in self._parts), "the end of its processes")

    # Doing something.

    def run(self, *command: str, check: bool = True, seconds: float = DEADLINE_SECONDS) -> str:
        """Run a command inside; answers what it printed."""
        init = self.init
        if init is None:
            assert not check, "the container is not up"
            return ""
        done = subprocess.run(
            ["nsenter", "-t", str(init), "-a", *command],
            capture_output=True, text=True, timeout=seconds, check=False, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"
        return done.stdout

    def outside(self, script: str) -> None:
        """Run a shell script in its network alone."""
        subprocess.run(
            ["nsenter", f"--net=/proc/{self._network.pid}/ns/net", "sh", "-c", script], check=True, timeout=10
        )

    def start_outside(self, command: Sequence[str], log: Path) -> Process:
        """A process of the test that shares only its network."""
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        return Process([_program("nsenter"), f"--net=/proc/{self._network.pid}/ns/net", *command], log, environment)

    def show(self, unit: str, name: str) -> str:
        """A property of a systemd unit."""
        return self.run("systemctl", "show", "--property", name, "--value", unit).strip()

    def read(self, path: str) -> str:
        """A file inside."""
        init = self.init
        return Path(f"/proc/{init}/root{path}").read_text(errors="replace") if init else ""

    def write(self, path: str, text: str) -> None:
        """Replace a file inside."""
        Path(f"/proc/{self.init}/root{path}").write_text(text)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _removed(group: Path) -> bool:
    """Whether a cgroup and those below it are gone: each must be empty."""
    for below in (*sorted(group.glob("**/"), reverse=True), group):
        with contextlib.suppress(OSError):
            below.rmdir()
    return not group.exists()


def _link(pid: int, name: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/{name}")
    except OSError:
        return ""


def _program(name: str) -> str:
    return shutil.which(name) or name
