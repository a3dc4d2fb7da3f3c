"""How a process ended that is not our child: an earlier daemon started it, and somebody else reaps it.

Two places tell, one after the other: /proc/PID/stat of a zombie, where we may read that (proc(5), field 52), and, once
it has been reaped, its pidfd, from Linux 6.15 on (PIDFD_GET_INFO with PIDFD_INFO_EXIT, include/uapi/linux/pidfd.h).
"""

from __future__ import annotations

import fcntl
import struct

_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info), whose first version has 64 bytes
_INFO_EXIT = 1 << 3
_INFO = struct.Struct("=QQ11Ii")  # mask, cgroup, numbers of the process and its users, wait status
_EXIT_CODE = 49  # of the fields behind the command name


def exit_status_of(pid: int, pidfd: int) -> int | None:
    """The wait status (`os.waitstatus_to_exitcode`) of a process that has ended; None: nobody tells.

    `pidfd` is of that very process; its number may be another one's by now, which is no zombie then.
    """
    status = _of_pidfd(pidfd)
    if status is not None:
        return status
    status = _of_zombie(pid)
    # It may have been reaped between the two; and then a zombie of its number is another process.
    reaped = _of_pidfd(pidfd)
    return status if reaped is None else reaped


def _of_pidfd(pidfd: int) -> int | None:
    buffer = bytearray(_INFO.pack(_INFO_EXIT, *(0,) * 13))
    try:
        fcntl.ioctl(pidfd, _GET_INFO, buffer)
    except OSError:  # ENOTTY: an older kernel; ESRCH: one that tells nothing of the dead
        return None
    mask, *_, status = _INFO.unpack(buffer)
    return int(status) if mask & _INFO_EXIT else None


def _of_zombie(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read(2048) or b""
    except OSError:
        return None
    fields = text[text.rfind(b")") + 2 :].split()
    if len(fields) <= _EXIT_CODE or fields[0] not in (b"Z", b"X"):
        return None
    return int(fields[_EXIT_CODE])
