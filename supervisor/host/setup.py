"""What the daemon does to its own process before it starts others."""

from __future__ import annotations

import ctypes
import os
import resource

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Orphaned descendants become our children, not init's (prctl(2)). Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def raise_open_files() -> int:
    """Allow as many open files as the hard limit does; answers the soft limit that units are to get back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


def keep_descriptors_private() -> None:
    """Nothing that the daemon was started with beyond stdin, stdout and stderr is passed on to units."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.set_inheritable(int(name), False)
            except OSError:
                continue  # the folder's own descriptor, closed by now


def units_environment() -> dict[str, str]:
    """The daemon's environment without what its own service manager meant for it alone."""
    own = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES",
           "INVOCATION_ID", "JOURNAL_STREAM", "MAINPID", "UNITCTL_SERVER")  # fmt: skip
    return {key: value for key, value in os.environ.items() if key not in own}
