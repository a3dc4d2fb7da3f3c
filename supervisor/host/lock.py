"""Who uses a state folder: one daemon at a time, told from all others by two locks that end with it, however it ends.

The folder is locked by a file in it, which says who holds it. A copy of a folder (a restored backup, a cloned volume)
has another file and the same units; so its name, which a copy shares, is taken as well: an abstract unix socket
(unix(7)) of the host's network namespace, which nobody has to clean up.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct

from ..errors import ConfigError
from .clock import iso

_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid
_KEY = "daemon.state_dir"


def lock_folder(folder: str, config: str) -> int:
    """A descriptor that keeps other daemons out as long as it is open. Raises ConfigError, which says who is there.

    The folder is made if need be. `config` is the path of the configuration, for whoever is refused.
    """
    lock = -1
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        reason = f"cannot use {folder}: {error.strerror}"
        if isinstance(error, BlockingIOError):
            reason = f"another unitd{_holder(lock)} runs on {folder}; stop it, or give this one another state_dir"
        if lock >= 0:
            os.close(lock)
        raise ConfigError(reason, key=_KEY) from error
    try:
        where = f", {os.path.abspath(config)}" if config else ""
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"pid {os.getpid()}, since {iso()}{where}\n".encode(), 0)
    except OSError:
        pass  # a full disk: it is locked all the same
    return lock


def _holder(lock: int) -> str:
    said = os.pread(lock, 4096, 0).decode(errors="replace").strip()
    return f" ({said})" if said else ""


def claim_name(state_id: str, folder: str) -> socket.socket:
    """Be the only daemon of the host that uses this folder or a copy of it. Raises ConfigError, OSError."""
    name = f"\0unitd-state-{state_id}"
    claimed = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claimed.bind(name)
        claimed.listen(1)
    except OSError as error:
        claimed.close()
        if error.errno != errno.EADDRINUSE:
            raise
        reason = f"{folder} is a copy of what another unitd{_claimant(name)} uses: its units are that one's"
        raise ConfigError(f"{reason}; stop it, or give this one another state_dir", key=_KEY) from error
    return claimed


def _claimant(name: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(name):
            return ""
        raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return f" (pid {_CREDENTIALS.unpack(raw)[0]})"
