"""What the daemon does to its own process before it starts others."""

from __future__ import annotations

import ctypes
import os
import resource
import signal

_PR_SET_CHILD_SUBREAPER = 36
_SIGSET_BYTES = 128


def become_subreaper() -> None:
    """Orphaned descendants become our children, not init's (prctl(2)). Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def child_signals() -> int:
    """A descriptor that is readable when children have ended (signalfd(2)); SIGCHLD is blocked from now on.

    A handler would not do: hundreds of exits while the loop is busy overflow the buffer that asyncio uses for signals,
    and then SIGTERM may be the one that is lost. A blocked signal is pending once, however many children end.
    Raises OSError.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    library = ctypes.CDLL(None, use_errno=True)
    mask = (ctypes.c_ubyte * _SIGSET_BYTES)()
    mask[(signal.SIGCHLD - 1) // 8] = 1 << (signal.SIGCHLD - 1) % 8
    descriptor: int = library.signalfd(-1, mask, os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return descriptor


def default_signals() -> None:
    """No signal is ignored or blocked, whoever started us: units would inherit that.

    A shell's `&` ignores INT and QUIT, nohup(1) HUP; where CHLD is ignored, children vanish without a status.
    """
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # Python ignores these two for itself
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


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
    """The daemon's environment without what its own service manager, or another unitd, meant for it alone."""
    own = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES",
           "INVOCATION_ID", "JOURNAL_STREAM", "MAINPID", "UNITCTL_SERVER", "UNITD_STATE", "UNITD_COMMAND",
           "UNITD_PORT")  # fmt: skip
    return {key: value for key, value in os.environ.items() if key not in own}
